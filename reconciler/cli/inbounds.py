"""`node inbound`: the listeners of a node."""

from pathlib import Path

import click

from reconciler.cli.options import inbound
from reconciler.cli.screen import remark, say
from reconciler.cli.session import asynchronous, open_session
from reconciler.model import Inbound


@click.group("inbound")
def inbound_group() -> None:
    """Add and end the listeners of a node."""


@inbound_group.command()
@click.argument("node")
@click.argument("listener", type=inbound, metavar="TAG:PROTOCOL[:FLOW]")
@click.pass_obj
@asynchronous
async def add(path: Path | None, *, node: str, listener: Inbound) -> None:
    """Have the keys of NODE on one more inbound; it must be in the configuration of its Xray."""
    async with open_session(path) as session:
        changed = await session.operator.add_inbound(node, listener)
    say(f"{node} {'has' if changed else 'had already'} the inbound {listener.tag}")


@inbound_group.command()
@click.argument("node")
@click.argument("tag")
@click.pass_obj
@asynchronous
async def end(path: Path | None, *, node: str, tag: str) -> None:
    """Look at the inbound TAG of NODE no more; the users on it stay there."""
    async with open_session(path) as session:
        changed = await session.operator.end_inbound(node, tag)
    say(f"the inbound {tag} of {node} {'is ended' if changed else 'had ended before'}")
    if changed:
        remark("the users on it stay, until Xray restarts or somebody removes them")
