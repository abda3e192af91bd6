"""Metrics: the contract's names, types and labels, all there from the start."""

from collections.abc import Callable

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from reconciler.model import NodeState, Outcome, StepKind
from reconciler.status.metrics import Metrics, Refusal

Said = tuple[tuple[str, ...], float, Callable[[], None]]  # series, figure, what to call

CONTRACT = {
    "reconciler_build_info": ("gauge", {"version", "python"}),
    "reconciler_node_up": ("gauge", {"node"}),
    "reconciler_node_state": ("gauge", {"node", "state"}),
    "reconciler_node_last_attempt_timestamp_seconds": ("gauge", {"node"}),
    "reconciler_node_last_converged_timestamp_seconds": ("gauge", {"node"}),
    "reconciler_cycles": ("counter", {"node", "outcome"}),
    "reconciler_cycle_seconds": ("histogram", set()),
    "reconciler_steps": ("counter", {"node", "step", "outcome"}),
    "reconciler_drift": ("counter", {"node", "step"}),
    "reconciler_users": ("gauge", {"node", "kind"}),
    "reconciler_held_removals": ("gauge", {"node"}),
    "reconciler_desired_to_applied_seconds": ("histogram", set()),
    "reconciler_overstay_seconds": ("gauge", {"node"}),
    "reconciler_traffic_bytes": ("counter", {"node", "direction"}),
    "reconciler_traffic_reading_timestamp_seconds": ("gauge", {"node"}),
    "reconciler_node_boots": ("counter", {"node"}),
    "reconciler_lease_epoch": ("gauge", {"node"}),
    "reconciler_lease_changes": ("counter", {"node"}),
    "reconciler_database_up": ("gauge", set()),
    "reconciler_listener_down": ("gauge", set()),
    "reconciler_unplaced_keys": ("gauge", set()),
    "reconciler_leaving_keys": ("gauge", set()),
    "reconciler_source_refused": ("gauge", {"reason"}),
}
SERIES_OF_A_NODE = 38
SERIES_OF_THE_FLEET = 48
"""Beside those of nodes; so 161 series with 3 nodes, 38,047 with 1,000."""
OWN = {
    "process_cpu_seconds",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
}


@pytest.fixture
def metrics():
    metrics = Metrics()
    metrics.add_node("fra-1")
    return metrics


def families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families("".join(metrics.slices()))}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The one sample of a name and labels; the node is fra-1 unless told."""
    samples = [
        sample for family in families(metrics).values() for sample in family.samples if sample.name == name
    ]
    (found,) = (s.value for s in samples if s.labels in (labels, {"node": "fra-1"} | labels))
    return found


def of_node(metrics: Metrics, node: str) -> list[Sample]:
    samples = [sample for family in families(metrics).values() for sample in family.samples]
    return [sample for sample in samples if sample.labels.get("node") == node]


def test_names_types_and_labels_are_the_contract(metrics):
    found = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in families(metrics).items()
        if name not in OWN
    }

    assert found == CONTRACT


def test_every_metric_says_what_it_is(metrics):
    for name, family in families(metrics).items():
        assert family.documentation.endswith("."), name


def test_every_series_of_a_node_is_at_zero_from_the_start(metrics):
    assert {sample.value for sample in of_node(metrics, "fra-1")} == {0.0}


def test_a_node_costs_no_more_than_sixty_series(metrics):
    assert len(of_node(metrics, "fra-1")) == SERIES_OF_A_NODE <= 60


@pytest.mark.parametrize("nodes", [0, 3, 1000])
def test_the_number_of_series_grows_with_the_nodes_and_with_nothing_else(nodes):
    metrics = Metrics()
    for number in range(nodes):
        metrics.add_node(f"n-{number}")

    page = "".join(metrics.slices())

    series = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(series) == SERIES_OF_THE_FLEET + nodes * SERIES_OF_A_NODE


def test_a_node_s_series_end_with_it_and_later_words_of_it_go_nowhere(metrics):
    metrics.drop_node("fra-1")
    metrics.cycle_ended("fra-1", Outcome.FAILED, 1.0)
    metrics.node_up("fra-1", up=True)

    assert of_node(metrics, "fra-1") == []


def test_a_node_that_is_added_twice_keeps_its_counts(metrics):
    metrics.boot("fra-1")
    metrics.add_node("fra-1")

    assert value(metrics, "reconciler_node_boots_total") == 1


def test_nodes_are_told_apart(metrics):
    metrics.add_node("ams-1")
    metrics.node_up("ams-1", up=True)

    assert value(metrics, "reconciler_node_up") == 0
    assert value(metrics, "reconciler_node_up", node="ams-1") == 1


def test_each_word_reaches_its_series_and_no_other(metrics):
    said: list[Said] = [
        (("reconciler_node_up",), 1, lambda: metrics.node_up("fra-1", up=True)),
        (
            ("reconciler_node_last_attempt_timestamp_seconds",),
            1.25e9,
            lambda: metrics.attempted("fra-1", 1.25e9),
        ),
        (
            ("reconciler_node_last_converged_timestamp_seconds",),
            17.5,
            lambda: metrics.converged("fra-1", 17.5),
        ),
        (("reconciler_cycles_total", "held"), 1, lambda: metrics.cycle_ended("fra-1", Outcome.HELD, 0.5)),
        (
            ("reconciler_steps_total", "add", "done"),
            7,
            lambda: metrics.step("fra-1", StepKind.ADD, "done", 7),
        ),
        (("reconciler_drift_total", "replace"), 3, lambda: metrics.drift("fra-1", StepKind.REPLACE, 3)),
        (("reconciler_held_removals",), 4, lambda: metrics.held("fra-1", 4)),
        (("reconciler_overstay_seconds",), 1.5, lambda: metrics.overstay("fra-1", 1.5)),
        (("reconciler_traffic_bytes_total", "down"), 1e13, lambda: metrics.traffic("fra-1", "down", 10**13)),
        (
            ("reconciler_traffic_reading_timestamp_seconds",),
            18.5,
            lambda: metrics.traffic_read("fra-1", 18.5),
        ),
        (("reconciler_node_boots_total",), 1, lambda: metrics.boot("fra-1")),
        (("reconciler_lease_epoch",), 12, lambda: metrics.lease("fra-1", 12)),
        (("reconciler_lease_changes_total",), 1, lambda: metrics.lease_changed("fra-1")),
    ]
    expected = {}
    for series, number, say in said:
        say()
        expected[series] = number
        changed = {
            (
                s.name,
                *(s.labels[label] for label in ("step", "outcome", "direction") if label in s.labels),
            ): s.value
            for s in of_node(metrics, "fra-1")
            if s.value
        }
        assert changed == expected


def test_users_are_counted_by_kind(metrics):
    metrics.users("fra-1", desired=4, active=3, foreign=2, orphan=1)

    for kind, count in {"desired": 4, "active": 3, "foreign": 2, "orphan": 1}.items():
        assert value(metrics, "reconciler_users", kind=kind) == count


@pytest.mark.parametrize("state", [NodeState.OBSERVED, NodeState.ACTIVE, NodeState.DRAINING])
def test_a_node_is_in_one_state(metrics, state):
    metrics.node_state("fra-1", NodeState.OBSERVED)
    metrics.node_state("fra-1", state)

    for each in ("observed", "active", "draining"):
        assert value(metrics, "reconciler_node_state", state=each) == (each == state)


def test_a_listener_that_is_down_is_told_until_it_is_back(metrics):
    metrics.listener_down(down=True)
    assert value(metrics, "reconciler_listener_down") == 1

    metrics.listener_down(down=False)
    assert value(metrics, "reconciler_listener_down") == 0


def test_keys_without_a_node_are_counted(metrics):
    metrics.unplaced(7)

    assert value(metrics, "reconciler_unplaced_keys") == 7


def test_durations_fall_into_their_buckets(metrics):
    metrics.cycle_ended("fra-1", Outcome.CONVERGED, 0.03)
    metrics.applied_after(0.02)

    assert value(metrics, "reconciler_cycle_seconds_sum") == 0.03
    assert value(metrics, "reconciler_cycle_seconds_bucket", le="0.025") == 0
    assert value(metrics, "reconciler_cycle_seconds_bucket", le="0.05") == 1
    assert value(metrics, "reconciler_desired_to_applied_seconds_bucket", le="0.025") == 1
    assert value(metrics, "reconciler_desired_to_applied_seconds_bucket", le="0.01") == 0


def test_a_refusal_is_there_until_it_is_taken_back(metrics):
    metrics.database_up(up=True)
    assert value(metrics, "reconciler_database_up") == 1
    assert value(metrics, "reconciler_source_refused", reason="empty") == 0

    metrics.source_refused(Refusal.EMPTY, Refusal.CLOCK)
    assert value(metrics, "reconciler_source_refused", reason="empty") == 1
    assert value(metrics, "reconciler_source_refused", reason="clock") == 1

    metrics.source_refused()
    assert value(metrics, "reconciler_source_refused", reason="empty") == 0


def test_no_name_of_a_node_can_forge_a_series(metrics):
    evil = 'x"} 1\nforged{a="\\'
    metrics.add_node(evil)

    assert "forged" not in families(metrics)
    assert len(of_node(metrics, evil)) == SERIES_OF_A_NODE


def test_nodes_may_come_and_go_while_the_text_is_written(metrics):
    for number in range(100):
        metrics.add_node(f"n-{number}")
    parts = []
    for number, part in enumerate(metrics.slices()):
        parts.append(part)
        metrics.drop_node(f"n-{number}")
        metrics.add_node(f"late-{number}")

    assert list(text_string_to_metric_families("".join(parts)))


def test_our_own_use_is_told_without_the_files_that_hardening_hides(metrics):
    found = families(metrics)

    assert found.keys() >= OWN
    assert value(metrics, "process_resident_memory_bytes") > 10**7
    assert value(metrics, "process_open_fds") < value(metrics, "process_max_fds")
    psutil = pytest.importorskip("psutil")
    assert value(metrics, "process_start_time_seconds") == pytest.approx(
        psutil.Process().create_time(), abs=2
    )
