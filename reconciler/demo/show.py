"""
The demonstration, from the first line to the table.

Whoever ends it, by Ctrl-C, SIGTERM or a closed terminal, and however often he
says so, finds no process and no file left: the parts stand on an exit stack
that belongs to a task which nobody interrupts, and only the play is.
"""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from reconciler.demo import acts, quota
from reconciler.demo.draining import drain
from reconciler.demo.stage import Stage, build
from reconciler.demo.telling import Telling
from reconciler.demo.verdict import Row, exit_code, table
from reconciler.demo.watch import Missed
from reconciler.errors import ReconcilerError

INTERRUPTED = 130

_LOG_LINES = 8
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Chapter(NamedTuple):
    """One thing that is shown; `act` does it and returns what it measured."""

    title: str
    promise: str
    act: Callable[[Stage, Telling], Awaitable[str]]


CHAPTERS = (
    Chapter("1,000 keys, three nodes", "all there, evenly", acts.converge),
    Chapter("a real client knocks", "in with a key only", acts.knock),
    Chapter("a node dies", f"all back in {acts.HEAL_SECONDS:.0f} s", acts.crash),
    Chapter("users changed by hand", f"repaired in {acts.REPAIR_SECONDS:.0f} s", acts.meddle),
    Chapter("users of somebody else", "never touched", acts.visit),
    Chapter("a key extended", "node not touched", acts.extend),
    Chapter("a key expired", f"refused in {acts.REPAIR_SECONDS:.0f} s", acts.expire),
    Chapter("half a node revoked", "held until released", acts.revoke),
    Chapter("a node drained", "never without one", drain),
    Chapter("a quota used up", f"refused in {quota.OUT_SECONDS:.0f} s", quota.use_up),
)


def main(keep: bool) -> int:  # noqa: FBT001 - the command line's flag
    """
    Show everything; return 0 when all of it held, 1 when not, 130 when interrupted.

    With `keep` it stays until it is interrupted. Raises ReconcilerError when
    the stage cannot be built. Signals stay unheard afterwards, because
    the program is about to end.
    """
    try:
        return asyncio.run(_show(Telling(), keep=keep))
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _show(tell: Telling, *, keep: bool) -> int:
    """Play, in a task that signals may end; then take the stage down, in this one, which they may not."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        play = asyncio.create_task(_play(stack, tell, keep=keep))

        def hear(*_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(play.cancel)

        # Not the loop's own handlers: they go when the loop closes, and a late Ctrl-C would meet none.
        for number in _SIGNALS:
            signal.signal(number, hear)
        await asyncio.wait([play])
        with tell.waiting("taking everything down"):
            await stack.aclose()
    return INTERRUPTED if play.cancelled() else play.result()


async def _play(stack: AsyncExitStack, tell: Telling, *, keep: bool) -> int:
    started = time.monotonic()
    tell.title("The stage: all of it real, on this machine, gone afterwards")
    try:
        stage = await build(stack, tell)
    except (RuntimeError, OSError, Missed) as error:
        raise ReconcilerError(f"the stage could not be built: {error}") from error
    rows = [
        await play_chapter(number, chapter, stage, tell) for number, chapter in enumerate(CHAPTERS, start=1)
    ]
    code = exit_code(rows, len(CHAPTERS))
    tell.title("What held")
    tell.show(table(rows))
    held = sum(row.held for row in rows)
    tell.title(f"{held} of {len(CHAPTERS)} held, in {time.monotonic() - started:.0f} s.")
    if code:
        tell.verbatim("The end of the daemon's log:", stage.daemon.log_tail(_LOG_LINES).splitlines())
    if keep:
        await stay(stage, tell)
    return code


async def play_chapter(number: int, chapter: Chapter, stage: Stage, tell: Telling) -> Row:
    """Play one chapter. What goes wrong in it is its finding; the others are shown all the same."""
    tell.title(f"{number}  {chapter.title}")
    measured = ""
    try:
        measured = await chapter.act(stage, tell)
    except (Missed, ReconcilerError, RuntimeError, OSError) as error:
        tell.seen(str(error), good=False)
    return Row(chapter.title, chapter.promise, measured, tuple(tell.broken))


async def stay(stage: Stage, tell: Telling) -> None:
    """Print where everything is, and return when interrupted."""
    paris = stage.cities["paris"]
    key_id = (await stage.placed_on(paris))[0]
    customer = await stage.customer(paris, key_id)
    command = _short(Path(sys.executable).with_name("reconciler"))
    asked = ("status", "plan", f"explain {key_id}", f"link {key_id}", "node list")
    tell.verbatim(
        "It stays, until Ctrl-C. To look around, in another terminal:",
        [f"export RECONCILER_CONFIG={stage.operator_config}", *(f"{command} {words}" for words in asked)],
    )
    url = stage.daemon.url
    tell.verbatim("The daemon:", [f"curl -s {url}/metrics", f"curl -s '{url}/readyz?verbose'"])
    tell.verbatim("A customer of paris:", [f"curl -x {customer.proxy} {url}/livez"])
    tell.verbatim(
        "The database, with the operator's rights:", [f"{_short(stage.psql)} '{stage.operator_dsn}'"]
    )
    tell.verbatim("The nodes' APIs:", [f"{city.xray.api}  {city.name}" for city in stage.cities.values()])
    tell.verbatim("Files and logs:", [str(stage.directory)])
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


def _short(program: Path) -> str:
    """Return how to call a program: by its name where the shell finds it."""
    return program.name if shutil.which(program.name) else str(program)
