"""The one place where what gRPC raises becomes our own errors."""

import re

import grpc

from reconciler.errors import (
    InboundMissing,
    NameMissing,
    NameTaken,
    NodeError,
    NodeRejected,
    NodeTooOld,
    NodeUnreachable,
)

NEEDS_VERSION = {"GetInboundUsers": "v24.11.5", "GetInboundUsersCount": "v24.11.5"}

# CANCELLED is the peer's doing: when our own task is cancelled, gRPC raises asyncio.CancelledError.
_NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

_REFUSES_US = "it refuses our TLS certificate, or that we show none"

# Read from the top; the first pattern found in gRPC's text decides. A tag may hold any text, so the pattern
# that quotes a tag stands first, and those that quote our names are anchored at the end.
_SAID: tuple[tuple[re.Pattern[str], type[NodeError], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, text)
    for pattern, kind, text in (
        (r"handler not found: ", InboundMissing, "it has no inbound of this tag"),
        (r"not a UserManager", InboundMissing, "its inbound of this tag holds no users"),
        (r" already exists\.$", NameTaken, "the name is there already"),
        (r" not found\.$", NameMissing, "there is no such name"),
        (r"unknown service \S*HandlerService", NodeRejected, "its api.services lack HandlerService"),
        (r"unknown service \S*StatsService", NodeRejected, "its api.services lack StatsService"),
        (r"CERTIFICATE_VERIFY_FAILED", NodeRejected, "its TLS certificate is not one that we trust"),
        (r"Hostname Verification Check failed", NodeRejected, "its TLS certificate is for another host"),
        # Under TLS 1.3 a refusal comes after the handshake, and all that gRPC says is that it cannot read it.
        (r"ALERT_CERTIFICATE|ALERT_UNKNOWN_CA|TSI_DATA_CORRUPTED", NodeRejected, _REFUSES_US),
        (r"ALERT_HANDSHAKE_FAILURE", NodeRejected, _REFUSES_US),
        (r"Failed to create security", NodeRejected, "the TLS files hold no usable certificate and key"),
        (r"WRONG_VERSION_NUMBER|HTTP_REQUEST", NodeRejected, "it does not speak TLS"),
        (r"http1\.x server", NodeRejected, "what answers there speaks HTTP/1, not gRPC"),
    )
)
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
# Why there was no answer, where gRPC's text holds it in the middle of addresses and codes; read from the top.
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"connection refused", "connection refused"),
        (r"no such file", "there is no such socket"),
        (r"permission denied", "permission denied"),
        (r"connection reset", "connection reset"),
        (r"deadline exceeded|connection timed out", "timed out"),
        (r"no route to host", "no route to its host"),
        (r"network is unreachable", "its network is not reachable"),
        (r"domain name not found|name or service not known", "its host's name is not known"),
        (r"errors resolving|DNS resolution failed", "its host's name could not be looked up"),
        (
            r"failed to connect.*socket closed",
            "it hangs up on connecting: TLS, or another client certificate, may be what it wants",
        ),
        (r"socket closed", "it hung up"),
        (r"failed parsing HTTP/2", "it does not speak HTTP/2"),
    )
)
_GREATEST_DETAIL = 300


def node_error(node: str, call: str, about: str, error: grpc.aio.AioRpcError) -> NodeError:
    """
    Return our own error for what gRPC raised in `call`; `about` names the inbound or user concerned.

    Raise it `from None`: the cause holds the peer's unscrubbed words, and a
    log with a traceback would print them.
    """
    code, said = error.code(), error.details() or ""
    # Its inbound is for those to name who ask for it, and they do.
    name, with_name, _ = about.partition(" on ")
    subject = f"{name}: " if with_name else ""
    for pattern, kind, text in _SAID:
        if pattern.search(said):
            return kind(node, subject + text)
    if code in _NO_ANSWER:
        return NodeUnreachable(node, f"does not answer: {_cause(said)}")
    detail = f"{subject}{scrubbed(said)} ({call}: {code.name})"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return NodeRejected(node, f"{detail}; see the receive limit")
    # A proxy in front that answers 404 gives the same code, with other words.
    if code is grpc.StatusCode.UNIMPLEMENTED and call in NEEDS_VERSION and "status: 404" not in said:
        return NodeTooOld(node, f"its Xray has no {call}: {NEEDS_VERSION[call]} or newer is needed")
    return NodeRejected(node, detail)


def _cause(said: str) -> str:
    return next((text for pattern, text in _CAUSES if pattern.search(said)), scrubbed(said))


def scrubbed(text: str) -> str:
    """Return `text` on one line, cut to a fair length, and without anything that may be a credential."""
    line = " ".join(_UUID.sub("…", text).split())
    return line if len(line) <= _GREATEST_DETAIL else f"{line[:_GREATEST_DETAIL]}…"
