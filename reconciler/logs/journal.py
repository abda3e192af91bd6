"""
Entries of the journal, in journald's own protocol.

Why not JSON lines on standard error, which journald would take as well: with
fields, `journalctl -u reconciler NODE=fra1`, `-p err` and `-o json` find what
an admin looks for with no other program, what he reads is a sentence and not a
document, and a trace is one entry instead of forty. Why no library: those on
PyPI wrap libsystemd and are built on the host against its headers, while an
entry is one datagram of fields, each told with its length, so that no value
can forge another.

Nothing here waits. What journald does not take, because it is restarting or
floods, is counted, and the count is told as soon as it takes entries again.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
IDENTIFIER = "reconciler"

_LONGEST = 16_384
"""Characters of a field. An entry must fit into one datagram, of which Linux takes 200 KiB."""

_JOINS = "cycle"
"""Is a field only: in the sentence it would be noise, and whoever needs it filters by it."""


class Entries:
    """Sends an entry at once; every level ends here."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lost = 0

    def msg(self, event: Mapping[str, Any]) -> None:
        """Send what was logged; count it when journald does not take it."""
        if self._lost and self._send(
            {"event": "journald took no lines", "level": "warning", "lines": self._lost}
        ):
            self._lost = 0
        if not self._send(event):
            self._lost += 1

    debug = info = warning = error = critical = msg

    def _send(self, event: Mapping[str, Any]) -> bool:
        datagram = b"".join(_field(name, value) for name, value in fields(event).items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            try:
                sending.sendto(datagram, self._address)
            except OSError:
                return False
        return True


def fields(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an entry: each key in capitals, and the sentence that people read."""
    ours = {name.upper(): _text(value) for name, value in event.items() if name != "level"}
    return {
        **ours,
        "MESSAGE": sentence(event),
        "PRIORITY": str(PRIORITIES[event["level"]]),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }


def sentence(event: Mapping[str, Any]) -> str:
    """Return the message, then what belongs to it, then the trace if there is one."""
    said = ", ".join(_words(event))
    trace = f"\n{event['exception']}" if "exception" in event else ""
    return f"{event['event']}{': ' if said else ''}{said}{trace}"


def _words(event: Mapping[str, Any]) -> Iterator[str]:
    """Name the node first: it is what the reader looks for."""
    if "node" in event:
        yield f"node={event['node']}"
    for name, value in event.items():
        if name not in ("event", "level", "node", "exception", _JOINS):
            yield f"{name}={_text(value)}"


def _text(value: Any) -> str:  # noqa: ANN401, whatever JSON takes
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _field(name: str, value: str) -> bytes:
    encoded = value[:_LONGEST].encode(errors="replace")
    return b"%s\n%s%s\n" % (name.encode(), len(encoded).to_bytes(8, "little"), encoded)
