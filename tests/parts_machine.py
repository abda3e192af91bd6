"""
A real systemd for the tests: a machine of its own, booted from this host's files, in which ours is installed.

Its root is an overlay over `/` whose upper side is a tmpfs, so that nothing it
writes stays. It has a network of its own, with nothing but loopback, and
mounts and processes of its own as well: they are gone when the first process
of it is, and that one dies with the tests. PostgreSQL and the nodes are the
tests' own; it sees the folders of their sockets.
"""

import asyncio
import ctypes
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import pytest
from psycopg.conninfo import conninfo_to_dict

from reconciler.demo.postgres import EmbeddedPostgres
from reconciler.demo.tied import tied
from tests.daemons import PATIENCE_SECONDS
from tests.parts_postgres import QUICK, Cluster
from tests.programs import program, skip

ROOT = Path(__file__).parents[1]
SOURCE = "/srv/reconciler"
DATABASE = "/run/reconciler-test/database"
SOCKETS = "/run/reconciler-test/nodes"

_BOOT = r"""
set -e
for group in $GROUPS_OF_OURS; do echo 0 > "$group/cgroup.procs"; done
mount -t tmpfs -o mode=0755 reconciler-test "$MOUNTS"
mkdir "$MOUNTS/upper" "$MOUNTS/work" "$MOUNTS/root"
mount -t overlay reconciler-test -o "lowerdir=/,upperdir=$MOUNTS/upper,workdir=$MOUNTS/work" "$MOUNTS/root"
exec systemd-nspawn --quiet --boot --directory "$MOUNTS/root" --register=no --keep-unit --link-journal=no \
  --private-network --console=pipe "$@" systemd.unit=basic.target
"""
_CLONE_NEWNET = 0x40000000
_QUIET = {"SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "LANG": "C.UTF-8", "HOME": "/root"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

T = TypeVar("T")


class Machine:
    """One booted machine; commands are run in it as root."""

    def __init__(self, stack: ExitStack, *binds: str) -> None:
        self.name = f"reconciler-{secrets.token_hex(4)}"
        mounts = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        stack.callback(mounts.rmdir)
        groups = [_made(group / self.name, stack) for group in _own_cgroups()]
        log = stack.enter_context((mounts.parent / f"{self.name}.log").open("w+b"))
        stack.callback(Path(log.name).unlink)
        environ = {"PATH": _PATH, "MOUNTS": str(mounts), "GROUPS_OF_OURS": " ".join(map(str, groups))}
        unshare = ["/usr/bin/unshare", "--mount", "--propagation", "private", "--mount-proc"]
        unshare += ["--pid", "--fork", "--kill-child", "--"]
        child = subprocess.Popen(
            tied([*unshare, "/bin/sh", "-c", _BOOT, "sh", f"--machine={self.name}", *binds]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            start_new_session=True,
        )
        stack.callback(child.wait)
        stack.callback(child.kill)

        def said() -> str:
            log.seek(0)
            return f"the machine did not boot; it said: {log.read().decode(errors='replace')}"

        self.pid = waited(lambda: child.poll() or _first_process(child.pid), said)
        assert child.poll() is None, said()
        self._inside = ThreadPoolExecutor(2, initializer=_enter_network, initargs=(self.pid,))
        stack.callback(self._inside.shutdown)
        waited(
            lambda: self.run("systemctl", "is-system-running", check=False).startswith(("run", "deg")), said
        )

    def path(self, path: str) -> Path:
        """A file of the machine, as this host reaches it."""
        return Path(f"/proc/{self.pid}/root") / path.removeprefix("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in it; return what it said, errors included."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-a", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": _PATH, **_QUIET},
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def seen(self, pid: int) -> int:
        """Return as whom this host sees a process of the machine."""
        found = (child.pid for child in psutil.Process(self.pid).children(recursive=True))
        return next(each for each in found if _numbers(each)[-1] == str(pid))

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """The entries of the journal that match."""
        self.run("journalctl", "--sync")
        text = self.run("journalctl", "--quiet", "-o", "json", "--all", *words)
        return [json.loads(line) for line in text.splitlines()]

    def inside(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something in its network, in an event loop of its own; what is started lives on."""
        return self.begin(work).result()

    def begin(self, work: Callable[[], Awaitable[T]]) -> Future[T]:
        """The same, beside what the test does."""

        async def awaited() -> T:
            return await work()

        return self._inside.submit(lambda: asyncio.run(awaited()))


def waited(condition: Callable[[], T | None], what: Callable[[], str] | str) -> T:
    """Wait for a condition, and return its first true value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain: {what if isinstance(what, str) else what()}")


def _own_cgroups() -> Iterator[Path]:
    """Where this process stands in the hierarchies that a systemd manages; two machines must not share."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    places = {"": "/sys/fs/cgroup/unified", "name=systemd": "/sys/fs/cgroup/systemd"}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in places:
            place = places[controllers] if places[controllers] in mounts else "/sys/fs/cgroup"
            yield Path(place + path)


def _made(group: Path, stack: ExitStack) -> Path:
    group.mkdir()

    def removed() -> bool:
        with suppress(OSError):  # what was killed takes a moment to be gone
            for below in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                below.rmdir()
            group.rmdir()
        return not group.exists()

    stack.callback(waited, removed, f"{group} can be removed")
    return group


def _first_process(parent: int) -> int | None:
    """Return the id, as we see it, of the process that is number 1 in the innermost of two namespaces."""
    for child in psutil.Process(parent).children(recursive=True):
        with suppress(OSError):
            numbers = _numbers(child.pid)
            if len(numbers) > 2 and numbers[-1] == "1":
                return child.pid
    return None


def _numbers(pid: int) -> list[str]:
    """The ids of a process, from our namespace inwards."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))


def _enter_network(pid: int) -> None:
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the network of the machine")


@contextmanager
def wheels() -> Iterator[None]:
    """Build what is installed, once for all workers, and keep it from being built again meanwhile."""
    with Path(tempfile.gettempdir(), f"reconciler-wheels-{os.getuid()}").open("w") as lock:
        flock(lock, LOCK_EX)
        made = subprocess.run(["make", "wheels"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        yield


class Host:
    """The machine with ours installed, and the PostgreSQL of the tests beside it."""

    def __init__(self, machine: Machine, postgres: EmbeddedPostgres, sockets: Path) -> None:
        self.machine = machine
        self.postgres = postgres
        self.sockets = sockets
        self.cluster = Cluster(postgres.dsn)

    @classmethod
    def boot(cls, stack: ExitStack) -> Self:
        postgres = stack.enter_context(EmbeddedPostgres(QUICK))
        folder = str(conninfo_to_dict(postgres.dsn)["host"])
        Path(folder).chmod(0o711)  # whoever knows the socket's name may call; PostgreSQL asks for a password
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reconciler-sockets-")))
        sockets.chmod(0o755)
        machine = Machine(
            stack, f"--bind-ro={ROOT}:{SOURCE}", f"--bind={folder}:{DATABASE}", f"--bind={sockets}:{SOCKETS}"
        )
        with wheels():
            machine.run("make", "-C", SOURCE, "install")
        return cls(machine, postgres, sockets)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """A booted machine with ours installed by `make install`; one for the session and worker."""
    if os.geteuid() != 0:
        skip("a machine of its own needs root")
    program("systemd-container", "systemd-nspawn")
    with ExitStack() as stack:
        yield Host.boot(stack)
