"""The stage on which the suite plays: one node, once in memory and once for real."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol as Interface

import grpc
import pytest

from reconciler.demo.xray import Listener, XrayProcess, client, free_port
from reconciler.model import Account, Credential, Inbound, Listed, Protocol
from reconciler.node.port import NodePort
from reconciler.node.xray import TlsFiles, XrayNode
from tests.builders import account
from tests.contract.scripted import Script, Serve, serve_script
from tests.fakes import FakeNode
from tests.parts_xray import OpenDoor, StartXray

VLESS = Inbound("vless-in", Protocol.VLESS)
VMESS = Inbound("vmess-in", Protocol.VMESS)
TROJAN = Inbound("trojan-in", Protocol.TROJAN)
FOREIGN = Inbound("foreign-in", Protocol.VLESS)
SOCKS = Inbound("socks-in", Protocol.VLESS)
OPERATOR = Listed("K77@OWNER", account(77))


class Stage(Interface):
    """A node: four inbounds that hold users, a user of its operator's in one, and an inbound without any."""

    @property
    def node(self) -> NodePort: ...

    async def opens(self, inbound: Inbound, credential: Credential) -> bool: ...

    async def transfer(self, inbound: Inbound, credential: Credential, count: int) -> int: ...

    async def restart(self) -> None: ...

    async def stop(self) -> None: ...

    async def go_on(self) -> None: ...


@dataclass
class FakeStage:
    node: FakeNode

    async def opens(self, inbound: Inbound, credential: Credential) -> bool:
        return self.node.opens(inbound.tag, credential)

    async def transfer(self, inbound: Inbound, credential: Credential, count: int) -> int:
        return self.node.carry(inbound.tag, credential, count)

    async def restart(self) -> None:
        self.node.restart()

    async def stop(self) -> None:
        self.node.unreachable = True

    async def go_on(self) -> None:
        self.node.restart()
        self.node.unreachable = False


@dataclass
class XrayStage:
    node: XrayNode
    process: XrayProcess
    door: OpenDoor

    async def opens(self, inbound: Inbound, credential: Credential) -> bool:
        customer = await self.door(self.process.port(inbound.tag), credential, inbound.protocol)
        return await customer.opens(patience_seconds=2)

    async def transfer(self, inbound: Inbound, credential: Credential, count: int) -> int:
        customer = await self.door(self.process.port(inbound.tag), credential, inbound.protocol)
        return await customer.transfer(count, patience_seconds=30)

    async def restart(self) -> None:
        await self.process.restart()

    async def stop(self) -> None:
        self.process.kill()

    async def go_on(self) -> None:
        await self.process.start()


class Connect(Interface):
    def __call__(
        self, api: str, tls: TlsFiles | None = None, receive_limit_bytes: int = 2**28
    ) -> XrayNode: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Give the adapter to a node at an address; its connection is closed at the end."""
    known: list[XrayNode] = []

    def make(api: str, tls: TlsFiles | None = None, receive_limit_bytes: int = 2**28) -> XrayNode:
        known.append(XrayNode("fra-1", api, tls, receive_limit_bytes))
        return known[-1]

    yield make
    for node in known:
        await node.close()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def serve(script: Script) -> AsyncIterator[Serve]:
    """Start a scripted node and return its port."""
    running: list[grpc.aio.Server] = []

    async def start(*, old: bool = False, tls: grpc.ServerCredentials | None = None) -> int:
        server, port = await serve_script(script, old=old, tls=tls)
        running.append(server)
        return port

    yield start
    for server in running:
        await server.stop(None)


@pytest.fixture(params=["fake", "xray"])
async def stage(
    request: pytest.FixtureRequest, start_xray: StartXray, door: OpenDoor, connect: Connect
) -> AsyncIterator[Stage]:
    if request.param == "fake":
        yield FakeStage(
            FakeNode(
                VLESS,
                VMESS,
                TROJAN,
                FOREIGN,
                configured={"foreign-in": [OPERATOR]},
                without_users=["socks-in"],
            )
        )
        return
    listeners = [Listener(each.tag, each.protocol, free_port()) for each in (VLESS, VMESS, TROJAN)]
    foreign = client(Protocol.VLESS, OPERATOR.name, Account(*OPERATOR.account))
    listeners.append(Listener(FOREIGN.tag, FOREIGN.protocol, free_port(), [foreign]))
    listeners.append(Listener(SOCKS.tag, "socks", free_port()))
    process = await start_xray(*listeners)
    yield XrayStage(connect(process.api), process, door)
