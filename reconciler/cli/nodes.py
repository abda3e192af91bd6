"""`node`: which Xray processes there are, and what is to be done with each."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click

from reconciler.cli import meeting
from reconciler.cli.empty import empty
from reconciler.cli.inbounds import inbound_group
from reconciler.cli.move import drain
from reconciler.cli.node_set import set_node
from reconciler.cli.options import inbound, json_option
from reconciler.cli.screen import NO_NODE, answer, print_json, record, remark, say, table
from reconciler.cli.session import asynchronous, open_session
from reconciler.cli.words import plural
from reconciler.desired import look
from reconciler.desired.nodes import NewNode
from reconciler.model import Inbound, NodeState


class RowOptions(TypedDict):
    """A node's row, as options say it."""

    name: str
    api: str
    pool: str
    capacity: int | None
    link_template: str | None


_ABOUT = {
    NodeState.OBSERVED: "Have NODE read and reported, and never acted on.",
    NodeState.ACTIVE: "Have NODE kept equal to the rows, and given keys.",
    NodeState.DISABLED: "Have NODE left alone: no calls, no removals, no alerts.",
}


@click.group()
def node() -> None:
    """Add, list, drain, empty and switch nodes."""


@node.command()
@click.argument("name")
@click.option("--api", required=True, metavar="ADDRESS", help="host:port, tls:host:port or unix:/path.")
@click.option(
    "--inbound",
    "inbounds",
    type=inbound,
    multiple=True,
    required=True,
    metavar="TAG:PROTOCOL[:FLOW]",
    help="A listener that holds users; repeatable.",
)
@click.option("--pool", default="default", show_default=True, help="Keys of this pool are placed on it.")
@click.option("--capacity", type=int, help="How many keys it may get; no limit unless given.")
@click.option(
    "--link-template", metavar="TEXT", help="Of its links; must hold {uuid}, also {name} and {host}."
)
@click.option(
    "--state",
    type=click.Choice([state.value for state in NodeState]),
    default=NodeState.OBSERVED.value,
    show_default=True,
    help="Begin so.",
)
@json_option
@click.pass_obj
@asynchronous
async def add(
    path: Path | None,
    *,
    inbounds: tuple[Inbound, ...],
    state: str,
    as_json: bool,
    **given: Unpack[RowOptions],
) -> None:
    """
    Add a node called NAME.

    It is met at once, and what is wrong with it is told; the row is written
    all the same. A node begins observed: look at `plan`, then activate it.
    """
    new = NewNode(inbounds=inbounds, state=NodeState(state), **given)
    async with open_session(path) as session:
        node_id = await session.operator.add_node(new)
        warnings = await meeting.met(session, new.name)
    document = {"node_id": node_id, "name": new.name, "state": new.state, "warnings": warnings}
    answer(f"added {new.name}, {new.state}", document, as_json=as_json)
    meeting.warn(warnings)


@node.command("list")
@json_option
@click.pass_obj
@asynchronous
async def list_nodes(path: Path | None, *, as_json: bool) -> None:
    """List all nodes with their inbounds."""
    async with open_session(path) as session:
        rows = await look.nodes(session.connection)
        inbounds = {row.name: await look.inbounds(session.connection, row.node_id) for row in rows}
    if as_json:
        print_json({"nodes": [record(row, inbounds=inbounds[row.name]) for row in rows]})
        return
    if not rows:
        say(NO_NODE)
        return
    columns = ("node", "state", "pool", ">placed", ">leaving", ">capacity", "api", "inbounds")
    cells = [
        (
            row.name,
            row.state,
            row.pool,
            row.placed,
            row.leaving,
            row.capacity,
            row.api,
            _inbounds(inbounds[row.name]),
        )
        for row in rows
    ]
    table(columns, cells)


def _inbounds(inbounds: Sequence[Inbound]) -> str:
    return ", ".join(":".join(filter(None, (one.tag, one.protocol, one.flow))) for one in inbounds)


def _switch(state: NodeState) -> Callable[..., Coroutine[Any, Any, None]]:
    async def switch(path: Path | None, *, name: str, as_json: bool) -> None:
        async with open_session(path) as session:
            changed = await session.operator.set_state(name, state)
            if state is NodeState.ACTIVE:
                await session.operator.stay(name)
            row = await look.node(session.connection, name)
        words = f"{name} {'is now' if changed else 'was already'} {state}"
        answer(words, {"name": name, "state": state, "changed": changed}, as_json=as_json)
        if state is NodeState.DISABLED and row.placed:
            remark(f"{plural(row.placed, 'key')} on it: who is there stays there, and nobody is added")
        if state is NodeState.ACTIVE and row.leaving:
            remark(f"{plural(row.leaving, 'key')} of it found another node already, and will leave")

    switch.__doc__ = _ABOUT[state]
    return switch


for _verb, _state in (
    ("observe", NodeState.OBSERVED),
    ("activate", NodeState.ACTIVE),
    ("disable", NodeState.DISABLED),
):
    _command = json_option(click.pass_obj(asynchronous(_switch(_state))))
    node.command(_verb)(click.argument("name", metavar="NODE")(_command))


node.add_command(drain)
node.add_command(empty)
node.add_command(inbound_group)
node.add_command(set_node)
