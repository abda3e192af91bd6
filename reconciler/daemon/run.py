"""Build the daemon from its configuration, and run it until systemd or a person says stop."""

import asyncio
import faulthandler
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import structlog
import uvloop

import reconciler
from reconciler import logs
from reconciler.config import Config, load
from reconciler.daemon.database import Database
from reconciler.daemon.fleet import Fleet
from reconciler.daemon.placing import Placing
from reconciler.daemon.renewals import renew_quotas
from reconciler.daemon.rescue import Rescue
from reconciler.daemon.surroundings import Surroundings
from reconciler.db.pool import Pool, open_pool
from reconciler.desired.bells import listen
from reconciler.desired.reader import DesiredReader
from reconciler.desired.timer import Timer
from reconciler.errors import ConfigError, ReconcilerError
from reconciler.loop.traffic import Turns
from reconciler.model import Node
from reconciler.node.xray import TlsFiles, XrayNode
from reconciler.notify import Notifier
from reconciler.status.board import Board, stale_after_seconds
from reconciler.status.fleet_page import FleetPage
from reconciler.status.fleet_rows import watch as watch_rows
from reconciler.status.health import Health
from reconciler.status.http import serve as serve_http
from reconciler.status.lease import Leases
from reconciler.status.metrics import Metrics
from reconciler.status.periods import Periods
from reconciler.status.recorder import Recorder
from reconciler.status.usage import Usage

log = structlog.get_logger()

FIXED = ("database", "lease", "http")
"""Sections that a reload does not change."""

STOP_SECONDS = 9.5
"""After so long a stop waits for nothing any more."""

READY_WITHIN_SECONDS = 20.0
"""After so long systemd is told READY whatever is missing: starting again would mend nothing."""


def main(config_path: Path | None) -> int:
    """
    Run the daemon in the foreground; return its exit code.

    Raises ConfigError, SchemaMismatch and RightsMissing when that is what the
    start met, and whatever a bug raises; the log and systemd were told then.
    """
    faulthandler.enable()  # systemd's watchdog aborts what hangs, and then one sees where

    def read() -> Config:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        return load(config_path, os.environ, Path(directory) if directory else None)

    with closing(Notifier(os.environ)) as notifier:
        logs.configure("info")  # until the configuration says otherwise
        try:
            config = read()
            logs.configure(config.log.level, config.log.format)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(Daemon(config, read, notifier).run())
        except ReconcilerError as error:
            for reason in error.faults if isinstance(error, ConfigError) else [error]:
                log.error("giving up: starting again would mend nothing", reason=str(reason))
            notifier.status(f"gave up: {logs.mask(str(error))}")
            raise
        except Exception:
            log.critical("the daemon broke by a bug of ours", exc_info=True)
            raise


def boot_clock() -> float:
    """Return seconds on a clock that nobody sets and that runs on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _give_up() -> None:
    """Leave what hangs, such as a database that takes a question and never answers; leases run out."""
    log.error("stopped without waiting for what does not answer")
    os._exit(0)


class Daemon:
    """One daemon; `run` returns when it was told to stop."""

    def __init__(self, config: Config, read: Callable[[], Config], notifier: Notifier) -> None:
        self._config = config
        self._read = read
        self._stopping = asyncio.Event()
        self._metrics = Metrics()
        self._health = Health()
        self._board = Board(lambda: stale_after_seconds(self._config.cycle.full_interval_seconds))
        self._notifier = notifier
        self._refused = ""

    async def run(self) -> int:
        """
        Run until SIGTERM or SIGINT, then stop within ten seconds.

        Raises ConfigError, SchemaMismatch and RightsMissing when that is what
        the start met: starting again would mend nothing. A database that is
        down is waited for.
        """
        config = self._config
        database = config.database
        pool = await open_pool(
            database.dsn.get_secret_value(),
            database.pool_size,
            prepared_statements=database.prepared_statements,
            connect_seconds=database.connect_timeout_seconds,
            statement_seconds=database.statement_timeout_seconds,
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(pool.close, timeout=1)
            if config.http.listen:
                page = FleetPage(self._board, self._health, boot_clock, time.time)
                http = await serve_http(config.http.listen, self._metrics, self._health, page, boot_clock)
                stack.push_async_callback(http.close)
                log.info("serving metrics and health", address=http.address)
            self._listen_to_signals()
            log.info("daemon started", version=reconciler.__version__)
            await self._work(Fleet(self._surroundings(pool)), pool)
        log.info("daemon stopped")
        return 0

    async def _work(self, fleet: Fleet, pool: Pool) -> None:
        """Run the fleet and what stands beside it; when one of them breaks, all of them end."""
        database = self._config.database

        def tell_listening(trouble: str | None) -> None:
            fleet.listening = trouble is None
            self._tell_listening(trouble)

        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._tell_systemd(fleet)),
                    group.create_task(fleet.watch_clock()),
                    group.create_task(renew_quotas(fleet.around.periods, self._full_interval, boot_clock)),
                    group.create_task(watch_rows(pool, self._board, boot_clock)),
                ]
                if database.notify:
                    dsn = database.listen_dsn.get_secret_value() or database.dsn.get_secret_value()
                    beside.append(group.create_task(listen(dsn, fleet.ring, tell_listening)))
                else:
                    self._health.note("changes", "found by looking: database.notify is off", ok=True)
                await fleet.run()
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as broken:
            raise broken.exceptions[0] from broken

    def _surroundings(self, pool: Pool) -> Surroundings:
        config = self._config
        dsn = config.database.dsn.get_secret_value()
        holder = config.lease.holder or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

        database = Database(dsn)
        return Surroundings(
            config=lambda: self._config,
            check_database=database.check,
            why=database.why,
            reader=DesiredReader(pool),
            recorder=Recorder(pool),
            usage=Usage(pool, boot_clock),
            turns=Turns(),
            periods=Periods(pool),
            leases=Leases(pool, holder, boot_clock, config.lease.ttl_seconds, config.lease.margin_seconds),
            placing=Placing(pool, self._health, self._metrics, boot_clock),
            rescue=Rescue(pool, lambda: self._config, boot_clock),
            timer=Timer(pool),
            metrics=self._metrics,
            health=self._health,
            board=self._board,
            slots=asyncio.Semaphore(config.cycle.concurrency),
            port=self._port,
            clock=boot_clock,
            wall=time.time,
            chance=lambda: random.uniform(-1, 1),  # noqa: S311 - spreads cycles out, keeps no secret
            stopping=self._stopping,
        )

    def _full_interval(self) -> float:
        return self._config.cycle.full_interval_seconds

    def _port(self, node: Node) -> XrayNode:
        tls = self._config.node
        files = (Path(name) if name else None for name in (tls.tls_ca, tls.tls_certificate, tls.tls_key))
        return XrayNode(node.name, node.api, TlsFiles(*files))

    def _tell_listening(self, trouble: str | None) -> None:
        """Show in the metrics and beside the checks of health how changes are found."""
        self._metrics.listener_down(down=trouble is not None)
        found = "listened for" if trouble is None else f"found by looking, not listened for: {trouble}"
        self._health.note("changes", found, ok=trouble is None)

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _stop(self, number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        self._notifier.stopping()
        self._health.stopping()
        self._stopping.set()
        asyncio.get_running_loop().call_later(STOP_SECONDS, _give_up)

    def _reload(self) -> None:
        """Read the configuration again; a bad one changes nothing."""
        self._notifier.reloading()
        try:
            config = self._read()
        except ConfigError as error:
            for fault in error.faults:
                log.error("configuration refused; the old one stays", key=fault.key, fault=str(fault))
            self._refused = f"; configuration refused, the old one stays: {error}"
        else:
            self._refused = ""
            fixed = [name for name in FIXED if getattr(config, name) != getattr(self._config, name)]
            if fixed:
                log.warning("these sections change with a restart only", sections=fixed)
            self._config = config
            logs.configure(config.log.level, config.log.format)
            log.info("configuration read again")
        self._notifier.ready()

    async def _tell_systemd(self, fleet: Fleet) -> None:
        """Say READY once every node was tried, then a line of status; pet the watchdog while loops turn."""
        ready_at = boot_clock() + READY_WITHIN_SECONDS
        ready = False
        pause = min(1.0, self._notifier.watchdog_interval_seconds or 1.0)
        while True:
            now = boot_clock()
            if not ready and (fleet.tried or now > ready_at):
                ready = True
                self._notifier.ready()
                log.info("ready", nodes=fleet.held)
            self._notifier.status(fleet.words + self._refused)
            if all(check.ok for check in self._health.live(now)):
                self._notifier.watchdog()
            await asyncio.sleep(pause)
