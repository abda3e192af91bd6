"""What a cycle did, told to people: the log lines and metrics of one node."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from reconciler.errors import StoreError
from reconciler.logs import Repeats
from reconciler.loop.apply import Applied
from reconciler.loop.look import Look
from reconciler.loop.outcome import CycleReport, KeyedReport
from reconciler.model import Desired, Instant, Outcome, Probe, Standing, StepKind
from reconciler.plan.rows import telling
from reconciler.plan.steps import Phase, Plan, Step
from reconciler.status.board import Sight
from reconciler.status.metrics import Metrics

log = structlog.get_logger()

LINES_PER_CYCLE = 20
"""More changes than these are counted, not listed."""

BOOT_TOLERANCE_SECONDS = 2.5
"""Uptime comes in whole seconds, and the answer takes its time."""

_CHANGE = {
    StepKind.EXTEND: "promise extended",
    StepKind.ADD: "key added",
    StepKind.REPLACE: "key replaced",
    StepKind.REMOVE: "key removed",
}
_TROUBLE = {
    Outcome.UNREACHABLE: "node unreachable",
    Outcome.REJECTED: "node rejected",
    Outcome.FAILED: "cycle failed",
}


@dataclass(slots=True)
class Reporter:
    """Tells of one node. `monotonic` spaces repeats out, `wall` dates what Prometheus reads."""

    node: str
    metrics: Metrics
    repeats: Repeats
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    sight: Sight = field(default_factory=Sight)
    store_repeats: Repeats = field(default_factory=Repeats)
    """Of all nodes together: one database out of reach is one trouble, and not one for each node."""

    _boot_at: Instant | None = None
    _uptime: int = 0
    _held: frozenset[int] = frozenset()
    _orphans: frozenset[int] = frozenset()
    _frozen: bool = False

    def is_frozen(self) -> bool:
        """Whether removals are frozen."""
        return self._frozen

    def is_holding(self) -> bool:
        """Whether the guard holds steps."""
        return bool(self._held)

    def cycle_ended(self, outcome: Outcome, seconds: float) -> None:
        """Count a cycle, whatever came of it."""
        self.metrics.cycle_ended(self.node, outcome, seconds)
        self.metrics.attempted(self.node, self.wall())
        self.sight.outcome, self.sight.tried_at = outcome, self.monotonic()

    def probed(self, seconds: float) -> None:
        """Note how long the node took to answer the cheapest question."""
        self.sight.probe_seconds = seconds

    def report(self, report: CycleReport) -> None:
        """Tell of a cycle that came to an end by itself."""
        self.metrics.node_up(self.node, up=report.outcome is not Outcome.UNREACHABLE)
        self._tell_trouble(report)
        self.sight.error = report.error
        if report.seen is None or report.counts is None:
            return
        counts = report.counts
        self.metrics.users(
            self.node,
            desired=counts.desired,
            active=counts.active,
            foreign=counts.foreign,
            orphan=counts.orphans,
        )
        self.metrics.held(self.node, counts.held)
        self.sight.counts = counts
        if report.outcome in (Outcome.CONVERGED, Outcome.CHANGED):
            self.metrics.converged(self.node, self.wall())
            self.sight.converged_at = self.monotonic()
        self._tell_boot(report.seen, report.boot_at)
        if report.look is None:
            return
        self._tell_kept_back(report, report.look)
        self._count_held(report.look.plan)
        self._count_steps(report.applied, report.look.desired, report.applied_at)
        self.metrics.overstay(self.node, _overstay(report.look, report.applied.done))
        self._tell_changes(report.applied, report.outcome)

    def report_keys(self, report: KeyedReport) -> None:
        """Tell of a cycle for a few keys."""
        self._count_steps(report.applied, report.desired, report.applied_at)
        self._tell_changes(report.applied, Outcome.CHANGED)
        if (known := self.sight.counts) is not None:
            active, desired = known.active + report.more_active, known.desired + report.more_desired
            self.sight.counts = replace(known, active=max(0, active), desired=max(0, desired))

    def store_failed(self, error: StoreError) -> None:
        """Tell that a cycle could not be read for or recorded; once for all nodes, which share the cause."""
        self.sight.error = str(error)
        swallowed = self.store_repeats.failed("cycle failed", str(error), self.monotonic())
        if swallowed is not None:
            log.error("cycle failed", reason=str(error), repeats=swallowed)

    def bug(self) -> None:
        """Tell of an error that nobody foresaw, with its trace."""
        self._failed("cycle failed by a bug of ours", "see the trace", trace=True)

    def overran(self, seconds: float) -> None:
        """Tell that a cycle took longer than its interval."""
        log.warning("cycle overran its interval", late_seconds=round(seconds, 1))

    def _failed(self, message: str, reason: str, *, trace: bool = False) -> None:
        self.sight.error = f"{message}: {reason}" if trace else reason
        swallowed = self.repeats.failed(self.node, f"{message}: {reason}", self.monotonic())
        if swallowed is not None:
            log.error(message, reason=reason, repeats=swallowed, exc_info=trace)

    def _tell_trouble(self, report: CycleReport) -> None:
        if (message := _TROUBLE.get(report.outcome)) is not None:
            self._failed(message, report.error or "no reason given")
            return
        swallowed = self.repeats.recovered(self.node)
        if swallowed is not None:
            log.warning("node is well again", failures=swallowed)

    def _tell_boot(self, seen: Probe, boot_at: Instant | None) -> None:
        if boot_at is None:
            return
        known, self._boot_at = self._boot_at, boot_at
        before, self._uptime = self._uptime, seen.uptime_seconds
        if known is None:
            return
        if boot_at - known > BOOT_TOLERANCE_SECONDS or self._uptime < before:
            self.metrics.boot(self.node)
            log.warning("node restarted; its users are put back")

    def _tell_kept_back(self, report: CycleReport, look: Look) -> None:
        """Tell what was not done, once for each change of it."""
        plan = look.plan
        if report.removals_frozen != self._frozen:
            self._frozen = report.removals_frozen
            tell = log.error if self._frozen else log.warning
            tell("removals frozen: the clock of the database jumped" if self._frozen else "removals go on")
        if plan.held_keys != self._held:
            self._held = plan.held_keys
            if self._held and self._frozen:
                log.error("steps held until the clock is explained", keys=len(self._held))
            elif self._held:
                log.error(
                    "steps held: they would break more promises than an hour may",
                    keys=len(self._held),
                    spent=look.desired.early_spent + look.desired.quota_spent,
                    order=f"reconciler release {self.node}",
                )
            else:
                log.warning("nothing is held any more")
        if plan.orphans != self._orphans:
            self._orphans = plan.orphans
            if plan.orphans - plan.strays:
                log.warning("orphans kept: our mark, and no row", keys=len(plan.orphans - plan.strays))
            if plan.strays:
                log.warning(
                    "keys kept that were never placed here: is this the Xray of another row, too?",
                    keys=len(plan.strays),
                )

    def _count_held(self, plan: Plan) -> None:
        for kind, number in Counter(step.kind for step in plan.held).items():
            self.metrics.step(self.node, kind, "held", number)

    def _count_steps(self, applied: Applied, desired: Desired, applied_at: Instant) -> None:
        done, refused = applied.done, {step for step, _ in applied.failures}
        for kind, number in Counter(step.kind for step in done).items():
            self.metrics.step(self.node, kind, "done", number)
        for kind, number in Counter(step.kind for step in refused).items():
            self.metrics.step(self.node, kind, "failed", number)
        for kind, number in Counter(step.kind for step in done if step.drift).items():
            self.metrics.drift(self.node, kind, number)
        took: list[float] = []
        for step in done:
            changed = step.kind in (StepKind.ADD, StepKind.REPLACE) and step.phase is not Phase.LIFT
            if changed and not step.drift:
                took.append(max(0.0, applied_at - desired.rows[step.key_id].changed_at))
                self.metrics.applied_after(took[-1])
        if took:
            self.sight.applied_seconds = max(took)

    def _tell_changes(self, applied: Applied, outcome: Outcome) -> None:
        done = sorted(applied.done, key=lambda step: step.sort_key)
        if not done:
            return
        for step in done[:LINES_PER_CYCLE]:
            log.info(_CHANGE[step.kind], **_words(step))
        if len(done) > LINES_PER_CYCLE:
            log.info("more changes", number=len(done) - LINES_PER_CYCLE)
        log.info("cycle done", outcome=outcome, **_counted(done))


def _words(step: Step) -> dict[str, object]:
    words: dict[str, object] = {"key": step.key_id, "cause": str(step.cause)}
    if step.inbound:
        words["inbound"] = step.inbound
    if step.drift:
        words["drift"] = True
    return words


def _counted(done: Iterable[Step]) -> dict[str, int]:
    counts = Counter(step.kind for step in done)
    return {str(kind): counts[kind] for kind in StepKind if counts[kind]}


def _overstay(look: Look, done: set[Step]) -> float:
    """Return for how long the key that should be gone for longest has still been there, in seconds."""
    removed = {(step.inbound, step.key_id) for step in done if step.kind is StepKind.REMOVE}
    present = look.plan.present.items()
    longest = 0.0
    for row in telling(look.desired.rows):
        if row.desired or row.standing is Standing.STRAY:
            continue
        if any(row.key_id in key_ids and (tag, row.key_id) not in removed for tag, key_ids in present):
            since = row.until if row.standing is Standing.EXPIRED else row.changed_at
            longest = max(longest, look.desired.now - since)
    return longest
