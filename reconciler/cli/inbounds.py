"""`node inbound`: the listeners of a node."""

from pathlib import Path

import click

from reconciler.cli.options import inbound, json_option
from reconciler.cli.screen import answer, remark
from reconciler.cli.session import asynchronous, open_session
from reconciler.model import Inbound


@click.group("inbound")
def inbound_group() -> None:
    """Add and end the listeners of a node."""


@inbound_group.command()
@click.argument("node")
@click.argument("listener", type=inbound, metavar="TAG:PROTOCOL[:FLOW]")
@json_option
@click.pass_obj
@asynchronous
async def add(path: Path | None, *, node: str, listener: Inbound, as_json: bool) -> None:
    """Have the keys of NODE on one more inbound; it must be in the configuration of its Xray."""
    async with open_session(path) as session:
        changed = await session.operator.add_inbound(node, listener)
    words = f"{node} {'has' if changed else 'had already'} the inbound {listener.tag}"
    answer(words, {"node": node, "tag": listener.tag, "changed": changed}, as_json=as_json)


@inbound_group.command()
@click.argument("node")
@click.argument("tag")
@json_option
@click.pass_obj
@asynchronous
async def end(path: Path | None, *, node: str, tag: str, as_json: bool) -> None:
    """Look at the inbound TAG of NODE no more; the users on it stay there."""
    async with open_session(path) as session:
        changed = await session.operator.end_inbound(node, tag)
    words = f"the inbound {tag} of {node} {'is ended' if changed else 'had ended before'}"
    answer(words, {"node": node, "tag": tag, "changed": changed}, as_json=as_json)
    if changed:
        remark("the users on it stay, until Xray restarts or somebody removes them")
