"""
What of an inbound is in question, and what can be set aside.

On most nodes nearly every key is quiet and stands there as it should. Such a
key has no step of its own. It can only be drawn into another's: by a user
that shares its slot, or because the last plan remembers it as crowded. Where
neither is so, the plan is the same without the key, and deciding costs no
more than there is to decide.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reconciler.model import Account, Inbound, KeyRow
from reconciler.plan.rows import Rows
from reconciler.plan.users import Apart


@dataclass(frozen=True, slots=True)
class Question:
    """The rows to decide about, and those of our keys on the inbound that matter to them."""

    rows: Mapping[int, KeyRow]
    ours: dict[int, Account]


def in_question(
    inbound: Inbound, rows: Mapping[int, KeyRow], users: Apart, remembered: Collection[int]
) -> Question:
    """Set aside whatever is quiet, right and in nobody's way; rows differ in their slots."""
    if not isinstance(rows, Rows):
        return Question(rows, {key_id: users.account(key_id) for key_id in users.credentials})
    asked = _differing(inbound, rows, users)
    asked.update(remembered)
    slots = {user.account.credential.slot for user in users.foreign}
    slots.update(_slot(users.credentials[key_id]) for key_id in asked if key_id in users.credentials)
    if slots:
        asked.update(key_id for key_id, opens in rows.quiet.items() if _slot(opens) in slots)
    return Question(
        {**rows.rest, **{key_id: rows[key_id] for key_id in asked if key_id in rows.quiet}},
        {key_id: users.account(key_id) for key_id in asked if key_id in users.credentials},
    )


def _differing(inbound: Inbound, rows: Rows, users: Apart) -> set[int]:
    """Return the keys that are listed or quiet, but not both with one account."""
    flow, flows = inbound.flow, users.flows
    asked = set() if {*flows.values()} <= {flow} else {key_id for key_id in flows if flows[key_id] != flow}
    if users.credentials != rows.quiet:
        listed = users.credentials.get
        asked.update(key_id for key_id, opens in rows.quiet.items() if listed(key_id) != opens)
        asked |= users.credentials.keys() - rows.quiet.keys()
    return asked


def _slot(opens: bytes) -> bytes:
    return opens[:6] + opens[8:]
