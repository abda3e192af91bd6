"""`audit` tells who changed what, by the command line and by a raw UPDATE alike."""

from reconciler.cli import session
from tests.rows import place


async def test_it_tells_of_a_key_all_that_bears_on_it(cli, database):
    await cli("node", "add", "fra1", "--api", "fra1:1", "--inbound", "in:vless")
    for name in ("Anna", "Boris"):
        await cli("user", "add", name)
        await cli("grant", name, "--days", "30")
    async with await database.connect() as psql:
        await place(psql, 1, 1)
        await psql.execute("SET application_name = 'psql'")
        await psql.execute("UPDATE reconciler.subscriptions SET plan = 'gold'")
    await cli("revoke", "k1")

    said = await cli("audit", "k1", "--json")
    found = [(change["table_name"], change["column_name"]) for change in said.document["changes"]]
    assert found == [
        ("keys", "revoked_at"),
        ("subscriptions", "plan"),
        ("placements", None),
        ("grants", None),
        ("keys", None),
        ("subscriptions", None),
        ("users", None),
    ]
    revoked, plan = said.document["changes"][:2]
    assert (plan["rows"], plan["row_id"], plan["before"], plan["after"]) == (2, 1, "", "gold")
    assert (plan["application"], revoked["application"]) == ("psql", f"reconciler {session.actor()}")
    assert revoked["role"] == database.dsn_as("operator").split("user=")[1].split()[0]
    assert revoked["before"] is None
    assert (await cli("audit", "sub:1", "--json")).document == said.document
    assert (await cli("audit", "user:1", "--json")).document == said.document

    words = (await cli("audit", "k1")).out
    assert "subscriptions 1" in words
    assert "gold" in words
    node = (await cli("audit", "fra1", "--json")).document["changes"]
    assert {change["table_name"] for change in node} == {"nodes", "inbounds"}


async def test_it_tells_the_latest_of_all_and_as_much_as_is_asked_for(cli, database):
    for name in ("Anna", "Boris", "Clara"):
        await cli("user", "add", name)
    async with await database.connect("writer") as shop:
        role = shop.info.user
        await shop.execute("UPDATE reconciler.users SET name = name || '\u202e\x1b[2J'")

    latest = await cli("audit", "--limit", "2")
    assert latest.out.count("\n") == 4
    assert "older ones are not shown: --limit 20" in latest.out
    assert "\x1b" not in latest.out
    assert "\u202e" not in latest.out
    by_shop = (await cli("audit", "--role", role, "--json")).document["changes"]
    assert [(change["rows"], change["column_name"]) for change in by_shop] == [(3, "name")]
    assert "no such change" in (await cli("audit", "--since", "2099-01-01T00:00:00Z")).out


async def test_it_says_what_it_cannot_answer(cli):
    assert "no such change is on record" in (await cli("audit", "k7")).out
    assert "there is no key, subscription, user or node 'nobody'" in (await cli("audit", "nobody")).err
    for wrong in (("--limit", "0"), ("--limit", "99999999"), ("--since", "1999-01-01T00:00:00Z")):
        said = await cli("audit", *wrong)
        assert (said.code, "from" in said.err) == (1, True)
