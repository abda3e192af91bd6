"""`compare`: per node what the rows want, what is promised and what was listed, and where they disagree."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from rich.text import Text

from reconciler.cli.looking import chosen
from reconciler.cli.options import json_option
from reconciler.cli.program import DIFFERENCES
from reconciler.cli.screen import NO_NODE, Cell, print_json, record, say, table
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import away, plain, plural
from reconciler.desired import details, look
from reconciler.desired.details import Homeless
from reconciler.desired.look import FleetRow
from reconciler.model import Desired, KeyRow, Node, NodeState, Standing
from reconciler.plan.rows import desired_number, telling

_ENDED = {
    Standing.NOT_STARTED: "its subscription has not begun",
    Standing.EXPIRED: "its subscription has ended",
    Standing.REVOKED: "it was revoked",
    Standing.OVER_QUOTA: "its traffic is used up",
    Standing.MOVED: "it was moved, and another node has it",
    Standing.UNPLACED: "its placement there was ended",
    Standing.STRAY: "it was never placed there",
}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One thing that is not as it should be; of a key, or of a node's numbers where `key_id` is None."""

    node: str | None
    key_id: int | None
    words: str


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What is said of one node: by the rows, by the promises, and by its last listing.

    `listed` counts our keys, orphans among them; None before the first
    listing.
    """

    node: str
    state: NodeState
    belong: int
    promised: int
    listed: int | None
    orphans: int | None
    listed_at: datetime | None
    disagreements: list[Disagreement]


@click.command()
@click.argument("node", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Lines at most.")
@json_option
@click.pass_obj
@asynchronous
async def compare(path: Path | None, *, node: str | None, limit: int, as_json: bool) -> int:
    """
    Compare, per node, what the rows want, what is promised and what was listed; exit 2 where they disagree.

    No node is asked: `listed` is what its holder last wrote. Changes under
    way show up here for a moment; `plan NODE` asks the node itself. Of a node
    that is only observed nothing is owed, so only the numbers are told.
    """
    async with open_session(path) as session:
        nodes = await chosen(session, node)
        fleet = {row.node_id: row for row in await look.fleet(session.connection)}
        slots = asyncio.Semaphore(session.config.database.pool_size)
        found = await asyncio.gather(*(_totals(session, one, fleet[one.node_id], slots) for one in nodes))
        homeless = await details.keys_without_node(session.connection) if node is None else []
        now = await details.now(session.connection)
    wrong = [one for totals in found for one in totals.disagreements]
    wrong += [Disagreement(None, one.key_id, _without(one)) for one in homeless]
    if as_json:
        print_json(
            {
                "nodes": [record(one, disagreements=len(one.disagreements)) for one in found],
                "disagreements": wrong,
            }
        )
    else:
        _print(found, wrong, now, limit)
    return DIFFERENCES if wrong else 0


async def _totals(session: Session, node: Node, status: FleetRow, slots: asyncio.Semaphore) -> Totals:
    reader = await session.reader()
    async with slots:
        desired = await reader.snapshot(node.node_id, ())
    acting = node.state in (NodeState.ACTIVE, NodeState.DRAINING)
    rows = desired.rows
    told = telling(rows)
    promised = len(rows) - sum(1 for row in told if row.promise is None or not row.promise.live)
    listed = status.active_users if status.last_full_at is not None else None
    totals = Totals(
        node.name,
        node.state,
        desired_number(rows),
        promised,
        listed,
        status.orphan_users,
        status.last_full_at,
        [],
    )
    if acting:
        totals.disagreements.extend(_of_numbers(totals))
        totals.disagreements.extend(of_keys(node.name, desired))
    return totals


def _of_numbers(totals: Totals) -> Iterator[Disagreement]:
    orphans = totals.orphans or 0
    if totals.listed is None:
        if totals.promised or totals.belong:
            yield Disagreement(totals.node, None, "was never listed")
    elif totals.listed - orphans != totals.promised:
        words = f"{totals.promised:,} promised, and {totals.listed:,} of ours listed"
        kept = f", {orphans:,} of them orphans" if orphans else ""
        yield Disagreement(totals.node, None, f"{words}{kept}: `reconciler plan {totals.node}` names them")


def of_keys(node: str, desired: Desired) -> list[Disagreement]:
    """Return where rows and promises of a node disagree, by key. Pure."""
    rows = sorted(telling(desired.rows), key=lambda row: row.key_id)
    return [Disagreement(node, row.key_id, words) for row in rows if (words := _why(row))]


def _why(row: KeyRow) -> str | None:
    promise = row.promise if row.promise and row.promise.live else None
    if not row.desired:
        return f"promised, and does not belong there: {_ENDED[row.standing]}" if promise else None
    if promise is None:
        return "belongs there, and is not promised yet"
    if promise.digest != row.digest:
        return "belongs there, and is promised with another account"
    if promise.until < row.until:
        return "belongs there for longer than it is promised"
    return None


def _without(key: Homeless) -> str:
    return f"in force, and on no node of its pool {key.pool}"


def _print(found: Sequence[Totals], wrong: Sequence[Disagreement], now: datetime, limit: int) -> None:
    if not found:
        say(NO_NODE)
        return
    columns = ("node", "state", ">belong", ">promised", ">listed", ">orphans", "as of", ">disagree")
    table(columns, [_cells(totals, now) for totals in found])
    for one in wrong[:limit]:
        where = one.node or "no node"
        say(f"{where}: {plain(one.words)}" if one.key_id is None else f"{where}: k{one.key_id} {one.words}")
    if len(wrong) > limit:
        say(f"and {len(wrong) - limit:,} more: --limit {len(wrong)}")
    say("they agree" if not wrong else plural(len(wrong), "disagreement"))


def _cells(totals: Totals, now: datetime) -> tuple[Cell, ...]:
    number = len(totals.disagreements)
    style = "bold yellow" if number else ""
    numbers = (totals.belong, totals.promised, totals.listed, totals.orphans)
    return (totals.node, totals.state, *numbers, away(totals.listed_at, now), Text(str(number), style))
