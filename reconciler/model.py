"""The nouns: frozen values that every part of the tree shares."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

Instant: TypeAlias = float
"""Seconds since 1970 by the database's clock; microseconds survive the way to PostgreSQL and back."""

GREATEST_KEY_ID = 2**63 - 1


class Protocol(StrEnum):
    """The kinds of inbound whose users we manage."""

    VLESS = "vless"
    VMESS = "vmess"
    TROJAN = "trojan"


class NodeState(StrEnum):
    """What the operator wants done with a node."""

    OBSERVED = "observed"  # read, diff, report; never act
    ACTIVE = "active"
    DRAINING = "draining"  # no new keys
    DISABLED = "disabled"  # left alone: no calls at all


class Outcome(StrEnum):
    """How a cycle ended; when several apply, the first in this order."""

    FAILED = "failed"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"
    HELD = "held"
    CHANGED = "changed"
    CONVERGED = "converged"


class StepKind(StrEnum):
    """The elements of a plan."""

    EXTEND = "extend"  # a promise only; the node is not touched
    ADD = "add"
    REPLACE = "replace"  # remove, then add the desired account
    REMOVE = "remove"


class OrderKind(StrEnum):
    """What an operator may tell the daemon to do once."""

    RELEASE = "release"
    PURGE_ORPHANS = "purge_orphans"
    EMPTY = "empty"
    LEAVE_BEHIND = "leave_behind"  # at the address that a node had before


class Standing(StrEnum):
    """What the rows say of a key on one node: desired, or why it is not."""

    DESIRED = "desired"
    NOT_STARTED = "not_started"
    EXPIRED = "expired"
    REVOKED = "revoked"
    OVER_QUOTA = "over_quota"
    WAITING = "waiting"  # its placement here was ended, but it stays until another node has it
    MOVED = "moved"  # placed elsewhere, and the other node has it
    UNPLACED = "unplaced"  # its placement here was ended, no other node has it, and nothing is owed here
    STRAY = "stray"  # never placed here: no row explains its presence, so it is kept like an orphan


class Credential(bytes):
    """
    A key's UUID as its 16 bytes.

    It opens the door like a password, so no way of printing it shows it;
    `text()` is the one way out, and only the node adapter and `link` take it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "credential:…"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def text(self) -> str:
        """Return the canonical UUID text."""
        text = self.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    @property
    def slot(self) -> bytes:
        """What Xray looks a user up by: the UUID without its bytes 7 and 8."""
        return self[:6] + self[8:]


class Account(NamedTuple):
    """What opens the door on one inbound, whose protocol is understood."""

    credential: Credential
    flow: str = ""


class Listed(NamedTuple):
    """One user as a node lists it; the name is as the node wrote it, not folded."""

    name: str
    account: Account


@dataclass(frozen=True, slots=True)
class Inbound:
    """A tagged listener of a node that holds users."""

    tag: str
    protocol: Protocol
    flow: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One Xray process as its row describes it."""

    node_id: int
    name: str
    api: str
    state: NodeState
    inbounds: tuple[Inbound, ...]


class Probe(NamedTuple):
    """The cheap look at a node: how long it has run, and how many users each inbound has."""

    uptime_seconds: int
    users: Mapping[str, int]


class Vitals(NamedTuple):
    """Signs of life of one Xray process; as long as it lives none of them falls."""

    uptime_seconds: int
    allocated_bytes: int  # ever, not at present
    allocations: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Our mark. Two programs with one mark would take each other's users for their own."""

    mark: str

    def name(self, key_id: int) -> str:
        """Return the name under which a key stands on a node."""
        return f"k{key_id}@{self.mark}"

    def key_id(self, name: str) -> int | None:
        """
        Return the id of the key that `name` stands for, None when the name is foreign.

        Folded only when it is ASCII: Unicode folds the Kelvin sign to k, and
        a name of Arabic digits is somebody else's.
        """
        if not name.isascii():
            return None
        number, at, mark = name.lower().partition("@")
        if not at or mark != self.mark or not _OURS.fullmatch(number):
            return None
        return int(number[1:])


_OURS = re.compile(r"k[1-9][0-9]{0,4000}")


@dataclass(frozen=True, slots=True)
class Promise:
    """What we owe a key on a node; one that has ended says only that nothing is owed any more."""

    digest: bytes
    until: Instant
    live: bool
    spent: bool = False  # a step against it is counted in the last hour already


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What the rows say of one key on one node."""

    key_id: int
    credential: Credential
    standing: Standing
    until: Instant  # the end of its subscription
    changed_at: Instant  # when the newest of its rows changed
    digest: bytes  # of the account it should have on this node
    promise: Promise | None

    @property
    def desired(self) -> bool:
        """Whether the key belongs on the node now."""
        return self.standing in (Standing.DESIRED, Standing.WAITING)

    @property
    def kept_promise(self) -> Promise | None:
        """The live promise, when it carries the account that the key should have."""
        promise = self.promise
        return promise if promise and promise.live and promise.digest == self.digest else None


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's word about exactly these keys of one node."""

    order_id: int
    kind: OrderKind
    key_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Desired:
    """What PostgreSQL says of one node: one consistent snapshot, and the time it was taken."""

    now: Instant
    inbounds: tuple[Inbound, ...]
    rows: Mapping[int, KeyRow]
    early_spent: int = 0  # early steps of the last hour on this node
    quota_spent: int = 0  # the same for the budget of keys over their quota
    orders: tuple[Order, ...] = ()
    state: NodeState = NodeState.ACTIVE
