"""Nodes, as operators add and switch them."""

import pytest

from reconciler.demo.xray import Listener, free_port
from tests.parts_cli import Cli, Said


async def add(cli: Cli, name: str, api: str, *options: str, inbound: str = "vless-in:vless") -> Said:
    return await cli("node", "add", name, "--api", api, "--inbound", inbound, *options)


async def test_a_node_that_is_well_is_added_without_a_warning(cli, start_xray):
    node = await start_xray()

    said = await add(cli, "fra-1", node.api, "--capacity", "10", "--pool", "eu")
    listed = (await cli("node", "list", "--json")).document["nodes"]

    assert (said.code, said.err) == (0, "")
    assert [(row["name"], row["state"], row["capacity"], row["pool"]) for row in listed] == [
        ("fra-1", "observed", 10, "eu")
    ]
    assert listed[0]["inbounds"] == [{"tag": "vless-in", "protocol": "vless", "flow": ""}]
    assert "vless-in:vless" in (await cli("node", "list")).out


async def test_a_node_that_does_not_answer_is_added_with_a_warning(cli):
    said = await add(cli, "fra-1", f"127.0.0.1:{free_port()}", "--json")

    assert said.code == 0
    assert len(said.document["warnings"]) == 1
    assert "warning: fra-1" in said.err


@pytest.mark.parametrize("inbound", ["nope:vless", "vless-in:trojan"])
async def test_an_inbound_that_the_node_does_not_have_so_is_warned_of(cli, start_xray, inbound):
    other = ("vless-in", "vless", free_port(), [{"email": "a", "id": "11111111-2222-4333-8444-555555555555"}])
    node = await start_xray(Listener(*other))

    said = await add(cli, "fra-1", node.api, inbound=inbound)

    assert said.code == 0
    assert f"warning: fra-1: inbound '{inbound.partition(':')[0]}'" in said.err


async def test_a_second_node_at_the_address_of_another_is_warned_of(cli, start_xray):
    node = await start_xray()
    await add(cli, "fra-1", node.api)

    same = await add(cli, "fra-2", f"localhost:{node.api.partition(':')[2]}")
    other = await add(cli, "fra-3", f"127.0.0.1:{free_port()}")

    assert same.code == 0
    assert "fra-1 leads to the same address" in same.err
    assert "same address" not in other.err


@pytest.mark.parametrize(
    ("name", "api", "options"),
    [
        ("fra-1", "h:2", ()),
        ("fra-2", "h:1", ()),
        ("fra-2", "tls:h:1", ()),
        ("fra-2", "h", ()),
        ("fra-2", "unix:relative", ()),
        ("Fra 2", "h:2", ()),
        ("fra-2", "h:2", ("--capacity", "-1")),
        ("fra-2", "h:2", ("--link-template", "vless://{name}")),
        ("fra-2", "h:2", ("--inbound", "vless-in:vless")),
        ("fra-2", "h:2", ("--inbound", "in:trojan:xtls-rprx-vision")),
    ],
    ids=[
        "name taken",
        "address taken",
        "with tls",
        "no port",
        "socket",
        "name",
        "capacity",
        "template",
        "tag",
        "flow",
    ],
)
async def test_a_node_that_makes_no_sense_is_one_line(cli, name, api, options):
    await add(cli, "fra-1", "h:1", "--state", "disabled")

    said = await add(cli, name, api, *options)

    assert said.code == 1
    assert len(said.err.splitlines()) == 1
    assert len((await cli("node", "list", "--json")).document["nodes"]) == 1


async def test_a_node_is_switched_and_changed(cli):
    await add(cli, "fra-1", "h:1", "--state", "disabled")

    for verb, state in (
        ("observe", "observed"),
        ("activate", "active"),
        ("drain", "draining"),
        ("disable", "disabled"),
    ):
        assert f"is now {state}" in (await cli("node", verb, "fra-1")).out
        assert f"was already {state}" in (await cli("node", verb, "fra-1")).out
    changed = await cli("node", "set", "fra-1", "--capacity", "5", "--link-template", "x{uuid}", "--json")
    assert changed.document["changed"] == {"capacity": True, "link template": True}
    (row,) = (await cli("node", "list", "--json")).document["nodes"]
    assert (row["capacity"], row["link_template"]) == (5, "x{uuid}")
    await cli("node", "set", "fra-1", "--capacity", "none", "--link-template", "none")
    (row,) = (await cli("node", "list", "--json")).document["nodes"]
    assert (row["capacity"], row["link_template"]) == (None, None)


async def test_a_mistyped_address_is_mended_and_the_node_met_again(cli, start_xray):
    node = await start_xray()
    dead = f"127.0.0.1:{free_port()}"
    await add(cli, "fra-1", dead)
    await add(cli, "fra-2", node.api)

    mended = await cli("node", "set", "fra-2", "--api", f"127.0.0.1:{free_port()}", "--json")
    well = await cli("node", "set", "fra-1", "--api", node.api)
    again = await cli("node", "set", "fra-1", "--api", node.api)
    taken = await cli("node", "set", "fra-2", "--api", f"tls:{node.api}")

    assert mended.document["changed"] == {"api": True}
    assert len(mended.document["warnings"]) == 1
    assert "warning: fra-2: " in mended.err
    assert (well.out, well.err) == ("fra-1: api set\n", "")
    assert again.out == "fra-1: api as before\n"
    assert taken.code == 1
    assert "exists already" in taken.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("activate", "nope"), 1),
        (("set", "nope", "--api", "h:2"), 1),
        (("set", "fra-1", "--api", "h"), 1),
        (("set", "fra-1"), 64),
        (("set", "fra-1", "--capacity", "many"), 64),
        (("set", "fra-1", "--capacity", "-1"), 1),
        (("inbound", "end", "fra-1", "vless-in"), 1),
        (("inbound", "end", "fra-1", "nope"), 1),
        (("inbound", "add", "fra-1", "vless-in:trojan"), 1),
        (("empty", "fra-1"), 1),
        (("empty", "nope"), 1),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(cli, words, code):
    await add(cli, "fra-1", "h:1", "--state", "disabled")

    assert (await cli("node", *words)).code == code


async def test_an_inbound_is_added_and_ended(cli):
    await add(cli, "fra-1", "h:1", "--state", "disabled")

    assert "has the inbound" in (await cli("node", "inbound", "add", "fra-1", "a:b:trojan")).out
    assert "had already" in (await cli("node", "inbound", "add", "fra-1", "a:b:trojan")).out
    ended = await cli("node", "inbound", "end", "fra-1", "a:b")
    assert "is ended" in ended.out
    assert "users on it stay" in ended.err
    assert "had ended before" in (await cli("node", "inbound", "end", "fra-1", "a:b")).out
