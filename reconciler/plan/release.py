"""What an operator's release does to the promises: from now on they say what the rows say."""

from collections.abc import Collection
from dataclasses import replace

from reconciler.model import Desired, KeyRow, Promise


def release(desired: Desired, key_ids: Collection[int]) -> Desired:
    """Return `desired` with the promises of these keys re-based; it is then routine to act on them."""
    rows = dict(desired.rows)
    for key_id in key_ids:
        rows[key_id] = replace(rows[key_id], promise=rebased(rows[key_id], desired))
    return replace(desired, rows=rows)


def rebased(row: KeyRow, desired: Desired) -> Promise:
    """Return the promise that the row alone would have led to."""
    until = row.until if row.desired else desired.now
    promise = row.promise
    if promise is not None and promise.live:
        until = min(promise.until, until)
    return Promise(row.digest, until, live=True)
