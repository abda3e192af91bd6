"""Read the actual state of one node: ask, and look into the answers only when they say something new."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.model import Inbound, Listed, Owner, Probe
from reconciler.node.port import Listing, NodePort
from reconciler.plan.users import Users


@dataclass(frozen=True, slots=True)
class Answers:
    """What a node answered; `refusals` says, by tag, why an inbound could not be listed."""

    inbounds: tuple[Inbound, ...]
    uptime_seconds: int
    asked_at: float  # on the observer's own clock
    listing_seconds: float  # from asking until all listings were there
    listings: dict[str, Listing]
    refusals: dict[str, str]

    @property
    def digests(self) -> dict[str, bytes]:
        """By tag, what is the same as long as the listing is."""
        return {tag: listing.digest for tag, listing in self.listings.items()}


@dataclass(frozen=True, slots=True)
class Observation:
    """What a node reported; `probe` counts the users of each inbound that has any to count."""

    probe: Probe
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


async def ask(
    port: NodePort,
    inbounds: Sequence[Inbound],
    call_seconds: float,
    listing_seconds: float,
    clock: Callable[[], float],
) -> Answers:
    """
    Ask for the listings of all inbounds at once.

    Raises NodeUnreachable when any call went unanswered: half a look is none.
    """
    probe = await port.probe((), call_seconds)
    asked_at = clock()
    answers = await asyncio.gather(*(_listing(port, inbound, listing_seconds) for inbound in inbounds))
    took_seconds = clock() - asked_at
    listings: dict[str, Listing] = {}
    refusals: dict[str, str] = {}
    for inbound, answer in zip(inbounds, answers, strict=True):
        if isinstance(answer, NodeUnreachable):
            raise answer
        if isinstance(answer, NodeRejected):
            refusals[inbound.tag] = answer.detail
        else:
            listings[inbound.tag] = answer
    return Answers(tuple(inbounds), probe.uptime_seconds, asked_at, took_seconds, listings, refusals)


async def look_into(answers: Answers, port: NodePort, call_seconds: float) -> Observation:
    """
    Read the users in the answers; an inbound that cannot be listed is counted, at least.

    Raises NodeUnreachable when counting goes unanswered.
    """
    actual: dict[str, Users] = {}
    refusals = dict(answers.refusals)
    for tag, listing in answers.listings.items():
        try:
            actual[tag] = Users.of(await listing.users())
        except NodeRejected as error:
            refusals[tag] = error.detail
    counted = {tag: len(users) for tag, users in actual.items()}
    if refusals:
        unlisted = [inbound for inbound in answers.inbounds if inbound.tag in refusals]
        counted.update((await port.probe(unlisted, call_seconds)).users)
    return Observation(Probe(answers.uptime_seconds, counted), actual, refusals)


async def _listing(
    port: NodePort, inbound: Inbound, seconds: float
) -> Listing | NodeRejected | NodeUnreachable:
    try:
        return await port.listing(inbound, seconds)
    except (NodeRejected, NodeUnreachable) as error:
        return error
