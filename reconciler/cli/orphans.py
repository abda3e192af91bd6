"""`orphans`: keys on a node that carry our mark and that no row explains."""

from pathlib import Path

import click

from reconciler.cli.confirm import confirm_count
from reconciler.cli.looking import chosen, look_at
from reconciler.cli.options import count_option, json_option, wait_option
from reconciler.cli.orders import await_orders, must_act, print_keys, tell_ordered
from reconciler.cli.screen import print_json, remark, say
from reconciler.cli.session import asynchronous, open_session
from reconciler.cli.words import plural
from reconciler.model import GREATEST_KEY_ID


@click.command()
@click.argument("node")
@click.option("--remove", is_flag=True, help="Order the daemon to remove them from the node.")
@count_option("orphans")
@wait_option
@json_option
@click.pass_obj
@asynchronous
async def orphans(
    path: Path | None, *, node: str, remove: bool, count: int | None, wait: bool, as_json: bool
) -> None:
    """
    Show the keys on NODE that carry our mark and that no row explains.

    They are kept, because a missing row is more likely an accident than a
    wish. --remove asks for their number and orders just these removed.
    """
    async with open_session(path) as session:
        [row] = await chosen(session, node)
        look = await look_at(session, row)
        owner = await session.owner()
        plan = look.plan
        found = sorted(plan.orphans)
        rows = [(owner.name(key_id), _why(key_id, plan.strays)) for key_id in found]
        if not as_json:
            say(f"{node}: {plural(len(found), 'orphan')}", "bold")
            print_keys(("name", "because"), rows) if rows else None
        orders = []
        removable = [key_id for key_id in found if key_id <= GREATEST_KEY_ID]
        if remove and len(removable) < len(found):
            remark(f"{len(found) - len(removable)} with numbers beyond any key's stay: no order names them")
        if remove and removable:
            must_act(row)
            confirm_count(len(removable), "orphans", count)
            orders.append((node, await session.operator.purge_orphans(node, removable)))
        tell_ordered(orders, wait=wait)
        if wait:
            await await_orders(session, orders)
        if as_json:
            names = [{"name": name, "because": why} for name, why in rows]
            print_json({"node": node, "orphans": names, "orders": [order for _, order in orders]})


def _why(key_id: int, strays: frozenset[int]) -> str:
    return "the key was never placed here" if key_id in strays else "there is no such key"
