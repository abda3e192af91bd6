"""What a plan is made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from reconciler.model import Account, Instant, Listed, StepKind


class Breach(StrEnum):
    """The budget from which a step is taken that breaks a promise; each has its own."""

    EARLY = "early"
    OVER_QUOTA = "over_quota"


class Phase(IntEnum):
    """
    When a step is due within its cycle; no phase begins before the one above it has ended.

    Two names with one masked UUID share a slot in Xray, and removing either
    empties it. Listing cannot say who holds it. So a desired key that is
    listed but may lose its slot is taken off first (LIFT): if we break off
    right after, the next cycle sees it missing and adds it. Then the slot is
    freed (FREE), and only then the desired keys go in (ADD).
    """

    EXTEND = 0
    LIFT = 1
    FREE = 2
    ADD = 3
    REPLACE = 4
    REMOVE = 5


@dataclass(frozen=True, slots=True)
class Step:
    """
    One element of a plan: what to do with one key on one inbound.

    `cause` is a word from a closed set that says why. `drift` marks the add
    or replace of a key whose live promise carries the desired account
    already: somebody else changed the node.
    """

    phase: Phase
    inbound: str  # empty for an extend, which touches no node
    key_id: int
    kind: StepKind
    cause: str
    account: Account | None = None  # what is to stand there afterwards
    breach: Breach | None = None
    drift: bool = False
    until: Instant | None = None  # what an extend prolongs the promise to

    def __hash__(self) -> int:
        """Hash what nearly always differs: steps are put into sets by the ten thousand."""
        return hash((self.key_id, self.inbound))

    @property
    def sort_key(self) -> tuple[int, str, int]:
        """Same difference, same plan: steps have one order."""
        return (self.phase, self.inbound, self.key_id)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A key that can neither be added nor removed on an inbound, and the name that is in its way."""

    inbound: str
    key_id: int
    name: str
    desired: bool


class Neighbour(NamedTuple):
    """
    A key of ours that shares a slot with another user after a plan was carried out.

    A newcomer may have taken the slot, and one that has gone may have emptied
    it; the listing says neither. So whatever changes here without our doing
    makes us put the key in anew, as soon as it is not `waiting` any more.
    """

    inbound: str
    key_id: int
    other: Listed
    waiting: bool  # in conflict, or not right itself


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What turns the actual state of one node into the desired one, and what was seen on the way.

    `steps` is in the order of applying. `held` would be steps too, had they
    been let through.
    """

    steps: tuple[Step, ...] = ()
    held: tuple[Step, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    present: Mapping[str, frozenset[int]] = field(default_factory=dict)  # our keys as listed, by tag
    orphans: frozenset[int] = frozenset()  # of these: no row explains them
    strays: frozenset[int] = frozenset()  # of the orphans: the key has a row, but was never placed here
    foreign: int = 0  # distinct names
    unlisted: tuple[str, ...] = ()  # tags of inbounds that could not be listed
    crowded: frozenset[Neighbour] = frozenset()  # for the next plan, once all steps have been carried out

    def breaching(self, breach: Breach) -> Iterator[Step]:
        """Yield the steps, held or not, that are counted on the budget `breach`."""
        return (step for step in (*self.steps, *self.held) if step.breach is breach)

    @property
    def held_keys(self) -> frozenset[int]:
        """The ids of keys with a step that was not let through."""
        return frozenset(step.key_id for step in self.held)
