"""What a run has found, as a table for people and as a document for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from tests.bench.figures import Row, Spread


@dataclass(slots=True)
class Findings:
    """Rows of the table, what is left to say, and the raw series behind them."""

    rows: list[Row] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)  # CPU of foreign programs, as a share of a core


def table(rows: Sequence[Row]) -> Table:
    """Lay the rows out, what is judged first."""
    made = Table(
        title=escape("measured beside its reference, in one run: median [least..greatest]"),
        title_justify="left",
    )
    for name in ("", "measure", "score", "goal", "held", "ours", "beside", "unit"):
        made.add_column(name, justify="right" if name in ("score", "ours") else "left")
    for row in rows:
        made.add_row(*(escape(cell) for cell in cells(row)), style=_STYLES[row.held])
    return made


def cells(row: Row) -> tuple[str, ...]:
    """Return the words of one line."""
    score = "" if row.score is None else f"{shown(row.score)} {row.score_unit}"
    beside = row.beside if row.reference is None else f"{row.beside} {shown(row.reference)}"
    goal = "" if row.goal is None else row.goal.words
    return row.measure, row.what, score, goal, _verdict(row), shown(row.ours), beside, row.unit


def shown(figure: Spread) -> str:
    """Return a spread in a few words; a single run has none."""
    if figure.runs == 1:
        return number(figure.median)
    return f"{number(figure.median)} [{number(figure.low)}..{number(figure.high)}]"


def _verdict(row: Row) -> str:
    return _WORDS[row.held] if row.sure else f"{_WORDS[row.held]}, unsure"


def number(value: float) -> str:
    """Return a number with about three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def document(findings: Findings, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of it as JSON has it."""
    rows = [asdict(row) | {"held": row.held, "sure": row.sure} for row in findings.rows]
    return {
        "machine": dict(machine),
        "rows": rows,
        "notes": findings.notes,
        "foreign_cpu_cores": findings.noise,
        "series": findings.series,
    }


_WORDS = {True: "yes", False: "NO", None: ""}
_STYLES = {True: "green", False: "bold red", None: ""}
