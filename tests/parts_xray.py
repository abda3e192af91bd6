"""Real Xray nodes for the tests, and real customers of theirs."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import pytest

from reconciler.demo.vless import VlessClient
from reconciler.demo.xray import Listener, XrayProcess, free_port
from reconciler.model import Credential, Protocol


class StartXray(Interface):
    """What the fixture `start_xray` gives."""

    async def __call__(self, *listeners: Listener, **options: Any) -> XrayProcess: ...


class OpenDoor(Interface):
    """What the fixture `door` gives."""

    async def __call__(
        self, port: int, credential: Credential, protocol: Protocol = Protocol.VLESS
    ) -> VlessClient: ...


@pytest.fixture
async def start_xray(tmp_path: Path) -> AsyncIterator[StartXray]:
    """
    Start a real node: `await start_xray(Listener("vless-in", "vless", free_port()), …)`.

    Without listeners it has one VLESS inbound, `vless-in`. Options go to
    XrayProcess. The node answers when this returns, in about 60 ms, and is
    killed at the end of the test; until then `kill`, `start` and `restart`
    are the test's to call.
    """
    numbers = itertools.count(1)
    async with AsyncExitStack() as running:

        async def start(*listeners: Listener, **options: Any) -> XrayProcess:
            chosen = listeners or (Listener("vless-in", Protocol.VLESS, free_port()),)
            name = options.pop("name", f"xray-{next(numbers)}")
            return await running.enter_async_context(XrayProcess(tmp_path, chosen, name=name, **options))

        yield start


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[OpenDoor]:
    """
    Make a real customer: `customer = await door(port, credential)`, then `await customer.opens()`.

    `port` is `XrayProcess.port(tag)`. The customer is kept for the rest of
    the test, so asking for the same one again costs nothing.
    """
    known: dict[tuple[int, bytes, Protocol], VlessClient] = {}
    async with AsyncExitStack() as running:

        async def meet(port: int, credential: Credential, protocol: Protocol = Protocol.VLESS) -> VlessClient:
            key = (port, bytes(credential), protocol)
            if key not in known:
                customer = VlessClient(tmp_path, port, credential, protocol)
                known[key] = await running.enter_async_context(customer)
            return known[key]

        yield meet
