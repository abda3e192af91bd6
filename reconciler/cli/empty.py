"""`node empty`: take every key of ours off a draining node."""

from pathlib import Path

import click

from reconciler.cli.confirm import confirm_count
from reconciler.cli.looking import chosen, look_at
from reconciler.cli.options import count_option, json_option, wait_option
from reconciler.cli.orders import await_orders, print_keys, tell_ordered
from reconciler.cli.screen import print_json, remark, say
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import plain, plural
from reconciler.desired import details, look
from reconciler.errors import Invalid, NodeError, ReconcilerError
from reconciler.model import Node, NodeState


class NoRoom(ReconcilerError):
    """A node was to be emptied of keys that no other node takes; nothing was written."""


@click.command()
@click.argument("name", metavar="NODE")
@count_option("keys")
@click.option("--without-room", is_flag=True, help="Also when keys have nowhere to go, and are cut off.")
@wait_option
@json_option
@click.pass_obj
@asynchronous
async def empty(
    path: Path | None, *, name: str, count: int | None, without_room: bool, wait: bool, as_json: bool
) -> None:
    """
    Take every key of ours off NODE, which must be draining.

    Shows the keys, asks for their number, ends their placements, and orders
    the daemon to let them go. Each is placed on another node of its pool; when
    not all of them find room there, nothing is done without --without-room.
    """
    async with open_session(path) as session:
        [row] = await chosen(session, name)
        if row.state is not NodeState.DRAINING:
            raise Invalid("node", name, f"draining, and this one is {row.state}: `reconciler node drain`")
        placed = await look.keys_on(session.connection, row.node_id)
        listed = await _listed(session, row)
        keys = sorted({*placed, *listed})
        if not as_json:
            say(f"{name}: {plural(len(keys), 'key')}", "bold")
            if keys:
                print_keys(
                    ("key", "placed here", "on the node"),
                    [(f"k{key}", _yes(key in placed), _yes(key in listed)) for key in keys],
                )
        orders = []
        if keys:
            await _look_for_room(session, row, without_room=without_room)
            confirm_count(len(keys), "keys", count)
            orders.append((name, await session.operator.empty(name, keys)))
        tell_ordered(orders, wait=wait)
        if wait:
            await await_orders(session, orders)
    if as_json:
        print_json({"node": name, "keys": keys, "orders": [order for _, order in orders]})


async def _look_for_room(session: Session, node: Node, *, without_room: bool) -> None:
    """Raise NoRoom when keys would have nowhere to go, and the operator has not said that they may."""
    homeless = await details.homeless(session.connection, node.node_id)
    if homeless == 0:
        return
    have = "has" if homeless == 1 else "have"
    words = f"{plural(homeless, 'key')} {have} nowhere to go: no other active node of the pool has room"
    if not without_room:
        raise NoRoom(f"{words}; nothing was changed (--without-room cuts their customers off)")
    remark(f"warning: {words}; their customers are out until there is")


async def _listed(session: Session, node: Node) -> set[int]:
    """Return the keys on the node that a row explains; none when it does not answer."""
    try:
        seen = await look_at(session, node)
    except NodeError as error:
        remark(f"warning: {plain(str(error))}; only its placements are known")
        return set()
    return {key for keys in seen.plan.present.values() for key in keys} - seen.plan.orphans


def _yes(answer: bool) -> str:  # noqa: FBT001 - a cell of a table
    return "yes" if answer else "no"
