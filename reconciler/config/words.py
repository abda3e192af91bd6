"""What a single value may look like."""

import ipaddress
import re
from pathlib import Path

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_ADDRESS_BOUND = (
    "must be host:port, with IPv6 in brackets and a port from 0 to 65535, or unix:/path, or empty for none"
)
_SOCKET = "unix:"
_LOST = (300, 604_800)  # five minutes, a week
_LOST_BOUND = "must be 0 for never, or from 300 to 604800"
_HOLDER_BOUND = "must be 1 to 100 letters, digits, dots, dashes, colons or underscores, or empty"


def split_address(listen: str) -> tuple[str, int]:
    """Return host (without brackets) and port of `listen`; ValueError says what it must look like."""
    found = _ADDRESS.fullmatch(listen)
    if found is None or int(found[2]) > 65535:  # noqa: PLR2004, the greatest port there is
        raise ValueError(_ADDRESS_BOUND)
    host = found[1]
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise ValueError(_ADDRESS_BOUND) from error
    return host, int(found[2])


def socket_path(listen: str) -> Path | None:
    """Return the path of `listen` when it is a UNIX socket's."""
    return Path(listen.removeprefix(_SOCKET)) if listen.startswith(f"{_SOCKET}/") else None


def checked_address(listen: str) -> str:
    """Return `listen` when it is an address or empty; ValueError says what it must look like."""
    if listen and not socket_path(listen):
        split_address(listen)
    return listen


def checked_holder(name: str) -> str:
    """Return the name of a daemon when it may be one; ValueError says what it must look like."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]{0,100}", name):
        raise ValueError(_HOLDER_BOUND)
    return name


def checked_lost_after(seconds: int) -> int:
    """Return after how long a silent node is given up; 0 for never."""
    if seconds != 0 and not _LOST[0] <= seconds <= _LOST[1]:
        raise ValueError(_LOST_BOUND)
    return seconds
