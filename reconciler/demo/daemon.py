"""The real daemon as a process of its own, and what it tells of itself over HTTP."""

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from reconciler.demo.tied import tied
from reconciler.demo.watch import Missed, until

STOP_SECONDS = 12.0
"""What a daemon that was told to stop gets for it; it promises ten."""

_ANSWER = aiohttp.ClientTimeout(total=5)
# What the caller's shell holds for another database, or systemd for us, is not meant for this daemon.
_NOT_HANDED_ON = ("PG", "RECONCILER_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")


@dataclass(frozen=True, slots=True)
class Figures:
    """The counters of one node: steps by kind and fate, and cycles."""

    steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    cycles: int = 0

    def since(self, before: "Figures") -> dict[tuple[str, str], int]:
        """Return the steps that were taken after `before`."""
        return dict(self.steps - before.steps)


class DaemonProcess:
    """`reconciler run` on the configuration at `config`; it dies with us and does not hear Ctrl-C."""

    def __init__(self, config: Path, log: Path, listen: str) -> None:
        self._config = config
        self._log = log
        self.url = f"http://{listen}"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it; `is_ready` tells when it works."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_HANDED_ON)}
        command = [sys.executable, "-P", "-m", "reconciler", "--config", str(self._config), "run"]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                tied(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept,
                start_new_session=True,
            )

    async def stop(self) -> None:
        """Stop it as systemd would, and by force when that takes too long."""
        child, self._child = self._child, None
        if child is None:
            return

        async def ended() -> bool:
            return child.poll() is not None

        child.send_signal(signal.SIGTERM)
        with suppress(Missed):
            await until(ended, "the daemon ends", STOP_SECONDS)
        child.kill()
        child.wait()

    async def is_ready(self) -> bool:
        """Whether it has read the database and tried every node; raises RuntimeError when it has died."""
        if not self.is_running:
            raise RuntimeError(f"the daemon ended: {self.log_tail(1)}")
        try:
            async with (
                aiohttp.ClientSession(timeout=_ANSWER) as session,
                session.get(f"{self.url}/readyz") as answer,
            ):
                return answer.ok
        except aiohttp.ClientError:
            return False

    async def figures(self, node: str) -> Figures:
        """Read the counters of one node from the metrics; raises RuntimeError when it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_ANSWER) as session,
                session.get(f"{self.url}/metrics") as answer,
            ):
                text = await answer.text()
        except aiohttp.ClientError as error:
            raise RuntimeError(f"the daemon does not answer: {error}") from error
        steps: Counter[tuple[str, str]] = Counter()
        cycles = 0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("node") != node:
                    continue
                if sample.name == "reconciler_steps_total":
                    steps[sample.labels["step"], sample.labels["outcome"]] += int(sample.value)
                elif sample.name == "reconciler_cycles_total":
                    cycles += int(sample.value)
        return Figures(steps, cycles)

    def log_tail(self, lines: int) -> str:
        """Return the last lines of its log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
