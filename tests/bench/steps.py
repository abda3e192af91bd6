"""P1: steps per second on one real node, beside a bare client and the client of a rival."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import psycopg

from reconciler.demo.xray import XrayProcess, free_port
from reconciler.model import Inbound, Protocol
from reconciler.node.xray import XrayNode
from tests.bench.figures import Goal, Row, ratio, spread
from tests.bench.fleet import TAG, Place, address, enrol, one_node
from tests.bench.ground import Daemon, Ground, until
from tests.bench.lines import Child, contender

RIVAL = "@remnawave/xtls-sdk"
INSTALL_SECONDS = 60.0
NODE = 1
_INBOUND = Inbound(TAG, Protocol.VLESS)

# Their promises end with them, as when 20,000 keys expire at one instant: routine removals, never held.
_EXPIRE = """
WITH ended AS (UPDATE reconciler.subscriptions SET expires_at = now() RETURNING 1)
UPDATE reconciler.promises SET promised_until = now() WHERE ended_at IS NULL
"""
_GRANT = "UPDATE reconciler.subscriptions SET expires_at = now() + interval '30 days'"
_RECORDED = """
SELECT count(*) FILTER (WHERE ended_at IS NULL), date_part('epoch', max(greatest(made_at, ended_at)))
  FROM reconciler.promises WHERE node_id = 1
"""

_SETTLED = "SELECT FROM reconciler.node_status WHERE last_full_at > %s AND active_users = %s"


@dataclass
class Rounds:
    """Seconds and CPU seconds of each round, by contender and direction."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def note(self, who: str, seconds: float, cpu: float) -> None:
        """Note one run."""
        self.seconds.setdefault(who, []).append(seconds)
        self.cpu.setdefault(who, []).append(cpu)


class Shop:
    """A database whose keys all begin and end at once, and the daemon that must follow on its one node."""

    def __init__(self, sql: psycopg.AsyncConnection[tuple[Any, ...]], daemon: Daemon, keys: int) -> None:
        self._sql = sql
        self._daemon = daemon
        self._keys = keys

    async def grant(self) -> tuple[float, float]:
        """Grant all keys; return seconds from the commit to the last promise on record, and CPU seconds."""
        return await self._changed(_GRANT, self._keys)

    async def expire(self) -> tuple[float, float]:
        """End all keys; return seconds until the last promise was ended on record, and CPU seconds."""
        return await self._changed(_EXPIRE, 0)

    async def settled(self) -> None:
        """Wait until the node has all keys by the daemon's own word, given after this call."""
        begun = await (await self._sql.execute("SELECT clock_timestamp()")).fetchone()
        assert begun is not None

        async def said() -> bool:
            cursor = await self._sql.execute(_SETTLED, (begun[0], self._keys))
            return await cursor.fetchone() is not None

        await until(said, "the daemon says that the node has all keys")

    async def _changed(self, change: str, live: int) -> tuple[float, float]:
        cpu = self._daemon.cpu
        await self._sql.execute(change.encode())
        cursor = await self._sql.execute("SELECT date_part('epoch', clock_timestamp())")
        row = await cursor.fetchone()
        assert row is not None

        async def recorded() -> float | None:
            found = await (await self._sql.execute(_RECORDED)).fetchone()
            assert found is not None
            return float(found[1] or 0.0) if found[0] == live else None

        last: float = await until(recorded, f"{live} promises are on record", 0.05)
        return last - float(row[0]), self._daemon.cpu - cpu


@asynccontextmanager
async def shop(ground: Ground, keys: int) -> AsyncIterator[tuple[Shop, XrayProcess, Daemon]]:
    """A shop with so many ended keys, its node, and its daemon."""
    node = one_node(ground.directory, address(), free_port())
    async with ground.database() as database, node:
        await enrol(database.dsn, [Place(node.api, TAG)], keys, promised=False)
        async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as sql:
            await sql.execute("UPDATE reconciler.subscriptions SET expires_at = now()")
            # No mass of ends is held here, whatever a cycle that was under way has promised meanwhile.
            guard = {"floor": 1_000_000}
            async with Daemon(ground.directory, database.dsn_as("daemon"), guard=guard) as daemon:
                await daemon.ready()
                yield Shop(sql, daemon, keys), node, daemon


async def measure(ground: Ground) -> None:
    """Let the contenders take turns: each round puts all keys on, and takes them off."""
    keys, rivals = ground.several(20_000, 3_000), ground.several(2_000, 400)
    rounds = ground.several(5, 3)
    found = Rounds()
    async with (
        shop(ground, keys) as (rows, node, daemon),
        contender("bare") as bare,
        _rival(ground) as rival,
    ):
        await rows.grant()
        await rows.expire()
        if rival is not None:  # the first time is for warming up
            await _run_rival(rival, node.api, rivals // 2, Rounds())
        for turn in range(rounds):
            ground.tell(f"P1 round {turn + 1} of {rounds}")
            found.note("daemon add", *(await rows.grant()))
            await _expect(node.api, keys)
            found.note("daemon remove", *(await rows.expire()))
            await _expect(node.api, 0)
            daemon.freeze()
            ran = await bare.ask(do="steps", api=node.api, tag=TAG, number=keys)
            for kind in ("add", "remove"):
                found.note(f"bare {kind}", ran[kind]["seconds"], ran[kind]["cpu"])
            if rival is not None:
                await _run_rival(rival, node.api, rivals, found)
            daemon.thaw()
    _rows(ground, found, keys, rivals)


def _rows(ground: Ground, found: Rounds, keys: int, rivals: int) -> None:
    say = ground.findings
    least = Goal(0.8, at_most=False, words=">= 0.8 x")
    for kind in ("add", "remove", "both"):
        ours, bare = _rates(found, "daemon", kind, keys), _rates(found, "bare", kind, keys)
        what = {"add": "keys put on", "remove": "keys taken off", "both": "put on, taken off"}[kind]
        say.rows.append(
            Row(
                "P1",
                what,
                "steps/s",
                spread(ours),
                "bare grpc.aio",
                spread(bare),
                ratio(ours, bare),
                goal=least,
            )
        )
        if "rival add" in found.seconds:
            theirs = _rates(found, "rival", kind, rivals)
            better = Goal(5.0, at_most=False, words=">= 5 x")
            say.rows.append(
                Row(
                    "P1",
                    what,
                    "steps/s",
                    spread(ours),
                    "rival",
                    spread(theirs),
                    ratio(ours, theirs),
                    goal=better,
                )
            )
    for kind in ("add", "remove"):
        mine = [1e6 * cpu / keys for cpu in found.cpu[f"daemon {kind}"]]
        bare = [1e6 * cpu / keys for cpu in found.cpu[f"bare {kind}"]]
        what = f"own CPU, {kind}"
        say.rows.append(
            Row("P1", what, "us/step", spread(mine), "bare grpc.aio", spread(bare), ratio(mine, bare))
        )
    say.series["steps"] = {"keys": keys, "seconds": found.seconds, "cpu": found.cpu}


def _rates(found: Rounds, who: str, kind: str, keys: int) -> Sequence[float]:
    if kind != "both":
        return [keys / seconds for seconds in found.seconds[f"{who} {kind}"]]
    pairs = zip(found.seconds[f"{who} add"], found.seconds[f"{who} remove"], strict=True)
    return [2 * keys / (add + remove) for add, remove in pairs]


async def _expect(api: str, users: int) -> None:
    """Raise AssertionError when the node does not hold exactly so many users."""
    port = XrayNode("node", api)
    try:
        found = (await port.probe((_INBOUND,), 10)).users[TAG]
    finally:
        await port.close()
    assert found == users, f"the node has {found} users, not {users}"


async def _run_rival(rival: Child, api: str, number: int, found: Rounds) -> None:
    host, _, port = api.partition(":")
    ran = await rival.ask(host=host, port=port, tag=TAG, number=number)
    assert ran["there"] == number, f"the rival put on {ran['there']} of {number}"
    for kind in ("add", "remove"):
        found.note(f"rival {kind}", ran[kind]["seconds"], ran[kind]["cpu"])


@asynccontextmanager
async def _rival(ground: Ground) -> AsyncIterator[Child | None]:
    """The rival's client, as a process that was warmed up; None when it cannot be had here."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        ground.findings.notes["rival"] = "left out: there is no Node.js here"
    elif (directory := await _installed(ground, npm)) is None:
        ground.findings.notes["rival"] = f"left out: npm could not install {RIVAL}"
    else:
        async with Child([node, str(Path(__file__).with_name("rival.mjs"))], directory) as child:
            yield child
        return
    yield None


async def _installed(ground: Ground, npm: str) -> Path | None:
    """Install the rival's client in a folder of its own; return it, None when npm failed or was silent."""
    ground.tell("P1 installing the rival's client")
    directory = ground.directory / "rival"
    directory.mkdir()
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    child = await asyncio.create_subprocess_exec(
        *command, "--prefix", str(directory), RIVAL, cwd=directory, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        async with asyncio.timeout(INSTALL_SECONDS):
            code = await child.wait()
    except TimeoutError:
        child.kill()
        code = await child.wait()
    listing = directory / "node_modules" / RIVAL / "package.json"
    if code != 0 or not listing.exists():
        return None
    version = json.loads(listing.read_text())["version"]
    words = f"{RIVAL} {version}, one call at a time, remove and add as its node does"
    ground.findings.notes["rival"] = words
    return directory
