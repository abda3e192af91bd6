"""
The Grafana dashboard, built with the vendor's library; `make dashboard` writes config/dashboard.json anew.

Every expression works without the recording rules, so the dashboard shows
something before they are installed. Of several daemons the freshest says how a
node is: hence `max by (node)`, which also folds what one that is gone has left.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).parents[1] / "config" / "dashboard.json"
UID = "reconciler"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED = "green", "yellow", "red"
OUR_JOB = '{job="reconciler"}'


class Line(NamedTuple):
    """What one expression draws; `legend` may name labels in double braces."""

    expr: str
    legend: str


class Column(NamedTuple):
    """A column of the table of nodes, and the unit and mapping of its cells."""

    title: str
    expr: str
    unit: str = "none"
    words: dict[str, str] | None = None
    alarming: float | None = None


def of_nodes(metric: str, by: str = "node", **labels: str) -> str:
    """The freshest figure of each chosen node."""
    return f"max by ({by}) ({selector(metric, **labels)})"


def rate(metric: str, by: str, **labels: str) -> str:
    return f"sum by ({by}) (rate({selector(metric, **labels)}[$__rate_interval]))"


def selector(metric: str, **labels: str) -> str:
    chosen = {"node": '=~"$node"'} | {name: f'="{value}"' for name, value in labels.items()}
    return metric + "{" + ",".join(f"{name}{value}" for name, value in chosen.items()) + "}"


def quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket[$__rate_interval])))"


def age(metric: str) -> str:
    """How long ago; a node that never came so far has no age."""
    return f"time() - ({of_nodes(metric)} > 0)"


def within(seconds: str) -> Line:
    metric = "reconciler_desired_to_applied_seconds"
    of_all = f"sum(rate({metric}_count[$__rate_interval]))"
    return Line(f'sum(rate({metric}_bucket{{le="{seconds}"}}[$__rate_interval])) / {of_all}', f"{seconds} s")


def steps(*rises: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().steps([model.Threshold(value, color) for value, color in rises])


ALARMING = steps((None, GREEN), (1, RED))
STATES = {"active": 1, "draining": 2, "observed": 3}
NODES = (
    Column(
        "state",
        " + ".join(
            f"{number} * {of_nodes('reconciler_node_state', state=state)}" for state, number in STATES.items()
        ),
        words={str(number): state for state, number in STATES.items()},
    ),
    Column("answers", of_nodes("reconciler_node_up"), words={"0": "no", "1": "yes"}),
    Column("desired", of_nodes("reconciler_users", kind="desired")),
    Column("active", of_nodes("reconciler_users", kind="active")),
    Column("foreign", of_nodes("reconciler_users", kind="foreign")),
    Column("orphans", of_nodes("reconciler_users", kind="orphan"), alarming=1),
    Column("held", of_nodes("reconciler_held_removals"), alarming=1),
    Column("converged", age("reconciler_node_last_converged_timestamp_seconds"), "s", alarming=600),
    Column("tried", age("reconciler_node_last_attempt_timestamp_seconds"), "s", alarming=600),
    Column("overstay", of_nodes("reconciler_overstay_seconds"), "s", alarming=60),
)


def glance() -> list[stat.Panel | table.Panel]:
    missing = (
        f"{of_nodes('reconciler_users', kind='desired')} - {of_nodes('reconciler_users', kind='active')}"
    )
    unconverged = f"time() - {of_nodes('reconciler_node_last_converged_timestamp_seconds')} > 600"
    observed = f"{of_nodes('reconciler_node_state', state='observed')} == 1"
    silent = f"count({of_nodes('reconciler_node_up')} == 0) or vector(0)"
    firing = 'count(ALERTS{alertname=~"Reconciler.*",alertstate="firing"}) or vector(0)'
    return [
        one("Nodes looked at", f"count({of_nodes('reconciler_node_up')})"),
        one("Nodes that do not answer", silent).thresholds(ALARMING),
        one(
            "Nodes not as desired for 10 min", f"count({unconverged} unless {observed}) or vector(0)"
        ).thresholds(steps((None, GREEN), (1, YELLOW))),
        one("Keys on nodes", f"sum({of_nodes('reconciler_users', kind='active')})"),
        one("Keys missing", f"sum(clamp_min({missing}, 0))").thresholds(steps((None, GREEN), (1, YELLOW))),
        one("Keys without a node", "max(reconciler_unplaced_keys)").thresholds(ALARMING),
        one("Removals held", f"sum({of_nodes('reconciler_held_removals')})").thresholds(ALARMING),
        one("Alerts firing", firing).thresholds(ALARMING),
        one("Database", "min(reconciler_database_up)")
        .thresholds(steps((None, RED), (1, GREEN)))
        .mappings(mapped({"0": "out of reach", "1": "reached"})),
        one("What the database says is", "max(reconciler_source_refused)")
        .thresholds(ALARMING)
        .mappings(mapped({"0": "believed", "1": "refused"})),
        one("Grants on their node within 1 s, today", today_within_a_second())
        .unit("percentunit")
        .no_value("no grants"),
        one("Bytes a second", f"sum({rate('reconciler_traffic_bytes_total', 'node')})").unit("Bps"),
        nodes_table(),
    ]


def today_within_a_second() -> str:
    metric = "reconciler_desired_to_applied_seconds"
    return f'sum(increase({metric}_bucket{{le="1.0"}}[24h])) / (sum(increase({metric}_count[24h])) > 0)'


def convergence() -> list[timeseries.Panel]:
    users = [Line(f"sum({of_nodes('reconciler_users', kind=kind)})", kind) for kind in ("desired", "active")]
    since = age("reconciler_node_last_converged_timestamp_seconds")
    return [
        lines("Since a node was as desired", "s", Line(since, "{{node}}")),
        lines("Keys", "short", *users),
        stacked("Cycles by outcome", "cps", Line(rate("reconciler_cycles_total", "outcome"), "{{outcome}}")),
        stacked(
            "Steps done", "cps", Line(rate("reconciler_steps_total", "step", outcome="done"), "{{step}}")
        ),
        lines(
            "Steps refused", "cps", Line(rate("reconciler_steps_total", "node", outcome="failed"), "{{node}}")
        ),
        lines(
            "Keys on their way",
            "short",
            Line("max(reconciler_unplaced_keys)", "without a node"),
            Line("max(reconciler_leaving_keys)", "told to leave one"),
        ),
    ]


def latency() -> list[timeseries.Panel | heatmap.Panel]:
    applied, cycle = "reconciler_desired_to_applied_seconds", "reconciler_cycle_seconds"
    shares = ((0.5, "median"), (0.9, "p90"), (0.99, "p99"))
    return [
        lines("From commit to node", "s", *(Line(quantile(share, applied), word) for share, word in shares)),
        lines("Share of changes on their node within", "percentunit", *map(within, ("0.025", "1.0", "30.0"))),
        lines("A full cycle takes", "s", *(Line(quantile(share, cycle), word) for share, word in shares)),
        heatmap.Panel()
        .title("From commit to node, all changes")
        .datasource(SOURCE)
        .span(12)
        .height(8)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .with_target(
            query(Line(f"sum by (le) (increase({applied}_bucket[$__rate_interval]))", "{{le}}"))
            .format(PromQueryFormat.HEATMAP)
            .ref_id("A")
        ),
    ]


def drift() -> list[timeseries.Panel]:
    boots = f"sum by (node) (increase({selector('reconciler_node_boots_total')}[$__rate_interval]))"
    return [
        lines("Put right on the node", "cps", Line(rate("reconciler_drift_total", "node"), "{{node}}")),
        lines("Orphans", "short", Line(of_nodes("reconciler_users", kind="orphan"), "{{node}}")),
        lines("Foreign users", "short", Line(of_nodes("reconciler_users", kind="foreign"), "{{node}}")),
        lines("Restarts of Xray", "short", Line(boots, "{{node}}")),
    ]


def held() -> list[timeseries.Panel]:
    return [
        lines("Removals held by node", "short", Line(of_nodes("reconciler_held_removals"), "{{node}}")),
        lines(
            "The key that overstays longest", "s", Line(of_nodes("reconciler_overstay_seconds"), "{{node}}")
        ),
        lines(
            "The database is refused because",
            "short",
            Line("max by (reason) (reconciler_source_refused)", "{{reason}}"),
        ),
        stacked(
            "Steps held, in each plan",
            "cps",
            Line(rate("reconciler_steps_total", "step", outcome="held"), "{{step}}"),
        ),
    ]


def traffic() -> list[timeseries.Panel]:
    metric = "reconciler_traffic_bytes_total"
    return [
        stacked("By direction", "Bps", Line(rate(metric, "direction"), "{{direction}}")),
        lines("By node", "Bps", Line(rate(metric, "node"), "{{node}}")),
        lines(
            "Since traffic was read",
            "s",
            Line(age("reconciler_traffic_reading_timestamp_seconds"), "{{node}}"),
        ),
    ]


def program() -> list[timeseries.Panel]:
    each = "{{instance}}"
    changes = "sum by (instance) (increase(reconciler_lease_changes_total[$__rate_interval]))"
    return [
        lines("Memory", "bytes", Line(f"process_resident_memory_bytes{OUR_JOB}", each)).min(0),
        lines(
            "Processor",
            "percentunit",
            Line(f"rate(process_cpu_seconds_total{OUR_JOB}[$__rate_interval])", each),
        ),
        lines(
            "Files open",
            "percentunit",
            Line(f"process_open_fds{OUR_JOB} / process_max_fds{OUR_JOB}", each),
        ),
        lines("Runs since", "s", Line(f"time() - process_start_time_seconds{OUR_JOB}", each)),
        lines("Nodes held", "short", Line("count by (instance) (reconciler_lease_epoch > 0)", each)),
        lines("Leases taken", "short", Line(changes, each)),
        lines("Series exported", "short", Line(f"scrape_samples_scraped{OUR_JOB}", each)),
        lines(
            "Version",
            "short",
            Line("max by (instance, version) (reconciler_build_info)", "{{instance}} {{version}}"),
        ),
    ]


def query(line: Line) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(line.expr).legend_format(line.legend).datasource(SOURCE)


def one(title: str, expr: str) -> stat.Panel:
    """One figure, coloured by its thresholds."""
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .span(4)
        .height(3)
        .color_mode(words.BigValueColorMode.VALUE)
        .graph_mode(words.BigValueGraphMode.NONE)
        .thresholds(steps((None, "text")))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query(Line(expr, "")).instant().ref_id("A"))
    )


def lines(title: str, unit: str, *drawn: Line) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(SOURCE)
        .span(12)
        .height(8)
        .unit(unit)
        .fill_opacity(10)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .show_points(words.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().placement(words.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(
            common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI).sort(words.SortOrder.DESCENDING)
        )
    )
    for number, line in enumerate(drawn):
        panel.with_target(query(line).ref_id(chr(ord("A") + number)))
    return panel


def stacked(title: str, unit: str, *drawn: Line) -> timeseries.Panel:
    return lines(title, unit, *drawn).stacking(common.StackingConfig().mode(words.StackingMode.NORMAL))


def nodes_table() -> table.Panel:
    """A row for each node, joined from one expression for each column."""
    panel = table.Panel().title("Nodes").datasource(SOURCE).span(24).height(9).filterable(True)
    names: dict[str, str] = {}
    for number, column in enumerate(NODES):
        ref = chr(ord("A") + number)
        names[f"Value #{ref}"] = column.title
        target = query(Line(column.expr, "")).instant().format(PromQueryFormat.TABLE).ref_id(ref)
        panel.with_target(target).override_by_name(column.title, look(column))
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    organized = {"excludeByName": {"Time": True}, "renameByName": names}
    return panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organized))


def look(column: Column) -> list[model.DynamicConfigValue]:
    looks = [model.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.words:
        looks.append(model.DynamicConfigValue(id_val="mappings", value=mapped(column.words)))
    if column.alarming is not None:
        alarm = steps((None, "text"), (column.alarming, RED)).build()
        looks.append(model.DynamicConfigValue(id_val="thresholds", value=alarm))
        looks.append(model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    return looks


def mapped(meanings: dict[str, str]) -> list[model.ValueMapping]:
    options = {value: model.ValueMappingResult(text=text) for value, text in meanings.items()}
    return [model.ValueMap(options=options)]


def build() -> model.Dashboard:
    every = dashboard.QueryVariable("node").label("Node").datasource(SOURCE)
    every.query("label_values(reconciler_node_up, node)").refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    every.sort(model.VariableSort.ALPHABETICAL_ASC).multi(True).include_all(True).all_value(".*")
    every.current(model.VariableOption(text="All", value="$__all", selected=True))
    board = (
        dashboard.Dashboard("Reconciler")
        .uid(UID)
        .description("Whether the Xray nodes hold what PostgreSQL says, and how soon.")
        .tags(["reconciler", "xray"])
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(every)
    )
    rows: Sequence[tuple[str, Sequence[stat.Panel | table.Panel | timeseries.Panel | heatmap.Panel]]] = (
        ("Fleet at a glance", glance()),
        ("Convergence", convergence()),
        ("Latency", latency()),
        ("Drift", drift()),
        ("Held removals", held()),
        ("Traffic", traffic()),
        ("The daemon itself", program()),
    )
    numbers = itertools.count(1)
    for title, panels in rows:
        board.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            board.with_panel(panel.id(next(numbers)))
    return board.build()


def written() -> str:
    """The file as it should be."""
    return json.dumps(build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
