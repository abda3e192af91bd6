"""Read the actual state of one node."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.model import Inbound, Listed, Owner, Probe
from reconciler.node.port import NodePort


@dataclass(frozen=True, slots=True)
class Observation:
    """What a node reported; `refusals` says, by tag, why an inbound could not be listed."""

    probe: Probe
    probed_at: float  # on the observer's own clock
    actual: dict[str, Sequence[Listed]]
    refusals: dict[str, str]

    def ours(self, owner: Owner) -> frozenset[int]:
        """Return the ids of all keys of ours that are listed."""
        ids = (owner.key_id(user.name) for users in self.actual.values() for user in users)
        return frozenset(key_id for key_id in ids if key_id is not None)


async def observe(
    port: NodePort,
    inbounds: Sequence[Inbound],
    call_seconds: float,
    listing_seconds: float,
    clock: Callable[[], float],
) -> Observation:
    """
    List every inbound at once.

    Raises NodeUnreachable when any call went unanswered: half a look is none.
    """
    probe = await port.probe(inbounds, call_seconds)
    probed_at = clock()
    answers = await asyncio.gather(*(_listing(port, inbound, listing_seconds) for inbound in inbounds))
    actual: dict[str, Sequence[Listed]] = {}
    refusals: dict[str, str] = {}
    for inbound, answer in zip(inbounds, answers, strict=True):
        if isinstance(answer, NodeUnreachable):
            raise answer
        if isinstance(answer, NodeRejected):
            refusals[inbound.tag] = answer.detail
        else:
            actual[inbound.tag] = answer
    return Observation(probe, probed_at, actual, refusals)


async def _listing(
    port: NodePort, inbound: Inbound, seconds: float
) -> Sequence[Listed] | NodeRejected | NodeUnreachable:
    try:
        return await port.listing(inbound, seconds)
    except (NodeRejected, NodeUnreachable) as error:
        return error
