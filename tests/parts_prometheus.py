"""A real Prometheus for the tests, and its tool; they are skipped where Debian's package is not installed."""

import asyncio
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import pytest

from reconciler.demo.tied import tied
from reconciler.demo.xray import free_port
from tests.daemons import until
from tests.programs import program


class StartPrometheus(Interface):
    """What the fixture `start_prometheus` gives."""

    async def __call__(
        self, target: str, rules: str | None = None, scrape_seconds: float = 0.5
    ) -> "PrometheusServer": ...


class PrometheusServer:
    """A server that scrapes one daemon under the job name `reconciler`, and evaluates rules as often."""

    def __init__(
        self, directory: Path, program: str, target: str, rules: str | None, scrape_seconds: float
    ) -> None:
        self._url = f"http://127.0.0.1:{free_port()}"
        interval = f"{round(scrape_seconds * 1000)}ms"
        config: dict[str, Any] = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": "250ms",
            },
            "scrape_configs": [{"job_name": "reconciler", "static_configs": [{"targets": [target]}]}],
        }
        if rules is not None:
            (directory / "rules.yml").write_text(rules)
            config["rule_files"] = ["rules.yml"]
        (directory / "prometheus.yml").write_text(json.dumps(config))
        self.log_file = directory / "prometheus.log"
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                tied(
                    [
                        program,
                        f"--config.file={directory}/prometheus.yml",
                        f"--storage.tsdb.path={directory}/prometheus",
                        f"--web.listen-address={self._url.removeprefix('http://')}",
                        "--log.level=warn",
                    ]
                ),
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self._child.poll() is None, self.log_file.read_text()
            try:
                return await self._ask("/-/ready") is not None
            except OSError:
                return False

        await until(answers, "Prometheus is ready")

    def close(self) -> None:
        self._child.kill()
        self._child.wait()

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now, each with `metric` (its labels) and `value`."""
        result: list[dict[str, Any]] = (await self._api("query", query=expr))["result"]
        return result

    async def value(self, expr: str) -> float | None:
        """The one figure that an expression gives; None when it gives none."""
        samples = await self.query(expr)
        assert len(samples) <= 1, samples
        return float(samples[0]["value"][1]) if samples else None

    async def rules(self) -> list[dict[str, Any]]:
        """All rules as Prometheus understood them, with how their last evaluation went."""
        groups = (await self._api("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def firing(self, alert: str) -> list[dict[str, Any]]:
        """The alerts of a name that fire, with their labels and annotations."""
        alerts = (await self._api("alerts"))["alerts"]
        return [it for it in alerts if it["labels"]["alertname"] == alert and it["state"] == "firing"]

    async def _api(self, what: str, **parameters: str) -> dict[str, Any]:
        text = await self._ask(f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}")
        data: dict[str, Any] = json.loads(text)["data"]
        return data

    async def _ask(self, path: str) -> str:
        def ask() -> str:
            try:
                with urllib.request.urlopen(self._url + path, timeout=10) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 503:
                        raise OSError("not ready yet") from error
                    raise AssertionError(f"{path}: {error.read().decode()}") from error

        return await asyncio.to_thread(ask)


@pytest.fixture
def promtool() -> str:
    """The path of Prometheus's tool."""
    return program("prometheus", "promtool")


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[StartPrometheus]:
    """Start a server: `await start_prometheus("127.0.0.1:9108", rules)`; it ends with the test."""
    installed = program("prometheus", "prometheus")
    with ExitStack() as stack:

        async def start(
            target: str, rules: str | None = None, scrape_seconds: float = 0.5
        ) -> PrometheusServer:
            server = PrometheusServer(tmp_path, installed, target, rules, scrape_seconds)
            stack.callback(server.close)
            await server.ready()
            return server

        yield start
