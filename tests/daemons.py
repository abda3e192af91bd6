"""The daemon as a process of its own, as systemd would start it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from reconciler.demo.xray import free_port

INTERVAL_SECONDS = 1.0
"""Between two full cycles, unless a test says otherwise."""

PATIENCE_SECONDS = 60.0
"""How long a test waits for what must come; a busy machine is slow, and a broken program never comes."""


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait for a condition, and return its first true value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := await condition():
            return value
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited in vain: {what}")


class DaemonProcess:
    """`reconciler run` with a configuration of its own; its log is a file of JSON lines."""

    def __init__(self, directory: Path, dsn: str, name: str = "daemon", **sections: dict[str, Any]) -> None:
        self.port = free_port()
        self.config = directory / f"{name}.toml"
        self.log_file = directory / f"{name}.log"
        self._dsn = dsn
        self._child: subprocess.Popen[bytes] | None = None
        self.write_config(**sections)

    def write_config(self, **sections: dict[str, Any]) -> None:
        """One second between full cycles, unless a section says otherwise."""
        settings: dict[str, dict[str, Any]] = {
            "cycle": {"full_interval_seconds": INTERVAL_SECONDS, "probe_interval_seconds": 0.5},
            "http": {"listen": f"127.0.0.1:{self.port}"},
        }
        for section, values in sections.items():
            settings[section] = settings.get(section, {}) | values
        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "reconciler", "--config", str(self.config), "run"],
                env=os.environ | {"RECONCILER_DSN": self._dsn},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        child = self._child
        assert child is not None

        async def over() -> bool:
            return child.poll() is not None

        await until(over, "the daemon ends")
        return child.returncode

    async def stop(self) -> int:
        self.send(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged under this message."""
        read = (json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{"))
        return [line for line in read if line["event"] == event]

    async def logs(self, event: str) -> dict[str, Any]:
        """Wait for a message; return its first line."""

        async def found() -> dict[str, Any] | None:
            return next(iter(self.lines(event)), None)

        line: dict[str, Any] = await until(found, f"the log says {event!r}")
        return line

    async def get(self, path: str) -> tuple[int, str]:
        """Ask the HTTP port; 0 when nobody answers."""

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(ask)

    async def metric(self, series: str) -> float | None:
        """The value of a series as it stands on the page, with its labels."""
        _, page = await self.get("/metrics")
        found = (line for line in page.splitlines() if line.startswith(f"{series} "))
        return next((float(line.rpartition(" ")[2]) for line in found), None)


@asynccontextmanager
async def running(daemon: DaemonProcess) -> AsyncIterator[DaemonProcess]:
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()
