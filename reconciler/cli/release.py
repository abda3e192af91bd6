"""`release`: let held steps go."""

from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.confirm import confirm_count
from reconciler.cli.looking import chosen, look_at, releasable
from reconciler.cli.options import count_option, json_option, wait_option
from reconciler.cli.orders import await_orders, must_act, print_keys, tell_ordered
from reconciler.cli.screen import print_json, say
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.desired import details
from reconciler.errors import Invalid, Unknown
from reconciler.model import Node
from reconciler.plan.steps import Step

Held = dict[str, list[Step]]


@click.command()
@click.argument("target", metavar="NODE|KEY")
@count_option("keys")
@wait_option
@json_option
@click.pass_obj
@asynchronous
async def release(path: Path | None, *, target: str, count: int | None, wait: bool, as_json: bool) -> None:
    """
    Let the steps go that the guard holds, on NODE or for one KEY.

    Shows exactly what is held, asks for the number of keys, and writes an
    order over just these keys. The daemon carries it out in its next cycle,
    and what is owed to them is from then on what their rows say.
    """
    async with open_session(path) as session:
        nodes, only = await _nodes(session, target)
        held = await _held(session, nodes, only)
        keys = sum(len(_keys(steps)) for steps in held.values())
        if not as_json:
            _print(held)
        orders = []
        if keys:
            for node in nodes:
                must_act(node)
            confirm_count(keys, "held keys", count)
            for name, steps in held.items():
                orders.append((name, await session.operator.release(name, _keys(steps))))
        tell_ordered(orders, wait=wait)
        if wait:
            await await_orders(session, orders)
        if as_json:
            print_json({"held": _document(held), "orders": [order for _, order in orders]})


async def _held(session: Session, nodes: Sequence[Node], only: int | None) -> Held:
    """Return the held steps by node; `only` names the one key that is asked about."""
    held: Held = {}
    for node in nodes:
        steps = releasable(await look_at(session, node))
        if only is not None:
            steps = [step for step in steps if step.key_id == only]
        if steps:
            held[node.name] = steps
    return held


async def _nodes(session: Session, target: str) -> tuple[list[Node], int | None]:
    """Return the nodes to ask, and the key when `target` is no node."""
    try:
        return await chosen(session, target), None
    except Unknown:
        key_id = await targets.maybe_key_id(session, target)
    if key_id is None:
        raise Unknown("node or key", target)
    await details.keys(session.connection, [key_id])
    names = {carrier.node for carrier in await details.carriers(session.connection, key_id)}
    if not names:
        raise Invalid("key", target, "one that is on a node")
    return [node for node in await chosen(session, None) if node.name in names], key_id


def _keys(steps: Sequence[Step]) -> list[int]:
    return sorted({step.key_id for step in steps})


def _print(held: Held) -> None:
    if not held:
        say("nothing is held")
    for name, steps in held.items():
        say(f"{name}: held back", "bold")
        rows = [(step.kind, step.key_id, step.inbound, step.cause) for step in steps]
        print_keys(("step", ">key", "inbound", "cause"), rows)


def _document(held: Held) -> list[dict[str, object]]:
    return [
        {"node": name, "key": step.key_id, "step": step.kind, "inbound": step.inbound, "cause": step.cause}
        for name, steps in held.items()
        for step in steps
    ]
