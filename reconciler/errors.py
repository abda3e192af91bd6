"""
Every error that we raise on purpose.

    ReconcilerError
    ├── ConfigError             the configuration is wrong; every fault at once       exit 78
    ├── StoreError              PostgreSQL
    │   ├── StoreUnavailable    cannot be reached, or broke off; come back later      exit 69
    │   ├── SchemaMismatch      older or newer than this program knows                exit 78
    │   ├── RightsMissing       the role may not do this                              exit 78
    │   └── LeaseLost           somebody else holds the node; nothing was written
    ├── DesiredError            a write to the desired state that makes no sense      exit 1
    │   ├── Invalid             key, value and bound
    │   ├── Unknown             names something that does not exist
    │   └── Taken               names something that exists already
    └── NodeError               one node; `node` says which
        ├── NodeUnreachable     no answer in time: nothing is known, come back later
        └── NodeRejected        the node answered no
            ├── InboundMissing  it has no inbound of this tag
            ├── NodeTooOld      it lacks a call that we need
            ├── NameTaken       add: the name is there, with whatever account; look again
            └── NameMissing     remove: the name is not there, which is what was wanted

An error's text never holds a credential, a token or a DSN.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class ReconcilerError(Exception):
    """The root of the tree."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the configuration: where, what was found, what would be right."""

    key: str
    value: str
    bound: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: {self.bound}"


class ConfigError(ReconcilerError):
    """The configuration is wrong; `faults` lists everything that is."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class StoreError(ReconcilerError):
    """PostgreSQL refused or failed."""


class StoreUnavailable(StoreError):
    """PostgreSQL cannot be reached, or broke off; what was under way may or may not have happened."""


class SchemaMismatch(StoreError):
    """The schema is not the one this program was written for."""

    def __init__(self, found: int, known: int) -> None:
        remedy = "run `reconciler migrate`" if found < known else "upgrade this program"
        super().__init__(f"the schema is at version {found}, this program knows version {known}: {remedy}")
        self.found = found
        self.known = known


class RightsMissing(StoreError):
    """The database role may not do what we need."""


class LeaseLost(StoreError):
    """The node belongs to another daemon by now; the transaction was rolled back."""

    def __init__(self, node: str) -> None:
        super().__init__(f"the lease of node {node} is no longer ours")
        self.node = node


class DesiredError(ReconcilerError):
    """A change of the desired state that was refused; nothing was written."""


class Invalid(DesiredError):
    """A value out of its bound."""

    def __init__(self, key: str, value: object, bound: str) -> None:
        super().__init__(f"{key} = {value!r}: {bound}")
        self.key = key


class Unknown(DesiredError):
    """A name that nothing has."""

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind


class Taken(DesiredError):
    """A name that something has already."""

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"{kind} {name!r} exists already")
        self.kind = kind


class NoRoom(DesiredError):
    """Keys would have nowhere to go; the text has the numbers."""


class NodeError(ReconcilerError):
    """A call to a node failed."""

    def __init__(self, node: str, detail: str) -> None:
        super().__init__(f"{node}: {detail}")
        self.node = node
        self.detail = detail


class NodeUnreachable(NodeError):
    """The node did not answer in time; whether the call took effect is not known."""


class NodeRejected(NodeError):
    """The node answered, and the answer was no; asking again changes nothing until somebody acts."""


class InboundMissing(NodeRejected):
    """The node has no inbound of this tag, or one that holds no users."""


class NodeTooOld(NodeRejected):
    """The node's Xray lacks a call that we need; the text names the version that has it."""


class NameTaken(NodeRejected):
    """An add met its own name; that proves nothing about the account behind it."""


class NameMissing(NodeRejected):
    """A remove met nothing of that name."""
