"""`node`: which Xray processes there are, and what is to be done with each."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click

from reconciler.cli import meeting
from reconciler.cli.empty import empty
from reconciler.cli.inbounds import inbound_group
from reconciler.cli.options import inbound, json_option
from reconciler.cli.screen import NO_NODE, answer, print_json, record, remark, say, table
from reconciler.cli.session import Session, asynchronous, open_session
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
    NodeState.DRAINING: "Have NODE kept equal to the rows, and given no new keys.",
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
        warnings = await _met(session, new.name)
    document = {"node_id": node_id, "name": new.name, "state": new.state, "warnings": warnings}
    answer(f"added {new.name}, {new.state}", document, as_json=as_json)
    _warn(warnings)


async def _met(session: Session, name: str) -> list[str]:
    """Return what is wrong with a node whose address was just written, as far as one look tells."""
    written = await look.node(session.connection, name)
    others = [row for row in await look.nodes(session.connection) if row.node_id != written.node_id]
    same = await meeting.same_place(written, others)
    seen = []
    if written.state != NodeState.DISABLED:
        inbounds = await look.inbounds(session.connection, written.node_id)
        seen = await meeting.meet(session, written, inbounds)
    return [f"{other} leads to the same address: are they one Xray?" for other in same] + seen


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        remark(f"warning: {warning}")


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
    columns = ("node", "state", "pool", ">placed", ">capacity", "api", "inbounds")
    cells = [
        (row.name, row.state, row.pool, row.placed, row.capacity, row.api, _inbounds(inbounds[row.name]))
        for row in rows
    ]
    table(columns, cells)


def _inbounds(inbounds: Sequence[Inbound]) -> str:
    return ", ".join(":".join(filter(None, (one.tag, one.protocol, one.flow))) for one in inbounds)


def _switch(state: NodeState) -> Callable[..., Coroutine[Any, Any, None]]:
    async def switch(path: Path | None, *, name: str, as_json: bool) -> None:
        async with open_session(path) as session:
            changed = await session.operator.set_state(name, state)
        words = f"{name} {'is now' if changed else 'was already'} {state}"
        answer(words, {"name": name, "state": state, "changed": changed}, as_json=as_json)

    switch.__doc__ = _ABOUT[state]
    return switch


for _verb, _state in (
    ("observe", NodeState.OBSERVED),
    ("activate", NodeState.ACTIVE),
    ("drain", NodeState.DRAINING),
    ("disable", NodeState.DISABLED),
):
    _command = json_option(click.pass_obj(asynchronous(_switch(_state))))
    node.command(_verb)(click.argument("name", metavar="NODE")(_command))


@node.command("set")
@click.argument("name", metavar="NODE")
@click.option("--api", metavar="ADDRESS", help="Mend its address; only while no key lives there.")
@click.option("--capacity", metavar="N|none", help="How many keys it may get; those that it has stay.")
@click.option("--link-template", metavar="TEXT|none", help="Of its links; must hold {uuid}.")
@json_option
@click.pass_obj
@asynchronous
async def set_node(
    path: Path | None,
    *,
    name: str,
    api: str | None,
    capacity: str | None,
    link_template: str | None,
    as_json: bool,
) -> None:
    """
    Change what NODE may hold, its links, or an address that was mistyped.

    With keys on it, another address is another node: add that one.
    """
    if api is None and capacity is None and link_template is None:
        raise click.UsageError("give --api, --capacity or --link-template")
    limit = _whole(capacity) if capacity not in (None, "none") else None
    changed: dict[str, bool] = {}
    warnings: list[str] = []
    async with open_session(path) as session:
        if api is not None:
            changed["api"] = await session.operator.set_api(name, api)
            warnings = await _met(session, name)
        if capacity is not None:
            changed["capacity"] = await session.operator.set_capacity(name, limit)
        if link_template is not None:
            template = None if link_template == "none" else link_template
            changed["link template"] = await session.operator.set_link_template(name, template)
    words = ", ".join(f"{what} {'set' if new else 'as before'}" for what, new in changed.items())
    answer(f"{name}: {words}", {"name": name, "changed": changed, "warnings": warnings}, as_json=as_json)
    _warn(warnings)


def _whole(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise click.BadParameter(f"{text!r}: a whole number, or none", param_hint="--capacity") from None


node.add_command(empty)
node.add_command(inbound_group)
