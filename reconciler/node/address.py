"""Where a node answers: what the `api` column may hold, and what gRPC calls it."""

import re
from typing import NamedTuple

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """A target in gRPC's words, and whether TLS is spoken there."""

    target: str
    tls: bool = False


def parse(api: str) -> Address:
    """
    Read `host:port`, `tls:host:port` or `unix:/path`; an IPv6 host stands in brackets.

    Raises ValueError, whose text says what was expected.
    """
    if api.startswith("unix:"):
        if not api.startswith("unix:/"):
            raise ValueError(f"address {api!r}: the path of a UNIX socket begins with /")
        return Address(api)
    place = _HOST_PORT.fullmatch(api.removeprefix("tls:"))
    if place is None:
        raise ValueError(f"address {api!r}: expected host:port, tls:host:port or unix:/path")
    if not 1 <= int(place["port"]) <= 65535:  # noqa: PLR2004 - the range of TCP
        raise ValueError(f"address {api!r}: a port is between 1 and 65535")
    # With the scheme spelled out, a host named like one of gRPC's own schemes is still a host.
    return Address(f"dns:///{place['host']}:{place['port']}", tls=api.startswith("tls:"))
