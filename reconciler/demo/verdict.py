"""What became of each promise, and whether all of them held."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Row:
    """A chapter: its promise beside what was measured; `broken` tells what of it did not hold."""

    chapter: str
    promised: str
    measured: str
    broken: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether all of it held."""
        return not self.broken


def exit_code(rows: Sequence[Row], chapters: int) -> int:
    """Return 0 when there is a row for each of so many chapters, and all of them held; else 1."""
    return 0 if len(rows) == chapters and all(row.held for row in rows) else 1


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as they are shown."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("", justify="right", style="dim")
    for heading in ("chapter", "promised", "measured"):
        drawn.add_column(heading)
    drawn.add_column("held", no_wrap=True)
    for number, row in enumerate(rows, start=1):
        held = Text("yes", "green") if row.held else Text("NO", "bold red")
        measured = "; ".join([row.measured, *(f"NOT: {words}" for words in row.broken)])
        drawn.add_row(str(number), Text(row.chapter), Text(row.promised), Text(measured.lstrip("; ")), held)
    return drawn
