"""`status`: how every node is doing, as its holder last wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from rich.text import Text

from reconciler.cli.options import json_option
from reconciler.cli.screen import NO_NODE, WIDE, Cell, console, print_json, record, say, table
from reconciler.cli.session import asynchronous, open_session
from reconciler.cli.words import plain, size, span
from reconciler.desired import details, look
from reconciler.desired.look import FleetRow, NodeDetail
from reconciler.model import NodeState, Outcome
from reconciler.status.board import stale_after_seconds

_STYLES = {Outcome.CONVERGED: "green", Outcome.CHANGED: "green", Outcome.HELD: "yellow"}


@dataclass(frozen=True, slots=True)
class Line:
    """One node: its row, its status, and whether that is too old to be believed."""

    node: NodeDetail
    fleet: FleetRow
    now: datetime
    stale: bool

    @property
    def holder(self) -> str | None:
        """Who holds the node now."""
        ends = self.fleet.lease_expires_at
        return self.fleet.holder if ends is not None and ends > self.now else None


@click.command()
@json_option
@click.pass_obj
@asynchronous
async def status(path: Path | None, *, as_json: bool) -> None:
    """
    Show how every node is doing, as the daemon that holds it last wrote.

    users: our keys on the node / those that belong there / the node's
    capacity. A status that nobody has renewed for long is marked stale: it
    says how it was, not how it is.
    """
    async with open_session(path) as session:
        nodes = {node.node_id: node for node in await look.nodes(session.connection)}
        fleet = await look.fleet(session.connection)
        now = await details.now(session.connection)
    bound = stale_after_seconds(session.config.cycle.full_interval_seconds)
    lines = [
        Line(nodes[row.node_id], row, now, is_stale(row, now, bound)) for row in fleet if row.node_id in nodes
    ]
    if as_json:
        print_json({"now": now, "nodes": [_document(line) for line in lines]})
    elif lines:
        _print(lines)
    else:
        say(NO_NODE)


def is_stale(row: FleetRow, now: datetime, bound_seconds: float) -> bool:
    """Whether a node that should be looked at was last tried too long ago, or never."""
    if row.state == NodeState.DISABLED:
        return False
    if row.last_attempt_at is None:
        return True
    return (now - row.last_attempt_at).total_seconds() > bound_seconds


def _document(line: Line) -> dict[str, object]:
    row = line.fleet
    return {
        **record(row, lease_expires_at=None, error=None if row.error is None else plain(row.error)),
        "holder": line.holder,
        "api": line.node.api,
        "pool": line.node.pool,
        "capacity": line.node.capacity,
        "placed": line.node.placed,
        "stale": line.stale,
    }


def _print(lines: Sequence[Line]) -> None:
    wide = console().width >= WIDE
    columns = ["node", "state", *(["pool"] if wide else []), "outcome", "users", ">foreign", ">orphans"]
    columns += [">held", "tried", "equal", *([">traffic", "up", "holder"] if wide else [])]
    table(columns, [_cells(line, wide=wide) for line in lines])
    for line in lines:
        if line.fleet.error:
            screen = console()
            said = Text(f"{line.node.name}: {plain(line.fleet.error)}", "yellow" if line.stale else "red")
            said.truncate(screen.width, overflow="ellipsis")
            screen.print(said)


def _cells(line: Line, *, wide: bool) -> list[Cell]:
    row, node = line.fleet, line.node
    cells: list[Cell] = [row.name, row.state, *([node.pool] if wide else []), _outcome(line), _users(line)]
    cells += [row.foreign_users, row.orphan_users, _alarming(row.held_removals)]
    cells += [_age(row.last_attempt_at, line.now), _age(row.last_converged_at, line.now)]
    return [*cells, *([_traffic(row), _age(row.boot_at, line.now), line.holder] if wide else [])]


def _outcome(line: Line) -> Text:
    outcome = line.fleet.outcome
    if line.fleet.state == NodeState.DISABLED:
        return Text("-", "dim")
    if outcome is None:
        return Text("never tried", "yellow")
    if line.stale:
        return Text(f"stale ({outcome})", "yellow")
    return Text(outcome, _STYLES.get(Outcome(outcome), "red"))


def _users(line: Line) -> str:
    counted = (line.fleet.active_users, line.fleet.desired_users, line.node.capacity)
    return "/".join("-" if count is None else str(count) for count in counted)


def _traffic(row: FleetRow) -> str:
    if row.up_bytes is None or row.down_bytes is None:
        return "-"
    return size(row.up_bytes + row.down_bytes)


def _alarming(count: int | None) -> Text:
    return Text("-" if count is None else str(count), "bold yellow" if count else "")


def _age(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else span((now - moment).total_seconds())
