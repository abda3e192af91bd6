"""The port to one node: what the loop may ask of it, and what each answer means."""

from collections.abc import Sequence
from typing import Protocol

from reconciler.model import Account, Inbound, Listed, Owner, Probe, Vitals
from reconciler.plan.counting import Counts


class Listing(Protocol):
    """All users of one inbound as the node wrote them, not looked into yet."""

    @property
    def digest(self) -> bytes:
        """The same for the same answer, whatever is in it; it tells nothing about a credential."""
        ...

    async def users(self) -> Sequence[Listed]:
        """
        Return every user, ours and foreign, names as the node wrote them.

        Raises NodeRejected when they are of another protocol than the inbound
        was said to speak, because every step would then be wrong.
        """
        ...


class NodePort(Protocol):
    """
    One Xray process.

    Every call ends within `timeout_seconds`. Any call may raise
    NodeUnreachable, which says nothing about whether it took effect: look
    again, never assume. NodeRejected and its kinds say that the node
    answered, and that asking again changes nothing by itself.
    """

    async def probe(self, inbounds: Sequence[Inbound], timeout_seconds: float) -> Probe:
        """
        Return the uptime and the number of users of each inbound, cheaply.

        An inbound that the node does not have is left out of the answer.
        """
        ...

    async def listing(self, inbound: Inbound, timeout_seconds: float) -> Listing:
        """
        Return the users of `inbound`; those without a name cannot be seen.

        Raises InboundMissing, and NodeTooOld when the node cannot list.
        """
        ...

    async def add(self, inbound: Inbound, name: str, account: Account, timeout_seconds: float) -> None:
        """
        Put a user on `inbound`; when this returns, the door is open.

        Raises NameTaken when the name is there already: Xray compared names
        alone, so the account behind it may be any. Raises InboundMissing, and
        NodeRejected when the inbound speaks another protocol: nothing is sent
        then, because Xray dies of such an account.
        """
        ...

    async def remove(self, inbound: Inbound, name: str, timeout_seconds: float) -> None:
        """
        Take a user off `inbound`; when this returns, no new connection gets in.

        Open connections live on: Xray has no way to cut them. Raises
        NameMissing when there is nothing of that name, which is what was
        wanted, and InboundMissing.
        """
        ...

    async def vitals(self, timeout_seconds: float) -> Vitals:
        """Return the signs by which one run of the process is told from another."""
        ...

    async def counters(self, owner: Owner, timeout_seconds: float) -> Counts:
        """
        Return what the node counts of every user, told apart by whether he is ours.

        Cumulative since the process started, whoever reads them and however
        often. A user has a counter from his first connection on, and keeps it
        when he is removed.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; never raises."""
        ...


async def list_users(port: NodePort, inbound: Inbound, timeout_seconds: float) -> Sequence[Listed]:
    """List an inbound and look into the answer; raises what either does."""
    return await (await port.listing(inbound, timeout_seconds)).users()
