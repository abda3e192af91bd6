"""Parts of the world held in memory; the contract suite says the same of them as of the real ones."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from reconciler.errors import (
    InboundMissing,
    NameMissing,
    NameTaken,
    NodeRejected,
    NodeTooOld,
    NodeUnreachable,
)
from reconciler.model import Account, Credential, Inbound, Listed, Owner, Probe, Protocol, Vitals
from reconciler.plan.counting import Counts


class FakeNode:
    """
    An Xray in memory, with what is odd about the real one kept.

    `configured` are users that the node's own configuration brings, by tag;
    `without_users` are tags of inbounds that hold none, such as socks.
    The switches may be turned at any time. `calls` tells what was asked, and
    never holds a credential: ("add", tag, name), ("remove", tag, name),
    ("listing", tag), ("probe", tag, …), ("vitals",), ("counters",).
    """

    def __init__(
        self,
        *inbounds: Inbound,
        name: str = "fake",
        configured: Mapping[str, Sequence[Listed]] | None = None,
        without_users: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.unreachable = False
        """Every call fails, and nothing happens."""
        self.loses_answers = False
        """Every call takes effect, and fails all the same."""
        self.too_old = False
        """The node can neither list nor count."""
        self.uptime_seconds = 1_000
        self.calls: list[tuple[str, ...]] = []
        self.allocations = 0
        self.counted: dict[str, int] = {}
        """The counters of this run, by the name that Xray gives them."""
        self._protocols = {inbound.tag: inbound.protocol for inbound in inbounds}
        self._configured = configured or {}
        self._without_users = set(without_users)
        self._inbounds: dict[str, _FakeInbound] = {}
        self._boot()

    def restart(self) -> None:
        """Forget what the API added, and start to count the uptime again."""
        self.uptime_seconds = 0
        self._boot()

    def opens(self, tag: str, credential: Credential) -> bool:
        """Whether a new connection with this credential gets in."""
        inbound = self._inbounds[tag]
        return inbound.slot(credential) in inbound.slots

    def carry(self, tag: str, credential: Credential, count: int) -> int:
        """Carry so many bytes up, and as many down, for whom the credential lets in; return how many."""
        inbound = self._inbounds[tag]
        name = inbound.slots.get(inbound.slot(credential))
        if name is None:
            return 0
        for direction in ("up", "down"):
            counter = f"user>>>{name}>>>traffic>>>{direction}link"
            self.counted[counter] = self.counted.get(counter, 0) + count
        return count

    async def probe(self, inbounds: Sequence[Inbound], timeout_seconds: float) -> Probe:
        await self._receive(timeout_seconds, "probe", *(inbound.tag for inbound in inbounds))
        if self.too_old and inbounds:
            raise NodeTooOld(self.name, "its Xray has no GetInboundUsersCount: v24.11.5 or newer is needed")
        counts = {tag: len(inbound.users) for tag, inbound in self._inbounds.items()}
        answer = Probe(
            self.uptime_seconds, {each.tag: counts[each.tag] for each in inbounds if each.tag in counts}
        )
        self._answer()
        return answer

    async def listing(self, inbound: Inbound, timeout_seconds: float) -> "FakeListing":
        await self._receive(timeout_seconds, "listing", inbound.tag)
        if self.too_old:
            raise NodeTooOld(self.name, "its Xray has no GetInboundUsers: v24.11.5 or newer is needed")
        found = self._find(inbound)
        answer = FakeListing(self.name, inbound, found.protocol, list(found.users.values()))
        self._answer()
        return answer

    async def add(self, inbound: Inbound, name: str, account: Account, timeout_seconds: float) -> None:
        await self._receive(timeout_seconds, "add", inbound.tag, name)
        found = self._find(inbound)
        self._require_protocol(inbound, found)
        if fold(name) in found.users:
            raise NameTaken(self.name, f"{name} on {inbound.tag}: the name is there already")
        found.put(Listed(name, account))
        self._answer()

    async def remove(self, inbound: Inbound, name: str, timeout_seconds: float) -> None:
        await self._receive(timeout_seconds, "remove", inbound.tag, name)
        found = self._find(inbound)
        if fold(name) not in found.users:
            raise NameMissing(self.name, f"{name} on {inbound.tag}: there is no such name")
        found.take(name)
        self._answer()

    async def vitals(self, timeout_seconds: float) -> Vitals:
        await self._receive(timeout_seconds, "vitals")
        self.allocations += 1
        answer = Vitals(self.uptime_seconds, 1_000 * self.allocations, self.allocations)
        self._answer()
        return answer

    async def counters(self, owner: Owner, timeout_seconds: float) -> Counts:
        await self._receive(timeout_seconds, "counters")
        answer = Counts(owner)
        answer.take([*self.counted], [*self.counted.values()])
        self._answer()
        return answer

    async def close(self) -> None:
        self.calls.append(("close",))

    def _boot(self) -> None:
        self.counted = {}
        self.allocations = 1_000
        self._inbounds = {tag: _FakeInbound(protocol) for tag, protocol in self._protocols.items()}
        for tag, users in self._configured.items():
            for user in users:
                self._inbounds[tag].put(user)

    async def _receive(self, timeout_seconds: float, *call: str) -> None:
        assert timeout_seconds > 0
        await asyncio.sleep(0)
        self.calls.append(call)
        if self.unreachable:
            raise NodeUnreachable(self.name, "UNAVAILABLE: nobody answers")

    def _answer(self) -> None:
        if self.loses_answers:
            raise NodeUnreachable(self.name, "DEADLINE_EXCEEDED: the answer was lost")

    def _find(self, inbound: Inbound) -> "_FakeInbound":
        if inbound.tag in self._without_users:
            raise InboundMissing(self.name, f"{inbound.tag}: its inbound of this tag holds no users")
        if inbound.tag not in self._inbounds:
            raise InboundMissing(self.name, f"{inbound.tag}: it has no inbound of this tag")
        return self._inbounds[inbound.tag]

    def _require_protocol(self, asked: Inbound, found: "_FakeInbound") -> None:
        _require_protocol(self.name, asked, found.protocol)


def _require_protocol(node: str, asked: Inbound, spoken: Protocol) -> None:
    if asked.protocol is not spoken:
        raise NodeRejected(node, f"inbound {asked.tag} speaks {spoken}, not {asked.protocol}")


@dataclass(frozen=True, slots=True)
class FakeListing:
    """What was listed, and of which protocol it really is."""

    node: str
    asked: Inbound
    spoken: Protocol
    found: list[Listed]

    @property
    def digest(self) -> bytes:
        words = [
            self.spoken,
            *(f"{user.name} {user.account.credential.hex()} {user.account.flow}" for user in self.found),
        ]
        return sha256("\n".join(words).encode()).digest()

    async def users(self) -> Sequence[Listed]:
        if self.found:
            _require_protocol(self.node, self.asked, self.spoken)
        return self.found


class _FakeInbound:
    """Names, and apart from them the slots by which customers get in, which names may share."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.users: dict[str, Listed] = {}
        self.slots: dict[bytes, str] = {}

    def slot(self, credential: Credential) -> bytes:
        return credential.slot if self.protocol is Protocol.VLESS else bytes(credential)

    def put(self, user: Listed) -> None:
        self.users[fold(user.name)] = user
        self.slots[self.slot(user.account.credential)] = user.name

    def take(self, name: str) -> None:
        user = self.users.pop(fold(name))
        self.slots.pop(self.slot(user.account.credential), None)


def fold(name: str) -> str:
    """Lower case as Go has it: letter by letter, one for one, which differs from Python's for two letters."""
    return "".join(letter.lower()[0] for letter in name)
