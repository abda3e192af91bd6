"""`compare`: rows, promises and listings side by side, and every disagreement by name."""

from uuid import uuid4

from reconciler.model import Account, Credential
from tests.world import CALL_SECONDS, VLESS


async def test_a_converged_node_agrees(cli, world):
    await world.keys(3)
    await world.cycle()
    await world.cycle()

    said = await cli("compare")
    document = (await cli("compare", "n1", "--json")).document

    assert (said.code, said.out.splitlines()[-1]) == (0, "they agree")
    (totals,) = document["nodes"]
    assert document["disagreements"] == []
    assert [totals[name] for name in ("belong", "promised", "listed", "orphans")] == [3, 3, 3, 0]


async def test_every_disagreement_of_rows_and_promises_is_named(cli, world):
    revoked, expired, rotated, extended, kept = await world.keys(5)
    await world.cycle()
    await world.revoke([revoked])
    await world.set_expiry([expired], "-1 second")
    await world.execute("UPDATE reconciler.keys SET credential = gen_random_uuid() WHERE id = %s", rotated)
    await world.set_expiry([extended], "90 days")
    (new,) = await world.keys(1)
    (homeless,) = await world.keys(1)
    await world.execute("UPDATE reconciler.placements SET ended_at = now() WHERE key_id = %s", homeless)

    said = await cli("compare")
    document = (await cli("compare", "--json")).document

    assert said.code == 2
    for key, words in {
        revoked: "promised, and does not belong there: it was revoked",
        expired: "promised, and does not belong there: its subscription has ended",
        rotated: "belongs there, and is promised with another account",
        extended: "belongs there for longer than it is promised",
        new: "belongs there, and is not promised yet",
    }.items():
        assert f"n1: k{key} {words}" in said.out.splitlines()
    assert f"no node: k{homeless} in force, and on no node of its pool default" in said.out.splitlines()
    assert f"k{kept} " not in said.out
    assert said.out.splitlines()[-1] == "6 disagreements"
    assert len(document["disagreements"]) == 6
    assert [document["nodes"][0][name] for name in ("belong", "promised", "listed")] == [4, 5, 5]
    short = await cli("compare", "--limit", "2")
    assert "and 4 more: --limit 6" in short.out


async def test_a_listing_that_has_other_keys_than_promised_is_told_and_orphans_explain_theirs(cli, world):
    await world.keys(2)
    await world.cycle()
    stranger = Account(Credential(uuid4().bytes))
    await world.port.add(VLESS, "k999@test", stranger, CALL_SECONDS)
    await world.cycle()
    assert (await cli("compare")).code == 0

    await world.execute("UPDATE reconciler.node_status SET active_users = 7")
    said = await cli("compare", "n1")

    assert said.code == 2
    assert (
        "n1: 2 promised, and 7 of ours listed, 1 of them orphans: `reconciler plan n1` names them"
        in said.out.splitlines()
    )


async def test_of_an_observed_node_only_the_numbers_are_told(cli, world):
    await world.keys(2)
    await cli("node", "observe", "n1")
    said = await cli("compare", "n1")
    assert (said.code, said.out.splitlines()[-1]) == (0, "they agree")


async def test_a_node_that_was_never_listed_is_no_zero(cli, world):
    await world.keys(1)
    said = await cli("compare")
    assert said.code == 2
    assert "n1: was never listed" in said.out.splitlines()
    assert (await cli("compare", "--json")).document["nodes"][0]["listed"] is None


async def test_without_nodes_it_says_how_to_begin(cli):
    assert "`reconciler node add`" in (await cli("compare")).out
    unknown = await cli("compare", "nowhere")
    assert (unknown.code, unknown.err) == (1, "reconciler: there is no node 'nowhere'\n")
    assert (await cli("compare", "--limit", "0")).code == 64
