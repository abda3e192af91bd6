"""
A real Xray node as a child process, for the demonstration and for the tests.

A binary named `xray` on PATH is preferred; otherwise the PyPI package
`Xray-core`, which carries the same program as an extension module, runs in a
Python of its own.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.demo.tied import TIE, tied
from reconciler.model import Account, Protocol

HOST = "127.0.0.1"
_GIVEN_OUT: set[int] = set()

_RUN_MODULE = TIE + "import xray; xray.startFromJSON(open(sys.argv[2], encoding='utf-8').read())"


@dataclass(frozen=True, slots=True)
class Listener:
    """One inbound of a node's configuration; `clients` are users written there by its operator."""

    tag: str
    protocol: str
    port: int
    clients: Sequence[Mapping[str, str]] = ()

    def config(self) -> dict[str, Any]:
        """Return it as Xray's configuration has it."""
        settings: dict[str, Any] = {"clients": list(self.clients)} if self.protocol in set(Protocol) else {}
        if self.protocol == Protocol.VLESS:
            settings["decryption"] = "none"
        place = {"listen": HOST, "port": self.port}
        return {"tag": self.tag, "protocol": self.protocol, **place, "settings": settings}


def client(protocol: Protocol, name: str, account: Account) -> dict[str, str]:
    """Return a user as Xray's configuration has it."""
    secret = "password" if protocol is Protocol.TROJAN else "id"
    flow = {"flow": account.flow} if account.flow else {}
    return {"email": name, secret: account.credential.text(), **flow}


def free_port() -> int:
    """
    Return a TCP port of loopback that nobody listens on.

    It lies below the range from which the kernel takes the ports of outgoing
    connections: there, a client that keeps calling a dead node would sooner or
    later be given the node's own port, and be connected to itself.
    """
    while True:
        port = random.randrange(12_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            if port not in _GIVEN_OUT:
                _GIVEN_OUT.add(port)
                return port


class XrayProcess:
    """
    One node: an Xray process with its API on `api` (`host:port`, or `unix:/path`).

    Use it as an async context manager, or call `start` and `kill`. It dies
    with the thread that started it, even when that is killed, and does not
    hear the terminal's Ctrl-C. Its configuration and its log lie in `directory`.
    """

    def __init__(
        self,
        directory: Path,
        listeners: Sequence[Listener] = (),
        *,
        name: str = "xray",
        api: str | None = None,
        services: Sequence[str] = ("HandlerService", "StatsService"),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`config` replaces the whole configuration of a node by another one, for instance a client's."""
        self.name = name
        self.api = api or f"{HOST}:{free_port()}"
        self.listeners = tuple(listeners)
        self._config = config or self._node_config(services)
        self._config_file = directory / f"{name}.json"
        self._log_file = directory / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def port(self, tag: str) -> int:
        """Return the port on which the inbound of this tag takes customers."""
        return next(listener.port for listener in self.listeners if listener.tag == tag)

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running node."""
        assert self._child is not None, "not started"
        return self._child.pid

    async def start(self, timeout_seconds: float = 20) -> None:
        """
        Start the node, and return when its API and all its inbounds take connections.

        Raises RuntimeError with the end of its log when it dies or is not ready in time; nothing is left
        running then, nor when the caller is cancelled.
        """
        self.kill()
        _write_private(self._config_file, json.dumps(self._config))
        with self._log_file.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            await self._ready(timeout_seconds)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the node at once, as a crash would; the PyPI package hears no other signal than SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._child = None

    def freeze(self) -> None:
        """Stop the node in its tracks: its connections stay, and nothing answers until it is thawed."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def restart(self) -> None:
        """Kill the node and start it again, on the same addresses; users added by its API are forgotten."""
        self.kill()
        await self.start()

    def log_tail(self) -> str:
        """Return the last lines of the node's log."""
        lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-10:])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _command(self) -> list[str]:
        file = str(self._config_file)
        binary = shutil.which("xray")
        if binary:
            return tied([binary, "run", "-c", file])
        # -P: a file named xray.py in the working directory is not the module that is meant.
        return [sys.executable, "-P", "-c", _RUN_MODULE, str(os.getpid()), file]

    async def _ready(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not await self._accepts():
            if not self.is_running or time.monotonic() > deadline:
                # The PyPI package says nothing of a bad configuration; its exit code does, as 23.
                code = None if self._child is None else self._child.poll()
                raise RuntimeError(f"{self.name} did not start, exit code {code}: {self.log_tail()}")
            await asyncio.sleep(0.01)

    async def _accepts(self) -> bool:
        ports = (inbound["port"] for inbound in self._config["inbounds"])
        answers = [await _connects(f"{HOST}:{port}") for port in ports]
        return all(answers) and ("api" not in self._config or await _connects(self.api))

    def _node_config(self, services: Sequence[str]) -> dict[str, Any]:
        counted = {"statsUserUplink": True, "statsUserDownlink": True, "statsUserOnline": True}
        return {
            "log": {"loglevel": "warning"},
            "api": {"tag": "api", "services": list(services), "listen": self.api.removeprefix("unix:")},
            "stats": {},
            "policy": {"levels": {"0": counted}},
            "inbounds": [listener.config() for listener in self.listeners],
            # Without this rule Xray refuses to connect its customers to loopback, where our target is.
            "outbounds": [{"protocol": "freedom", "settings": {"finalRules": [{"action": "allow"}]}}],
        }


async def _connects(address: str) -> bool:
    try:
        if address.startswith("unix:"):
            _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
