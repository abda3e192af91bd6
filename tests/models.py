"""
Plain models, without I/O, of what the daemon acts on: Xray's users and the promises table.

They are the reference that properties and simulations are held against, so
they are written for being read beside the real thing, not for speed.
"""

from dataclasses import dataclass, field

from reconciler.errors import NameMissing, NameTaken
from reconciler.model import Account, Desired, Instant, Listed, Promise
from reconciler.plan.settle import Made, Settlement
from reconciler.plan.steps import Breach, Step
from tests.builders import HOUR


def folded(name: str) -> str:
    """Return `name` as Xray compares it: Go folds each character by itself, and these two become ASCII."""
    return name.replace("\u0130", "i").replace("\u212a", "k").lower()


@dataclass
class UserMap:
    """
    The users of one inbound as Xray keeps them: by folded name, and by slot for the handshake.

    The last add wins a slot. Removing a name empties the slot of its
    account, whoever holds it. Listing shows the names alone.
    """

    by_name: dict[str, Listed] = field(default_factory=dict)
    slots: dict[bytes, Listed] = field(default_factory=dict)

    def add(self, name: str, account: Account) -> None:
        """Put a user on; raises NameTaken."""
        if folded(name) in self.by_name:
            raise NameTaken("model", "already exists")
        user = Listed(name, account)
        self.by_name[folded(name)] = user
        self.slots[account.credential.slot] = user

    def remove(self, name: str) -> None:
        """Take a user off; raises NameMissing."""
        user = self.by_name.pop(folded(name), None)
        if user is None:
            raise NameMissing("model", "not found")
        self.slots.pop(user.account.credential.slot, None)

    def listing(self) -> tuple[Listed, ...]:
        """Return all users, in no order that means anything."""
        return tuple(self.by_name.values())

    def opened_by(self, account: Account) -> str | None:
        """Return the name that a client with this account gets in as, None when it is refused."""
        holder = self.slots.get(account.credential.slot)
        return holder.name if holder and holder.account.flow == account.flow else None

    def shut_out(self) -> frozenset[str]:
        """Return the names that are listed, alone in a slot, and do not hold it: no listing can tell."""
        standing: dict[bytes, list[Listed]] = {}
        for user in self.by_name.values():
            standing.setdefault(user.account.credential.slot, []).append(user)
        return frozenset(
            users[0].name for slot, users in standing.items() if len(users) == 1 and slot not in self.slots
        )

    def let_in(self, name: str) -> None:
        """Give a listed name the slot of its account."""
        if (user := self.by_name.get(folded(name))) is not None:
            self.slots.setdefault(user.account.credential.slot, user)


@dataclass
class PromiseRow:
    """One row of the promises table on one node."""

    key_id: int
    digest: bytes
    until: Instant
    ended: str | None = None
    early: Breach | None = None
    early_at: Instant = 0.0

    def spent(self, now: Instant) -> bool:
        """Whether breaking it is counted in the last hour."""
        return self.early is not None and self.early_at > now - HOUR


@dataclass
class Promises:
    """The promises table of one node: at most one live row per key, ended ones are history."""

    rows: list[PromiseRow] = field(default_factory=list)

    def live(self, key_id: int) -> PromiseRow | None:
        """Return the live row of a key."""
        return next((row for row in self.rows if row.key_id == key_id and row.ended is None), None)

    def of(self, key_id: int, now: Instant) -> Promise | None:
        """Return what a snapshot says of a key: its live promise, else its newest ended one."""
        row = self.live(key_id) or next((row for row in reversed(self.rows) if row.key_id == key_id), None)
        if row is None:
            return None
        live = row.ended is None
        return Promise(row.digest, row.until, live, spent=live and row.spent(now))

    def spent(self, breach: Breach, now: Instant) -> int:
        """Return how much of a budget the last hour has used."""
        return sum(1 for row in self.rows if row.early is breach and row.spent(now))

    def mark(self, key_id: int, breach: Breach, now: Instant) -> None:
        """
        Write down, ahead of the step, that a promise is about to be broken.

        A promise that is marked already stays with the budget that paid for
        it, and its hour begins anew, because the step may come only now.
        """
        row = self.live(key_id)
        if row is None:
            row = PromiseRow(key_id, b"", float("inf"))
            self.rows.append(row)
        if not row.spent(now):
            row.early = breach
        row.early_at = now

    def settle(self, settlement: Settlement) -> None:
        """Write what a cycle has settled."""
        for made in (*settlement.made, *settlement.extended):
            self._make(made)
        for ended in settlement.ended:
            if (row := self.live(ended.key_id)) is not None:
                row.ended = ended.reason

    def _make(self, made: Made) -> None:
        row = self.live(made.key_id)
        if row is not None and row.digest == made.digest:
            row.until = max(row.until, made.until)
            return
        until = made.until
        if row is not None:
            row.ended = "replaced"
            until = max(until, row.until) if row.digest else until
        self.rows.append(PromiseRow(made.key_id, made.digest, until))

    def release(self, desired: Desired, step: Step) -> None:
        """Re-base the promise of one key to its row, as an operator ordered."""
        row = self.live(step.key_id)
        facts = desired.rows[step.key_id]
        if row is None:
            row = PromiseRow(step.key_id, facts.digest, desired.now if not facts.desired else facts.until)
            self.rows.append(row)
        if facts.desired:
            row.digest = facts.digest
        else:
            row.until = min(row.until, desired.now)
