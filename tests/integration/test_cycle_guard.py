"""What the guard holds in a cycle, and what orders let go, on a real Xray and a real PostgreSQL."""

import pytest

from reconciler.config import Config
from reconciler.demo.xray import XrayProcess
from reconciler.errors import NodeUnreachable
from reconciler.model import Account, Credential, Inbound, Outcome, Protocol, StepKind
from tests.fakes import FakeNode
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import CALL_SECONDS, VLESS, World, kinds, make_world, ours, strangers_node


@pytest.fixture
async def node(start_xray: StartXray) -> XrayProcess:
    return await strangers_node(start_xray)


async def test_a_key_without_a_row_is_kept_and_goes_by_order_only(world: World):
    await world.port.add(VLESS, "k9007@test", Account(Credential(b"\1" * 16)), CALL_SECONDS)
    await world.port.add(VLESS, "k9008@test", Account(Credential(b"\2" * 16)), CALL_SECONDS)

    kept = await world.cycle()
    assert kept.outcome is Outcome.CONVERGED
    assert await world.status("orphan_users") == 2
    await world.order("purge_orphans", [9007])
    await world.cycle()

    assert await world.names() == ours(9008)
    assert await world.execute("SELECT done_at IS NOT NULL FROM reconciler.orders") == [(True,)]


async def test_a_few_early_removals_go_on_and_many_are_held_whole(world: World):
    keys = await world.keys(100)
    await world.cycle()

    await world.revoke(keys[:4])
    few = await world.cycle()
    await world.revoke(keys)
    many = await world.cycle()

    assert kinds(few) == [StepKind.REMOVE] * 4
    assert many.outcome is Outcome.HELD
    assert many.applied.done == set()
    assert await world.status("held_removals") == 96
    assert await world.names() == ours(*keys[4:])


async def test_while_steps_are_held_everything_else_goes_on(world: World):
    keys = await world.keys(100)
    await world.cycle()
    await world.revoke(keys[:50])
    await world.set_expiry(keys[60:70], "90 days")
    more = await world.keys(2)

    report = await world.cycle()

    assert kinds(report) == [StepKind.ADD] * 2 + [StepKind.EXTEND] * 10
    assert await world.names() == ours(*keys, *more)


async def test_a_held_mistake_that_is_corrected_leaves_no_trace(world: World):
    keys = await world.keys(100)
    await world.cycle()
    before = await world.promises()

    await world.execute("UPDATE reconciler.keys SET revoked_at = now()")
    assert (await world.cycle()).outcome is Outcome.HELD
    await world.execute("UPDATE reconciler.keys SET revoked_at = NULL")
    report = await world.cycle()

    assert report.outcome is Outcome.CONVERGED
    assert await world.promises() == before
    assert await world.names() == ours(*keys)


async def test_an_order_releases_exactly_the_keys_that_it_names(world: World):
    keys = await world.keys(100)
    await world.cycle()
    await world.revoke(keys[:60])
    await world.cycle()

    await world.order("release", keys[:45])
    report = await world.cycle()

    assert len(report.applied.done) == 45
    assert await world.names() == ours(*keys[45:])
    assert report.outcome is Outcome.HELD
    assert await world.execute("SELECT count(*) FROM reconciler.promises WHERE early IS NOT NULL") == [(0,)]


async def test_a_mass_change_of_credentials_is_held_and_an_order_lets_it_through(world: World):
    keys = await world.keys(60)
    await world.cycle()
    await world.execute("UPDATE reconciler.keys SET credential = gen_random_uuid()")

    held = await world.cycle()
    await world.order("release", keys)
    released = await world.cycle()

    assert held.outcome is Outcome.HELD
    assert held.applied.done == set()
    assert kinds(released) == [StepKind.REPLACE] * 60
    assert (await world.cycle()).outcome is Outcome.CONVERGED


async def test_an_early_step_is_counted_before_it_is_sent(world: World, monkeypatch: pytest.MonkeyPatch):
    keys = await world.keys(5)
    await world.cycle()
    await world.revoke(keys[:2])

    async def crash(*_: object) -> None:
        raise NodeUnreachable("n1", "gone")

    monkeypatch.setattr(world.port, "remove", crash)
    report = await world.cycle()

    assert report.outcome is Outcome.UNREACHABLE
    assert await world.execute("SELECT count(*) FROM reconciler.promises WHERE early = 'early'") == [(2,)]


async def test_an_order_waits_until_all_of_the_node_can_be_seen(database: Database):
    second = Inbound("second", Protocol.VLESS)
    node = FakeNode(VLESS)
    async with make_world(database, node, VLESS, second) as world:
        await node.add(VLESS, "k9007@test", Account(Credential(b"\1" * 16)), CALL_SECONDS)
        await world.order("purge_orphans", [9007])
        await world.order("release", await world.keys(1))

        await world.cycle()

        assert await world.execute("SELECT count(*) FROM reconciler.orders WHERE done_at IS NULL") == [(2,)]


async def test_a_database_clock_that_jumps_removes_nobody(world: World, monkeypatch: pytest.MonkeyPatch):
    keys = await world.keys(3)
    await world.cycle()
    await world.execute("UPDATE reconciler.promises SET promised_until = now() - interval '1 day'")
    await world.set_expiry(keys, "-1 hour")
    clock = world.cycles.clock
    monkeypatch.setattr(world.cycles, "clock", lambda: clock() - 3600)
    world.cycles.lease.trusted_until += 3600

    report = await world.cycle()

    assert report.removals_frozen
    assert report.outcome is Outcome.HELD
    assert await world.names() == ours(*keys)


def test_the_defaults_of_the_guard_are_those_that_the_tests_above_count_on():
    assert (Config().guard.floor, Config().guard.share) == (5, 0.1)
