"""Read the actual state of one node."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.model import Inbound, Listed, Owner, Probe
from reconciler.node.port import NodePort
from reconciler.plan.users import Users


@dataclass(frozen=True, slots=True)
class Observation:
    """What a node reported; `refusals` says, by tag, why an inbound could not be listed."""

    probe: Probe
    probed_at: float  # on the observer's own clock
    actual: dict[str, Users]
    refusals: dict[str, str]

    async def ours(self, owner: Owner) -> frozenset[int]:
        """Return the ids of all keys of ours that are listed; told apart in passing, giving way to others."""
        for users in self.actual.values():
            for _ in users.tell_apart(owner):
                await asyncio.sleep(0)
        return frozenset().union(*(users.apart(owner).credentials for users in self.actual.values()))

    def others(self, owner: Owner, orphans: frozenset[int]) -> dict[str, list[Listed]]:
        """Return, by tag, who is listed without a row: the foreign users, and the orphans."""
        apart = {tag: users.apart(owner) for tag, users in self.actual.items()}
        return {
            tag: [
                *users.foreign,
                *(
                    Listed(owner.name(key_id), users.account(key_id))
                    for key_id in sorted(orphans & users.credentials.keys())
                ),
            ]
            for tag, users in apart.items()
        }


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
    actual: dict[str, Users] = {}
    refusals: dict[str, str] = {}
    for inbound, answer in zip(inbounds, answers, strict=True):
        if isinstance(answer, NodeUnreachable):
            raise answer
        if isinstance(answer, NodeRejected):
            refusals[inbound.tag] = answer.detail
        else:
            actual[inbound.tag] = Users.of(answer)
    return Observation(probe, probed_at, actual, refusals)


async def _listing(
    port: NodePort, inbound: Inbound, seconds: float
) -> Sequence[Listed] | NodeRejected | NodeUnreachable:
    try:
        return await port.listing(inbound, seconds)
    except (NodeRejected, NodeUnreachable) as error:
        return error
