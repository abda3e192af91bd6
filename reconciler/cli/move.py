"""`move` and `node drain`: keys go to other nodes, and the old one lets go when they are surely there."""

import asyncio
from pathlib import Path

import click

from reconciler.cli import targets
from reconciler.cli.options import grace_option, json_option
from reconciler.cli.screen import answer, console, print_json, record, remark, say
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import plural, span
from reconciler.desired import leaving, look
from reconciler.desired.leaving import Progress
from reconciler.errors import NoRoom

POLL_SECONDS = 0.5

WITHOUT_ROOM = "nothing was changed (--without-room: they stay where they are until there is room)"


@click.command()
@click.argument("key")
@click.argument("node")
@grace_option
@click.option("--reason", default="moved by hand", show_default=True, help="For the history.")
@json_option
@click.pass_obj
@asynchronous
async def move(
    path: Path | None, *, key: str, node: str, grace: int | None, reason: str, as_json: bool
) -> None:
    """
    Move KEY to NODE, which must be active, of the key's pool, and have room.

    The old node keeps it until the new one surely has it, and for the grace.
    """
    async with open_session(path) as session:
        key_id = await targets.key_id(session, key)
        seconds = grace_seconds(session, grace)
        changed = await session.operator.move(key_id, node, seconds, reason)
    words = f"k{key_id} {'moves to' if changed else 'belonged already on'} {node}"
    document = {"key_id": key_id, "node": node, "grace_seconds": seconds, "changed": changed}
    answer(words, document, as_json=as_json)


@click.command()
@click.argument("name", metavar="NODE")
@click.option("--move", "moving", is_flag=True, help="Have the keys that it has move to other nodes, too.")
@grace_option
@click.option("--without-room", is_flag=True, help="Also when keys have nowhere to go; they stay.")
@click.option("--wait", is_flag=True, help="Show how far the keys are, until all have left.")
@json_option
@click.pass_obj
@asynchronous
async def drain(
    path: Path | None,
    *,
    name: str,
    moving: bool,
    grace: int | None,
    without_room: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """
    Have NODE kept equal to the rows, and given no new keys.

    With --move its keys go to other nodes of their pool. NODE lets go of each
    when the other one surely has it, and after the grace. Said again, it
    changes the grace, and shows how far they are. When keys would have
    nowhere to go, nothing is done without --without-room.
    """
    if not moving and (wait or grace is not None):
        raise click.UsageError("--grace and --wait need --move")
    async with open_session(path) as session:
        seconds = grace_seconds(session, grace) if moving else None
        try:
            drained = await session.operator.drain(name, seconds, without_room=without_room)
        except NoRoom as error:
            raise NoRoom(f"{error}; {WITHOUT_ROOM}") from None
        row = await look.node(session.connection, name)
        if not as_json:
            say(f"{name} {'is now' if drained.changed else 'was already'} draining")
        far = await leaving.progress(session.connection, row.node_id)
        if moving and wait:
            far = await await_left(session, name, row.node_id)
        elif moving:
            remark(far_words(name, far))
    document = {"name": name, "state": row.state, "changed": drained.changed, "grace_seconds": seconds}
    if as_json:
        print_json({**document, "leaving": record(far, keys=far.keys)})


def grace_seconds(session: Session, given: int | None) -> int:
    """Return the grace that was given, else the configured one."""
    return session.config.move.grace_seconds if given is None else given


def far_words(node: str, far: Progress) -> str:
    """Say how far the keys are that leave a node."""
    if not far.keys:
        return f"no key is to leave {node} any more"
    parts = {
        "without another node yet": far.unplaced,
        "not surely on the other one yet": far.unconfirmed,
        "on both, until the grace is over": far.in_grace,
    }
    told = ", ".join(f"{number:,} {words}" for words, number in parts.items() if number)
    return f"{plural(far.keys, 'key')} to leave {node}: {told}"


async def await_left(session: Session, name: str, node_id: int) -> Progress:
    """Return when no key is to leave the node any more; it is all in rows, so Ctrl-C stops nothing."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with console(error=True).status("") as shown:
        while (far := await leaving.progress(session.connection, node_id)).keys:
            shown.update(far_words(name, far))
            await asyncio.sleep(POLL_SECONDS)
    remark(f"every key has left {name}, {span(loop.time() - began)} later")
    return far
