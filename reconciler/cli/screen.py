"""What commands print: JSON for programs, tables for people, remarks and progress on standard error."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from reconciler.cli.words import plain

NO_NODE = "there is no node: add one by `reconciler node add`"

WIDE = 120
"""Columns from which tables show everything."""

_PIPED_WIDTH = 1_000  # what reads a pipe cuts lines for itself


def console(*, error: bool = False) -> Console:
    """Return a console whose text is taken as it stands."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _PIPED_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def print_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, default=_jsonable, ensure_ascii=False, indent=2))


def _jsonable(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not printed")


def say(text: str, style: str = "") -> None:
    """Print a line of text."""
    console().print(Text(text, style))


def answer(words: str, document: object, *, as_json: bool) -> None:
    """Print what was done: a line for people, or a document for programs."""
    if as_json:
        print_json(document)
    else:
        say(words)


def remark(text: str) -> None:
    """Tell something beside the answer, on standard error."""
    console(error=True).print(Text(f"reconciler: {text}"))


Cell = str | int | Text | None


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], title: str = "") -> None:
    """Print rows under headings; a heading that begins with `>` has its column to the right."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        drawn.add_column(
            Text(column.removeprefix(">")), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    console().print(drawn)


def _cell(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text("-" if cell is None else plain(str(cell)))


@contextmanager
def progress(words: str, total: int) -> Iterator["Bar"]:
    """Show how far long work is, on a terminal only."""
    screen = console(error=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(words, total=total)
        yield Bar(bar, task)


class Bar:
    """Progress under way."""

    def __init__(self, bar: Progress, task: Any) -> None:  # noqa: ANN401 - rich's own number of a task
        self._bar = bar
        self._task = task

    def advance(self, count: int = 1) -> None:
        """Count so many more as done."""
        self._bar.advance(self._task, count)


def record(value: object, **more: object) -> Mapping[str, object]:
    """Return a dataclass as what JSON holds, with more fields."""
    assert is_dataclass(value)
    assert not isinstance(value, type)
    return {**asdict(value), **more}
