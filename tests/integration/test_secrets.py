"""No secret leaves its place: one whole run, with everything going wrong, searched for canaries."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict

from reconciler.model import Account, Credential
from reconciler.node.xray import XrayNode
from tests.daemons import DaemonProcess, running
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import CALL_SECONDS, VLESS

CANARIES = [UUID(int=0xCA9A41E50000400080000000_00000000 + number) for number in range(40)]
HAND_MADE = Credential(UUID("badc0de0-cafe-4bad-8bad-c0ffee000001").bytes)
TOKEN = "1234567890:AAF-canary_token_of_a_bot_0123456789"

STATUS_TABLES = (
    "node_status", "promises", "leases", "placements", "orders", "grants", "source", "usage", "usage_periods",
    "usage_checkpoints", "node_boots", "node_usage", "users", "subscriptions", "nodes", "inbounds",
)  # fmt: skip


def spellings(secret: bytes) -> set[str]:
    """A credential as it may have slipped out."""
    text = str(UUID(bytes=secret))
    return {text, text.upper(), secret.hex(), repr(secret)[2:-1], text[9:23]}


async def rows_of_everything_but_keys(database: Database) -> str:
    async with await database.connect() as sql:
        texts = []
        for table in STATUS_TABLES:
            cursor = await sql.execute(f"SELECT t::text FROM reconciler.{table} t")
            texts += [row[0] for row in await cursor.fetchall()]
        for view in ("subscription_state", "key_state"):
            cursor = await sql.execute(f"SELECT t::text FROM reconciler.{view} t")
            texts += [row[0] for row in await cursor.fetchall()]
        return "\n".join(texts)


async def command(database: Database, config: Path, *words: str) -> str:
    """Everything that a command prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "reconciler", "--config", str(config), *words],
        env=os.environ | {"RECONCILER_DSN": database.dsn_as("operator"), "TELEGRAM_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


async def test_a_run_in_which_everything_goes_wrong_tells_no_secret(
    database: Database, start_xray: StartXray, tmp_path: Path
):
    node, other = await start_xray(), await start_xray()
    sql = await database.connect()
    await enrol(sql, node.api, other.api)
    password = str(conninfo_to_dict(database.dsn_as("daemon"))["password"])
    daemon = DaemonProcess(tmp_path, database.dsn_as("daemon"), log={"level": "debug"})
    port = XrayNode("n1", node.api)
    async with running(daemon):
        await daemon.logs("cycle done")
        await port.remove(VLESS, "k1@test", CALL_SECONDS)
        await port.add(VLESS, "k1@test", Account(HAND_MADE), CALL_SECONDS)
        await port.add(VLESS, "somebody", Account(Credential(CANARIES[2].bytes)), CALL_SECONDS)
        await port.add(VLESS, "k9999@test", Account(HAND_MADE), CALL_SECONDS)
        await daemon.logs("orphans kept: our mark, and no row")
        said = [await rows_of_everything_but_keys(database)]
        await sql.execute("UPDATE reconciler.keys SET revoked_at = now()")
        await daemon.logs("steps held: they would break more promises than an hour may")
        said += [
            await command(database, daemon.config, *words.split())
            for words in (
                "status", "status --json", "plan --all", "plan --json",
                "explain k1", "explain k2", "explain somebody-else", "user list", "user show 1", "node list",
                "orphans n1", "release n1 --count 1", "check-config",
                f"grant 1 --days 3 --credential {CANARIES[0]}",
                f"grant 1 --days 3 --credential {CANARIES[0]}x",
                f"rotate 1 --credential {CANARIES[1]}", "audit", "audit k1 --json",
            )
        ]  # fmt: skip
        said.append((await daemon.get("/metrics"))[1])
        said.append((await daemon.get("/readyz?verbose"))[1])
        said.append((await daemon.get("/"))[1])
        other.kill()
        await daemon.logs("node unreachable")
        await sql.execute("ALTER TABLE reconciler.promises RENAME TO elsewhere")
        await daemon.logs("cycle failed")
        said.append((await daemon.get("/"))[1])
        await sql.execute("ALTER TABLE reconciler.elsewhere RENAME TO promises")
        await daemon.stop()
    await port.close()
    await sql.close()
    log = daemon.log_file.read_text()
    said += [log, await rows_of_everything_but_keys(database)]

    everything = "\n".join(said)
    secrets = set().union(*(spellings(canary.bytes) for canary in CANARIES), spellings(HAND_MADE))
    found = {secret for secret in secrets | {password, TOKEN} if secret in everything}
    assert len(everything) > 10_000, "a run that says nothing proves nothing"
    assert found == set()
    assert "<uuid>" not in log, "the last fence is not to be needed"


async def enrol(sql: psycopg.AsyncConnection, *apis: str) -> None:
    for number, api in enumerate(apis, 1):
        await sql.execute(
            """WITH node AS (
                 INSERT INTO reconciler.nodes (name, api, state) VALUES (%s, %s, 'active') RETURNING id)
               INSERT INTO reconciler.inbounds (node_id, tag, protocol) SELECT id, %s, 'vless' FROM node""",
            (f"n{number}", api, VLESS.tag),
        )
    await sql.execute("INSERT INTO reconciler.users (name) VALUES ('a customer')")
    for canary in CANARIES:
        await sql.execute(
            """WITH access AS (INSERT INTO reconciler.subscriptions (user_id, expires_at)
                 VALUES (1, now() + interval '9 days') RETURNING id)
               INSERT INTO reconciler.keys (subscription_id, credential) SELECT id, %s FROM access""",
            (canary,),
        )


def test_a_search_for_canaries_finds_them():
    assert any(spelling in f"oops {CANARIES[0]}" for spelling in spellings(CANARIES[0].bytes))
    assert any(spelling in f"oops {CANARIES[0].bytes!r}" for spelling in spellings(CANARIES[0].bytes))
