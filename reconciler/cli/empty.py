"""`node empty`: take every key of ours off a draining node."""

from collections.abc import Collection
from pathlib import Path

import click

from reconciler.cli.confirm import confirm_count
from reconciler.cli.looking import chosen, look_at
from reconciler.cli.move import await_left
from reconciler.cli.options import count_option, json_option, wait_option
from reconciler.cli.orders import await_orders, print_keys, tell_ordered
from reconciler.cli.screen import print_json, remark, say
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import plain, plural
from reconciler.desired import look, room
from reconciler.errors import Invalid, NodeError, NoRoom
from reconciler.model import Node, NodeState


@click.command()
@click.argument("name", metavar="NODE")
@count_option("keys")
@click.option("--now", "at_once", is_flag=True, help="Wait for no other node: customers may be out.")
@click.option("--without-room", is_flag=True, help="Also when keys have nowhere to go.")
@wait_option
@json_option
@click.pass_obj
@asynchronous
async def empty(
    path: Path | None,
    *,
    name: str,
    count: int | None,
    at_once: bool,
    without_room: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """
    Take every key of ours off NODE, which must be draining.

    Shows the keys, asks for their number, and orders the daemon to let them
    go. Each is placed on another node of its pool, and goes as soon as that
    one surely has it; with --now all go at once. When not all of them find
    room elsewhere, nothing is done without --without-room: such keys stay
    until there is room, or with --now are cut off.
    """
    async with open_session(path) as session:
        [row] = await chosen(session, name)
        if row.state is not NodeState.DRAINING:
            raise Invalid("node", name, f"draining, and this one is {row.state}: `reconciler node drain`")
        placed = await look.keys_on(session.connection, row.node_id)
        listed = await listed_on(session, row)
        keys = sorted({*placed, *listed})
        if not as_json:
            print_inhabitants(name, placed, listed)
        orders = []
        if keys:
            await _look_for_room(session, row, without_room=without_room)
            confirm_count(len(keys), "keys", count)
            grace = None if at_once else 0
            orders.append((name, await session.operator.empty(name, keys, grace_seconds=grace)))
        tell_ordered(orders, wait=wait)
        if wait:
            await await_orders(session, orders)
            await await_left(session, name, row.node_id)
    if as_json:
        print_json({"node": name, "keys": keys, "orders": [order for _, order in orders]})


async def _look_for_room(session: Session, node: Node, *, without_room: bool) -> None:
    """Raise NoRoom when keys would have nowhere to go, and the operator has not said that they may."""
    short = [str(pool) for pool in await room.without(session.connection, node.node_id) if pool.homeless]
    if not short:
        return
    words = f"{node.name} has {'; '.join(short)}"
    if not without_room:
        raise NoRoom(f"{words}; nothing was changed (--without-room does it all the same)")
    remark(f"warning: {words}")


def print_inhabitants(name: str, placed: Collection[int], listed: Collection[int]) -> None:
    """Print which keys of ours are on a node, by rows and by what it lists."""
    keys = sorted({*placed, *listed})
    say(f"{name}: {plural(len(keys), 'key')}", "bold")
    if keys:
        rows = [(f"k{key}", _yes(key in placed), _yes(key in listed)) for key in keys]
        print_keys(("key", "placed here", "on the node"), rows)


async def listed_on(session: Session, node: Node, *, orphans: bool = False) -> set[int]:
    """Return the keys on a node, `orphans` or not; none when it does not answer."""
    try:
        seen = await look_at(session, node)
    except NodeError as error:
        remark(f"warning: {plain(str(error))}; only its placements are known")
        return set()
    present = {key for keys in seen.plan.present.values() for key in keys}
    return present if orphans else present - seen.plan.orphans


def _yes(answer: bool) -> str:  # noqa: FBT001 - a cell of a table
    return "yes" if answer else "no"
