"""What this daemon does for one node that it holds: its cycles, and the counting beside them."""

import asyncio
from dataclasses import dataclass

import structlog

from reconciler.daemon.surroundings import Surroundings
from reconciler.errors import LeaseLost
from reconciler.logs import Repeats
from reconciler.loop.cadence import NodeLoop
from reconciler.loop.cycle import Cycles
from reconciler.loop.report import Reporter
from reconciler.loop.traffic import TrafficLoop
from reconciler.loop.trust import ClockTrust
from reconciler.model import Node, Owner
from reconciler.node.port import NodePort
from reconciler.status.lease import Lease

log = structlog.get_logger()

PATIENCE_SECONDS = 120.0
"""A loop that has not turned for so long is stuck: no call of it may take that long."""


@dataclass(slots=True)
class Work:
    """The work on one node, under way."""

    node: Node
    loop: NodeLoop
    task: asyncio.Task[None]
    counting: asyncio.Task[None]
    port: NodePort

    async def end(self) -> None:
        """Leave off, wherever it is, and let go of the connection."""
        tasks = [self.task, self.counting]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.port.close()


def begin(around: Surroundings, node: Node, lease: Lease, owner: Owner, trust: ClockTrust) -> Work:
    """Take up the work on a node whose lease we hold."""
    port = around.port(node)
    loop = _loop(around, node, lease, owner, port, trust)
    traffic = TrafficLoop(
        lease=lease,
        port=port,
        usage=around.usage,
        owner=owner,
        metrics=around.metrics,
        turns=around.turns,
        config=around.config,
        clock=around.clock,
        wall=around.wall,
        chance=around.chance,
        stopping=around.stopping,
        ring=loop.ring,
    )
    around.metrics.add_node(node.name)
    around.metrics.lease(node.name, lease.epoch)
    around.metrics.lease_changed(node.name)
    around.health.expect(node.name, PATIENCE_SECONDS, around.clock(), node=True)
    task = asyncio.create_task(_guarded(around, loop), name=f"node {node.name}")
    counting = asyncio.create_task(traffic.run(), name=f"traffic of {node.name}")
    return Work(node, loop, task, counting, port)


def _loop(
    around: Surroundings, node: Node, lease: Lease, owner: Owner, port: NodePort, trust: ClockTrust
) -> NodeLoop:
    def beat() -> None:
        around.health.beat(node.name, around.clock())

    cycles = Cycles(
        node=node,
        lease=lease,
        port=port,
        reader=around.reader,
        recorder=around.recorder,
        owner=owner,
        config=around.config,
        clock=around.clock,
        stopping=around.stopping.is_set,
        progressed=beat,
        trust=trust,
        slots=around.slots,
    )
    sight = around.board.take_on(node)
    reporter = Reporter(
        node.name, around.metrics, Repeats(), around.clock, around.wall, sight, around.store_repeats
    )
    return NodeLoop(cycles, reporter, around.chance, beat, around.stopping)


async def _guarded(around: Surroundings, loop: NodeLoop) -> None:
    try:
        await loop.run()
    except LeaseLost as error:
        around.leases.forget(loop.cycles.lease)
        around.metrics.lease(loop.cycles.node.name, 0)
        log.warning("lease ran out; the node is left alone until we hold it again", node=error.node)
    finally:
        around.health.forget(loop.cycles.node.name)
        around.board.drop(loop.cycles.node.name)
