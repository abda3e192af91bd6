"""Look at a node and decide, without acting: what the daemon and `reconciler plan` have in common."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from reconciler.config import Config
from reconciler.desired.glance import Glance
from reconciler.desired.reader import DesiredReader
from reconciler.loop.observe import Answers, Observation, ask, look_into
from reconciler.model import Desired, Node, OrderKind, Owner, StepKind
from reconciler.node.port import NodePort
from reconciler.plan.guard import Budget, Limits, decide
from reconciler.plan.release import release
from reconciler.plan.steps import Breach, Neighbour, Plan, Step

_RELEASING = (OrderKind.RELEASE, OrderKind.EMPTY)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a node and decided about it; `desired` already follows the operator's orders."""

    observation: Observation
    desired: Desired
    plan: Plan
    released: frozenset[int]  # keys whose promises the open orders re-base
    release_orders: tuple[int, ...]
    removals_frozen: bool = False

    def finished(self, done: Collection[Step]) -> list[int]:
        """Return the orders, but releases, of which nothing is left to do after the steps in `done`."""
        removed = {(step.inbound, step.key_id) for step in done if step.kind is StepKind.REMOVE}
        left = {
            key_id
            for tag, key_ids in self.plan.present.items()
            for key_id in key_ids
            if (tag, key_id) not in removed
        }
        if self.plan.unlisted:
            return []
        return [
            order.order_id
            for order in self.desired.orders
            # What stays behind at another address is not on this one, so nothing is to be done about it.
            if order.kind is OrderKind.LEAVE_BEHIND
            or (order.kind is OrderKind.PURGE_ORPHANS and not order.key_ids & left)
        ]


def limits(config: Config) -> Limits:
    """Return the budgets that the configuration sets."""
    guard = config.guard
    return {
        Breach.EARLY: Budget(guard.floor, guard.share),
        Breach.OVER_QUOTA: Budget(guard.quota_floor, guard.quota_share),
    }


async def ask_node(node: Node, port: NodePort, config: Config, clock: Callable[[], float]) -> Answers:
    """List the node; raises NodeUnreachable."""
    timeouts = config.node
    return await ask(
        port, node.inbounds, timeouts.call_timeout_seconds, timeouts.listing_timeout_seconds, clock
    )


async def observe_node(port: NodePort, answers: Answers, config: Config) -> Observation:
    """Look into what the node answered; raises NodeUnreachable."""
    return await look_into(answers, port, config.node.call_timeout_seconds)


async def read_desired(
    node: Node, observation: Observation, reader: DesiredReader, owner: Owner, glance: Glance | None = None
) -> Desired:
    """
    Read what should hold, after the node was read, so that it is never the older of the two.

    A `glance` that came after it, too, is used as far as it tells enough.
    """
    desired = await reader.snapshot(node.node_id, await observation.ours(owner), glance)
    # Unpacking the rows of a huge node takes its time, and so does deciding about them.
    await asyncio.sleep(0)
    return desired


def consider(
    observation: Observation,
    desired: Desired,
    owner: Owner,
    config: Config,
    *,
    removals_frozen: bool = False,
    crowded: frozenset[Neighbour] | None = None,
) -> Look:
    """
    Decide; pure.

    `crowded` is what the last plan that was carried out whole said of itself;
    None when nothing will be carried out, and nothing is remembered.
    """
    purge = _ordered(desired, OrderKind.PURGE_ORPHANS)

    def plan(desired: Desired) -> Plan:
        return decide(
            desired,
            observation.actual,
            owner,
            limits(config),
            removals_frozen=removals_frozen,
            purge=purge,
            crowded=crowded,
        )

    released: frozenset[int] = frozenset()
    first = plan(desired)
    # An order is carried out once, so it waits until all of the node can be seen.
    orders = tuple(
        order.order_id for order in desired.orders if order.kind in _RELEASING and not first.unlisted
    )
    if orders:
        breaking = frozenset(step.key_id for breach in Breach for step in first.breaching(breach))
        released = _ordered(desired, *_RELEASING) & breaking
        desired = release(desired, released)
    return Look(
        observation,
        desired,
        plan(desired) if released else first,
        released,
        orders,
        removals_frozen=removals_frozen,
    )


def _ordered(desired: Desired, *kinds: OrderKind) -> frozenset[int]:
    return frozenset(key_id for order in desired.orders if order.kind in kinds for key_id in order.key_ids)
