"""What a node counts, said of the one in memory and of a real Xray alike; and what strange ones say."""

import asyncio

import pytest

from reconciler.demo.xray import HOST
from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.model import Owner, Vitals
from reconciler.plan.counting import GREATEST_BYTES
from tests.builders import account
from tests.contract.conftest import FOREIGN, OPERATOR, VLESS, VMESS, Connect, Stage
from tests.contract.scripted import Script, Serve
from tests.parts_xray import StartXray

SECONDS = 5
OURS = Owner("ours")
OTHERS = Owner("somebody-else")


async def test_a_key_is_counted_from_its_first_byte_both_ways(stage: Stage):
    await stage.node.add(VLESS, "k1@ours", account(1), SECONDS)
    await stage.node.add(VLESS, "k2@ours", account(2), SECONDS)
    assert (await stage.node.counters(OURS, SECONDS)).up == {}

    assert await stage.transfer(VLESS, account(1).credential, 300_000) == 300_000

    counts = await stage.node.counters(OURS, SECONDS)
    assert (counts.up, counts.down) == ({1: 300_000}, {1: 300_000})
    assert await stage.node.counters(OURS, SECONDS) == counts, "reading takes nothing away"


async def test_the_counter_of_a_key_goes_on_when_it_is_removed_and_added_again(stage: Stage):
    await stage.node.add(VLESS, "k1@ours", account(1), SECONDS)
    await stage.transfer(VLESS, account(1).credential, 1_000)
    await stage.node.remove(VLESS, "k1@ours", SECONDS)
    assert (await stage.node.counters(OURS, SECONDS)).up == {1: 1_000}

    await stage.node.add(VLESS, "k1@ours", account(1), SECONDS)
    await stage.transfer(VLESS, account(1).credential, 500)

    assert (await stage.node.counters(OURS, SECONDS)).up == {1: 1_500}


async def test_names_that_differ_in_case_are_one_key_on_all_its_inbounds(stage: Stage):
    await stage.node.add(VLESS, "k1@ours", account(1), SECONDS)
    await stage.node.add(VMESS, "K1@OURS", account(1), SECONDS)

    await stage.transfer(VLESS, account(1).credential, 1_000)
    await stage.transfer(VMESS, account(1).credential, 20_000)

    counts = await stage.node.counters(OURS, SECONDS)
    assert (counts.up, counts.down) == ({1: 21_000}, {1: 21_000})


async def test_users_that_are_not_ours_are_told_apart(stage: Stage):
    await stage.transfer(FOREIGN, OPERATOR.account.credential, 1_000)

    foreign = await stage.node.counters(OTHERS, SECONDS)
    ours = await stage.node.counters(Owner("owner"), SECONDS)

    assert (foreign.up, foreign.down, foreign.foreign) == ({}, {}, 2)
    assert (ours.up, ours.down, ours.foreign) == ({77: 1_000}, {77: 1_000}, 0)


async def test_the_vitals_of_one_run_never_fall_and_a_restart_forgets_the_counters(stage: Stage):
    await stage.node.add(VLESS, "k1@ours", account(1), SECONDS)
    await stage.transfer(VLESS, account(1).credential, 1_000)
    first = await stage.node.vitals(SECONDS)
    second = await stage.node.vitals(SECONDS)
    assert all(then <= now for then, now in zip(first, second, strict=True))

    await stage.restart()

    assert (await _answered(stage)).uptime_seconds <= second.uptime_seconds + 1
    assert (await stage.node.counters(OURS, SECONDS)).up == {}


async def test_a_node_that_is_gone_counts_nothing_and_says_so(stage: Stage):
    await stage.stop()

    with pytest.raises(NodeUnreachable):
        await stage.node.vitals(SECONDS)
    with pytest.raises(NodeUnreachable):
        await stage.node.counters(OURS, SECONDS)


async def test_one_query_without_reset_is_sent_and_strange_answers_are_told_apart(
    serve: Serve, script: Script, connect: Connect
):
    script.counters = {
        "user>>>k1@ours>>>traffic>>>uplink": 5,
        "user>>>K1@ours>>>traffic>>>uplink": 7,
        "user>>>k2@ours>>>traffic>>>uplink": -1,
        "user>>>k2@ours>>>traffic>>>downlink": GREATEST_BYTES + 1,
        "user>>>k3@ours>>>traffic>>>downlink": GREATEST_BYTES,
        "user>>>k04@ours>>>traffic>>>uplink": 1,
        "user>>>anna@example.org>>>traffic>>>uplink": 1,
        "user>>>x>>>k5@ours>>>traffic>>>uplink": 1,
        "user>>>k9223372036854775808@ours>>>traffic>>>uplink": 1,
        "inbound>>>user>>>traffic>>>uplink": 1,
        "user>>>k6@ours>>>traffic>>>sidelink": 1,
        "user>>>k6@ours>>>online": 1,
        "user>>>k7@ours>>>traffic>>>uplink\n": 1,
        "": 1,
    }

    counts = await connect(f"{HOST}:{await serve()}").counters(OURS, SECONDS)

    assert script.queries == [("user>>>", False)]
    assert (counts.up, counts.down) == ({1: 12}, {3: GREATEST_BYTES})
    assert (counts.foreign, counts.malformed, counts.refused) == (4, 5, 2)


async def test_the_counters_of_100_000_users_arrive_whole_while_other_work_goes_on(
    serve: Serve, script: Script, connect: Connect
):
    script.counters = {
        f"user>>>k{number}@ours>>>traffic>>>{way}link": number
        for number in range(1, 100_001)
        for way in ("up", "down")
    }
    node = connect(f"{HOST}:{await serve()}")
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(other_work())
    counts = await node.counters(OURS, 60)
    other.cancel()

    assert sum(counts.up.values()) == sum(counts.down.values()) == 100_000 * 100_001 // 2
    assert turns >= 200


async def test_a_node_without_statistics_is_told_as_such(start_xray: StartXray, connect: Connect):
    process = await start_xray(services=["HandlerService"])
    node = connect(process.api)

    with pytest.raises(NodeRejected, match=r"its api\.services lack StatsService"):
        await node.counters(OURS, SECONDS)


async def _answered(stage: Stage) -> Vitals:
    for _ in range(200):
        try:
            return await stage.node.vitals(SECONDS)
        except NodeUnreachable:
            await asyncio.sleep(0.05)
    raise AssertionError("the node did not come back")
