"""Revokes by one and by many: what is asked, what is ordered with them, and what the guard makes of it."""

from reconciler.model import StepKind
from tests.world import World, kinds


async def orders(world: World) -> list[tuple[str, list[int]]]:
    rows = await world.execute("SELECT kind, key_ids FROM reconciler.orders ORDER BY id")
    return [(kind, keys) for kind, keys in rows]


async def test_revokes_one_by_one_tell_when_the_guard_will_hold_them(cli, world):
    keys = await world.keys(5)
    await world.cycle()
    first = await cli("revoke", f"k{keys[0]}")
    await world.execute(
        "UPDATE reconciler.promises SET ended_at = now(), ended_reason = 'removed',"
        " early = 'early', early_at = now() WHERE key_id = %s",
        keys[0],
    )
    second = await cli("revoke", f"k{keys[1]}", "--json")
    third = await cli("revoke", "--subscription", str(keys[2]))
    explained = await cli("explain", f"k{keys[2]}")
    last = await cli("revoke", f"k{keys[3]}", "--release")
    away = await cli("revoke", f"k{keys[0]}")

    assert (first.err, second.err, second.document["warnings"]) == ("", "", [])
    assert third.code == 0
    assert (
        "warning: n1: 3 early removals asked in the last hour, 2 let through without an order;"
        " see `reconciler release n1`" in third.err
    )
    assert "The guard holds a step back" in explained.out
    assert "in its next cycle" not in explained.out
    assert "warning" not in last.err
    assert "warning" not in away.err


async def test_removals_that_are_due_anyway_are_not_counted_as_early(cli, world):
    keys = await world.keys(5)
    await world.cycle()
    await world.execute(
        "UPDATE reconciler.promises SET promised_until = now() WHERE key_id = ANY(%s)", keys[:4]
    )

    for key in keys:
        assert (await cli("revoke", f"k{key}")).err == ""


async def test_a_mass_revoke_writes_the_order_with_it(cli, world):
    keys = await world.keys(4)
    await world.cycle()

    unasked = await cli("revoke", "--user", "user:1", typed="\n")
    wrong = await cli("revoke", "--user", "user:1", "--count", "3")
    assert await orders(world) == []
    said = await cli("revoke", "--user", "user:1", typed="4\n")

    assert (unasked.code, wrong.code, said.code) == (1, 1, 0)
    assert "revoked 4 subscriptions" in said.out
    assert await orders(world) == [("release", keys)]
    assert kinds(await world.cycle()) == [StepKind.REMOVE] * 4


async def test_a_mass_revoke_without_an_order_is_held(cli, world):
    keys = await world.keys(6)
    await world.cycle()

    said = await cli("revoke", *(f"k{key}" for key in keys), "--count", "6", "--no-release")

    assert "revoked 6 keys" in said.out
    assert "n1: 6 early removals asked in the last hour, 2 let through" in said.err
    assert await orders(world) == []
    assert kinds(await world.cycle()) == []


async def test_many_keys_are_revoked_with_the_order(cli, world):
    keys = await world.keys(6)
    await world.cycle()

    said = await cli("revoke", *map(str, keys), "--count", "6", "--json")
    again = await cli("revoke", *map(str, keys), "--count", "6", "--json")

    assert (said.document["revoked_keys"], said.document["warnings"]) == (keys, [])
    assert again.document == {"revoked_keys": [], "orders": [], "warnings": []}
    assert kinds(await world.cycle()) == [StepKind.REMOVE] * 6


async def test_one_key_is_revoked_without_asking(cli, world):
    (key, other) = await world.keys(2)
    await world.cycle()

    assert (await cli("revoke", f"k{key}")).code == 0
    assert (await cli("revoke", "k99")).code == 1
    assert (await cli("revoke", "--subscription", "sub:99")).code == 1
    assert (await cli("revoke", "--subscription", "k1")).code == 1
    assert (await cli("revoke", "--user", "nobody")).code == 1
    assert kinds(await world.cycle()) == [StepKind.REMOVE]
    assert await world.names() == {f"k{other}@test"}


async def test_a_confirmed_mass_revoke_says_by_itself_that_it_is_meant(cli, world):
    await world.keys(30)

    said = await cli("revoke", "--user", "user:1", "--count", "30")

    assert (said.code, said.err) == (0, "")
    assert "revoked 30 subscriptions" in said.out
