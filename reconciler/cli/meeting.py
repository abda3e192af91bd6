"""Meeting a node that was just added: whether it answers, and whether it is one that we have already."""

import asyncio
import os
from collections.abc import Sequence

from reconciler.cli.looking import port
from reconciler.cli.screen import remark
from reconciler.cli.session import Session
from reconciler.cli.words import plain
from reconciler.desired import look
from reconciler.desired.look import NodeDetail
from reconciler.errors import NodeError
from reconciler.model import Inbound, NodeState
from reconciler.node.port import NodePort, list_users

RESOLVE_SECONDS = 3.0

Place = tuple[str, int]


async def met(session: Session, name: str) -> list[str]:
    """Return what is wrong with a node whose address was just written, as far as one look tells."""
    written = await look.node(session.connection, name)
    others = [row for row in await look.nodes(session.connection) if row.node_id != written.node_id]
    same = await same_place(written, others)
    seen = []
    if written.state != NodeState.DISABLED:
        inbounds = await look.inbounds(session.connection, written.node_id)
        seen = await meet(session, written, inbounds)
    return [f"{other} leads to the same address: are they one Xray?" for other in same] + seen


def warn(warnings: Sequence[str]) -> None:
    """Print what is wrong, a line for each."""
    for warning in warnings:
        remark(f"warning: {warning}")


async def meet(session: Session, node: NodeDetail, inbounds: Sequence[Inbound]) -> list[str]:
    """Return what is wrong with a node, as far as one look tells; nothing when all is well."""
    timeouts = session.config.node
    xray = port(session.config, node.name, node.api)
    try:
        await xray.probe(inbounds, timeouts.call_timeout_seconds)
        answers = [await _listing(xray, one, timeouts.listing_timeout_seconds) for one in inbounds]
    except NodeError as error:
        return [plain(str(error))]
    finally:
        await xray.close()
    return [
        plain(f"{node.name}: inbound {inbound.tag!r}: {answer.detail}")
        for inbound, answer in zip(inbounds, answers, strict=True)
        if answer is not None
    ]


async def _listing(xray: NodePort, inbound: Inbound, seconds: float) -> NodeError | None:
    try:
        await list_users(xray, inbound, seconds)
    except NodeError as error:
        return error
    return None


async def same_place(node: NodeDetail, others: Sequence[NodeDetail]) -> list[str]:
    """Return the names of the nodes whose address leads where this one's does."""
    ours = await _places(node.api)
    candidates = [other for other in others if _port(other.api) == _port(node.api)]
    theirs = await asyncio.gather(*(_places(other.api) for other in candidates))
    return [other.name for other, places in zip(candidates, theirs, strict=True) if places & ours]


async def _places(api: str) -> set[Place]:
    """Return the addresses behind `api`; none when its host is not known here."""
    if api.startswith("unix:"):
        return {(await asyncio.to_thread(os.path.realpath, api.removeprefix("unix:")), 0)}
    host, _, number = api.removeprefix("tls:").rpartition(":")
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(number))
    except (OSError, TimeoutError):
        return set()
    return {(str(address[0]), int(number)) for *_, address in found}


def _port(api: str) -> str:
    return "" if api.startswith("unix:") else api.rpartition(":")[2]
