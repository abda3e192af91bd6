"""Nodes and their inbounds, as operators write them."""

from dataclasses import replace

import pytest

from reconciler.desired import look
from reconciler.desired.nodes import NewNode
from reconciler.desired.orders import Readdressed
from reconciler.desired.terms import Term
from reconciler.desired.writer import Operator
from reconciler.errors import Invalid, RightsMissing, Taken, Unknown
from reconciler.model import Inbound, NodeState, Protocol

VLESS = Inbound("vless-in", Protocol.VLESS, "xtls-rprx-vision")
TROJAN = Inbound("trojan-in", Protocol.TROJAN)
FRA = NewNode(name="fra-1", api="fra-1.example.org:10085", inbounds=[VLESS])


@pytest.fixture
async def connection(database):
    async with await database.connect("operator") as connection:
        yield connection


@pytest.fixture
def operator(connection):
    return Operator(connection, "root")


async def test_a_node_is_added_observed_with_its_inbounds(operator, connection):
    template = "vless://{uuid}@{host}:443#{name}"
    node_id = await operator.add_node(
        replace(FRA, inbounds=[VLESS, TROJAN], pool="europe", capacity=100, link_template=template)
    )

    node = await look.node(connection, "fra-1")
    assert (node.node_id, node.api, node.pool) == (node_id, "fra-1.example.org:10085", "europe")
    assert (node.capacity, node.state, node.link_template, node.placed) == (100, "observed", template, 0)
    assert await look.inbounds(connection, node_id) == [TROJAN, VLESS]
    (row,) = await look.fleet(connection)
    assert (row.name, row.outcome, row.holder) == ("fra-1", None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(FRA, name="Fra 1"),
        replace(FRA, api="fra-1.example.org"),
        replace(FRA, inbounds=[]),
        replace(FRA, inbounds=[Inbound("in", Protocol.TROJAN, "xtls-rprx-vision")]),
        replace(FRA, pool=""),
        replace(FRA, capacity=-1),
        replace(FRA, link_template="vless://host"),
        replace(FRA, state="asleep"),  # type: ignore[arg-type]  # what a careless caller may pass
    ],
    ids=["name", "api", "no inbound", "flow", "pool", "capacity", "template", "state"],
)
async def test_a_node_that_makes_no_sense_leaves_nothing_behind(operator, connection, wrong):
    with pytest.raises(Invalid):
        await operator.add_node(wrong)

    assert await look.nodes(connection) == []


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (replace(FRA, api="other:1"), "node"),
        (replace(FRA, name="fra-2"), "api"),
        (replace(FRA, name="fra-2", api="FRA-1.example.ORG:10085"), "api"),
        (replace(FRA, name="fra-2", api="tls:fra-1.example.org:10085"), "api"),
    ],
    ids=["name", "api", "api spelled otherwise", "api behind TLS"],
)
async def test_a_name_or_an_address_is_one_nodes_only(operator, connection, second, kind):
    await operator.add_node(FRA)
    with pytest.raises(Taken) as caught:
        await operator.add_node(second)

    assert caught.value.kind == kind
    assert len(await look.nodes(connection)) == 1


async def test_a_plain_address_is_taken_by_the_node_that_has_it_behind_tls(operator):
    await operator.add_node(replace(FRA, api="tls:fra-1.example.org:10085"))

    with pytest.raises(Taken, match="api"):
        await operator.add_node(replace(FRA, name="fra-2"))


async def test_state_capacity_and_template_are_set_once_and_again(operator, connection):
    await operator.add_node(FRA)
    for _ in range(2):
        await operator.set_state("fra-1", NodeState.ACTIVE)
        await operator.set_capacity("fra-1", 7)
        await operator.set_link_template("fra-1", "vless://{uuid}")
    before = await look.node(connection, "fra-1")

    assert (before.state, before.capacity, before.link_template) == ("active", 7, "vless://{uuid}")
    assert not await operator.set_state("fra-1", NodeState.ACTIVE)
    assert await operator.set_state("fra-1", NodeState.DRAINING)
    assert await operator.set_capacity("fra-1", None)
    assert (await look.node(connection, "fra-1")).capacity is None


async def test_an_address_is_mended_while_no_key_lives_there(operator, connection):
    await operator.add_node(FRA)
    await operator.add_node(replace(FRA, name="fra-2", api="fra-2:1"))

    assert await operator.set_api("fra-1", "TLS:FRA-1.example.org:10085") == Readdressed(changed=True)
    assert await operator.set_api("fra-1", "tls:fra-1.example.org:10085") == Readdressed(changed=False)
    for wrong, kind in (("fra-2:1", Taken), ("tls:fra-2:1", Taken), ("fra-1", Invalid)):
        with pytest.raises(kind, match="api"):
            await operator.set_api("fra-1", wrong)
    with pytest.raises(Unknown):
        await operator.set_api("fra-3", "fra-3:1")
    assert (await look.node(connection, "fra-1")).api == "tls:fra-1.example.org:10085"


@pytest.mark.parametrize("row", ["placement", "promise"])
async def test_the_address_of_a_node_with_keys_asks_for_an_order(database, operator, connection, row):
    node_id = await operator.add_node(replace(FRA, state=NodeState.ACTIVE))
    user = await operator.add_user("Olga")
    granted = await operator.grant(user.user_id, Term(days=3))
    if row == "placement":
        await operator.place_on(granted.key_id, "fra-1", "a test")
    else:
        async with await database.connect("daemon") as daemon:
            await daemon.execute(
                "INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until)"
                " VALUES (%s, %s, '', 'infinity')",
                (granted.key_id, node_id),
            )

    for behind in ([], [granted.key_id + 1]):
        with pytest.raises(Invalid, match=r"1 (keys would stay behind|more are on it)"):
            await operator.set_api("fra-1", "other:1", behind)
    assert not (await operator.set_api("fra-1", FRA.api)).changed
    assert (await look.node(connection, "fra-1")).api == FRA.api

    readdressed = await operator.set_api("fra-1", "other:1", [granted.key_id])

    assert (await look.node(connection, "fra-1")).api == "other:1"
    cursor = await connection.execute("SELECT id, kind, key_ids FROM reconciler.orders")
    assert readdressed.order is not None
    assert await cursor.fetchall() == [(readdressed.order.order_id, "leave_behind", [granted.key_id])]


async def test_settings_out_of_bounds_or_of_no_node_are_refused(operator):
    await operator.add_node(FRA)
    for refused in (
        operator.set_state("fra-1", "asleep"),
        operator.set_capacity("fra-1", -1),
        operator.set_link_template("fra-1", "vless://{uuid}{x}"),
        operator.add_inbound("fra-1", Inbound("", Protocol.VLESS)),
    ):
        with pytest.raises(Invalid):
            await refused
    for unknown in (
        operator.set_state("fra-2", NodeState.ACTIVE),
        operator.set_capacity("fra-2", 1),
        operator.add_inbound("fra-2", TROJAN),
        operator.end_inbound("fra-2", "vless-in"),
        operator.end_inbound("fra-1", "trojan-in"),
    ):
        with pytest.raises(Unknown):
            await unknown


async def test_an_inbound_is_added_and_ended_and_the_last_one_stays(operator, connection):
    node_id = await operator.add_node(FRA)
    assert await operator.add_inbound("fra-1", TROJAN)
    assert not await operator.add_inbound("fra-1", TROJAN)
    with pytest.raises(Taken, match="trojan-in"):
        await operator.add_inbound("fra-1", Inbound("trojan-in", Protocol.VLESS))

    assert await operator.end_inbound("fra-1", "vless-in")
    assert not await operator.end_inbound("fra-1", "vless-in")
    with pytest.raises(Invalid, match="last"):
        await operator.end_inbound("fra-1", "trojan-in")
    assert await look.inbounds(connection, node_id) == [TROJAN]
    assert await operator.add_inbound("fra-1", Inbound("vless-in", Protocol.VLESS))


async def test_the_bot_may_not_touch_nodes(database, operator):
    await operator.add_node(FRA)
    async with await database.connect("writer") as connection:
        bot = Operator(connection, "bot")
        for refused in (
            bot.add_node(replace(FRA, name="fra-2", api="fra-2:1")),
            bot.set_state("fra-1", NodeState.DISABLED),
            bot.set_api("fra-1", "other:1"),
            bot.end_inbound("fra-1", "vless-in"),
            bot.release("fra-1", [1]),
            bot.place_on(1, "fra-1", "because"),
        ):
            with pytest.raises(RightsMissing):
                await refused
