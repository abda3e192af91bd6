"""When a node's cycles run, on cycles that only say what was asked of them."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from reconciler.config import Config
from reconciler.config.sections import CycleConfig
from reconciler.errors import NodeUnreachable, StoreUnavailable
from reconciler.loop.apply import Applied
from reconciler.loop.cadence import NodeLoop
from reconciler.loop.cycle import Cycles
from reconciler.loop.outcome import CycleReport, KeyedReport
from reconciler.loop.report import Reporter
from reconciler.model import Desired, Inbound, Node, NodeState, Outcome, Probe, Protocol
from reconciler.plan.steps import Plan

INBOUND = Inbound("in", Protocol.VLESS)


def every(seconds: float) -> Config:
    """Full cycles so far apart."""
    return Config(
        cycle=CycleConfig(full_interval_seconds=seconds, probe_interval_seconds=0.1, jitter_share=0)
    )


@dataclass
class StubPort:
    probe_answer: Probe | Exception = field(default_factory=lambda: Probe(100, {}))
    probes: int = 0
    counts: int = 0

    async def probe(self, inbounds: Collection[Inbound], _: float) -> Probe:
        self.probes += 1
        self.counts += bool(inbounds)
        if isinstance(self.probe_answer, Exception):
            raise self.probe_answer
        return self.probe_answer


class Lease:
    def remaining_seconds(self, _: float) -> float:
        return 60.0


@dataclass
class StubCycles:
    """Records what it is asked; `gate` holds every cycle up while it is closed."""

    asked: list[str | set[int]] = field(default_factory=list)
    outcome: Outcome | Exception = Outcome.CONVERGED
    seen: Probe | None = None
    listing_seconds: float = 0.0
    keyed: KeyedReport | Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    at_work: int = 0
    most_at_work: int = 0
    port: StubPort = field(default_factory=StubPort)
    lease: Lease = field(default_factory=Lease)
    node: Node = Node(1, "n1", "h:1", NodeState.ACTIVE, (INBOUND,))  # noqa: RUF009 - a frozen value

    interval: Config = field(default_factory=lambda: every(3_600))

    def config(self) -> Config:
        return self.interval

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> CycleReport:
        self.asked.append("whole")
        await self._work()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return CycleReport(self.outcome, seen=self.seen, listing_seconds=self.listing_seconds)

    async def run_rows(self) -> KeyedReport | None:
        self.asked.append("rows")
        await self._work()
        if isinstance(self.keyed, Exception):
            raise self.keyed
        return self.keyed

    async def run_keys(self, key_ids: Collection[int]) -> KeyedReport | None:
        self.asked.append(set(key_ids))
        await self._work()
        if isinstance(self.keyed, Exception):
            raise self.keyed
        return self.keyed

    async def _work(self) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await self.gate.wait()
        self.at_work -= 1


class Silent:
    """A reporter that tells nobody."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_args, **_words: None


DONE = KeyedReport(Desired(0.0, (INBOUND,), {}), Plan(), Applied(), 0.0)


@asynccontextmanager
async def turning(cycles: StubCycles) -> AsyncIterator[NodeLoop]:
    stopping = asyncio.Event()
    loop = NodeLoop(
        cast("Cycles", cycles),
        cast("Reporter", Silent()),
        lambda: 0.0,
        lambda: None,
        stopping,
    )
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        stopping.set()
        cycles.gate.set()
        await asyncio.wait_for(task, 10)


async def asked_at_least(cycles: StubCycles, number: int) -> list[str | set[int]]:
    """Wait until so many looks were asked for."""
    async with asyncio.timeout(20):
        while len(cycles.asked) < number:
            await asyncio.sleep(0.001)
    return cycles.asked


async def asked(cycles: StubCycles, number: int) -> list[str | set[int]]:
    """Wait until so many looks were asked for, and see that no more come at once."""
    async with asyncio.timeout(20):
        while len(cycles.asked) < number or cycles.at_work:
            await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0)
    return cycles.asked


async def test_a_bell_for_keys_is_answered_by_a_look_at_these_keys():
    cycles = StubCycles(keyed=DONE)
    cycles.gate.set()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        loop.ring([1, 2])

        assert await asked(cycles, 2) == ["whole", {1, 2}]


async def test_bells_during_a_cycle_get_one_more_look_and_never_two_at_once():
    cycles = StubCycles(keyed=DONE)
    async with turning(cycles) as loop:
        while not cycles.at_work:
            await asyncio.sleep(0)
        for key in (7, 8, 7):
            loop.ring([key])
        cycles.gate.set()

        assert await asked(cycles, 2) == ["whole", {7, 8}]
        assert cycles.most_at_work == 1


async def test_a_storm_of_bells_for_one_key_is_few_looks():
    cycles = StubCycles(keyed=DONE)
    cycles.gate.set()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        for _ in range(10_000):
            loop.ring([7])

        assert await asked(cycles, 2) == ["whole", {7}]


async def test_a_bell_for_the_node_outweighs_those_for_keys():
    cycles = StubCycles(keyed=DONE)
    cycles.gate.set()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        loop.ring([7])
        loop.ring()

        assert await asked(cycles, 2) == ["whole", "whole"]


async def test_what_the_rows_leave_in_doubt_a_full_cycle_settles():
    cycles = StubCycles(keyed=None)
    cycles.gate.set()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        loop.ring([7])

        assert await asked(cycles, 3) == ["whole", {7}, "whole"]


async def test_a_failure_of_the_database_or_of_ours_asks_for_a_full_cycle():
    for failure in (StoreUnavailable("gone"), ValueError("ours")):
        cycles = StubCycles(keyed=failure)
        cycles.gate.set()
        async with turning(cycles) as loop:
            await asked(cycles, 1)
            loop.ring([7])

            assert await asked(cycles, 3) == ["whole", {7}, "whole"]


async def test_a_node_that_backs_off_hears_no_bell_and_comes_back_with_the_first_answer():
    cycles = StubCycles(outcome=Outcome.UNREACHABLE, keyed=DONE)
    cycles.port.probe_answer = NodeUnreachable("n1", "gone")
    cycles.gate.set()
    async with turning(cycles) as loop:
        await asked(cycles, 2)
        for key in range(100):
            loop.ring([key])
        assert await asked(cycles, 2) == ["whole"] * 2, "the cycle that failed, and the probe that did"

        cycles.port.probe_answer = Probe(0, {})
        cycles.outcome = Outcome.CONVERGED
        assert await asked(cycles, 3) == ["whole"] * 3


async def test_a_node_that_answers_probes_but_no_listing_keeps_its_backoff():
    cycles = StubCycles(outcome=Outcome.UNREACHABLE)
    cycles.gate.set()
    async with turning(cycles):
        await asked(cycles, 1)
        for _ in range(4):
            before = cycles.port.probes
            while cycles.port.probes == before:
                await asyncio.sleep(0.001)

        assert cycles.asked == ["whole"]


async def test_a_probe_that_finds_another_number_of_users_or_a_restart_is_followed_by_one_look():
    cycles = StubCycles()
    cycles.gate.set()
    async with turning(cycles):
        await asked(cycles, 1)
        cycles.port.probe_answer = Probe(200, {"in": 3})
        await asked(cycles, 2)
        cycles.port.probe_answer = Probe(0, {"in": 3})

        assert await asked(cycles, 3) == ["whole"] * 3


def huge(seconds: float = 100) -> StubCycles:
    """Cycles of a node whose listing takes a second, so that it is not listed again for minutes."""
    seen = Probe(100, {"in": 100_000})
    cycles = StubCycles(seen=seen, listing_seconds=1.0, keyed=DONE, interval=every(seconds))
    cycles.port.probe_answer = seen
    cycles.gate.set()
    return cycles


async def test_a_bell_for_a_huge_node_is_answered_by_a_look_at_its_rows():
    cycles = huge()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        loop.ring()

        assert await asked(cycles, 2) == ["whole", "rows"]


async def test_what_the_rows_of_a_huge_node_leave_in_doubt_a_listing_settles():
    cycles = huge()
    cycles.keyed = None
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        loop.ring()

        assert await asked(cycles, 3) == ["whole", "rows", "whole"]


async def test_between_two_listings_of_a_huge_node_its_rows_are_read_at_the_interval():
    cycles = huge(seconds=1)
    async with turning(cycles):
        assert (await asked_at_least(cycles, 5))[:5] == ["whole", *["rows"] * 4]


async def test_a_huge_node_that_restarts_is_listed_at_once():
    cycles = huge()
    async with turning(cycles):
        await asked(cycles, 1)
        cycles.port.probe_answer = Probe(0, {})

        assert await asked(cycles, 2) == ["whole", "whole"]


async def test_a_huge_node_that_did_not_answer_is_listed_when_it_is_tried_again():
    cycles = huge()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        cycles.outcome, cycles.keyed = Outcome.UNREACHABLE, None
        loop.ring()
        await asked(cycles, 3)
        cycles.outcome = Outcome.CONVERGED

        assert (await asked_at_least(cycles, 4))[:4] == ["whole", "rows", "whole", "whole"]


async def test_a_huge_node_is_probed_as_often_as_any_and_counted_less_often():
    cycles = huge()
    async with turning(cycles):
        await asked(cycles, 1)
        async with asyncio.timeout(20):
            while cycles.port.probes < 5:
                await asyncio.sleep(0.001)

    assert cycles.port.counts == 0, "the next count is due five seconds after the listing"
    assert cycles.asked == ["whole"]


async def test_an_interval_that_is_made_shorter_counts_at_once():
    cycles = StubCycles()
    cycles.gate.set()
    async with turning(cycles):
        await asked(cycles, 1)
        cycles.interval = every(1)

        assert (await asked_at_least(cycles, 3))[:3] == ["whole"] * 3


async def test_bells_do_not_put_off_an_interval_that_was_made_shorter():
    cycles = StubCycles(keyed=DONE)
    cycles.gate.set()
    async with turning(cycles) as loop:
        await asked(cycles, 1)
        cycles.interval = every(1)
        async with asyncio.timeout(20):
            while cycles.asked.count("whole") < 2:
                loop.ring([7])
                await asyncio.sleep(0.01)


async def test_a_huge_node_that_was_emptied_is_counted_listed_and_then_looked_at_like_any():
    cycles = huge(seconds=1)
    async with turning(cycles):
        await asked(cycles, 1)
        cycles.seen = Probe(100, {"in": 3})
        cycles.listing_seconds = 0.0
        cycles.port.probe_answer = Probe(100, {"in": 3})
        async with asyncio.timeout(20):
            while cycles.asked.count("whole") < 3:
                await asyncio.sleep(0.001)

        assert "rows" not in cycles.asked[cycles.asked.index("whole", 1) :]
