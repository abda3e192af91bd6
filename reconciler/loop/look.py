"""Look at a node and decide, without acting: what the daemon and `reconciler plan` have in common."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from reconciler.config import Config
from reconciler.desired.reader import DesiredReader
from reconciler.loop.observe import Observation, observe
from reconciler.model import Desired, Node, OrderKind, Owner
from reconciler.node.port import NodePort
from reconciler.plan.guard import Budget, Limits, decide
from reconciler.plan.release import release
from reconciler.plan.steps import Breach, Neighbour, Plan

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

    def purged(self, removed: Collection[int]) -> list[int]:
        """Return the orders to purge orphans of which, once `removed` are gone, nothing is left to do."""
        left = self.plan.orphans - frozenset(removed)
        purges = (order for order in self.desired.orders if order.kind is OrderKind.PURGE_ORPHANS)
        return [order.order_id for order in purges if not order.key_ids & left]


def limits(config: Config) -> Limits:
    """Return the budgets that the configuration sets."""
    guard = config.guard
    return {
        Breach.EARLY: Budget(guard.floor, guard.share),
        Breach.OVER_QUOTA: Budget(guard.quota_floor, guard.quota_share),
    }


async def observe_node(node: Node, port: NodePort, config: Config, clock: Callable[[], float]) -> Observation:
    """Read the node back; raises NodeUnreachable."""
    timeouts = config.node
    return await observe(
        port, node.inbounds, timeouts.call_timeout_seconds, timeouts.listing_timeout_seconds, clock
    )


async def read_desired(node: Node, observation: Observation, reader: DesiredReader, owner: Owner) -> Desired:
    """Read what should hold, after the node was read, so that it is never the older of the two."""
    return await reader.snapshot(node.node_id, await observation.ours(owner))


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

    orders = tuple(order.order_id for order in desired.orders if order.kind in _RELEASING)
    released: frozenset[int] = frozenset()
    first = plan(desired)
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
