"""The dry run, and the words about one key: by the daemon's own code, on real nodes."""

from typing import Any
from uuid import UUID

import pytest

from reconciler.demo.xray import Listener, client, free_port
from reconciler.model import Account, Credential, Protocol
from reconciler.node.xray import XrayNode
from tests.world import CALL_SECONDS, VLESS, make_world

OPERATOR = client(Protocol.VLESS, "operator@elsewhere", Account(Credential(UUID(int=5).bytes)))
UUID_NAME = "7f3b0c9a-1111-4222-8333-444455556666"


@pytest.fixture
async def node(start_xray):
    return await start_xray(Listener(VLESS.tag, VLESS.protocol, free_port(), [OPERATOR]))


@pytest.fixture
async def world(database, node):
    async with make_world(database, XrayNode("n1", node.api), api=node.api) as world:
        yield world


def steps(document: dict[str, Any]) -> set[tuple[str, int, str]]:
    return {(step["kind"], step["key"], step["inbound"]) for step in document["steps"]}


async def test_plan_prints_what_the_cycle_then_does_and_then_nothing(cli, world):
    keys = await world.keys(5)

    before = await cli("plan", "--json")
    report = await world.cycle()
    after = await cli("plan", "n1", "--json")

    (planned,) = before.document["nodes"]
    assert before.code == 2
    assert steps(planned) == {(str(step.kind), step.key_id, step.inbound) for step in report.applied.done}
    assert steps(planned) == {("add", key, "vless-in") for key in keys}
    assert (planned["foreign"], planned["orphans"]) == (1, [])
    assert after.code == 0
    assert after.document["nodes"][0]["steps"] == []
    assert "nothing to do (1 foreign, active)" in (await cli("plan")).out


async def test_plan_changes_nothing(cli, world):
    await world.keys(5)

    await cli("plan")

    assert await world.names() == {"operator@elsewhere"}
    assert await world.promises() == {}


async def test_a_long_plan_is_cut_and_counted(cli, world):
    await world.keys(50)

    short = await cli("plan")
    whole = await cli("plan", "--all")

    assert short.out.count("vless-in") == 40
    assert "and 10 steps more" in short.out
    assert whole.out.count("vless-in") == 50


async def test_held_steps_are_shown_with_the_budget_that_they_exceed(cli, world):
    keys = await world.keys(5)
    await world.cycle()
    await world.revoke(keys)

    said = await cli("plan")
    document = (await cli("plan", "--json")).document["nodes"][0]

    assert said.code == 2
    assert "5 early steps, 2 an hour are let through" in said.out
    assert "release n1" in said.out
    assert document["steps"] == []
    assert {(step["kind"], step["breach"]) for step in document["held"]} == {("remove", "early")}
    assert document["budgets"][0] == {"budget": "early", "asked": 5, "spent": 0, "limit": 2}


async def test_a_node_that_does_not_answer_hides_no_other(cli, world):
    await world.keys(1)
    dead = f"127.0.0.1:{free_port()}"
    await cli("node", "add", "dead", "--api", dead, "--inbound", "vless-in:vless", "--state", "active")

    said = await cli("plan")
    document = (await cli("plan", "--json")).document["nodes"]

    assert said.code == 69
    assert "n1: 1 step" in said.out
    assert [row["node"] for row in document] == ["dead", "n1"]
    assert document[0]["error"]
    assert (await cli("plan", "n1")).code == 2
    await cli("node", "disable", "dead")
    assert (await cli("plan")).code == 2
    assert (await cli("plan", "dead")).code == 1


async def test_an_inbound_that_the_node_lacks_is_named_and_the_others_are_planned(cli, world):
    await world.keys(1)
    await cli("node", "inbound", "add", "n1", "nope:vless")

    said = await cli("plan")
    (document,) = (await cli("plan", "--json")).document["nodes"]

    assert said.code == 1
    assert "n1: rejected, 1 step" in said.out
    assert "inbound nope: it has no inbound of this tag" in said.out
    assert list(document["refused"]) == ["nope"]
    assert [step["inbound"] for step in document["steps"]] == ["vless-in"]


async def test_an_unknown_node_is_one_line(cli):
    said = await cli("plan", "nope")

    assert (said.code, said.out) == (1, "")
    assert said.err == "reconciler: there is no node 'nope'\n"


async def test_a_conflict_names_who_is_in_the_way_but_no_uuid(cli, world):
    (key,) = await world.keys(1)
    taken = Account(await world.credential(key))
    await world.port.add(VLESS, f"{UUID_NAME} \x1b[31m", taken, CALL_SECONDS)

    said = await cli("plan")
    explained = await cli("explain", f"k{key}")

    assert said.code == 2
    assert "n1: rejected, 1 conflict" in said.out
    assert f"conflict on vless-in: key {key} cannot be added" in said.out
    assert "It cannot be added to vless-in" in explained.out
    for text in (said.out, explained.out):
        assert "\x1b" not in text
        assert UUID_NAME not in text
        assert taken.credential.text() not in text


async def test_an_observed_node_says_that_nothing_happens(cli, world):
    await world.keys(1)
    await cli("node", "observe", "n1")

    said = await cli("plan")

    assert said.code == 2
    assert "only observed" in said.out
    assert "the node is only observed" in (await cli("explain", "1")).out


async def test_explain_tells_of_a_key_that_is_well(cli, world):
    (key,) = await world.keys(1)
    await world.cycle()

    said = await cli("explain", f"k{key}")
    document = (await cli("explain", f"K{key}@TEST", "--json")).document

    for words in (
        "is a key of user:1 somebody",
        "lasts until",
        "It belongs on n1; placed there",
        "It is on the node now, on vless-in.",
        "It is promised there since",
        "Nothing is to be done.",
    ):
        assert words in said.out
    (on_node,) = document["keys"][0]["nodes"]
    assert (on_node["standing"], on_node["present_on"]) == ("desired", ["vless-in"])
    assert (await world.credential(key)).text() not in said.out + str(document)


async def test_explain_tells_since_when_a_key_is_gone(cli, world):
    (key,) = await world.keys(1)
    await world.cycle()
    await world.revoke([key])
    await world.cycle()

    said = await cli("explain", str(key))

    assert "It is not on the node now." in said.out
    assert "Its last promise there ended at" in said.out
    assert ": revoked." in said.out


async def test_explain_tells_why_a_key_is_not_there_yet(cli, world):
    (key,) = await world.keys(1)

    said = await cli("explain", str(key))

    assert "It is not on the node now." in said.out
    assert "No promise of it is on record" in said.out
    assert "The daemon will add it on vless-in in its next cycle." in said.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE reconciler.subscriptions SET expires_at = now() - interval '1 hour'", "has ended"),
        ("UPDATE reconciler.subscriptions SET revoked_at = now()", "it was revoked"),
        ("UPDATE reconciler.keys SET revoked_at = now()", "The key itself was revoked"),
        ("UPDATE reconciler.subscriptions SET starts_at = now() + interval '1 hour'", "has not begun"),
        ("UPDATE reconciler.subscriptions SET traffic_limit_bytes = 0", "its traffic is used up"),
    ],
)
async def test_explain_tells_why_a_key_does_not_belong_there(cli, world, change, words):
    (key,) = await world.keys(1)
    await world.cycle()
    await world.execute(change)

    said = await cli("explain", str(key))

    assert words in said.out
    assert "It is on the node now" in said.out
    assert "remove it" in said.out


async def test_explain_tells_that_a_step_is_held(cli, world):
    keys = await world.keys(3)
    await world.cycle()
    await world.revoke(keys)

    assert f"`reconciler release k{keys[0]}`" in (await cli("explain", str(keys[0]))).out


async def test_explain_of_a_node_that_does_not_answer_says_what_is_promised(cli, world, node):
    (key,) = await world.keys(1)
    await world.cycle()
    node.kill()

    said = await cli("explain", str(key))

    assert said.code == 0
    assert "Whether it is there now is not known" in said.out
    assert "It belongs on n1" in said.out
    assert "It is promised there since" in said.out


@pytest.mark.parametrize("target", ["tg:4711", "Anna", "user:1"])
async def test_explain_of_a_user_is_of_every_key_placed_or_not(cli, target):
    await cli("user", "add", "Anna", "--telegram", "4711")
    assert "no key" in (await cli("explain", target)).out
    await cli("grant", target, "--days", "3")
    await cli("grant", target, "--days", "3", "--pool", "eu")

    said = await cli("explain", target)

    assert said.out.count("is a key of user:1 Anna") == 2
    assert "no node serves its pool eu" in said.out
    assert "gift by cli:" in said.out


@pytest.mark.parametrize(
    "target", ["k012@test", "K12@OTHER", "k\N{ARABIC-INDIC DIGIT ONE}", "", "99", "k99@test", "nobody"]
)
async def test_explain_of_what_there_is_not_is_one_line(cli, target):
    said = await cli("explain", target)

    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("reconciler: there is no key")
    assert len(said.err.splitlines()) == 1
