"""Cycles of one node, on a real Xray and a real PostgreSQL, with the rights that the daemon has."""

from dataclasses import replace
from typing import Any

import pytest

from reconciler.config import Config
from reconciler.config.sections import CycleConfig
from reconciler.demo.xray import Listener, XrayProcess, free_port
from reconciler.errors import LeaseLost
from reconciler.model import Account, Credential, Inbound, NodeState, Outcome, Protocol, StepKind
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.fakes import FakeNode
from tests.parts_postgres import Database
from tests.parts_xray import OpenDoor, StartXray
from tests.world import CALL_SECONDS, OWNER, VLESS, World, kinds, make_world, ours, strangers_node


@pytest.fixture
async def node(start_xray: StartXray) -> XrayProcess:
    return await strangers_node(start_xray)


async def test_desired_keys_are_added_and_promised_and_a_second_cycle_sends_nothing(world: World):
    keys = await world.keys(50)

    first = await world.cycle()
    second = await world.cycle()

    assert first.outcome is Outcome.CHANGED
    assert kinds(first) == [StepKind.ADD] * 50
    assert await world.names() == ours(*keys)
    assert (await world.promises()).keys() == set(keys)
    assert second.outcome is Outcome.CONVERGED
    assert second.look is not None
    assert second.look.plan.steps == ()
    assert second.applied.done == set()


async def test_an_added_key_opens_the_door_and_a_removed_one_does_not(
    world: World, node: XrayProcess, door: OpenDoor
):
    (key,) = await world.keys(1)
    customer = await door(node.port(VLESS.tag), await world.credential(key))

    assert not await customer.opens()
    await world.cycle()
    assert await customer.opens()
    await world.revoke([key])
    await world.cycle()
    assert not await customer.opens()


async def test_an_extension_touches_no_node(world: World):
    keys = await world.keys(3)
    await world.cycle()
    before = await world.promises()

    await world.set_expiry(keys, "90 days")
    report = await world.cycle()

    after = await world.promises()
    assert kinds(report) == [StepKind.EXTEND] * 3
    assert all(after[key][1] > before[key][1] for key in keys)
    assert (await world.cycle()).outcome is Outcome.CONVERGED


async def test_an_expired_key_goes_as_a_matter_of_routine_however_many_there_are(world: World):
    keys = await world.keys(40)
    await world.cycle()
    await world.execute("UPDATE reconciler.promises SET promised_until = now() - interval '1 second'")
    await world.set_expiry(keys, "-1 second")

    report = await world.cycle()

    assert kinds(report) == [StepKind.REMOVE] * 40
    assert await world.names() == ours()
    assert await world.promises() == {}


async def test_what_was_altered_by_hand_on_the_node_is_repaired(world: World):
    removed, altered, kept = await world.keys(3)
    await world.cycle()
    await world.port.remove(VLESS, OWNER.name(removed), CALL_SECONDS)
    await world.port.remove(VLESS, OWNER.name(altered), CALL_SECONDS)
    await world.port.add(VLESS, OWNER.name(altered), Account(Credential(b"\7" * 16)), CALL_SECONDS)

    report = await world.cycle()

    listed = {user.name: user.account for user in await list_users(world.port, VLESS, CALL_SECONDS)}
    assert kinds(report) == [StepKind.ADD, StepKind.REPLACE]
    assert all(step.drift for step in report.applied.done)
    for key in (removed, altered, kept):
        assert listed[OWNER.name(key)] == Account(await world.credential(key))


async def test_a_restarted_node_gets_all_its_keys_back(world: World, node: XrayProcess):
    keys = await world.keys(100)
    await world.cycle()

    await node.restart()
    report = await world.cycle()

    assert len(report.applied.done) == 100
    assert await world.names() == ours(*keys)


async def test_foreign_users_are_never_changed(world: World):
    keys = await world.keys(5)
    for name in ("k012@test", "k1@other", "K\u0661@test", "someone"):
        await world.port.add(VLESS, name, Account(Credential(name.encode().ljust(16)[:16])), CALL_SECONDS)
    strangers = await world.names()

    await world.cycle()
    await world.revoke(keys)
    report = await world.cycle()

    assert strangers <= await world.names()
    assert report.counts is not None
    assert report.counts.foreign == len(strangers)


async def test_a_foreign_user_that_shared_a_slot_and_went_locks_nobody_out(
    world: World, node: XrayProcess, door: OpenDoor
):
    """The listing shows our key before and after; only the slot behind it has been emptied."""
    (key,) = await world.keys(1)
    await world.cycle()
    credential = await world.credential(key)
    twin = Credential(credential[:6] + b"\xff\xff" + credential[8:])
    await world.port.add(VLESS, "twin@elsewhere", Account(twin), CALL_SECONDS)
    assert (await world.cycle()).outcome is Outcome.REJECTED
    await world.port.remove(VLESS, "twin@elsewhere", CALL_SECONDS)
    customer = await door(node.port(VLESS.tag), credential)
    assert not await customer.opens()

    await world.cycle()

    assert await customer.opens()
    assert (await world.cycle()).outcome is Outcome.CONVERGED


async def test_a_missing_inbound_is_named_and_hurts_no_other(database: Database, node: XrayProcess):
    missing = Inbound("not-there", Protocol.VLESS)
    async with make_world(database, XrayNode("n1", node.api), VLESS, missing, api=node.api) as world:
        keys = await world.keys(3)

        report = await world.cycle()

        assert report.outcome is Outcome.REJECTED
        assert "not-there" in (report.error or "")
        assert await world.names() == ours(*keys)
        assert await world.promises() == {}, "a promise exists only when the key is on every inbound"


async def test_a_node_of_another_protocol_is_rejected_untouched(database: Database, node: XrayProcess):
    wrong = Inbound(VLESS.tag, Protocol.TROJAN)
    async with make_world(database, XrayNode("n1", node.api), wrong, api=node.api) as world:
        await world.keys(3)

        report = await world.cycle()

        assert report.outcome is Outcome.REJECTED
        assert await world.names() == ours()
        assert node.is_running


async def test_a_node_without_the_services_that_we_need_is_rejected_by_name(
    database: Database, start_xray: StartXray
):
    node = await start_xray(services=["HandlerService"])
    async with make_world(database, XrayNode("n1", node.api), api=node.api) as world:
        await world.keys(1)

        report = await world.cycle()

        assert report.outcome is Outcome.REJECTED
        assert "StatsService" in (report.error or "")
        assert await world.status("error") == report.error


async def test_a_node_that_is_too_old_is_rejected_with_the_version_that_is_needed(database: Database):
    node = FakeNode(VLESS)
    node.too_old = True
    async with make_world(database, node) as world:
        await world.keys(1)

        report = await world.cycle()

        assert report.outcome is Outcome.REJECTED
        assert "v24.11.5" in (report.error or "")
        assert not [call for call in node.calls if call[0] == "add"]


async def test_an_observed_node_is_reported_and_left_alone(database: Database, node: XrayProcess):
    async with make_world(database, XrayNode("n1", node.api), api=node.api, state="observed") as world:
        await world.keys(3)

        report = await world.cycle()

        assert report.outcome is Outcome.HELD
        assert await world.names() == ours()
        assert await world.promises() == {}
        assert await world.status("desired_users") == 3


async def test_a_node_that_becomes_observed_sees_no_further_step(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    node = FakeNode(VLESS)
    add = node.add
    config = Config(cycle=CycleConfig(in_flight=1))
    async with make_world(database, node, config=lambda: config) as world:
        keys = await world.keys(10)

        async def add_and_observe(*asked: Any) -> None:
            await add(*asked)
            world.cycles.node = replace(world.cycles.node, state=NodeState.OBSERVED)

        monkeypatch.setattr(node, "add", add_and_observe)
        report = await world.cycle()

        assert report.outcome is Outcome.HELD
        assert await world.names() == {OWNER.name(keys[0])}


async def test_a_node_that_does_not_answer_keeps_what_was_known_of_it(world: World, node: XrayProcess):
    await world.keys(3)
    await world.cycle()
    node.kill()

    report = await world.cycle()

    assert report.outcome is Outcome.UNREACHABLE
    assert await world.status("active_users") == 3
    assert await world.status("outcome") == "unreachable"
    assert len(await world.promises()) == 3


async def test_nothing_is_written_once_the_lease_has_gone_to_another(world: World):
    await world.keys(3)
    await world.cycle()
    await world.execute("UPDATE reconciler.leases SET holder = 'another', epoch = epoch + 1")
    await world.revoke(await world.keys(1))
    before = await world.promises()

    with pytest.raises(LeaseLost):
        await world.cycle()

    assert await world.promises() == before


async def test_a_key_found_in_its_place_is_promised_without_a_step(world: World):
    """A crash after the node's answer, before the promise was written."""
    keys = await world.keys(4)
    await world.cycle()
    await world.execute("TRUNCATE reconciler.promises")

    report = await world.cycle()

    assert report.applied.done == set()
    assert (await world.promises()).keys() == set(keys)


async def test_a_promise_whose_key_is_gone_is_ended_without_a_step(world: World):
    """A crash after the node took the key off, before the promise was ended."""
    (key,) = await world.keys(1)
    await world.cycle()
    await world.revoke([key])
    await world.port.remove(VLESS, OWNER.name(key), CALL_SECONDS)

    report = await world.cycle()

    assert report.applied.done == set()
    assert await world.promises() == {}


async def test_two_inbounds_hold_a_key_with_one_promise(database: Database, start_xray: StartXray):
    trojan = Inbound("trojan-in", Protocol.TROJAN)
    node = await start_xray(
        Listener(VLESS.tag, VLESS.protocol, free_port()), Listener(trojan.tag, trojan.protocol, free_port())
    )
    async with make_world(database, XrayNode("n1", node.api), VLESS, trojan, api=node.api) as world:
        keys = await world.keys(3)

        await world.cycle()

        names = {OWNER.name(key) for key in keys}
        assert await world.names(VLESS) == await world.names(trojan) == names
        assert len(await world.promises()) == 3
        assert await world.status("active_users") == 3
        await world.revoke(keys[:1])
        await world.cycle()
        assert await world.names(trojan) == names - {OWNER.name(keys[0])}
