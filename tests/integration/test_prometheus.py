"""Metrics, rules and dashboard on the real Prometheus, which scrapes the real daemon."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from reconciler.db.migrate import migrate
from reconciler.demo.postgres import EmbeddedPostgres
from reconciler.status.metrics import Metrics
from tests.alerts import (
    ROOT,
    RULE_TESTS_FILE,
    RULES,
    RULES_FILE,
    at_once,
    drawn,
    rules,
    selectors,
)
from tests.daemons import DaemonProcess, running, until
from tests.parts_http import HttpPort
from tests.parts_postgres import MAY_END, Database
from tests.parts_prometheus import PrometheusServer, StartPrometheus
from tests.parts_xray import StartXray
from tests.sites import Site, enrol

NODES = 3


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of its own, which a test may kill."""
    with EmbeddedPostgres({"fsync": "off"}) as server:
        yield server


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path: Path) -> AsyncIterator[Site]:
    nodes = [await start_xray() for _ in range(NODES)]
    async with await database.connect() as sql:
        await enrol(sql, nodes)
        yield Site(sql, nodes, tmp_path, database.dsn_as("daemon"))


def run(*command: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)


def metrics_of(nodes: int) -> Metrics:
    metrics = Metrics()
    for number in range(nodes):
        metrics.add_node(f"n-{number}")
    return metrics


def series_of(nodes: int) -> int:
    lines = "".join(metrics_of(nodes).slices()).splitlines()
    return len([line for line in lines if not line.startswith("#")])


def test_the_rules_are_valid(promtool: str):
    checked = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES_FILE)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_when_it_should_and_not_else(promtool: str):
    checked = run(promtool, "test", "rules", RULE_TESTS_FILE)

    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_the_live_page_is_clean_and_every_expression_finds_its_data(
    promtool: str, start_prometheus: StartPrometheus, site: Site
):
    async with running(site.daemon()) as daemon:
        server = await start_prometheus(f"127.0.0.1:{daemon.port}", RULES)
        await daemon.logs("ready")
        await until(lambda: server.query("reconciler_node_up == 1"), "Prometheus has seen the nodes up")
        await site.grant(30)
        await site.counts(30)

        _, page = await daemon.get("/metrics")
        checked = await asyncio.to_thread(run, promtool, "check", "metrics", given=page)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

        await until(lambda: scraped(server, series_of(NODES)), "a scrape finds all series")
        await all_found(server)
        await nothing_is_wrong(server)
        assert await daemon.stop() == 0


async def all_found(server: PrometheusServer) -> None:
    """Wait until all series that rules and dashboard speak of are there, and all of their figures."""
    read = {selector for rule in rules() for selector in selectors(rule.expr)}
    recorded = {rule.name for rule in rules() if not rule.is_alert}
    lacking = read | recorded | set(drawn().values())

    async def found() -> bool:
        for expr in sorted(lacking):
            samples = await server.query(expr)
            if samples and all(sample["value"][1] != "NaN" for sample in samples):
                lacking.remove(expr)
        return not lacking

    try:
        await until(found, "every expression finds data")
    except AssertionError as error:
        raise AssertionError(f"no data for {sorted(lacking)}") from error


async def scraped(server: PrometheusServer, series: int) -> bool:
    return await server.value("scrape_samples_scraped") == series


async def nothing_is_wrong(server: PrometheusServer) -> None:
    """Prometheus understood all rules, evaluated them without a fault, and raises none of them."""
    understood = await server.rules()

    assert [rule["name"] for rule in understood] == [rule.name for rule in rules()]
    assert {rule["health"] for rule in understood} == {"ok"}
    firing = [rule["name"] for rule in understood if rule["type"] == "alerting" and rule["state"] == "firing"]
    assert firing == []


async def test_faults_make_their_alerts_fire_and_their_end_resolves_them(
    start_prometheus: StartPrometheus, start_xray: StartXray, postgres: EmbeddedPostgres, tmp_path: Path
):
    await migrate(postgres.dsn, "test", lambda _: None)
    nodes = [await start_xray() for _ in range(NODES)]
    lease = {"ttl_seconds": 3.0, "renew_seconds": 1.0, "margin_seconds": 0.5}
    async with running(DaemonProcess(tmp_path, postgres.dsn, lease=lease)) as daemon:
        server = await start_prometheus(f"127.0.0.1:{daemon.port}", at_once(RULES))
        async with await psycopg.AsyncConnection.connect(
            make_conninfo(postgres.dsn, options=MAY_END), autocommit=True
        ) as sql:
            site = Site(sql, nodes, tmp_path, postgres.dsn)
            await enrol(sql, nodes)
            await site.grant(60)
            await site.counts(60)

            nodes[0].kill()
            down = await fires(server, "ReconcilerNodeDown")
            assert [alert["labels"]["node"] for alert in down] == [nodes[0].name]
            await nodes[0].start()
            await resolves(server, "ReconcilerNodeDown")

            await site.execute("UPDATE reconciler.keys SET revoked_at = now()")
            held = await fires(server, "ReconcilerGuardHolding")
            assert all(
                alert["annotations"]["summary"].endswith(f"on {alert['labels']['node']}.") for alert in held
            )
            assert len(await site.on_nodes()) == 60
            await site.execute("UPDATE reconciler.keys SET revoked_at = NULL")
            await resolves(server, "ReconcilerGuardHolding")

        postgres.kill()
        (gone,) = await fires(server, "ReconcilerDatabaseDown")
        assert gone["labels"]["instance"] == f"127.0.0.1:{daemon.port}"
        await asyncio.to_thread(postgres.start)
        await resolves(server, "ReconcilerDatabaseDown")


async def fires(server: PrometheusServer, alert: str) -> list[dict[str, Any]]:
    fired: list[dict[str, Any]] = await until(lambda: server.firing(alert), f"{alert} fires")
    for one in fired:
        assert not any("<error" in text for text in one["annotations"].values()), one
    return fired


async def resolves(server: PrometheusServer, alert: str) -> None:
    async def silent() -> bool:
        return not await server.firing(alert)

    await until(silent, f"{alert} resolves")


async def test_a_thousand_nodes_are_scraped_whole(start_prometheus: StartPrometheus):
    page = HttpPort(metrics_of(1000))
    await page.serve()
    try:
        server = await start_prometheus(page.server.address, scrape_seconds=2)
        await until(lambda: scraped(server, series_of(1000)), "a scrape finds all series")

        assert await server.value("count(count by (node) (reconciler_node_up))") == 1000
    finally:
        await page.server.close()


def test_our_own_figures_are_told_where_the_unit_hides_proc():
    """With /proc as ProcSubset=pid makes it, the client library exports nothing at all."""
    program = (
        "from pathlib import Path; from prometheus_client import CollectorRegistry, ProcessCollector,"
        " generate_latest; from reconciler.status.metrics import Metrics; hidden = CollectorRegistry();"
        " ProcessCollector(registry=hidden); assert not Path('/proc/stat').exists();"
        " assert generate_latest(hidden) == b''; print(''.join(Metrics().slices()))"
    )
    hide = "mount -t proc -o subset=pid,hidepid=invisible proc /proc"
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    told = run(*alone, "sh", "-c", f'{hide} || exit 77; exec "$@"', "sh", sys.executable, "-c", program)
    if told.returncode in (1, 77) and "ermi" in told.stderr:
        pytest.skip(f"a /proc of our own cannot be mounted here: {told.stderr.strip()}")

    assert told.returncode == 0, told.stderr
    families = list(text_string_to_metric_families(told.stdout))
    own = [sample for family in families for sample in family.samples if family.name.startswith("process_")]
    assert len(own) == 6
    assert all(sample.value > 0 for sample in own), own
