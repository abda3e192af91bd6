"""`place` and `unplace`: which node a key belongs on, by an operator's hand."""

from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.options import json_option
from reconciler.cli.screen import answer
from reconciler.cli.session import asynchronous, open_session


@click.command()
@click.argument("key")
@click.argument("node")
@click.option("--reason", default="by hand", show_default=True, help="For the history.")
@json_option
@click.pass_obj
@asynchronous
async def place(path: Path | None, *, key: str, node: str, reason: str, as_json: bool) -> None:
    """Put KEY on NODE, beside the one that it is on; `move` takes it off that one, too."""
    async with open_session(path) as session:
        key_id = await targets.key_id(session, key)
        changed = await session.operator.place_on(key_id, node, reason)
    words = f"k{key_id} {'belongs on' if changed else 'belonged already on'} {node}"
    answer(words, {"key_id": key_id, "node": node, "changed": changed}, as_json=as_json)


@click.command()
@click.argument("key")
@click.argument("node")
@json_option
@click.pass_obj
@asynchronous
async def unplace(path: Path | None, *, key: str, node: str, as_json: bool) -> None:
    """
    Take KEY off NODE, which keeps it until another node surely has it.

    One that is placed on no other node is placed again by the daemon.
    """
    async with open_session(path) as session:
        key_id = await targets.key_id(session, key)
        changed = await session.operator.end_placement(key_id, node)
    words = f"k{key_id} {'no longer belongs on' if changed else 'did not belong on'} {node}"
    answer(words, {"key_id": key_id, "node": node, "changed": changed}, as_json=as_json)
