"""What only the adapter to a real Xray has to get right: sizes, silence, versions, addresses and secrets."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from reconciler.demo.xray import HOST, Listener, XrayProcess, client, free_port
from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.model import Credential, Inbound, Protocol
from reconciler.node import listing
from reconciler.node._pb.user_pb2 import User
from reconciler.node.port import list_users
from tests.builders import account
from tests.contract.conftest import Connect
from tests.parts_xray import StartXray

VLESS = Inbound("vless-in", Protocol.VLESS)
SECONDS = 5


async def crowded(start_xray: StartXray, count: int) -> XrayProcess:
    users = [client(Protocol.VLESS, f"k{number}@owner", account(number)) for number in range(count)]
    return await start_xray(Listener("vless-in", Protocol.VLESS, free_port(), users))


async def test_a_listing_far_beyond_grpcs_own_limit_arrives_whole(start_xray: StartXray, connect: Connect):
    count = 60_000
    process = await crowded(start_xray, count)

    users = await list_users(connect(process.api), VLESS, 30)

    assert len({user.name for user in users}) == count
    assert next(user.account for user in users if user.name == "k59999@owner") == account(59_999)


async def test_a_listing_beyond_our_own_limit_names_the_limit(start_xray: StartXray, connect: Connect):
    process = await crowded(start_xray, 1_000)

    with pytest.raises(NodeRejected, match="receive limit"):
        await list_users(connect(process.api, receive_limit_bytes=50_000), VLESS, SECONDS)


async def test_a_long_listing_lets_other_work_run_meanwhile(
    start_xray: StartXray, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    process = await crowded(start_xray, 20_000)
    turns = 0
    turns_between_parts: set[int] = set()
    read = listing.columns

    def watched(users: Iterable[User], protocol: Protocol) -> listing.Columns:
        turns_between_parts.add(turns)
        return read(users, protocol)

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(listing, "columns", watched)
    other = asyncio.create_task(other_work())
    await list_users(connect(process.api), VLESS, SECONDS)
    other.cancel()
    assert len(turns_between_parts) >= 10


async def test_a_frozen_node_is_unreachable_within_the_deadline(start_xray: StartXray, connect: Connect):
    process = await start_xray()
    node = connect(process.api)
    await node.probe([VLESS], SECONDS)

    process.freeze()
    with pytest.raises(NodeUnreachable, match="fra-1: does not answer: timed out"):
        await node.add(VLESS, "k1@owner", account(1), 0.2)
    with pytest.raises(NodeUnreachable, match="fra-1: does not answer: timed out"):
        await list_users(node, VLESS, 0.2)
    process.thaw()

    assert (await node.probe([VLESS], SECONDS)).uptime_seconds >= 0


async def test_a_listener_that_never_answers_is_unreachable(connect: Connect):
    with (
        socket.create_server((HOST, 0)) as silent,
        pytest.raises(NodeUnreachable, match="fra-1: does not answer: timed out"),
    ):
        await connect(f"{HOST}:{silent.getsockname()[1]}").probe([VLESS], 0.2)


async def test_an_address_where_nobody_listens_is_unreachable(connect: Connect):
    with pytest.raises(NodeUnreachable, match=r"fra-1: does not answer: connection refused$"):
        await connect(f"{HOST}:{free_port()}").probe([VLESS], SECONDS)


async def test_an_unknown_host_is_unreachable(connect: Connect):
    with pytest.raises(NodeUnreachable, match="does not answer: its host's name "):
        await connect("no-such-host.invalid:1").probe([VLESS], SECONDS)


async def test_a_socket_that_is_not_there_is_unreachable(connect: Connect, tmp_path: Path):
    with pytest.raises(NodeUnreachable, match=r"does not answer: there is no such socket$"):
        await connect(f"unix:{tmp_path}/api.sock").probe([VLESS], SECONDS)


@pytest.mark.parametrize("api", ["node", "unix:relative", "host:0", "host:65536", "tls:host"])
async def test_a_bad_address_is_rejected_and_named(connect: Connect, api: str):
    with pytest.raises(NodeRejected, match=f"fra-1: address '{api}'"):
        await connect(api).probe([], SECONDS)


async def test_our_own_cancellation_is_no_answer_of_the_node(start_xray: StartXray, connect: Connect):
    process = await start_xray()
    node = connect(process.api)
    await node.probe([VLESS], SECONDS)
    process.freeze()

    call = asyncio.create_task(list_users(node, VLESS, 30))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    process.thaw()


@pytest.mark.parametrize(
    ("offered", "lacking"), [("HandlerService", "StatsService"), ("StatsService", "HandlerService")]
)
async def test_a_service_that_is_not_switched_on_is_named(
    start_xray: StartXray, connect: Connect, offered: str, lacking: str
):
    process = await start_xray(services=[offered])

    with pytest.raises(NodeRejected, match=f"api.services lack {lacking}"):
        await connect(process.api).probe([VLESS], SECONDS)


async def test_a_unix_socket_serves_as_well(start_xray: StartXray, connect: Connect, tmp_path: Path):
    process = await start_xray(api=f"unix:{tmp_path}/api.sock")
    node = connect(process.api)

    await node.add(VLESS, "k1@owner", account(1), SECONDS)

    assert (await node.probe([VLESS], SECONDS)).users == {"vless-in": 1}


@pytest.mark.parametrize("first", ["probe", "add"])
async def test_a_restart_with_another_protocol_does_not_bring_the_node_down(
    start_xray: StartXray, connect: Connect, first: str
):
    api = f"{HOST}:{free_port()}"
    before = await start_xray(Listener("vless-in", Protocol.VLESS, free_port()), api=api)
    node = connect(api)
    await node.add(VLESS, "k1@owner", account(1), SECONDS)
    before.kill()
    after = await start_xray(Listener("vless-in", Protocol.TROJAN, free_port()), api=api)

    async def answer(call: Callable[[], Awaitable[object]]) -> object:
        with contextlib.suppress(NodeUnreachable):
            return await call()
        await asyncio.sleep(0.05)
        return await answer(call)

    if first == "probe":
        await answer(lambda: node.probe([VLESS], SECONDS))
    with pytest.raises(NodeRejected, match="vless-in speaks trojan, not vless"):
        await answer(lambda: node.add(VLESS, "k2@owner", account(2), SECONDS))
    assert after.is_running


async def test_a_foreign_password_is_not_shown_and_equals_no_key(start_xray: StartXray, connect: Connect):
    loud = account(1).credential.text().upper()
    users = [
        {"email": "operator", "password": "swordfish"},
        {"email": "shouting", "password": loud},
    ]
    process = await start_xray(Listener("trojan-in", Protocol.TROJAN, free_port(), users))

    listed = await list_users(connect(process.api), Inbound("trojan-in", Protocol.TROJAN), SECONDS)

    assert {user.name for user in listed} == {"operator", "shouting"}
    assert all(user.account.credential != account(1).credential for user in listed)
    assert "swordfish" not in repr(listed)


async def test_a_short_id_is_listed_as_the_uuid_that_it_stands_for(start_xray: StartXray, connect: Connect):
    users = [{"email": "operator", "id": "short"}]
    process = await start_xray(Listener("vless-in", Protocol.VLESS, free_port(), users))

    (listed,) = await list_users(connect(process.api), VLESS, SECONDS)

    assert listed.account.credential == Credential.fromhex("9b07f6f849e753b798fcb89a31cc1287")
