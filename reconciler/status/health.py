"""
How it goes, kept in memory: whether the loops turn, and whether the work goes well.

Alive means that every loop has turned within its own limit, and depends on
nothing outside: a database that is down must not get the program restarted.
Ready means that the database was read lately and every node has been tried.
What is merely worth knowing, removals that are frozen for instance, is shown
beside the checks and makes neither fail, because everything else goes on.

Times are readings of one monotonic clock, passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_NAMED_AT_MOST = 5


class Check(NamedTuple):
    """One thing looked at; one that is not `required` is shown, and fails nothing."""

    name: str
    ok: bool
    detail: str
    required: bool = True


@dataclass(slots=True)
class _Loop:
    within_seconds: float
    turned_at: float
    node: bool
    tried: bool = False


class Health:
    """The record that loops write and the endpoints and the watchdog read."""

    def __init__(self, database_within_seconds: float = 30.0) -> None:
        self._database_within_seconds = database_within_seconds
        self._database_read_at: float | None = None
        self._loops: dict[str, _Loop] = {}
        self._notes: dict[str, Check] = {}
        self._stopping = False

    def expect(self, loop: str, within_seconds: float, now: float, *, node: bool = False) -> None:
        """
        Expect a beat of `loop` within so many seconds, from now on, again and again.

        A `node` must have beaten once before we are ready. Said again of a
        known loop, this changes the limit and forgives nothing.
        """
        known = self._loops.setdefault(loop, _Loop(within_seconds, now, node))
        known.within_seconds = within_seconds

    def beat(self, loop: str, now: float) -> None:
        """Say that `loop` has turned, whatever came of it."""
        if known := self._loops.get(loop):
            known.turned_at = now
            known.tried = True

    def forget(self, loop: str) -> None:
        """Expect no more of `loop`."""
        self._loops.pop(loop, None)

    def database_read(self, now: float) -> None:
        """Say that the desired state could be read."""
        self._database_read_at = now

    def stopping(self) -> None:
        """Say that the end has begun; there is no way back."""
        self._stopping = True

    def note(self, name: str, detail: str, *, ok: bool = False) -> None:
        """Show something worth knowing until it is cleared; what is `ok`, to those who want it all."""
        self._notes[name] = Check(name, ok, detail, required=False)

    def note_nodes(self, name: str, nodes: Sequence[str]) -> None:
        """Show what is worth knowing of some nodes, as long as there are any."""
        if nodes:
            self.note(name, f"on {_some(nodes)}")
        else:
            self.clear(name)

    def clear(self, name: str) -> None:
        """Show it no more."""
        self._notes.pop(name, None)

    def live(self, now: float) -> list[Check]:
        """Return a check for each loop, whether it has turned within its limit."""
        return [_turned(name, loop, now) for name, loop in sorted(self._loops.items())]

    def ready(self, now: float) -> list[Check]:
        """Return the checks of the work: not stopping, database read lately, every node tried once."""
        notes = [note for _, note in sorted(self._notes.items())]
        return [self._running(), self._database(now), self._first_cycles(), *notes]

    def _running(self) -> Check:
        return Check("running", not self._stopping, "stopping" if self._stopping else "yes")

    def _database(self, now: float) -> Check:
        limit = f"limit {self._database_within_seconds:g} s"
        if self._database_read_at is None:
            return Check("database", ok=False, detail=f"not read yet, {limit}")
        age = now - self._database_read_at
        return Check("database", age <= self._database_within_seconds, f"read {age:.1f} s ago, {limit}")

    def _first_cycles(self) -> Check:
        nodes = {name: loop.tried for name, loop in sorted(self._loops.items()) if loop.node}
        waiting = [name for name, tried in nodes.items() if not tried]
        detail = f"{len(nodes) - len(waiting)} of {len(nodes)} nodes tried"
        if waiting:
            detail += f", waiting for {_some(waiting)}"
        return Check("first cycles", not waiting, detail)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")


def healthy(checks: list[Check]) -> bool:
    """Tell whether every required check holds."""
    return all(check.ok or not check.required for check in checks)


def _turned(name: str, loop: _Loop, now: float) -> Check:
    age = now - loop.turned_at
    detail = f"turned {age:.1f} s ago, limit {loop.within_seconds:g} s"
    return Check(name, age <= loop.within_seconds, detail)
