"""
Talking to systemd.

The protocol is one datagram per message, which takes less code than a library
that would have to be pinned: the one on PyPI loses every STATUS beyond
Latin-1, blocks when systemd does, and cannot be closed.
"""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """
    Tells systemd how it goes; does nothing where systemd does not listen.

    No call raises or blocks: a message that systemd does not take is lost,
    and the next one says the same or more.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("@", "/")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.watchdog_interval_seconds = _watchdog_interval_seconds(environ)
        """How often to call `watchdog`: a third of what systemd allows; None when it does not watch."""

    def ready(self) -> None:
        """Say that the start, or a reload, is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` must follow."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Say that every loop has turned lately."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Let go of the socket; what is said afterwards is lost."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if not self._socket:
            return
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            return


def _watchdog_interval_seconds(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        watched = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    if microseconds <= 0 or watched != os.getpid():  # the variables of a parent are none of ours
        return None
    return microseconds / 3_000_000
