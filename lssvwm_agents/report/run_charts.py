"""The charts of a report, each as an SVG text; colours tell runs or conditions apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lssvwm_agents.report.run_records import RunRecords

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#008596", "#de7800", "#8b5cf6", "#15803d", "#c2410c", "#2563eb", "#64748b", "#b59400")
_FAINT, _PAPER = "#e5e4e0", "#ffffff"
_WIDTH, _HEIGHT = 4.3, 2.9
_EVERY_POINT_DRAWN = 60
_WIDE_RANGE = 5.0
_NO_MODEL = ("tokenizer", "copy_last", "mean_frame", "nearest_view")

TRAINING = {
    "loss/denoising": ("denoising loss", "log"),
    "val/denoising": ("denoising loss, validation", "log"),
    "val/imagined_psnr": ("PSNR of imagined frames, dB", "linear"),
    "val/recall_mse": ("error of frames shown again", "log"),
    "gradient_norm": ("norm of the gradient", "log"),
    "frames_per_second": ("frames a second", "linear"),
}
"""Metrics of the log that are drawn, with their names and scales."""


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        title: A few words.
        svg: The picture.
    """

    title: str
    svg: str


def _draw(title: str, fill: Callable[[Axes], None], width: float = _WIDTH) -> Chart:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, _HEIGHT), facecolor=_PAPER, layout="constrained")
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color=_FAINT, lw=0.7)
    axis.tick_params(labelsize=8)
    fill(axis)
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        axis.legend(handles, labels, fontsize=7, frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return Chart(title, text.getvalue())


def training_charts(runs: Sequence[RunRecords]) -> list[Chart]:
    """One chart for each metric that some run logged, all runs in it."""
    charts = []
    for phase, words in (("world_model", ""), ("tokenizer", "tokenizer: ")):
        metrics = TRAINING if phase == "world_model" else {"loss": ("loss", "log")}
        for metric, (title, scale) in metrics.items():
            curves = [(i, run.name, *run.logged(metric, phase)) for i, run in enumerate(runs)]
            curves = [curve for curve in curves if curve[2]]
            if not curves:
                continue

            def fill(axis: Axes, curves: Any = curves, scale: str = scale) -> None:
                for index, name, updates, values in curves:
                    few = len(updates) < _EVERY_POINT_DRAWN
                    color = COLORS[index % len(COLORS)]
                    axis.plot(updates, values, color=color, lw=1.3, marker="." if few else None, label=name)
                axis.set_xlabel("updates", fontsize=8)
                low = min(min(values) for *_, values in curves)
                high = max(max(values) for *_, values in curves)
                if scale == "log" and low > 0 and high / low > _WIDE_RANGE:
                    axis.set_yscale("log")

            charts.append(_draw(words + title, fill))
    return charts


def _interval_line(
    axis: Axes, x: Sequence[float], values: Sequence[Any], color: str, label: str, style: str = "-"
) -> None:
    known = [(at, value) for at, value in zip(x, values, strict=True) if value is not None]
    if not known:
        return
    at = [place for place, _ in known]
    mean, low, high = ([value[i] for _, value in known] for i in range(3))
    axis.plot(at, mean, style, marker="o", ms=3, lw=1.4, color=color, label=label)
    axis.fill_between(at, low, high, color=color, alpha=0.13, lw=0)


def _distance_axis(axis: Axes, distances: Sequence[int]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(distances, [str(d) for d in distances], fontsize=7)
    axis.minorticks_off()
    axis.set_xlabel("frames since last seen, at most", fontsize=8)
    axis.set_ylabel("PSNR, dB", fontsize=8)


def recall_chart(title: str, distances: Sequence[int], curves: Mapping[str, Sequence[Any]]) -> Chart:
    """PSNR by frames since a place was last seen, one line a condition or run, with 95 % intervals."""

    def fill(axis: Axes) -> None:
        means: list[float] = []
        for index, (name, values) in enumerate(curves.items()):
            style = "--" if name in _NO_MODEL else "-"
            _interval_line(axis, distances, values, COLORS[index % len(COLORS)], name, style)
            if name != "copy_last":  # perfect where the agent stands still
                means.extend(value[0] for value in values if value is not None)
        _distance_axis(axis, distances)
        if means:
            axis.set_ylim(min(means) - 1.5, max(means) + 1.5)

    return _draw(title, fill, 6.4)


def comparison_chart(comparison: Mapping[str, Any]) -> Chart:
    """The recall curves of the baselines of one comparison; thin lines are training seeds."""
    distances = comparison["distances"]

    def fill(axis: Axes) -> None:
        for index, (name, by_seed) in enumerate(comparison["psnr"].items()):
            for number, values in enumerate(by_seed):
                known = [(d, v) for d, v in zip(distances, values, strict=True) if v is not None]
                if known:
                    label = name if number == 0 else None
                    color = COLORS[index % len(COLORS)]
                    axis.plot(*zip(*known, strict=True), marker="o", ms=2.5, lw=1, color=color, label=label)
        _distance_axis(axis, distances)

    return _draw("recall of every baseline, a line for each training seed", fill, 6.4)


def drift_chart(drifts: Mapping[str, Mapping[str, Any]]) -> Chart:
    """PSNR by depth of imagination; with one run its bounds as well."""

    def fill(axis: Axes) -> None:
        for index, (name, drift) in enumerate(drifts.items()):
            _interval_line(axis, drift["depths"], drift["psnr"], COLORS[index % len(COLORS)], name)
            if len(drifts) == 1:
                for other, color in (("tokenizer", "#202124"), ("copy_last", "#8a8a8a")):
                    _interval_line(axis, drift["depths"], drift[other], color, other, "--")
        depths = next(iter(drifts.values()))["depths"]
        axis.set_xscale("log")
        axis.set_xticks(depths, [str(d) for d in depths], fontsize=7)
        axis.minorticks_off()
        axis.set_xlabel("imagined frames, at most", fontsize=8)
        axis.set_ylabel("PSNR, dB", fontsize=8)

    return _draw("drift of a long imagination", fill, 6.4)


def planning_chart(scores: Mapping[str, tuple[float, float, float]]) -> Chart:
    """Mean scores with their 95 % intervals, a bar each."""

    def fill(axis: Axes) -> None:
        names = list(scores)[::-1]
        mean, low, high = ([scores[name][i] for name in names] for i in range(3))
        errors = [
            [m - b for m, b in zip(mean, low, strict=True)],
            [t - m for m, t in zip(mean, high, strict=True)],
        ]
        colors = [COLORS[0] if "planner" in name else "#b9bec4" for name in names]
        axis.barh(names, mean, xerr=errors, color=colors, ecolor="#444", capsize=3, height=0.62)
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x", color=_FAINT, lw=0.7)
        axis.set_xlabel("targets found, 95 % interval", fontsize=8)

    return _draw("planning", fill, 6.4)
