"""
What a node may be believed to hold of a few keys, between two listings.

A promise says it: the key stands on every inbound with the promised account.
Where that does not say enough, the answer is None, and the node must be
listed: a promise of another account than the row's does not tell which.
Users that are not ours, and orphans, are as the last listing had them.
"""

from collections.abc import Mapping, Sequence

from reconciler.model import Account, Desired, KeyRow, Listed, Owner


def believed(
    desired: Desired, others: Mapping[str, Sequence[Listed]], owner: Owner
) -> dict[str, list[Listed]] | None:
    """Return the users to plan against for the keys in `desired`; None when only a listing can tell."""
    rows = desired.rows.values()
    if any(_is_unclear(row) for row in rows):
        return None
    present = [row for row in rows if row.kept_promise is not None]
    return {
        inbound.tag: [
            *others.get(inbound.tag, ()),
            *(Listed(owner.name(row.key_id), Account(row.credential, inbound.flow)) for row in present),
        ]
        for inbound in desired.inbounds
    }


def _is_unclear(row: KeyRow) -> bool:
    return row.promise is not None and row.promise.live and row.kept_promise is None
