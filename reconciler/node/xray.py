"""The Xray behind the port: gRPC over TCP, TLS or a UNIX socket."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from reconciler.errors import InboundMissing, NodeRejected
from reconciler.model import Account, Inbound, Owner, Probe, Vitals
from reconciler.node import wire
from reconciler.node._pb.handler_pb2 import GetInboundUserRequest, GetInboundUsersCountResponse
from reconciler.node._pb.stats_pb2 import (
    QueryStatsRequest,
    QueryStatsResponse,
    SysStatsRequest,
    SysStatsResponse,
)
from reconciler.node.address import parse
from reconciler.node.faults import node_error
from reconciler.node.listing import Received
from reconciler.plan.counting import CHUNK, Counts

Answer = TypeVar("Answer")

_HANDLER = "/xray.app.proxyman.command.HandlerService/"
_ALTER = _HANDLER + "AlterInbound"
_STATS = "/xray.app.stats.command.StatsService/"
_REFUSED_NO_NAME = re.compile(r"proxy/([a-z0-9_]+)[a-z/]*: Email must not be empty")
_OPTIONS = (
    # A step is sent once: whether it took effect is for the next look at the node to say.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A node that comes back is met again within about a second, however long it was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A proxy that the environment names is not meant for nodes.
    ("grpc.enable_http_proxy", 0),
    # Closing a node closes its connection, whoever else talks to the same address.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for `tls:` addresses: without `ca` the public roots count; the other two are who we are."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; raises OSError, and ValueError when one of certificate and key lacks the other."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError(
                "TLS files: a certificate needs its key, and a key its certificate"
            )  # gRPC would abort
        ca, key, certificate = (
            path.read_bytes() if path else None for path in (self.ca, self.key, self.certificate)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)


class XrayNode:
    """
    One Xray process; see NodePort for what each call means.

    The connection is made at the first call, on the loop that runs then.

    Xray takes an account of another protocol than its inbound's for granted
    and dies of it, with every customer on the node. So the first add to an
    inbound asks which protocol it speaks, and so does the first one after the
    connection broke or the uptime fell, when another configuration may have
    come into force.
    """

    def __init__(
        self, name: str, api: str, tls: TlsFiles | None = None, receive_limit_bytes: int = 256 * 1024 * 1024
    ) -> None:
        """`name` is for error texts; a user takes about 120 bytes of a listing's `receive_limit_bytes`."""
        self._name = name
        self._api = api
        self._tls = tls or TlsFiles()
        self._receive_limit_bytes = receive_limit_bytes
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._spoken: set[Inbound] = set()
        self._uptime_seconds = 0

    async def probe(self, inbounds: Sequence[Inbound], timeout_seconds: float) -> Probe:
        """Ask for the uptime and the counts, all at once."""
        counting = [self._count(inbound, timeout_seconds) for inbound in inbounds]
        answers = await asyncio.gather(self._uptime(timeout_seconds), *counting, return_exceptions=True)
        counts: list[int] = []
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, InboundMissing):
                raise answer
            counts.append(-1 if isinstance(answer, InboundMissing) else answer)
        uptime, *users = counts
        return Probe(
            uptime, {each.tag: count for each, count in zip(inbounds, users, strict=True) if count >= 0}
        )

    async def listing(self, inbound: Inbound, timeout_seconds: float) -> Received:
        """Ask for all users of one inbound."""
        request = GetInboundUserRequest(tag=inbound.tag)
        answer = await self._call(_HANDLER + "GetInboundUsers", request, bytes, timeout_seconds, inbound.tag)
        return Received(self._name, inbound, answer)

    async def add(self, inbound: Inbound, name: str, account: Account, timeout_seconds: float) -> None:
        """Send one AddUser, once it is known that the inbound will bear it."""
        self._heed_connection()
        if inbound not in self._spoken:
            clock = asyncio.get_running_loop().time
            deadline = clock() + timeout_seconds
            await self._ask_protocol(inbound, timeout_seconds)
            timeout_seconds = deadline - clock()
        request = wire.add_request(inbound.tag, inbound.protocol, name, account)
        await self._alter(request, inbound.tag, name, timeout_seconds)

    async def remove(self, inbound: Inbound, name: str, timeout_seconds: float) -> None:
        """Send one RemoveUser."""
        self._heed_connection()
        await self._alter(wire.remove_request(inbound.tag, name), inbound.tag, name, timeout_seconds)

    async def vitals(self, timeout_seconds: float) -> Vitals:
        """Send one GetSysStats."""
        answer = await self._call(
            _STATS + "GetSysStats", SysStatsRequest(), SysStatsResponse.FromString, timeout_seconds
        )
        if answer.Uptime < self._uptime_seconds:
            self._spoken.clear()
        self._uptime_seconds = answer.Uptime
        return Vitals(answer.Uptime, answer.TotalAlloc, answer.Mallocs)

    async def counters(self, owner: Owner, timeout_seconds: float) -> Counts:
        """Send one QueryStats, for all users at once and without reset."""
        request = QueryStatsRequest(pattern="user>>>", reset=False)
        answer = await self._call(
            _STATS + "QueryStats", request, QueryStatsResponse.FromString, timeout_seconds
        )
        stats = iter(answer.stat)
        found = Counts(owner)
        while part := [*islice(stats, CHUNK)]:
            found.take([stat.name for stat in part], [stat.value for stat in part])
            await asyncio.sleep(0)  # as with a long list
        return found

    async def close(self) -> None:
        """Let go of the connection; a later call makes a new one."""
        channel, self._channel = self._channel, None
        self._methods.clear()
        if channel is not None:
            await channel.close(None)

    async def _uptime(self, timeout_seconds: float) -> int:
        return (await self.vitals(timeout_seconds)).uptime_seconds

    async def _count(self, inbound: Inbound, timeout_seconds: float) -> int:
        request = GetInboundUserRequest(tag=inbound.tag)
        answer = await self._call(
            _HANDLER + "GetInboundUsersCount",
            request,
            GetInboundUsersCountResponse.FromString,
            timeout_seconds,
            inbound.tag,
        )
        return answer.count

    async def _alter(self, request: bytes, tag: str, name: str, timeout_seconds: float) -> None:
        """Send one change; its answer is empty, so it is not read."""
        method = self._methods.get(_ALTER) or self._method(_ALTER)
        try:
            await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            about = f"{name} on {tag}" if name else tag
            raise node_error(self._name, "AlterInbound", about, error) from None

    async def _ask_protocol(self, inbound: Inbound, timeout_seconds: float) -> None:
        """
        Make sure that the inbound speaks the protocol that it is said to speak.

        Asked to remove a user without a name, every version of Xray refuses,
        changes nothing, and names the protocol in its refusal.
        """
        try:
            await self._alter(wire.remove_request(inbound.tag, ""), inbound.tag, "", timeout_seconds)
        except NodeRejected as error:
            refusal = _REFUSED_NO_NAME.search(error.detail)
            if refusal is None:
                raise
            spoken = refusal[1]
        else:
            raise NodeRejected(self._name, f"inbound {inbound.tag} does not say which protocol it speaks")
        if spoken != inbound.protocol:
            raise NodeRejected(self._name, f"inbound {inbound.tag} speaks {spoken}, not {inbound.protocol}")
        self._spoken.add(inbound)

    async def _call(
        self,
        path: str,
        request: Message,
        read: Callable[[bytes], Answer],
        timeout_seconds: float,
        about: str = "",
    ) -> Answer:
        self._heed_connection()
        method = self._methods.get(path) or self._method(path, read)
        try:
            found: Answer = await method(request.SerializeToString(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise node_error(self._name, path.rpartition("/")[2], about, error) from None
        return found

    def _method(
        self, path: str, read: Callable[[bytes], Any] | None = None
    ) -> "grpc.aio.UnaryUnaryMultiCallable[Any, Any]":
        if self._channel is None:
            self._channel = self._connect()
        method = self._methods[path] = self._channel.unary_unary(path, None, read)
        return method

    def _heed_connection(self) -> None:
        """Before every call: behind a new connection there may be another configuration."""
        if self._channel is None or self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            self._spoken.clear()

    def _connect(self) -> grpc.aio.Channel:
        options = (*_OPTIONS, ("grpc.max_receive_message_length", self._receive_limit_bytes))
        try:
            address = parse(self._api)
            if address.tls:
                return grpc.aio.secure_channel(address.target, self._tls.credentials(), options)
        except ValueError as error:
            raise NodeRejected(self._name, str(error)) from error
        except OSError as error:
            raise NodeRejected(self._name, f"TLS file {error.filename}: {error.strerror}") from error
        return grpc.aio.insecure_channel(address.target, options)
