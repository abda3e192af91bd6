"""Writing nodes and their inbounds: for operators only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reconciler.desired import bounds
from reconciler.desired.writing import Writing
from reconciler.errors import Invalid, Taken, Unknown
from reconciler.model import Inbound, NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """A node to add; `capacity` is in keys, None without limit; it starts observed unless told otherwise."""

    name: str
    api: str
    inbounds: Sequence[Inbound]
    pool: str = "default"
    capacity: int | None = None
    link_template: str | None = None
    state: NodeState = NodeState.OBSERVED


_AT = """
SELECT id FROM reconciler.nodes WHERE regexp_replace(api, '^tls:', '') = %(address)s AND id <> %(but)s
"""


class Nodes(Writing):
    """The writes of nodes; a new address is `Orders.set_api`, because keys may stay behind at the old one."""

    async def add_node(self, node: NewNode) -> int:
        """Add a node and return its id. Raises Invalid, and Taken for its name or its address."""
        name = bounds.label("name", node.name)
        api = bounds.api(node.api)
        inbounds = bounds.inbounds(node.inbounds)
        async with self._transaction():
            if await self._row("SELECT id FROM reconciler.nodes WHERE name = %s", name) is not None:
                raise Taken("node", name)
            await self._must_be_free(api)
            row = await self._row(
                "INSERT INTO reconciler.nodes (name, api, pool, capacity, link_template, state)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                name,
                api,
                bounds.label("pool", node.pool),
                bounds.capacity(node.capacity),
                bounds.link_template(node.link_template),
                _state(node.state),
            )
            node_id = 0 if row is None else int(row[0])
            for inbound in inbounds:
                await self._insert_inbound(node_id, inbound)
        return node_id

    async def set_state(self, node: str, state: NodeState) -> bool:
        """
        Say what is to be done with a node; False when it was so already.

        Waits for a placement on its pool that is under way, so that none
        lands on the node afterwards. Raises Invalid, Unknown.
        """
        return await self._set(node, "state", _state(state))

    async def set_capacity(self, node: str, capacity: int | None) -> bool:
        """Say how many keys a node may get; those it has stay, even above it. Raises Invalid, Unknown."""
        return await self._set(node, "capacity", bounds.capacity(capacity))

    async def set_link_template(self, node: str, link_template: str | None) -> bool:
        """Set the template of its links; False when it was so already. Raises Invalid, Unknown."""
        return await self._set(node, "link_template", bounds.link_template(link_template))

    async def add_inbound(self, node: str, inbound: Inbound) -> bool:
        """
        Add a listener; False when the node has the very same.

        Raises Invalid, Unknown, and Taken for the tag of another protocol or
        flow: end that one first, which replaces every key on it.
        """
        inbound = bounds.inbound(inbound)
        async with self._transaction():
            node_id = (await self._lock_node(node)).node_id
            if await self._insert_inbound(node_id, inbound):
                return True
            row = await self._row(
                "SELECT protocol = %s AND flow = %s FROM reconciler.inbounds"
                " WHERE node_id = %s AND tag = %s AND ended_at IS NULL",
                inbound.protocol,
                inbound.flow,
                node_id,
                inbound.tag,
            )
            if row != (True,):
                raise Taken("inbound", inbound.tag)
        return False

    async def end_inbound(self, node: str, tag: str) -> bool:
        """
        End a listener; False when it had ended before.

        The daemon looks at live inbounds only, so users on an ended one stay
        there. Raises Unknown, and Invalid for the last one of a node.
        """
        async with self._transaction():
            node_id = (await self._lock_node(node)).node_id
            rows = await self._rows(
                "SELECT tag, ended_at IS NULL FROM reconciler.inbounds WHERE node_id = %s", node_id
            )
            live = {name for name, is_live in rows if is_live}
            if tag not in live:
                if tag not in {name for name, _ in rows}:
                    raise Unknown("inbound", tag)
                return False
            if live == {tag}:
                raise Invalid("tag", tag, "not the last inbound of the node: a node has one at least")
            await self._row(
                "UPDATE reconciler.inbounds SET ended_at = now()"
                " WHERE node_id = %s AND tag = %s AND ended_at IS NULL RETURNING id",
                node_id,
                tag,
            )
        return True

    async def _must_be_free(self, api: str, but: int = 0) -> None:
        """Raise Taken when another node than `but` has this address, by TLS or without."""
        row = await self._row(_AT, address=api.removeprefix("tls:"), but=but)
        if row is not None:
            raise Taken("api", api)

    async def _set(
        self, node: str, column: Literal["state", "capacity", "link_template"], value: object
    ) -> bool:
        async with self._transaction():
            locked = await self._lock_node(node)
            row = await self._row(
                f"UPDATE reconciler.nodes SET {column} = %(value)s"
                f" WHERE id = %(node)s AND {column} IS DISTINCT FROM %(value)s RETURNING id",
                node=locked.node_id,
                value=value,
            )
        return row is not None

    async def _insert_inbound(self, node_id: int, inbound: Inbound) -> bool:
        row = await self._row(
            "INSERT INTO reconciler.inbounds (node_id, tag, protocol, flow) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING id",
            node_id,
            inbound.tag,
            inbound.protocol,
            inbound.flow,
        )
        return row is not None


def _state(value: object) -> NodeState:
    try:
        return NodeState(str(value))
    except ValueError:
        raise Invalid("state", value, f"one of {', '.join(NodeState)}") from None
