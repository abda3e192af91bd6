"""
Reading the audit trail: who changed which desired rows, from what to what.

The triggers of the tables write it, one row for each column that a statement
changed; credentials are not in it. It needs the rights of an operator or a
reader.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, LiteralString

from psycopg.rows import class_row

from reconciler.db.pool import Connection, store_errors
from reconciler.desired import bounds

Target = Literal["key", "subscription", "user", "node"]

GREATEST_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """
    One column that one statement changed, or new rows where `column_name` is None.

    `before` and `after` are those of the row `row_id`; of how many rows in
    all, `rows` says.
    """

    at: datetime
    role: str
    application: str
    transaction_id: str
    table_name: str
    row_id: int
    rows: int
    column_name: str | None
    before: str | None
    after: str | None


_COLUMNS: LiteralString = """
SELECT a.at, a.role, a.application, a.transaction_id::text, a.table_name, a.row_ids[at.place] AS row_id,
       cardinality(a.row_ids) AS rows, a.column_name, a.before[at.place] AS before, a.after[at.place] AS after
"""
_RANGE: LiteralString = """
(%(since)s::timestamptz IS NULL OR a.at >= %(since)s) AND (%(role)s::text IS NULL OR a.role = %(role)s)
"""

_LATEST = f"""
{_COLUMNS}
  FROM reconciler.audit a CROSS JOIN (SELECT 1 AS place) at
 WHERE {_RANGE} ORDER BY a.id DESC LIMIT %(limit)s
"""

_OF_NODE: LiteralString = """
SELECT 'nodes' AS table_name, %(target)s::bigint AS row_id
UNION ALL SELECT 'inbounds', id FROM reconciler.inbounds WHERE node_id = %(target)s
UNION ALL SELECT 'orders', id FROM reconciler.orders WHERE node_id = %(target)s
"""


def _of_access(condition: LiteralString) -> LiteralString:
    return f"""
SELECT DISTINCT found.table_name, found.row_id
    FROM reconciler.users u
    LEFT JOIN reconciler.subscriptions s ON s.user_id = u.id
    LEFT JOIN reconciler.keys k ON k.subscription_id = s.id
    LEFT JOIN reconciler.placements p ON p.key_id = k.id
    LEFT JOIN reconciler.grants g ON g.subscription_id = s.id
    CROSS JOIN LATERAL (VALUES ('users', u.id), ('subscriptions', s.id), ('keys', k.id), ('placements', p.id),
                               ('grants', g.id)) AS found (table_name, row_id)
   WHERE {condition} AND found.row_id IS NOT NULL
"""


def _of(rows: LiteralString) -> LiteralString:
    return f"""
WITH wanted AS MATERIALIZED ({rows})
{_COLUMNS}
  FROM wanted w
  CROSS JOIN LATERAL (
    SELECT * FROM reconciler.audit
     WHERE table_name = w.table_name AND cardinality(row_ids) = 1 AND row_ids[1] = w.row_id
    UNION ALL
    SELECT * FROM reconciler.audit
     WHERE table_name = w.table_name AND cardinality(row_ids) > 1 AND w.row_id = ANY(row_ids)) a
  CROSS JOIN LATERAL array_position(a.row_ids, w.row_id) AS at (place)
 WHERE {_RANGE} ORDER BY a.id DESC, a.table_name, w.row_id LIMIT %(limit)s
"""


# Everything that bears on the target: of a user the subscriptions, their keys, and where those are placed.
_QUERIES: dict[Target | None, LiteralString] = {
    None: _LATEST,
    "user": _of(_of_access("u.id = %(target)s")),
    "subscription": _of(_of_access("s.id = %(target)s")),
    "key": _of(_of_access("k.id = %(target)s")),
    "node": _of(_OF_NODE),
}


async def changes(
    connection: Connection,
    kind: Target | None = None,
    target: int | None = None,
    *,
    since: datetime | None = None,
    role: str | None = None,
    limit: int = 100,
) -> list[Change]:
    """
    Return the latest changes, newest first; of one target's rows, or of all.

    Of all, a statement that changed many rows is told once, by the first of
    them. Raises Invalid.
    """
    bounds.whole("limit", limit, 1, GREATEST_LIMIT)
    if since is not None:
        bounds.instant("since", since)
    given = {"target": target, "since": since, "role": role, "limit": limit}
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(Change))
        return await (await cursor.execute(_QUERIES[kind], given)).fetchall()
