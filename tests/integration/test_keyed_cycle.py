"""A cycle for a few keys: the same rules, on rows and promises alone."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from reconciler.model import Account, Credential, Outcome, StepKind
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.fakes import FakeNode
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import CALL_SECONDS, OWNER, VLESS, World, make_world


@pytest.fixture(params=["fake", "xray"])
async def world(
    request: pytest.FixtureRequest, database: Database, start_xray: StartXray
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            made = make_world(database, FakeNode(VLESS))
        else:
            node = await start_xray()
            made = make_world(database, XrayNode("n1", node.api), api=node.api)
        yield await stack.enter_async_context(made)


def names(*key_ids: int) -> set[str]:
    return {OWNER.name(key_id) for key_id in key_ids}


async def test_a_granted_key_is_added_and_promised_and_counted(world: World):
    old = await world.keys(3)
    await world.cycle()
    (new,) = await world.keys(1)

    report = await world.cycles.run_keys([new])

    assert report is not None
    assert [step.kind for step in report.applied.done] == [StepKind.ADD]
    assert await world.names() == names(*old, new)
    assert (await world.promises()).keys() == {*old, new}
    assert (await world.status("active_users"), await world.status("desired_users")) == (4, 4)
    assert (await world.cycle()).outcome is Outcome.CONVERGED


async def test_it_lists_nothing(database: Database):
    node = FakeNode(VLESS)
    async with make_world(database, node) as world:
        await world.cycle()
        (key,) = await world.keys(1)
        node.calls.clear()

        await world.cycles.run_keys([key])

        assert node.calls == [("add", VLESS.tag, OWNER.name(key))]


async def test_an_ended_and_a_revoked_key_go_and_an_extended_one_is_promised_longer(world: World):
    ended, revoked, extended, other = await world.keys(4)
    await world.cycle()
    await world.execute(
        "UPDATE reconciler.promises SET promised_until = now() - interval '1 s' WHERE key_id = %s", ended
    )
    await world.set_expiry([ended], "-1 second")
    await world.set_expiry([extended], "90 days")
    await world.revoke([revoked])

    report = await world.cycles.run_keys([ended, revoked, extended])

    assert report is not None
    assert await world.names() == names(extended, other)
    assert (await world.promises()).keys() == {extended, other}
    assert await world.status("active_users") == 2
    assert await world.execute("SELECT key_id FROM reconciler.promises WHERE early = 'early'") == [(revoked,)]


async def test_all_rows_of_a_node_can_be_followed_without_a_listing(database: Database):
    node = FakeNode(VLESS)
    async with make_world(database, node) as world:
        revoked, ended, extended, quiet = await world.keys(4)
        await world.cycle()
        await world.execute(
            "UPDATE reconciler.promises SET promised_until = now() - interval '1 s' WHERE key_id = %s", ended
        )
        await world.set_expiry([ended], "-1 second")
        await world.set_expiry([extended], "90 days")
        await world.revoke([revoked])
        (new,) = await world.keys(1)
        node.calls.clear()

        report = await world.cycles.run_rows()
        again = await world.cycles.run_rows()

        assert report is not None
        assert again is not None
        assert not again.applied.done
        assert sorted(node.calls) == [
            ("add", VLESS.tag, OWNER.name(new)),
            *(("remove", VLESS.tag, OWNER.name(key)) for key in sorted([revoked, ended])),
        ]
        assert (await world.promises()).keys() == {extended, quiet, new}


async def test_a_bell_for_a_key_that_does_not_exist_changes_nothing(world: World):
    keys = await world.keys(2)
    await world.cycle()

    report = await world.cycles.run_keys([987654321, *keys])

    assert report is not None
    assert report.applied.done == set()
    assert await world.names() == names(*keys)


async def test_what_the_guard_would_hold_is_left_to_a_full_cycle(world: World):
    keys = await world.keys(30)
    await world.cycle()
    await world.revoke(keys)

    assert await world.cycles.run_keys(keys) is None
    assert await world.names() == names(*keys)


async def test_early_steps_one_by_one_spend_one_budget(world: World):
    keys = await world.keys(30)
    await world.cycle()

    answered = []
    for key in keys[:7]:
        await world.revoke([key])
        answered.append(await world.cycles.run_keys([key]) is not None)

    assert answered == [True] * 5 + [False] * 2
    assert await world.names() == names(*keys[5:])


async def test_a_changed_credential_is_left_to_a_full_cycle(world: World):
    (key,) = await world.keys(1)
    await world.cycle()
    await world.execute("UPDATE reconciler.keys SET credential = gen_random_uuid() WHERE id = %s", key)

    assert await world.cycles.run_keys([key]) is None


async def test_before_the_first_listing_nothing_is_believed(world: World):
    (key,) = await world.keys(1)

    assert await world.cycles.run_keys([key]) is None
    assert await world.names() == set()


async def test_a_slot_that_the_last_listing_gave_to_a_foreign_user_is_not_taken(world: World):
    await world.port.add(VLESS, "somebody", Account(Credential(b"\1" * 16)), CALL_SECONDS)
    await world.cycle()
    (key,) = await world.keys(1)
    await world.execute(
        "UPDATE reconciler.keys SET credential = '01010101-0101-ffff-0101-010101010101' WHERE id = %s", key
    )

    assert await world.cycles.run_keys([key]) is None
    assert await world.names() == {"somebody"}


async def test_a_name_that_is_there_already_asks_for_a_full_cycle(world: World):
    await world.cycle()
    (key,) = await world.keys(1)
    await world.port.add(VLESS, OWNER.name(key), Account(Credential(b"\2" * 16)), CALL_SECONDS)

    report = await world.cycles.run_keys([key])

    assert report is not None
    assert report.doubt
    assert await world.promises() == {}
    await world.cycle()
    (listed,) = await list_users(world.port, VLESS, CALL_SECONDS)
    assert listed.account == Account(await world.credential(key))


@pytest.mark.parametrize("state", ["observed", "disabled"])
async def test_a_node_that_is_not_acted_on_hears_no_bell(world: World, state: str):
    await world.cycle()
    (key,) = await world.keys(1)
    await world.execute("UPDATE reconciler.nodes SET state = %s", state)

    assert await world.cycles.run_keys([key]) is None
    assert await world.names() == set()
