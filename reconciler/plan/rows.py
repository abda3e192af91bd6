"""The rows of one node: packed where they say only what is promised already, spelled out where not."""

import struct
from collections.abc import Collection, Iterator, Mapping

from reconciler.model import Credential, Instant, KeyRow, Promise, Standing

_CREDENTIALS = struct.Struct(">q16s40x")
_WHOLE = struct.Struct(">q16sqqq16s")
_EPOCH_MICROSECONDS = 946_684_800_000_000  # PostgreSQL counts from 2000


class Rows(Mapping[int, KeyRow]):
    """
    What the rows say of each key.

    A row is *quiet* when the key is desired, and a live promise says so: the
    right account, no less long, and not broken of late. Of such a row there is only a record of
    64 bytes, as `record` packs it, and the credential in `quiet`; the KeyRow
    is made when somebody asks for it. All others are in `rest`.
    """

    __slots__ = ("_places", "_records", "quiet", "rest")

    def __init__(self, records: bytes, rest: Mapping[int, KeyRow]) -> None:
        self._records = records
        self.quiet: dict[int, bytes] = dict(_CREDENTIALS.iter_unpack(records))
        self.rest = rest
        self._places: dict[int, int] | None = None

    def __len__(self) -> int:
        return len(self.quiet) + len(self.rest)

    def __iter__(self) -> Iterator[int]:
        yield from self.quiet
        yield from self.rest

    def __contains__(self, key_id: object) -> bool:
        return key_id in self.quiet or key_id in self.rest

    def __getitem__(self, key_id: int) -> KeyRow:
        if key_id in self.rest:
            return self.rest[key_id]
        if self._places is None:
            self._places = {each: place for place, each in enumerate(self.quiet)}
        return _row(self._records, self._places[key_id] * _WHOLE.size)

    def __repr__(self) -> str:
        return f"{len(self)} rows"


def record(row: KeyRow) -> bytes:
    """Pack a quiet row as the database does."""
    assert row.promise is not None, "a quiet row is promised"
    times = (_microseconds(it) for it in (row.until, row.changed_at, row.promise.until))
    return _WHOLE.pack(row.key_id, row.credential, *times, row.digest)


def is_quiet(row: KeyRow) -> bool:
    """Whether the row says only what is promised already."""
    promise = row.kept_promise
    placed = row.standing is Standing.DESIRED
    return placed and promise is not None and promise.until >= row.until and not promise.spent


def telling(rows: Mapping[int, KeyRow]) -> Collection[KeyRow]:
    """Return the rows that may say something new; every row that is not desired or not promised is one."""
    return (rows.rest if isinstance(rows, Rows) else rows).values()


def desired_number(rows: Mapping[int, KeyRow]) -> int:
    """Return how many keys are desired."""
    quiet = len(rows.quiet) if isinstance(rows, Rows) else 0
    return quiet + sum(1 for row in telling(rows) if row.desired)


def _row(records: bytes, place: int) -> KeyRow:
    key_id, credential, until, changed_at, promised_until, digest = _WHOLE.unpack_from(records, place)
    return KeyRow(
        key_id,
        Credential(credential),
        Standing.DESIRED,
        _instant(until),
        _instant(changed_at),
        digest,
        Promise(digest, _instant(promised_until), live=True),
    )


def _instant(microseconds: int) -> Instant:
    return (_EPOCH_MICROSECONDS + microseconds) / 1_000_000


def _microseconds(instant: Instant) -> int:
    return round(instant * 1_000_000) - _EPOCH_MICROSECONDS
