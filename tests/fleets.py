"""Fleets for the fleet page, made up."""

from dataclasses import replace
from typing import Any

from reconciler.model import Node, NodeState, Outcome
from reconciler.status.board import Board, NodeRow, Sight
from reconciler.status.recorder import Counts

NOW = 1000.0
COUNTS = Counts(active=812, desired=812, foreign=2, orphans=0, held=0)
SIGHT = Sight(Outcome.CONVERGED, counts=COUNTS, tried_at=NOW - 3, converged_at=NOW - 3)
ROW = NodeRow("n1", NodeState.ACTIVE, "default", 2000, "vm-1:812:8f645a37", SIGHT)


def row(name: str, *, seen: Sight = SIGHT, **given: Any) -> NodeRow:
    """A node as its row says; well, and held by another daemon, unless told otherwise."""
    return replace(ROW, name=name, sight=seen, **given)


def sight(outcome: Outcome | None = Outcome.CONVERGED, **given: Any) -> Sight:
    return replace(SIGHT, outcome=outcome, **given)


def taken_on(board: Board, name: str, seen: Sight | None = None) -> Sight:
    """A node that this daemon holds, and what its loop saw."""
    known = board.take_on(Node(1, name, "127.0.0.1:1", NodeState.ACTIVE, ()))
    if seen is not None:
        for field in Sight.__slots__:
            setattr(known, field, getattr(seen, field))
    return known
