"""Looking at nodes by the code of the daemon's own cycle, which is all that a dry run is."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.cli.session import Session
from reconciler.config import Config
from reconciler.errors import NodeError, NodeRejected, Unknown
from reconciler.loop.look import Look, ask_node, consider, limits, observe_node, read_desired
from reconciler.model import Node, NodeState
from reconciler.node.port import NodePort
from reconciler.node.xray import TlsFiles, XrayNode
from reconciler.plan.steps import Breach, Step


@dataclass(frozen=True, slots=True)
class Seen:
    """One node, with what the daemon would make of it, or why it could not be looked at."""

    node: Node
    look: Look | None = None
    error: NodeError | None = None


def port(config: Config, name: str, api: str) -> XrayNode:
    """Return the node at `api`; nothing is called yet."""
    files = (config.node.tls_ca, config.node.tls_certificate, config.node.tls_key)
    return XrayNode(name, api, TlsFiles(*(Path(file) if file else None for file in files)))


async def chosen(session: Session, name: str | None) -> list[Node]:
    """Return the node of this name, or all that are not disabled. Raises Unknown."""
    fleet = await (await session.reader()).fleet()
    if name is None:
        return sorted(
            (node for node in fleet if node.state is not NodeState.DISABLED), key=lambda node: node.name
        )
    for node in fleet:
        if node.name == name:
            return [node]
    raise Unknown("node", name)


async def look_at_all(session: Session, nodes: Sequence[Node], seen_one: Callable[[], None]) -> list[Seen]:
    """Look at these nodes, a bounded number at once; none of them keeps another from being seen."""
    slots = asyncio.Semaphore(session.config.cycle.concurrency)

    async def tried(node: Node) -> Seen:
        async with slots:
            try:
                return Seen(node, look=await look_at(session, node))
            except NodeError as error:
                return Seen(node, error=error)
            finally:
                seen_one()

    return [*await asyncio.gather(*(tried(node) for node in nodes))]


async def look_at(session: Session, node: Node) -> Look:
    """Look at one node. Raises NodeUnreachable, and NodeRejected when it does not tell what is asked."""
    if node.state is NodeState.DISABLED:
        raise NodeRejected(node.name, "it is disabled, and left alone")
    xray = port(session.config, node.name, node.api)
    try:
        look = await _look(session, node, xray)
        if look.desired.inbounds != node.inbounds:  # changed since the row of the node was read
            look = await _look(session, replace(node, inbounds=look.desired.inbounds), xray)
        return look
    finally:
        await xray.close()


async def _look(session: Session, node: Node, xray: NodePort) -> Look:
    owner = await session.owner()
    answers = await ask_node(node, xray, session.config, time.monotonic)
    observation = await observe_node(xray, answers, session.config)
    desired = await read_desired(node, observation, await session.reader(), owner)
    return consider(observation, desired, owner, session.config)


@dataclass(frozen=True, slots=True)
class Spending:
    """What a plan would take from one of a node's hourly budgets, in keys."""

    breach: Breach
    asked: int
    spent: int
    limit: float

    @property
    def exceeded(self) -> bool:
        """Whether the guard holds these steps."""
        return self.asked > 0 and self.asked + self.spent > self.limit

    def __str__(self) -> str:
        words = "early steps" if self.breach is Breach.EARLY else "removals over quota"
        spent = f" and {self.spent} in the last hour" if self.spent else ""
        return f"{self.asked} {words}{spent}, {self.limit:g} an hour are let through"


def spendings(look: Look, config: Config) -> list[Spending]:
    """Return, for people, the sums that the guard has judged by."""
    rows = look.desired.rows
    promises = [row.promise for row in rows.values() if row.promise is not None]
    live = sum(1 for promise in promises if promise.live)
    spent = {Breach.EARLY: look.desired.early_spent, Breach.OVER_QUOTA: look.desired.quota_spent}
    found = []
    for breach, budget in limits(config).items():
        keys = {step.key_id for step in look.plan.breaching(breach)}
        fresh = sum(
            1 for key in keys if not ((promise := rows[key].promise) and promise.live and promise.spent)
        )
        found.append(Spending(breach, fresh, spent[breach], budget.limit(live)))
    return found


def releasable(look: Look) -> list[Step]:
    """Return the held steps that an operator's release lets go."""
    return [step for step in look.plan.held if step.breach is not None]
