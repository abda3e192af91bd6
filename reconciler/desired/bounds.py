"""
What a value of the desired state may be, asked before any SQL.

Every function returns the value in the form that is stored, or raises
Invalid with the key, the value and the bound. The tables hold the same
bounds as constraints; these here can name what is wrong.
"""

import ipaddress
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from reconciler.errors import Invalid, Unknown
from reconciler.model import GREATEST_KEY_ID, Credential, Inbound, Protocol

GREATEST_BIGINT = 2**63 - 1
GREATEST_DAYS = 3660
GREATEST_TRAFFIC_BYTES = 2**60
"""So large that it is no limit, so small that adding a few stays far from the column's own end."""
GREATEST_ORDER_SECONDS = 7 * 86_400
GREATEST_GRACE_SECONDS = 30 * 86_400
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
FLOWS = {Protocol.VLESS: ("", "xtls-rprx-vision"), Protocol.VMESS: ("",), Protocol.TROJAN: ("",)}

_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_HOST = re.compile(r"[a-z0-9._-]{1,253}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_FIELD = re.compile(r"\{(?:uuid|name|host)\}")
_SOCKET_PATH_BYTES = 107  # what the kernel's address of a UNIX socket holds beside its ending zero


def whole(key: str, value: object, low: int, high: int) -> int:
    """Return a whole number between `low` and `high`, both included."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Invalid(key, value, f"a whole number from {low} to {high}")
    return value


def row_id(kind: str, value: object) -> int:
    """Return an id that a row can have; anything else names nothing, so it is Unknown."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= GREATEST_BIGINT:
        raise Unknown(kind, value)
    return value


def text(key: str, value: object, longest: int, *, shortest: int = 1, lines: bool = False) -> str:
    """
    Return text without blanks around it, of `shortest` to `longest` characters.

    Control characters, unpaired surrogates and line separators are refused:
    they break terminals, logs, links and the text of an account's digest.
    `lines` lets line feeds and tabs through.
    """
    bound = f"{shortest} to {longest} characters, no control characters"
    if not isinstance(value, str):
        raise Invalid(key, value, bound)
    kept = value.strip()
    plain = kept.replace("\n", "").replace("\t", "") if lines else kept
    unclean = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in plain)
    if unclean or not shortest <= len(kept) <= longest:
        raise Invalid(key, value, bound)
    return kept


def label(key: str, value: object) -> str:
    """Return the name of a node or a pool."""
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise Invalid(key, value, "1 to 63 of a-z 0-9 . _ - and a letter or digit first")
    return value


def credential(value: object) -> Credential:
    """Return a credential from the text of a UUID; the error never shows what was given."""
    if isinstance(value, UUID):
        value = Credential(value.bytes)
    elif isinstance(value, str) and _UUID.fullmatch(value):
        value = Credential(UUID(value).bytes)
    if not isinstance(value, Credential) or len(value) != 16 or not any(value):  # noqa: PLR2004  bytes of a UUID
        raise Invalid("credential", "…", "a UUID, and not the one of zeros")
    return value


def instant(key: str, value: object) -> datetime:
    """Return an instant between 2000 and 2100; one without a time zone could be any of 26 hours."""
    if not isinstance(value, datetime) or value.tzinfo is None or value.utcoffset() is None:
        raise Invalid(key, str(value), "a date and time with its time zone")
    if not EARLIEST <= value < LATEST:
        raise Invalid(key, str(value), "from 2000-01-01 to before 2100-01-01, UTC")
    return value


def traffic(value: object) -> int | None:
    """Return a number of bytes; None is no limit."""
    return None if value is None else whole("traffic_bytes", value, 0, GREATEST_TRAFFIC_BYTES)


def api(value: object) -> str:
    """
    Return a node's address in the one way it is stored: host in lower case, no needless zeros.

    Whether two different names lead to one machine is not asked here.
    """
    bound = "host:port, tls:host:port or unix:/absolute/path"
    if not isinstance(value, str):
        raise Invalid("api", value, bound)
    if value.startswith("unix:"):
        path = "/" + posixpath.normpath(text("api", value.removeprefix("unix:"), 200)).lstrip("/")
        if not value.startswith("unix:/") or path == "/" or len(path.encode()) > _SOCKET_PATH_BYTES:
            raise Invalid("api", value, f"{bound}; a path of at most {_SOCKET_PATH_BYTES} bytes")
        return f"unix:{path}"
    tls = "tls:" if value.lower().startswith("tls:") else ""
    host, _, port = value[len(tls) :].rpartition(":")
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65_535:  # noqa: PLR2004  the greatest port
        raise Invalid("api", value, f"{bound}; a port from 1 to 65535")
    return f"{tls}{_host(value, host, bound)}:{int(port)}"


def _host(value: str, host: str, bound: str) -> str:
    if host.startswith("[") and host.endswith("]") and "%" not in host:
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            raise Invalid("api", value, f"{bound}; an IPv6 address in brackets") from None
    if not _HOST.fullmatch(host.lower()):
        raise Invalid("api", value, bound)
    return host.lower()


def link_template(value: object) -> str | None:
    """Return the template of the links that customers get; None when the node gives none."""
    if value is None:
        return None
    kept = text("link_template", value, 2000)
    if "{uuid}" not in kept or re.search(r"[{}]", _FIELD.sub("", kept)):
        raise Invalid("link_template", value, "must hold {uuid}; also {name} and {host}, and no other braces")
    return kept


def capacity(value: object) -> int | None:
    """Return how many keys a node may get; None is no limit."""
    return None if value is None else whole("capacity", value, 0, 2**31 - 1)


def grace_seconds(value: object) -> int:
    """Return for how long a node keeps a key that another one has by now."""
    return whole("grace_seconds", value, 0, GREATEST_GRACE_SECONDS)


def inbound(value: Inbound) -> Inbound:
    """Return an inbound whose protocol we know and whose flow that protocol has."""
    tag = text("tag", value.tag, 200)
    try:
        protocol = Protocol(value.protocol)
    except ValueError:
        raise Invalid("protocol", str(value.protocol), f"one of {', '.join(Protocol)}") from None
    if value.flow not in FLOWS[protocol]:
        flows = ", ".join(flow or "none" for flow in FLOWS[protocol])
        raise Invalid("flow", value.flow, f"with {protocol} one of: {flows}")
    return Inbound(tag, protocol, value.flow)


def inbounds(values: Sequence[Inbound]) -> tuple[Inbound, ...]:
    """Return the inbounds of a new node: one at least, no tag twice."""
    kept = tuple(inbound(value) for value in values)
    tags = [one.tag for one in kept]
    if not tags or len(set(tags)) != len(tags):
        raise Invalid("inbounds", tags, "one at least, and no tag twice")
    return kept


def key_ids(values: Iterable[int]) -> list[int]:
    """Return a set of keys for an order: ascending, each once, not empty."""
    kept = sorted({whole("key_ids", value, 1, GREATEST_KEY_ID) for value in values})
    if not kept:
        raise Invalid("key_ids", [], "one key at least: an order over nothing means nothing")
    return kept
