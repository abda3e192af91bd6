"""The ground that every measure stands on: databases, rows, the daemon as a process, and who else is busy."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg

from reconciler.demo.tied import tied
from reconciler.demo.xray import HOST, free_port
from tests.bench.report import Findings
from tests.parts_postgres import Cluster, Database

PATIENCE_SECONDS = 120.0
STOP_SECONDS = 12.0


@dataclass
class Ground:
    """What a measure is given, and where it leaves what it found."""

    cluster: Cluster
    postgres_pid: int
    directory: Path
    quick: bool
    wanted: frozenset[str]
    tell: Callable[[str], None]
    deadline: float
    findings: Findings = field(default_factory=Findings)

    @property
    def left_seconds(self) -> float:
        """How much time there is before all of it must be over."""
        return self.deadline - time.monotonic()

    def several(self, full: int, quick: int) -> int:
        """Return a figure for this kind of run."""
        return quick if self.quick else full

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """A migrated database of its own."""
        made = await asyncio.to_thread(self.cluster.create, migrated=True)
        try:
            yield made
        finally:
            await asyncio.to_thread(self.cluster.drop, made)

    @asynccontextmanager
    async def copy(self, database: Database) -> AsyncIterator[Database]:
        """The same rows once more, under another name; nobody may be connected to the first."""
        name = f"{database.name}_{secrets.token_hex(3)}"
        await asyncio.to_thread(self.cluster.execute, "CREATE DATABASE {} TEMPLATE {}", name, database.name)
        made = Database(
            name,
            psycopg.conninfo.make_conninfo(database.dsn, dbname=name),
            database.password,
            database.prefix,
        )
        try:
            yield made
        finally:
            await asyncio.to_thread(self.cluster.drop, made)

    def postgres_cpu(self) -> float:
        """CPU seconds of the server's processes that live now."""
        server = psutil.Process(self.postgres_pid)
        return sum(cpu_seconds(each) for each in (server, *server.children(recursive=True)))


class Daemon:
    """`reconciler run` as it is shipped, but for what `sections` say."""

    def __init__(self, directory: Path, dsn: str, **sections: dict[str, Any]) -> None:
        self.log = directory / f"daemon-{secrets.token_hex(3)}.log"
        self._config = self.log.with_suffix(".toml")
        self._dsn = dsn
        self._child: subprocess.Popen[bytes] | None = None
        # A daemon that stands still while another contender runs must not lose its leases meanwhile.
        settings: dict[str, dict[str, Any]] = {"lease": {"ttl_seconds": 300.0}}
        settings |= {"http": {"listen": f"{HOST}:{free_port()}"}} | sections
        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._child is not None, "not started"
        return self._child.pid

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used."""
        return cpu_seconds(psutil.Process(self.pid))

    @property
    def resident(self) -> int:
        """Resident bytes now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def most_resident(self) -> int:
        """The most resident bytes that it ever had."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def freeze(self) -> None:
        """Stop it in its tracks."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def ready(self) -> None:
        """Wait until every node was tried."""

        async def said() -> bool:
            assert self._child is not None
            if self._child.poll() is not None:
                raise RuntimeError(f"the daemon ended: {self.log.read_text()[-500:]}")
            return '"ready"' in self.log.read_text()

        await until(said, "the daemon is ready")

    async def __aenter__(self) -> Self:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                tied([sys.executable, "-P", "-m", "reconciler", "--config", str(self._config), "run"]),
                env=os.environ | {"RECONCILER_DSN": self._dsn},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._child is not None
        child = self._child
        self.thaw()
        child.send_signal(signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(child.wait, STOP_SECONDS)
        finally:
            child.kill()
            child.wait()


class Noise:
    """How much of the machine others take: other programs, and other machines on the same host."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = _foreign()

    def cores(self) -> float:
        """CPU that others took since then, as a share of one core."""
        return max(0.0, (_foreign() - self._before) / (time.monotonic() - self._began + 0.001))


async def until(condition: Callable[[], Any], what: str, pause_seconds: float = 0.02) -> Any:
    """Wait until the awaitable that `condition` returns gives something true; return that."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if value := await condition():
            return value
        await asyncio.sleep(pause_seconds)
    raise TimeoutError(f"waited in vain: {what}")


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Whoever is started meanwhile runs on these cores only, for all its life."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of one process, user and system; none when it has just ended."""
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _foreign() -> float:
    """CPU seconds of all that is neither us, nor a descendant of ours, nor one that has ended."""
    times = psutil.cpu_times()
    ours = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            ours += sum(process.cpu_times()[:4])  # its own, and that of its ended children
    return float(sum(times[:3]) + times.irq + times.softirq + times.steal) - ours
