"""What giving an order has in common: the keys are shown, counted, ordered, and watched going."""

import asyncio
from collections.abc import Sequence

from reconciler.cli.screen import console, remark, table
from reconciler.cli.session import Session
from reconciler.cli.words import away, plural
from reconciler.desired import details
from reconciler.desired.orders import Ordered
from reconciler.errors import Invalid, ReconcilerError
from reconciler.model import Node, NodeState

SHOWN = 40
POLL_SECONDS = 0.2


class NotDone(ReconcilerError):
    """An order ran out before the daemon had carried it out."""


def must_act(node: Node) -> None:
    """Raise Invalid for a node on which the daemon carries no order out."""
    if node.state in (NodeState.OBSERVED, NodeState.DISABLED):
        raise Invalid("node", node.name, f"active or draining; {node.state}, no order on it is carried out")


def print_keys(columns: Sequence[str], rows: Sequence[Sequence[str | int | None]]) -> None:
    """Print the first rows of what an order is about, and how many more there are."""
    table(columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        console().print(f"and {len(rows) - SHOWN:,} more (--json has them)")


def tell_ordered(orders: Sequence[tuple[str, Ordered]], *, wait: bool) -> None:
    """Say which orders were written, and how to see them carried out."""
    for node, order in orders:
        remark(f"order {order.order_id} on {node}, over {plural(order.count, 'key')}")
    if orders and not wait:
        remark("the daemon carries it out within a cycle: `reconciler status` and `plan` show how far it is")


async def await_orders(session: Session, orders: Sequence[tuple[str, Ordered]]) -> None:
    """Return when all are carried out. Raises NotDone when one has run out before."""
    screen = console(error=True)
    for node, order in orders:
        with screen.status(f"waiting for order {order.order_id} on {node}"):
            while (state := await details.order_state(session.connection, order.order_id)).done_at is None:
                if state.now >= state.valid_until:
                    ran_out = away(state.valid_until, state.now)
                    raise NotDone(f"order {order.order_id} on {node} ran out {ran_out}, not carried out")
                await asyncio.sleep(POLL_SECONDS)
        remark(f"order {order.order_id} on {node} is carried out")
