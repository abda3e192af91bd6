"""What Prometheus reads, told in the words of the domain."""

import platform
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from reconciler import __version__
from reconciler.model import Instant, NodeState, Outcome, StepKind
from reconciler.status.own_figures import OwnFigures
from reconciler.status.series import Family, NodeSeries

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

StepOutcome = Literal["done", "failed", "held"]
Direction = Literal["up", "down"]


class Refusal(StrEnum):
    """Why the database is not believed, so that removals are frozen."""

    EMPTY = "empty"
    OLDER = "older"
    OTHER = "other"  # of another cluster
    PARTIAL = "partial"  # half restored
    CLOCK = "clock"  # its clock departed from ours


_STATES = tuple(state for state in NodeState if state is not NodeState.DISABLED)  # that one has no series
_STEP = ("step", tuple(StepKind))
_FAMILIES = (
    Family("reconciler_node_up", "gauge", "Whether the node answered when last asked."),
    Family(
        "reconciler_node_state",
        "gauge",
        "Whether this is the state that the operator gave the node.",
        (("state", _STATES),),
    ),
    Family(
        "reconciler_node_last_attempt_timestamp_seconds",
        "gauge",
        "When a cycle of the node last ended, however.",
    ),
    Family("reconciler_node_last_converged_timestamp_seconds", "gauge", "When the node was last as desired."),
    Family("reconciler_cycles_total", "counter", "Cycles by how they ended.", (("outcome", tuple(Outcome)),)),
    Family(
        "reconciler_steps_total",
        "counter",
        "Steps of plans by what became of them; a held one counts again in every plan that holds it.",
        (_STEP, ("outcome", get_args(StepOutcome))),
    ),
    Family(
        "reconciler_drift_total",
        "counter",
        "Steps that repaired what somebody else changed on the node.",
        (("step", (StepKind.ADD, StepKind.REPLACE)),),
    ),
    Family(
        "reconciler_users",
        "gauge",
        "Users of the node: desired, ours on it, not ours, ours without a row.",
        (("kind", ("desired", "active", "foreign", "orphan")),),
    ),
    Family("reconciler_held_removals", "gauge", "Early steps that the guard holds back."),
    Family(
        "reconciler_overstay_seconds",
        "gauge",
        "For how long the key that should be gone for longest is there.",
    ),
    Family(
        "reconciler_traffic_bytes_total",
        "counter",
        "Traffic of our keys.",
        (("direction", get_args(Direction)),),
    ),
    Family("reconciler_traffic_reading_timestamp_seconds", "gauge", "When traffic was last read and stored."),
    Family("reconciler_node_boots_total", "counter", "Restarts of the node's Xray that were noticed."),
    Family("reconciler_lease_epoch", "gauge", "Epoch of our lease on the node; 0 while we hold none."),
    Family("reconciler_lease_changes_total", "counter", "Times that the lease of the node came to us."),
)

# Gauges of the whole fleet.
_FLEET = {
    "reconciler_database_up": "Whether PostgreSQL answered when last asked.",
    "reconciler_listener_down": (
        "Whether NOTIFY should reach us and does not, so that changes wait for the interval."
    ),
    "reconciler_unplaced_keys": "Keys in force for which no node of their pool has room.",
    "reconciler_leaving_keys": (
        "Keys that a node was told to let go, and keeps until another one surely has them."
    ),
}

# From the cheapest cycle, a small node with nothing to do, to one that meets the deadline of its listing.
_CYCLE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Edges at what is promised: 25 ms after the commit, a second, a full interval; then what a broken node costs.
_APPLIED_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 30.0, 60.0, 300.0, 3600.0)


class Metrics:
    """
    Every metric there is.

    A node's series exist from `add_node` to `drop_node`, at zero from the
    start; what is told of any other node goes nowhere. Times are seconds
    since 1970.
    """

    def __init__(self) -> None:
        # The series that say when a counter began would tell nothing here.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped
        self._nodes = NodeSeries(_FAMILIES)
        self._registry = CollectorRegistry()
        self._registry.register(OwnFigures())
        build = Info("reconciler_build", "The program that runs.", registry=self._registry)
        build.info({"version": __version__, "python": platform.python_version()})
        self._cycle_seconds = self._histogram(
            "reconciler_cycle_seconds", "How long cycles took.", _CYCLE_BUCKETS
        )
        self._applied_seconds = self._histogram(
            "reconciler_desired_to_applied_seconds",
            "From the change of a row to the node's answer.",
            _APPLIED_BUCKETS,
        )
        self._gauges = {name: Gauge(name, about, registry=self._registry) for name, about in _FLEET.items()}
        self._source_refused = Gauge(
            "reconciler_source_refused",
            "Whether the database is not believed, and why; removals are frozen meanwhile.",
            ["reason"],
            registry=self._registry,
        )
        self.source_refused()

    def _histogram(self, name: str, words: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, words, buckets=buckets, registry=self._registry)

    def slices(self) -> Iterator[str]:
        """Yield the text for Prometheus in pieces of less than a millisecond each."""
        yield generate_latest(self._registry).decode()
        yield from self._nodes.slices()

    def add_node(self, node: str) -> None:
        """Begin the series of a node."""
        self._nodes.add(node)

    def drop_node(self, node: str) -> None:
        """End the series of a node."""
        self._nodes.drop(node)

    def node_up(self, node: str, *, up: bool) -> None:
        """Tell whether the node answered."""
        self._nodes.set(node, int(up), "reconciler_node_up")

    def node_state(self, node: str, state: NodeState) -> None:
        """Tell what the operator wants done with the node."""
        for each in _STATES:
            self._nodes.set(node, int(each is state), "reconciler_node_state", each)

    def attempted(self, node: str, at: Instant) -> None:
        """Tell when a cycle ended, however it did."""
        self._nodes.set(node, at, "reconciler_node_last_attempt_timestamp_seconds")

    def converged(self, node: str, at: Instant) -> None:
        """Tell when the node was as desired."""
        self._nodes.set(node, at, "reconciler_node_last_converged_timestamp_seconds")

    def cycle_ended(self, node: str, outcome: Outcome, seconds: float) -> None:
        """Count a cycle and how long it took."""
        self._nodes.increase(node, 1, "reconciler_cycles_total", outcome)
        self._cycle_seconds.observe(seconds)

    def step(self, node: str, kind: StepKind, outcome: StepOutcome, number: int = 1) -> None:
        """Count steps of one kind and fate."""
        self._nodes.increase(node, number, "reconciler_steps_total", kind, outcome)

    def drift(self, node: str, kind: StepKind, number: int = 1) -> None:
        """Count adds or replaces that repaired drift."""
        self._nodes.increase(node, number, "reconciler_drift_total", kind)

    def users(self, node: str, *, desired: int, active: int, foreign: int, orphan: int) -> None:
        """Tell the counts of users on the node."""
        counts = {"desired": desired, "active": active, "foreign": foreign, "orphan": orphan}
        for kind, count in counts.items():
            self._nodes.set(node, count, "reconciler_users", kind)

    def held(self, node: str, number: int) -> None:
        """Tell how many early steps are held back."""
        self._nodes.set(node, number, "reconciler_held_removals")

    def overstay(self, node: str, seconds: float) -> None:
        """Tell for how long the key that should be gone for longest has still been there."""
        self._nodes.set(node, seconds, "reconciler_overstay_seconds")

    def applied_after(self, seconds: float) -> None:
        """Count one change by the time from its row to the node's answer."""
        self._applied_seconds.observe(seconds)

    def traffic(self, node: str, direction: Direction, more_bytes: int) -> None:
        """Count traffic that was read and stored."""
        self._nodes.increase(node, more_bytes, "reconciler_traffic_bytes_total", direction)

    def traffic_read(self, node: str, at: Instant) -> None:
        """Tell when traffic was last read and stored."""
        self._nodes.set(node, at, "reconciler_traffic_reading_timestamp_seconds")

    def boot(self, node: str) -> None:
        """Count a restart of the node's Xray."""
        self._nodes.increase(node, 1, "reconciler_node_boots_total")

    def lease(self, node: str, epoch: int) -> None:
        """Tell the epoch of our lease; 0 when it ran out."""
        self._nodes.set(node, epoch, "reconciler_lease_epoch")

    def lease_changed(self, node: str) -> None:
        """Count that the lease of the node came to us."""
        self._nodes.increase(node, 1, "reconciler_lease_changes_total")

    def database_up(self, *, up: bool) -> None:
        """Tell whether PostgreSQL answered."""
        self._gauges["reconciler_database_up"].set(int(up))

    def listener_down(self, *, down: bool) -> None:
        """Tell whether changes are listened for in vain."""
        self._gauges["reconciler_listener_down"].set(int(down))

    def unplaced(self, keys: int) -> None:
        """Tell how many keys lack a node."""
        self._gauges["reconciler_unplaced_keys"].set(keys)

    def leaving(self, keys: int) -> None:
        """Tell how many keys are still to leave a node."""
        self._gauges["reconciler_leaving_keys"].set(keys)

    def source_refused(self, *reasons: Refusal) -> None:
        """Tell for exactly which reasons the database is not believed; none when it is."""
        for reason in Refusal:
            self._source_refused.labels(reason).set(int(reason in reasons))
