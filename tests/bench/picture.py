"""The picture of a run: how long changes take, what size costs, what a customer notices."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

OURS, THEIRS = "#1b6ca8", "#c05a2e"


def draw(series: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured, as PNG and SVG; nothing without the package matplotlib or without series."""
    panels = [
        panel
        for name, panel in (("grants", _grants), ("passes", _passes), ("neighbour", _neighbour))
        if name in series
    ]
    try:
        matplotlib = import_module("matplotlib")
    except ModuleNotFoundError:
        return []
    if not panels:
        return []
    matplotlib.use("Agg")
    plots = import_module("matplotlib.pyplot")
    figure, axes = plots.subplots(1, len(panels), figsize=(5.6 * len(panels), 4.4), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        panel(axis, series)
        axis.grid(visible=True, which="major", color="#dddddd")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.tight_layout()
    files = [folder / "bench.png", folder / "bench.svg"]
    for file in files:
        figure.savefig(file, dpi=130)
    plots.close(figure)
    return files


def _grants(axis: Any, series: Mapping[str, Any]) -> None:
    for seconds, name, colour in zip(
        series["grants"]["commit"], ("daemon", "prototype"), (OURS, THEIRS), strict=True
    ):
        _tail(axis, seconds, name, colour)
    axis.set_title("P2  commit to usable key")


def _neighbour(axis: Any, series: Mapping[str, Any]) -> None:
    for which, name, colour in (("loaded", "while the daemon works", OURS), ("idle", "idle", THEIRS)):
        _tail(axis, series["neighbour"][which]["trips"], name, colour)
    axis.set_title("P7  round trip of a customer")


def _tail(axis: Any, seconds: Sequence[float], name: str, colour: str) -> None:
    """Draw which share takes longer; both axes in powers of ten, so that the tail is seen."""
    ranked = [1000 * value for value in sorted(seconds)]
    shares = [(len(ranked) - index) / len(ranked) for index in range(len(ranked))]
    axis.step(ranked, shares, where="post", color=colour, label=name)
    axis.axhline(0.01, color="#999999", linewidth=0.8, linestyle=":")
    axis.set(
        xscale="log", yscale="log", xlabel="milliseconds", ylabel="share that takes longer (dotted: p99)"
    )


def _passes(axis: Any, series: Mapping[str, Any]) -> None:
    sizes = [each for each in series["passes"] if each["keys"] == 1_000 * each["nodes"]]
    for kind, name, colour in (("cycles", "full cycles", OURS), ("bare", "bare reads", THEIRS)):
        runs = [(each["keys"], sorted(run["cpu"] for run in each[kind])) for each in sizes]
        keys = [size for size, _ in runs]
        middle = [costs[len(costs) // 2] for _, costs in runs]
        axis.plot(keys, middle, marker="o", color=colour, label=name)
        axis.fill_between(
            keys, [costs[0] for _, costs in runs], [costs[-1] for _, costs in runs], color=colour, alpha=0.2
        )
    axis.set(
        xscale="log", yscale="log", xlabel="keys, 1,000 on each node", ylabel="CPU seconds of one full pass"
    )
    axis.set_title("P3, P5  a pass with nothing to do")
