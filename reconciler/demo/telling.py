"""The running commentary: plain text where nobody sits at a terminal."""

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

WIDEST = 100
"""Columns that a line of prose may take, however wide the terminal is."""

_INDENT = 3
_AS_MILLISECONDS = 0.0995


def span(seconds: float) -> str:
    """Return a measured time as it is told."""
    return f"{seconds * 1000:.0f} ms" if 0 <= seconds < _AS_MILLISECONDS else f"{seconds:.2f} s"


class Telling:
    """Tells the audience what goes on. All of it is ASCII, which every terminal and log can show."""

    def __init__(self) -> None:
        self._screen = Console(markup=False, emoji=False, highlight=False)
        self.broken: list[str] = []
        """What was seen since the last title and is not as it should be."""

    def title(self, words: str) -> None:
        """Begin a part."""
        self.broken = []
        self._screen.print()
        self._screen.print(Text(words, "bold"))

    def say(self, words: str) -> None:
        """Tell what is about to happen, or why."""
        self._prose(words)

    def seen(self, words: str, *, good: bool = True) -> None:
        """Tell what was seen to happen, or, when it is not `good`, that it was not."""
        if not good:
            self.broken.append(words)
        self._prose(words, ("+ ", "green") if good else ("NOT: ", "bold red"))

    def show(self, table: Table) -> None:
        """Print a table."""
        self._screen.print(table)

    def verbatim(self, heading: str, lines: Iterable[str]) -> None:
        """Print lines as they stand, to be copied; the terminal breaks long ones, we do not."""
        self._screen.print(Text(heading, "bold"))
        for line in lines:
            self._screen.print(Text(f"   {line}"), soft_wrap=True)

    @contextmanager
    def waiting(self, words: str) -> Iterator[None]:
        """Show, on a terminal only, what is being waited for."""
        if not self._screen.is_terminal:
            yield
            return
        with self._screen.status(Text(f" {words}", "dim"), spinner="line"):
            yield

    @contextmanager
    def progress(self, words: str, total: int) -> Iterator["Bar"]:
        """Show, on a terminal only, how far long work is."""
        columns = (TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn())
        hidden = not self._screen.is_terminal
        with Progress(*columns, console=self._screen, transient=True, disable=hidden) as bars:
            yield Bar(bars, total, words)

    def _prose(self, words: str, mark: tuple[str, str] = ("", "")) -> None:
        """Print wrapped words after a mark, its style beside it; further lines stand below the first word."""
        indent = " " * (_INDENT + len(mark[0]))
        width = min(self._screen.width, WIDEST)
        wrapped = textwrap.fill(words, width, initial_indent=indent, subsequent_indent=indent)
        first = Text.assemble(" " * _INDENT, mark, wrapped[len(indent) :])
        self._screen.print(first, soft_wrap=True)


class Bar:
    """Work under way."""

    def __init__(self, bars: Progress, total: int, words: str) -> None:
        self._bars = bars
        self._task = bars.add_task(words, total=total)

    def at(self, done: int) -> None:
        """Tell how much is done."""
        self._bars.update(self._task, completed=done)
