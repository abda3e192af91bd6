"""Who has access: users, grants, keys and links, as operators write them."""

import io
from uuid import UUID, uuid4

import pytest
import segno

from reconciler.demo.xray import free_port
from tests.parts_cli import Cli
from tests.rows import promise

TEMPLATE = "vless://{uuid}@{host}:443#{name}"


@pytest.fixture
async def anna(cli):
    """A user to give something to."""
    await cli("user", "add", "Anna", "--telegram", "4711")
    return "user:1"


async def place_on_new_node(cli: Cli, key: str, *options: str) -> None:
    api = f"127.0.0.1:{free_port()}"
    await cli("node", "add", "n1", "--api", api, "--inbound", "in:vless", "--state", "active", *options)
    assert (await cli("place", key, "n1")).code == 0


async def test_a_user_is_added_listed_shown_and_given_a_role(cli, anna):
    again = await cli("user", "add", "Anna again", "--telegram", "4711", "--json")
    await cli("user", "role", anna, "manager")
    shown = await cli("user", "show", "tg:4711", "--json")

    assert again.document["name"] == "Anna"
    assert (shown.document["user_id"], shown.document["role"]) == (1, "manager")
    assert (shown.document["subscriptions"], shown.document["keys"]) == ([], [])
    assert "no_subscription" in (await cli("user", "list")).out
    assert "Anna" in (await cli("user", "list", "--bucket", "no_subscription")).out


@pytest.mark.usefixtures("anna")
@pytest.mark.parametrize("name", ["Anna", "tg:4711", "user:1", "id:1", "telegram:4711", "name:Anna", "1"])
async def test_a_user_is_found_by_id_telegram_and_name(cli, name):
    assert (await cli("user", "show", name, "--json")).document["user_id"] == 1


@pytest.mark.usefixtures("anna")
async def test_a_name_that_two_users_have_is_answered_with_the_candidates(cli):
    await cli("user", "add", "Anna")

    said = await cli("grant", "Anna", "--days", "3")

    assert said.code == 1
    assert "user:1, user:2" in said.err


async def test_a_grant_makes_a_key_and_the_same_payment_again_changes_nothing(cli, anna):
    words = ("grant", anna, "--days", "30", "--external-id", "p1", "--amount", "499", "--currency", "EUR")
    first = await cli(*words, "--traffic", "1.5TiB", "--json")
    second = await cli(*words, "--json")

    assert first.document["repeated"] is False
    assert second.document == {**first.document, "repeated": True}
    shown = (await cli("user", "show", anna, "--json")).document
    assert [row["traffic_limit_bytes"] for row in shown["subscriptions"]] == [3 * 2**39]
    history = (await cli("explain", "k1", "--json")).document["history"]["1"]
    assert [(line["kind"], line["amount"]) for line in history] == [("payment", 499)]
    assert history[0]["actor"].startswith("cli:")


@pytest.mark.parametrize(
    "options",
    [
        ("--days", "0"),
        ("--days", "99999"),
        ("--until", "2999-01-01T00:00:00Z"),
        ("--until", "2021-01-01T00:00:00Z"),
        ("--starts", "2031-01-01T00:00:00Z", "--until", "2030-01-01T00:00:00Z"),
        ("--days", "3", "--credential", "no-uuid"),
        ("--days", "3", "--amount", "499"),
        ("--days", "3", "--pool", "EU!"),
    ],
    ids=["no day", "too far", "absurd", "past", "backwards", "credential", "amount", "pool"],
)
async def test_a_grant_that_makes_no_sense_is_one_line_and_writes_nothing(cli, anna, options):
    said = await cli("grant", anna, *options)

    assert said.code == 1
    assert len(said.err.splitlines()) == 1
    assert "no-uuid" not in said.err
    assert (await cli("user", "show", anna, "--json")).document["subscriptions"] == []


@pytest.mark.parametrize("options", [("--days", "30", "--until", "2090-12-31T00:00:00Z"), ()])
async def test_a_grant_without_one_end_names_the_options(cli, anna, options):
    said = await cli("grant", anna, *options)

    assert said.code == 64
    assert "give --days or --until" in said.err


async def test_an_end_in_the_past_is_shown_as_it_was_given(cli, anna):
    said = await cli("grant", anna, "--until", "2021-01-01T00:00:00Z")

    assert "until = '2021-01-01 00:00:00+00:00': an end after the start, which is now" in said.err


async def test_a_key_that_no_node_will_take_is_granted_with_a_warning(cli, anna):
    nowhere = await cli("grant", anna, "--days", "3", "--pool", "nosuch", "--json")
    api = f"127.0.0.1:{free_port()}"
    await cli("node", "add", "n1", "--api", api, "--inbound", "in:vless")
    paused = await cli("grant", anna, "--days", "3")
    await cli("node", "activate", "n1")
    well = await cli("grant", anna, "--days", "3")
    await cli("node", "set", "n1", "--capacity", "0")
    full = await cli("grant", anna, "--days", "3")

    assert {said.code for said in (nowhere, paused, well, full)} == {0}
    assert nowhere.document["warnings"] == ["k1 waits for a node: no node serves its pool nosuch"]
    assert "warning: k1 waits for a node: no node serves its pool nosuch" in nowhere.err
    assert "its pool default has no active node (n1 is observed)" in paused.err
    assert well.err == ""
    assert "every active node of its pool default is full" in full.err


async def test_a_subscription_whose_keys_are_all_revoked_is_shown_so(cli, anna):
    await cli("grant", anna, "--days", "30")
    before = await cli("user", "show", anna)
    await cli("revoke", "k1")

    assert "all keys revoked" not in before.out
    assert "active, all keys revoked" in (await cli("user", "show", anna)).out
    await cli("revoke", "--subscription", "1")
    assert "all keys revoked" not in (await cli("user", "show", anna)).out


async def test_lists_of_nothing_say_what_to_do(cli):
    assert "`reconciler user add`" in (await cli("user", "list")).out
    assert (await cli("user", "list", "--bucket", "expired")).out == "there is none\n"
    assert "`reconciler node add`" in (await cli("node", "list")).out
    assert (await cli("user", "list", "--json")).document == {"subscriptions": []}


async def test_a_grant_for_an_unknown_user_is_refused(cli):
    said = await cli("grant", "user:7", "--days", "3")

    assert (said.code, said.out) == (1, "")
    assert "there is no user" in said.err


async def test_a_key_that_customers_hold_is_taken_over_from_standard_input_unseen(cli, anna):
    opens = uuid4()
    clashing = UUID(bytes=opens.bytes[:6] + b"\0\0" + opens.bytes[8:])
    words = ("grant", anna, "--days", "3", "--credential", "-")
    first = await cli(*words, typed=f"{opens}\n")
    again = await cli(*words, typed=f"{opens}\n")
    clash = await cli(*words, typed=f"{clashing}\n")
    await place_on_new_node(cli, "k1", "--link-template", TEMPLATE)

    assert first.code == 0
    assert "was granted before" in again.out
    assert clash.code == 1
    assert str(opens) in (await cli("link", "1")).out
    for said in (first, again, clash):
        assert str(opens) not in said.out + said.err
        assert str(clashing) not in said.out + said.err


@pytest.mark.parametrize("what", ["sub:1", "k1", "1", "K1@TEST", "user:1", "Anna"])
async def test_a_subscription_is_extended_by_itself_a_key_or_its_user(cli, anna, what):
    granted = await cli("grant", anna, "--until", "2090-01-01T00:00:00Z", "--json")

    extended = await cli("extend", what, "--days", "2", "--json")

    assert granted.document["expires_at"].startswith("2090-01-01")
    assert extended.document["expires_at"].startswith("2090-01-03")


@pytest.mark.parametrize(
    "what",
    ["k012@test", "k012", "k1@elsewhere", "k\N{ARABIC-INDIC DIGIT ONE}", "", "sub:9", "k9", "user:9"],
)
async def test_a_name_that_is_none_of_ours_extends_nothing(cli, anna, what):
    await cli("grant", anna, "--until", "2090-01-01T00:00:00Z")

    said = await cli("extend", what, "--days", "2")

    assert said.code == 1
    assert len(said.err.splitlines()) == 1
    assert "2090-01-01" in (await cli("user", "show", anna)).out


async def test_a_user_with_two_subscriptions_is_answered_with_both(cli, anna):
    await cli("grant", anna, "--days", "3")
    await cli("grant", anna, "--days", "3")

    said = await cli("extend", anna, "--days", "3")

    assert said.code == 1
    assert "sub:1, sub:2" in said.err


async def test_a_revoked_subscription_is_reopened_before_it_is_extended(cli, anna):
    await cli("grant", anna, "--days", "3")
    assert (await cli("revoke", "--subscription", "sub:1")).code == 0

    refused = await cli("extend", "sub:1", "--days", "3")
    opened = await cli("reopen", "sub:1")
    again = await cli("reopen", "sub:1")

    assert refused.code == 1
    assert "reopen" in refused.err
    assert "open again" in opened.out
    assert "was not revoked" in again.out
    assert (await cli("extend", "sub:1", "--days", "3")).code == 0


async def test_a_rotated_key_has_another_link(cli, anna):
    await cli("grant", anna, "--days", "3")
    nowhere = await cli("link", "k1")
    await place_on_new_node(cli, "k1", "--link-template", TEMPLATE)
    before = await cli("link", "k1")
    rotated = await cli("rotate", "k1")
    after = await cli("link", "k1")

    assert nowhere.code == 1
    assert "not placed: no node serves its pool default" in nowhere.err
    assert before.out.startswith("vless://")
    assert "not on n1 yet: try again in a second" in before.err
    assert after.out != before.out
    assert after.out[8:44] not in rotated.out + rotated.err + before.err


async def test_a_link_right_after_the_grant_says_to_try_again(cli, anna):
    api = f"127.0.0.1:{free_port()}"
    await cli("node", "add", "n1", "--api", api, "--inbound", "in:vless", "--state", "active")
    await cli("grant", anna, "--days", "3")
    early = await cli("link", "k1")
    await cli("revoke", "k1")
    late = await cli("link", "k1")

    assert (early.code, late.code) == (1, 1)
    assert "not placed yet: try again in a second" in early.err
    assert "in force" in late.err
    assert "try again" not in late.err


async def test_a_key_on_several_nodes_has_several_links_and_each_can_be_drawn(cli, anna):
    await cli("grant", anna, "--days", "3", "--spread", "all")
    for name in ("n1", "n2"):
        await cli("node", "add", name, "--api", f"{name}:1", "--inbound", "in:vless", "--state", "active")
        await cli("node", "set", name, "--link-template", TEMPLATE)
        await cli("place", "k1", name)

    links = (await cli("link", "k1")).out.splitlines()
    drawn = (await cli("link", "k1", "--qr")).out
    both = await cli("link", "k1", "--qr", "--json")

    assert [link.rpartition("#")[2] for link in links] == ["n1", "n2"]
    for link in links:
        picture = io.StringIO()
        segno.make(link, micro=False).terminal(picture, compact=True)
        assert f"{link}\n{picture.getvalue()}" in drawn
    assert both.code == 64


async def test_a_link_that_no_code_can_hold_is_told_with_the_bound(cli, anna):
    await cli("grant", anna, "--days", "3")
    await place_on_new_node(cli, "k1", "--link-template", TEMPLATE + "я" * 1000)

    told = await cli("link", "k1", "--qr")

    assert told.code == 1
    assert "link_template = '… of 6,0" in told.err
    assert "QR code can hold" in told.err
    assert told.err.count("\n") == 1 + told.err.count("not on n1 yet")


async def test_a_moving_key_has_the_link_of_its_new_node_once_that_has_it(cli, anna, database):
    await cli("grant", anna, "--days", "3")
    await place_on_new_node(cli, "k1", "--link-template", TEMPLATE)
    await cli("node", "add", "n2", "--api", "n2:1", "--inbound", "in:vless", "--state", "active")
    await cli("node", "set", "n2", "--link-template", TEMPLATE)
    assert "k1 moves to n2" in (await cli("move", "k1", "n2")).out
    early = (await cli("link", "k1", "--json")).document["links"]
    async with await database.connect() as root:
        await promise(root, 1, 2)
    late = (await cli("link", "k1", "--json")).document["links"]

    assert [*early] == ["n1", "n2"]
    assert [*late] == ["n2"]
    assert "told to leave" in (await cli("explain", "k1")).out


async def test_a_node_without_a_template_gives_no_link(cli, anna):
    await cli("grant", anna, "--days", "3")
    await place_on_new_node(cli, "k1")

    said = await cli("link", "k1", "--json")

    assert said.code == 1
    assert "error" in said.document
    assert "has no link template" in said.err


async def test_a_key_is_placed_and_taken_off_by_hand(cli, anna):
    await cli("grant", anna, "--days", "3")
    await place_on_new_node(cli, "k1")

    assert "belonged already" in (await cli("place", "k1", "n1")).out
    assert "no longer" in (await cli("unplace", "k1", "n1")).out
    assert "did not belong" in (await cli("unplace", "k1", "n1")).out
    assert (await cli("place", "k1", "n2")).code == 1
    assert (await cli("place", "k7", "n1")).code == 1
