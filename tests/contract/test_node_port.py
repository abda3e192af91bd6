"""What a node is, said of the one in memory and of a real Xray alike."""

import asyncio
import itertools

import pytest

from reconciler.errors import (
    InboundMissing,
    NameMissing,
    NameTaken,
    NodeRejected,
    NodeUnreachable,
)
from reconciler.model import Inbound, Listed, Protocol
from reconciler.node.port import list_users
from tests.builders import account
from tests.contract.conftest import FOREIGN, OPERATOR, SOCKS, TROJAN, VLESS, VMESS, Stage

NOWHERE = Inbound("no-such-tag", Protocol.VLESS)
VISION = "xtls-rprx-vision"
EVERY_PROTOCOL = pytest.mark.parametrize(
    "inbound", [VLESS, VMESS, TROJAN], ids=lambda inbound: inbound.protocol
)
SECONDS = 5


@EVERY_PROTOCOL
async def test_an_added_user_is_listed_and_gets_in_until_removed(stage: Stage, inbound: Inbound):
    key = account(1)

    await stage.node.add(inbound, "k1@owner", key, SECONDS)
    assert list(await list_users(stage.node, inbound, SECONDS)) == [Listed("k1@owner", key)]
    assert await stage.opens(inbound, key.credential)

    await stage.node.remove(inbound, "k1@owner", SECONDS)
    assert list(await list_users(stage.node, inbound, SECONDS)) == []
    assert not await stage.opens(inbound, key.credential)


@EVERY_PROTOCOL
async def test_a_taken_name_is_refused_whatever_the_account(stage: Stage, inbound: Inbound):
    await stage.node.add(inbound, "k1@owner", account(1), SECONDS)

    for offered in (account(1), account(2)):
        with pytest.raises(NameTaken, match=r"k1@owner.*: the name is there already"):
            await stage.node.add(inbound, "k1@owner", offered, SECONDS)

    assert list(await list_users(stage.node, inbound, SECONDS)) == [Listed("k1@owner", account(1))]


@EVERY_PROTOCOL
async def test_removing_what_is_not_there_says_so(stage: Stage, inbound: Inbound):
    with pytest.raises(NameMissing, match=r"k1@owner.*: there is no such name"):
        await stage.node.remove(inbound, "k1@owner", SECONDS)


@pytest.mark.parametrize(
    ("inbound", "words"),
    [
        (NOWHERE, "it has no inbound of this tag"),
        (SOCKS, "its inbound of this tag holds no users"),
    ],
    ids=["unknown", "holds-no-users"],
)
async def test_an_inbound_that_is_not_there_is_told_as_such(stage: Stage, inbound: Inbound, words: str):
    with pytest.raises(InboundMissing, match=words):
        await list_users(stage.node, inbound, SECONDS)
    with pytest.raises(InboundMissing, match=words):
        await stage.node.add(inbound, "k1@owner", account(1), SECONDS)
    with pytest.raises(InboundMissing, match=words):
        await stage.node.remove(inbound, "k1@owner", SECONDS)


async def test_a_probe_counts_each_inbound_that_is_there(stage: Stage):
    await stage.node.add(VLESS, "k1@owner", account(1), SECONDS)
    await stage.node.add(VLESS, "k2@owner", account(2), SECONDS)

    probe = await stage.node.probe([VLESS, VMESS, FOREIGN, NOWHERE, SOCKS], SECONDS)

    assert probe.users == {"vless-in": 2, "vmess-in": 0, "foreign-in": 1}
    assert probe.uptime_seconds >= 0


async def test_a_user_of_the_nodes_own_configuration_is_listed_as_it_is_written(stage: Stage):
    assert list(await list_users(stage.node, FOREIGN, SECONDS)) == [OPERATOR]


async def test_names_are_compared_folded(stage: Stage):
    with pytest.raises(NameTaken):
        await stage.node.add(FOREIGN, "k77@owner", account(1), SECONDS)

    await stage.node.remove(FOREIGN, "k77@owner", SECONDS)
    assert list(await list_users(stage.node, FOREIGN, SECONDS)) == []


@pytest.mark.parametrize(
    ("written", "meant", "same"),
    [
        ("\N{KELVIN SIGN}12@owner", "k12@owner", True),
        ("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i", True),
        ("a\N{GREEK CAPITAL LETTER SIGMA}", "a\N{GREEK SMALL LETTER SIGMA}", True),
        ("a\N{GREEK CAPITAL LETTER SIGMA}", "a\N{GREEK SMALL LETTER FINAL SIGMA}", False),
        ("\N{LATIN SMALL LETTER SHARP S}", "ss", False),
        ("\N{LATIN SMALL LETTER LONG S}", "s", False),
        ("k\N{ARABIC-INDIC DIGIT ONE}@owner", "k1@owner", False),
        ("k01@owner", "k1@owner", False),
    ],
)
@EVERY_PROTOCOL
async def test_names_fold_letter_by_letter(
    stage: Stage, inbound: Inbound, written: str, meant: str, *, same: bool
):
    await stage.node.add(inbound, written, account(1), SECONDS)

    if same:
        with pytest.raises(NameTaken):
            await stage.node.add(inbound, meant, account(2), SECONDS)
    else:
        await stage.node.add(inbound, meant, account(2), SECONDS)
    assert written in {user.name for user in await list_users(stage.node, inbound, SECONDS)}


@pytest.mark.parametrize("leaver", ["k1@owner", "k2@owner"])
async def test_two_names_share_one_slot_and_removing_either_closes_it(stage: Stage, leaver: str):
    first, second = account(1, ignored=1), account(1, ignored=2)
    await stage.node.add(VLESS, "k1@owner", first, SECONDS)
    await stage.node.add(VLESS, "k2@owner", second, SECONDS)
    assert await stage.opens(VLESS, first.credential)
    assert await stage.opens(VLESS, second.credential)

    await stage.node.remove(VLESS, leaver, SECONDS)

    (left,) = await list_users(stage.node, VLESS, SECONDS)
    assert left.name != leaver
    assert not await stage.opens(VLESS, first.credential)
    assert not await stage.opens(VLESS, second.credential)


@pytest.mark.parametrize("inbound", [VMESS, TROJAN], ids=lambda inbound: inbound.protocol)
async def test_only_vless_ignores_a_part_of_the_credential(stage: Stage, inbound: Inbound):
    await stage.node.add(inbound, "k1@owner", account(1, ignored=1), SECONDS)

    assert await stage.opens(inbound, account(1, ignored=1).credential)
    assert not await stage.opens(inbound, account(1, ignored=2).credential)


async def test_the_flow_of_a_user_is_listed(stage: Stage):
    await stage.node.add(VLESS, "k1@owner", account(1, VISION), SECONDS)
    await stage.node.add(VLESS, "k2@owner", account(2), SECONDS)

    flows = {user.name: user.account.flow for user in await list_users(stage.node, VLESS, SECONDS)}
    assert flows == {"k1@owner": VISION, "k2@owner": ""}


@pytest.mark.parametrize(
    ("real", "believed"),
    [
        (real, other)
        for real, other in itertools.product([VLESS, VMESS, TROJAN], Protocol)
        if real.protocol != other
    ],
    ids=lambda value: value.protocol if isinstance(value, Inbound) else str(value),
)
async def test_an_account_of_another_protocol_never_reaches_the_node(
    stage: Stage, real: Inbound, believed: Protocol
):
    wrong = Inbound(real.tag, believed)

    with pytest.raises(NodeRejected, match=f"{real.tag} speaks {real.protocol}, not {believed}"):
        await stage.node.add(wrong, "k1@owner", account(1), SECONDS)
    assert list(await list_users(stage.node, real, SECONDS)) == []

    await stage.node.add(real, "k1@owner", account(1), SECONDS)
    with pytest.raises(NodeRejected, match=f"{real.tag} speaks {real.protocol}, not {believed}"):
        await list_users(stage.node, wrong, SECONDS)


async def test_a_restart_forgets_what_was_added_and_keeps_what_was_configured(stage: Stage):
    await stage.node.add(FOREIGN, "k1@owner", account(1), SECONDS)

    await stage.restart()

    probe = await _answered(stage, FOREIGN)
    assert probe.users == {"foreign-in": 1}
    assert list(await list_users(stage.node, FOREIGN, SECONDS)) == [OPERATOR]
    assert not await stage.opens(FOREIGN, account(1).credential)


async def test_a_node_that_is_gone_is_unreachable_and_answers_once_it_is_back(stage: Stage):
    await stage.node.add(VLESS, "k1@owner", account(1), SECONDS)
    await stage.stop()

    with pytest.raises(NodeUnreachable):
        await stage.node.probe([VLESS], SECONDS)
    with pytest.raises(NodeUnreachable):
        await list_users(stage.node, VLESS, SECONDS)
    with pytest.raises(NodeUnreachable):
        await stage.node.add(VLESS, "k2@owner", account(2), SECONDS)
    with pytest.raises(NodeUnreachable):
        await stage.node.remove(VLESS, "k1@owner", SECONDS)

    await stage.go_on()
    assert (await _answered(stage, VLESS)).users == {"vless-in": 0}


async def test_many_steps_at_once_all_take_effect(stage: Stage):
    users = {f"k{number}@owner": account(number) for number in range(1, 301)}

    await asyncio.gather(*(stage.node.add(VLESS, name, key, SECONDS) for name, key in users.items()))

    assert dict(await list_users(stage.node, VLESS, SECONDS)) == users


async def _answered(stage: Stage, inbound: Inbound):
    """Probe until the node answers: gRPC comes back to a lost node within about a second."""
    for _ in range(200):
        try:
            return await stage.node.probe([inbound], SECONDS)
        except NodeUnreachable:
            await asyncio.sleep(0.05)
    raise AssertionError("the node did not come back")
