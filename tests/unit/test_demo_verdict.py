"""When the demonstration says that all held, and when not."""

import asyncio
import io
from contextlib import redirect_stdout
from typing import cast

import pytest
from rich.console import Console

from reconciler.demo.show import CHAPTERS, Chapter, play_chapter
from reconciler.demo.stage import Stage
from reconciler.demo.telling import Telling, span
from reconciler.demo.verdict import Row, exit_code, table
from reconciler.demo.watch import Missed, until
from reconciler.errors import NodeUnreachable

GOOD = Row("a key expired", "refused in 2 s", "0.50 s after its end")
BAD = Row("a key expired", "refused in 2 s", "9.00 s after its end", ("a new connection is refused",))
NO_STAGE = cast("Stage", None)


def shown(*rows: Row) -> str:
    screen = io.StringIO()
    Console(file=screen, width=80).print(table(rows))
    return screen.getvalue()


def test_all_chapters_held_is_success():
    assert exit_code([GOOD] * 8, 8) == 0


def test_one_broken_promise_is_failure():
    assert exit_code([*[GOOD] * 7, BAD], 8) == 1


def test_a_chapter_that_was_not_shown_is_failure():
    assert exit_code([GOOD] * 7, 8) == 1
    assert exit_code([], 8) == 1


def test_the_table_tells_what_did_not_hold():
    text = " ".join(shown(GOOD, BAD).split())

    assert "0.50 s after its end yes" in text
    assert "NOT: a new" in text
    assert "NO" in text.split()


def test_the_table_has_a_line_for_each_chapter_at_80_columns():
    rows = [Row(chapter.title, chapter.promise, "1,000 held, gone in 1.04", ()) for chapter in CHAPTERS]

    numbers = [str(number) for number in range(1, len(CHAPTERS) + 1)]
    assert [line.split()[0] for line in shown(*rows).splitlines()[2:]] == numbers


async def outcome(*acts: object) -> Row:
    async def act(_stage: Stage, tell: Telling) -> str:
        for each in acts:
            if isinstance(each, Exception):
                raise each
            tell.seen("it held", good=bool(each))
        return "measured"

    return await play_chapter(1, Chapter("title", "promise", act), NO_STAGE, Telling())


async def test_what_a_chapter_sees_decides_whether_it_held(capsys):
    assert (await outcome(True, True)).held
    assert (await outcome(True, False)).broken == ("it held",)
    assert "NOT: it held" in capsys.readouterr().out


async def test_a_chapter_that_breaks_off_has_not_held(capsys):
    for error in (Missed("too late"), NodeUnreachable("paris", "no answer"), RuntimeError("did not start")):
        row = await outcome(True, error)
        assert not row.held
        assert str(error) in capsys.readouterr().out


async def test_a_condition_is_asked_until_it_is_true():
    answers = iter([False, False, True])

    async def true() -> bool:
        return next(answers)

    assert await until(true, "it is true") >= 0


async def test_a_condition_that_stays_false_is_missed_and_so_is_one_that_never_answers():
    async def false() -> bool:
        return False

    async def mute() -> bool:
        await asyncio.Event().wait()
        return True

    for condition in (false, mute):
        with pytest.raises(Missed, match="the key is there: not within"):
            await until(condition, "the key is there", 0.05)


def test_long_words_are_wrapped_below_their_first_word(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = io.StringIO()
    with redirect_stdout(screen):
        Telling().seen("word " * 20)

    first, *rest = screen.getvalue().splitlines()
    assert first.startswith("   + word")
    assert rest
    assert all(line.startswith("     word") and len(line) <= 40 for line in rest)


def test_times_are_told_in_a_fitting_unit():
    assert [span(0.0021), span(0.0994), span(0.1), span(1.257)] == ["2 ms", "99 ms", "0.10 s", "1.26 s"]
