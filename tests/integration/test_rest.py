"""A node at rest: both sides are read each time, and looked into only when one says something new."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import pytest

from reconciler.demo.xray import XrayProcess
from reconciler.desired.glance import Glance
from reconciler.errors import StoreUnavailable
from reconciler.loop.outcome import CycleReport
from reconciler.model import Account, Credential, Desired, Outcome, StepKind
from reconciler.node.xray import XrayNode
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import CALL_SECONDS, OWNER, VLESS, World, kinds, make_world, strangers_node


@pytest.fixture
async def node(start_xray: StartXray) -> XrayProcess:
    return await strangers_node(start_xray)


@pytest.fixture
async def world(database: Database, node: XrayProcess) -> AsyncIterator[World]:
    """Three keys on a node that has come to rest."""
    async with make_world(database, XrayNode("n1", node.api), api=node.api) as world:
        await world.keys(3)
        await world.cycle()
        await world.cycle()
        assert is_at_rest(await world.cycle())
        yield world


def is_at_rest(report: CycleReport) -> bool:
    return report.outcome is Outcome.CONVERGED and report.seen is not None and report.look is None


async def test_a_cycle_at_rest_tells_all_that_a_look_would_have_told(world: World):
    full = await looked(world)
    rested = await world.cycle()

    assert is_at_rest(rested)
    assert rested.counts == full.counts
    assert (rested.counts.active, rested.counts.desired, rested.counts.foreign) == (3, 3, 1)  # type: ignore[union-attr]  # equal to a look's
    assert rested.seen is not None
    assert rested.seen.users == full.seen.users == {VLESS.tag: 4}  # type: ignore[union-attr]  # as above
    assert rested.boot_at == pytest.approx(full.boot_at, abs=1.5)
    assert await world.status("outcome") == "converged"


async def looked(world: World) -> CycleReport:
    """A cycle that does not know what the last one saw."""
    world.cycles.rest = None
    return await world.cycle()


async def test_it_records_that_it_looked(world: World):
    before = await world.status("last_full_at")

    assert is_at_rest(await world.cycle())

    assert await world.status("last_full_at") > before
    assert await world.status("last_converged_at") > before


async def alter_by_hand(world: World) -> None:
    """Another account under a name of ours, so that the number of users stays."""
    await world.port.remove(VLESS, OWNER.name(1), CALL_SECONDS)
    await world.port.add(VLESS, OWNER.name(1), Account(Credential(b"\7" * 16)), CALL_SECONDS)


async def rotate(world: World) -> None:
    await world.execute("UPDATE reconciler.keys SET credential = gen_random_uuid() WHERE id = 1")


async def revoke(world: World) -> None:
    await world.revoke([1])


async def extend(world: World) -> None:
    await world.set_expiry([1], "90 days")


async def use_up(world: World) -> None:
    """Bytes are counted elsewhere than in any row that a digest covers."""
    await world.execute("UPDATE reconciler.subscriptions SET traffic_limit_bytes = 100")
    await world.cycle()
    await world.cycle()
    assert is_at_rest(await world.cycle())
    await world.execute("INSERT INTO reconciler.usage (key_id, up_bytes) VALUES (1, 100)")


async def end(world: World) -> None:
    """Nothing is written between the last look and the end of the key: time alone ends it."""
    await world.set_expiry([1], "2 seconds")
    await world.cycle()
    await world.cycle()
    await world.execute("SELECT pg_sleep_until(expires_at) FROM reconciler.subscriptions WHERE id = 1")


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (alter_by_hand, StepKind.REPLACE),
        (rotate, StepKind.REPLACE),
        (revoke, StepKind.REMOVE),
        (extend, StepKind.EXTEND),
        (use_up, StepKind.REMOVE),
        (end, StepKind.REMOVE),
    ],
)
async def test_whatever_changes_on_either_side_is_looked_into(
    world: World, change: Callable[[World], Awaitable[None]], answer: StepKind
):
    await change(world)

    assert kinds(await world.cycle()) == [answer]


async def test_an_inbound_that_is_added_is_looked_into(world: World):
    await world.execute(
        "INSERT INTO reconciler.inbounds (node_id, tag, protocol) VALUES (%s, 'other', 'vless')",
        world.node_id,
    )

    report = await world.cycle()

    assert report.look is not None
    assert report.outcome is Outcome.REJECTED


async def test_orphans_keep_a_node_from_rest_because_their_rows_may_come(world: World):
    await world.port.add(VLESS, OWNER.name(77), Account(Credential(b"\7" * 16)), CALL_SECONDS)

    reports = [await world.cycle() for _ in range(3)]

    assert all(report.look is not None and report.look.plan.orphans == {77} for report in reports)


async def test_an_order_is_looked_into(world: World):
    order = await world.order("release", [1])

    report = await world.cycle()

    assert report.look is not None
    assert report.look.release_orders == (order,)


async def test_a_clock_that_jumps_is_looked_into_and_so_is_its_return(world: World):
    world.cycles.clock = lambda: time.monotonic() - 100
    frozen = await world.cycle()
    world.cycles.clock = time.monotonic
    back = await world.cycle()

    assert frozen.removals_frozen
    assert back.look is not None
    assert not back.removals_frozen


async def test_a_key_revoked_reopened_and_revoked_around_one_look_is_looked_into(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """The rows are read twice in such a look, and only the first time the key was to go."""
    snapshot = world.cycles.reader.snapshot

    async def reopened(node_id: int, seen: Collection[int], glance: Glance | None = None) -> Desired:
        await world.execute("UPDATE reconciler.keys SET revoked_at = NULL WHERE id = 1")
        return await snapshot(node_id, seen, glance)

    await world.revoke([1])
    with monkeypatch.context() as patch:
        patch.setattr(world.cycles.reader, "snapshot", reopened)
        assert (await world.cycle()).outcome is Outcome.CONVERGED
    await world.revoke([1])

    assert kinds(await world.cycle()) == [StepKind.REMOVE]


async def test_what_a_look_remembers_outlives_that_it_could_not_be_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """A stranger in the slot of a key comes and goes, and only that one look has seen it."""

    async def gone(*_: object) -> None:
        raise StoreUnavailable("gone")

    door = await world.credential(1)
    shared = Account(Credential(door[:6] + b"\7\7" + door[8:]))
    await world.port.add(VLESS, "visitor", shared, CALL_SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr(world.cycles.recorder, "record", gone)
        with pytest.raises(StoreUnavailable):
            await world.cycle()
    await world.port.remove(VLESS, "visitor", CALL_SECONDS)

    assert kinds(await world.cycle()) == [StepKind.REPLACE]
