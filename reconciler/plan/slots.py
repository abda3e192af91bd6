"""
Who is in whose way on one inbound.

Xray looks a user up by a masked UUID, its slot. Names may share one: the last
add wins it, and removing either name empties it, while the listing goes on
showing the other. So a key cannot leave a slot in which a user stands that is
not ours to judge, and whoever shared a slot may have lost it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.model import Account, Inbound, KeyRow, Listed, Owner
from reconciler.plan.steps import Conflict, Neighbour


@dataclass(frozen=True, slots=True)
class Crowd:
    """The users of one inbound, told apart."""

    inbound: Inbound
    owner: Owner
    ours: Mapping[int, Account]
    foreign: Sequence[Listed]
    kept: frozenset[int]  # orphans that stay
    purged: frozenset[int]  # orphans that an operator ordered off

    def conflicts(self, rows: Iterable[KeyRow]) -> dict[int, Conflict]:
        """
        Find the keys that cannot be touched without hurting a user that is not ours to judge.

        A foreign user in the slot of a key: adding the key takes the slot,
        removing it empties it. A kept orphan in the slot of a key that
        leaves: the orphan would lose it. A foreign name that Xray folds to
        one of ours: whatever we call would reach that user.
        """
        if not (self.foreign or self.kept):
            return {}
        taken = {user.account.credential.slot: user.name for user in sorted(self.foreign, reverse=True)}
        stays = {
            **{self.ours[key_id].credential.slot: self.owner.name(key_id) for key_id in sorted(self.kept)},
            **taken,
        }
        alike = {folded(user.name): user.name for user in self.foreign if not user.name.isascii()}
        found = {}
        for row in rows:
            in_way = alike.get(self.owner.name(row.key_id)) or self._in_way(row, taken, stays)
            if in_way and (row.desired or row.key_id in self.ours):
                found[row.key_id] = Conflict(self.inbound.tag, row.key_id, in_way, row.desired)
        for key_id in self.purged:
            if in_way := stays.get(self.ours[key_id].credential.slot):
                found[key_id] = Conflict(self.inbound.tag, key_id, in_way, desired=False)
        return found

    def _in_way(self, row: KeyRow, taken: Mapping[bytes, str], stays: Mapping[bytes, str]) -> str | None:
        present = self.ours.get(row.key_id)
        if row.desired and (in_way := taken.get(row.credential.slot)):
            return in_way
        if present is None or row.key_id in self.kept or row.key_id in self.purged:
            return None
        if row.desired and present == Account(row.credential, self.inbound.flow):
            return None
        return stays.get(present.credential.slot)

    def neighbours(
        self, after: Mapping[int, Account], stayers: Collection[int], waiting: Collection[int]
    ) -> Iterator[Neighbour]:
        """
        Yield which keys will share a slot with a foreign user, or with a name of ours that only stays there.

        `after` is where our keys will stand, `stayers` are those of them that
        do not belong there, `waiting` those that cannot be put right now.
        """
        users: dict[bytes, list[Listed]] = {}
        for user in (
            *self.foreign,
            *(Listed(self.owner.name(key_id), self.ours[key_id]) for key_id in stayers),
        ):
            users.setdefault(user.account.credential.slot, []).append(user)
        for key_id, account in after.items():
            own = self.owner.name(key_id)
            for user in users.get(account.credential.slot, ()):
                if user.name != own:
                    yield Neighbour(self.inbound.tag, key_id, user, key_id in waiting)


def folded(name: str) -> str:
    """
    Return `name` as Xray compares it.

    Go folds character by character, Python by the full rules of Unicode; of
    all that is not ASCII, only the dotted capital I comes out differently in
    a name that could be one of ours.
    """
    return name.replace("\u0130", "i").lower()
