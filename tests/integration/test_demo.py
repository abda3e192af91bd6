"""The demonstration as its audience starts it: all of it holds, and whoever ends it finds nothing left."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from reconciler.demo.acts import converge
from reconciler.demo.show import CHAPTERS, stay
from reconciler.demo.stage import build
from reconciler.demo.telling import Telling

pytestmark = pytest.mark.timeout(180)

PATIENCE_SECONDS = 60
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass
class Show:
    """A demonstration under way; all its files lie in `place`."""

    place: Path
    child: subprocess.Popen[str]
    said: str = ""
    kin: set[psutil.Process] = field(default_factory=set)

    def await_line(self, words: str) -> None:
        """Read what it says up to a line with these words."""
        assert self.child.stdout is not None
        while words not in self.said:
            line = self.child.stdout.readline()
            assert line, f"it ended before it said {words!r}: {self.said}"
            self.said += line

    def await_file(self, pattern: str) -> None:
        """Wait until it has made such a file."""
        eventually(lambda: any(self.place.glob(pattern)), f"a file {pattern}")

    def hit(self, *signals: signal.Signals) -> None:
        """Send signals as a terminal does, to the whole group, each further one once the end has begun."""
        with suppress(psutil.NoSuchProcess):
            self.kin |= {*psutil.Process(self.child.pid).children(recursive=True)}
        for number in signals:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)
            eventually(lambda: not all(map(_lives, self.kin)) or not self.kin, "the end of the first child")

    def end(self) -> int:
        """Read the rest, and return the exit code."""
        if self.child.stdout is not None and not self.child.stdout.closed:
            self.said += self.child.communicate(timeout=PATIENCE_SECONDS)[0]
        return self.child.wait(PATIENCE_SECONDS)

    def survivors(self) -> list[str]:
        """Name every process that was its child, or that works in its directory."""
        marked = [process for process in psutil.process_iter() if self._is_marked(process)]
        return [repr(process) for process in {*self.kin, *marked} if _lives(process)]

    def _is_marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return str(self.place) in " ".join([*process.cmdline(), *process.environ().values()])
        return False


def eventually(true: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not in time: {words}"
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def show() -> Iterator[Show]:
    """Start it; the directory has a short path, for the socket, and is open to the server's account."""
    place = Path(tempfile.mkdtemp(prefix="show-"))
    place.chmod(0o755)
    child = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "demo"],
        env={**os.environ, "TMPDIR": str(place), "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    show = Show(place, child)
    try:
        yield show
    finally:
        show.hit(signal.SIGKILL)
        show.end()
        eventually(lambda: not show.survivors(), "the end of all processes")
        shutil.rmtree(place)


def test_everything_that_is_shown_holds(show):
    started = time.monotonic()
    code = show.end()

    lines = show.said.partition("What held")[2].splitlines()
    table = [line.split() for line in lines if line.lstrip()[:1].isdigit()]
    verdicts = [(int(words[0]), words[-1]) for words in table[: len(CHAPTERS)]]
    assert verdicts == [(number, "yes") for number in range(1, len(CHAPTERS) + 1)], show.said
    assert f"{len(CHAPTERS)} of {len(CHAPTERS)} held" in show.said
    assert code == 0
    assert time.monotonic() - started < 90
    assert not UUID.search(show.said)
    assert max(map(len, show.said.splitlines())) <= 80
    assert not show.survivors()
    assert not [*show.place.iterdir()]


MOMENTS: list[tuple[str, Callable[[Show], None]]] = [
    ("while the database is made", lambda show: show.await_file("reconciler-pg-*/data")),
    ("while nodes start", lambda show: show.await_file("reconciler-demo-*/paris.json")),
    ("while the daemon starts", lambda show: show.await_file("reconciler-demo-*/daemon.log")),
    ("while keys are granted", lambda show: show.await_line(CHAPTERS[0].title)),
    ("while a node is down", lambda show: show.await_line("paris is killed")),
]
ENDINGS = [
    (signal.SIGINT,),
    (signal.SIGINT, signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM,),
    (signal.SIGHUP, signal.SIGINT),
    (signal.SIGINT, signal.SIGINT),
]


@pytest.mark.parametrize(
    ("await_moment", "signals"),
    [
        pytest.param(await_moment, signals, id=words)
        for (words, await_moment), signals in zip(MOMENTS, ENDINGS, strict=True)
    ],
)
def test_whoever_interrupts_it_finds_nothing_left(show, await_moment, signals):
    await_moment(show)
    show.hit(*signals)
    code = show.end()

    assert code == 130
    assert "Traceback" not in show.said
    assert not show.survivors()
    assert not [*show.place.iterdir()]


@pytest.mark.parametrize("await_moment", [MOMENTS[0][1], MOMENTS[3][1]], ids=["early", "later"])
def test_killed_outright_it_takes_its_children_along(show, await_moment):
    await_moment(show)
    show.hit(signal.SIGKILL)

    eventually(lambda: not show.survivors(), "the end of all processes")


def test_a_reader_who_goes_away_ends_it(show):
    show.await_line(CHAPTERS[0].title)
    assert show.child.stdout is not None
    show.hit()
    show.child.stdout.close()

    show.child.wait(PATIENCE_SECONDS)
    assert not show.survivors()
    assert not [*show.place.iterdir()]


async def test_what_it_prints_to_explore_works_when_pasted(capsys):
    async with AsyncExitStack() as stack:
        stage = await build(stack, Telling())
        await converge(stage, Telling())
        staying = asyncio.create_task(stay(stage, Telling()))
        printed = ""
        while "Files and logs" not in printed:
            await asyncio.sleep(0.01)
            printed += capsys.readouterr().out
        export, *commands = [line.strip() for line in printed.partition("export")[2].splitlines()]
        commands = [line for line in commands if Path(line.split(" ")[0]).name in ("reconciler", "psql")]
        for command in commands:
            words = shlex.split(command) + (["-c", "SELECT 1"] if "psql" in command else [])
            config = {"RECONCILER_CONFIG": export.partition("=")[2]}
            program = await asyncio.create_subprocess_exec(
                *words, env={**os.environ, **config}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            said, _ = await program.communicate()
            assert program.returncode == 0, said.decode()
        proxy, url = re.findall(r"curl -x socks5h://127.0.0.1:(\d+) http://127.0.0.1:(\d+)/livez", printed)[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy))
        writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + int(url).to_bytes(2, "big"))
        await reader.readexactly(12)
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
        staying.cancel()
        await staying

    assert len(commands) == 6
    assert not UUID.search(printed)
