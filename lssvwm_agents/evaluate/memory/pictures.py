"""Curves of the memory benchmark as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lssvwm_agents.evaluate.memory import controls
from lssvwm_agents.evaluate.memory.curves import DISTANCES
from lssvwm_agents.evaluate.memory.strips import LABELS
from lssvwm_agents.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {
    controls.OURS: "#008596",
    controls.WINDOW_ONLY: "#c2410c",
    controls.WRONG_ACTIONS: "#b59400",
    controls.CONTEXT_CUT: "#8b5cf6",
    controls.SHUFFLED: "#64748b",
    controls.CEILING: "#202124",
    controls.NEAREST: "#15803d",
    controls.COPY_LAST: "#a3a3a3",
    controls.MEAN_FRAME: "#d4d4d4",
}
_NO_MODEL = (controls.CEILING, controls.NEAREST, controls.COPY_LAST, controls.MEAN_FRAME)
_PAPER = "#faf9f6"
_METRICS = {"psnr": "PSNR, dB", "ssim": "SSIM", "place": "wall colour at the centre\n(0 chance, 1 right)"}


def _figure(columns: int, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, height), facecolor=_PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for axis in axes:
        axis.set_facecolor(_PAPER)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e5e4e0")
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _band(axis: Axes, x: Sequence[float], values: Sequence[Any], name: str) -> None:
    """A line through intervals, with a band; gaps where there is nothing."""
    shown = [(at, value) for at, value in zip(x, values, strict=True) if value is not None]
    if not shown:
        return
    places = [at for at, _ in shown]
    mean, low, high = ([value[i] for _, value in shown] for i in range(3))
    style = "--" if name in _NO_MODEL else "-"
    axis.plot(places, mean, style, marker="o", ms=3, color=_COLORS[name], label=LABELS[name])
    axis.fill_between(places, low, high, color=_COLORS[name], alpha=0.12, lw=0)


def draw_curves(path: Path, result: dict[str, Any], title: str, far: int) -> None:
    """Three panels of one path: PSNR, SSIM and place content by frames since last seen."""
    figure, axes = _figure(len(_METRICS))
    position = list(range(len(DISTANCES)))
    used = [i for i, frames in enumerate(result["frames"]) if frames]
    unseen = result["unseen"]["frames"] > 0
    ticks = [str(distance) for distance in DISTANCES] + ["never"]
    for axis, (metric, label) in zip(axes, _METRICS.items(), strict=True):
        spread: list[float] = []
        for name, by_metric in result["conditions"].items():
            _band(axis, position, by_metric[metric], name)
            last = result["unseen"]["conditions"][name][metric]
            if last is not None:
                x = len(DISTANCES)
                axis.errorbar(x, last[0], [[last[0] - last[1]], [last[2] - last[0]]], fmt="s", ms=4,
                              color=_COLORS[name], alpha=0.8)  # fmt: skip
            if name != controls.COPY_LAST:  # perfect where the agent stands still
                spread += [value[0] for value in [*by_metric[metric], last] if value is not None]
        if spread:  # wide intervals of a few mazes must not hide the means
            room = 0.15 * (max(spread) - min(spread)) + 1e-3
            axis.set_ylim(min(spread) - room, max(spread) + room)
        axis.set_ylabel(label)
        axis.set_xlabel("frames since last seen, at most")
        shown = used + ([len(DISTANCES)] if unseen else [])
        axis.set_xticks(shown, [ticks[i] for i in shown])
        edge = sum(distance <= far for distance in DISTANCES) - 0.5
        if used and used[0] <= edge <= used[-1]:
            axis.axvline(edge, color="#d4d4d4", lw=1)
            axis.text(edge, axis.get_ylim()[1], " far", color="#767880", fontsize=8, va="top")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def draw_events(path: Path, events: dict[str, Any]) -> None:
    """Accuracy of the branch that pays, by delay."""
    figure, (axis,) = _figure(1)
    for name, by_delay in events["accuracy"].items():
        _band(axis, [int(delay) for delay in by_delay], list(by_delay.values()), name)
    axis.axhline(0.5, color="#a3a3a3", ls=":", lw=1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("delay between start and junction, frames")
    axis.set_ylabel("the branch that pays is preferred")
    axis.legend(fontsize=7, frameon=False)
    figure.suptitle("Event memory in the cue corridor", fontsize=11)
    _save(figure, path)


def draw_drift(path: Path, drift: dict[str, Any]) -> None:
    """PSNR by depth of imagination, and sharpness of imagined and real frames."""
    figure, (left, right) = _figure(2)
    depths = list(range(len(drift["depths"])))
    _band(left, depths, drift["psnr"], controls.OURS)
    for name in (controls.CEILING, controls.COPY_LAST, controls.MEAN_FRAME):
        _band(left, depths, drift[name], name)
    left.set_ylabel("PSNR along the explorer's way, dB")
    for kind, color in (("imagined", _COLORS[controls.OURS]), ("real", _COLORS[controls.CEILING])):
        for name, style in (("deviation", "-"), ("sharpness", "--")):
            right.plot(depths, drift["statistics"][kind][name], style, color=color, label=f"{kind}: {name}")
    right.set_ylabel("of pixels in [0, 1]")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.set_xticks(depths, [str(depth) for depth in drift["depths"]])
        axis.set_xlabel("imagined frames, at most")
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle("A long imagination", fontsize=11)
    _save(figure, path)


def draw_streaming(path: Path, streams: dict[str, dict[str, Any]]) -> None:
    """Milliseconds and bytes by frames seen, of one or two models."""
    figure, (left, right) = _figure(2)
    for name, stream in streams.items():
        color, label = _COLORS[name], LABELS[name]
        left.plot(
            stream["frames"], stream["ms_per_frame"], "-o", ms=3, color=color, label=f"{label}: observe"
        )
        left.plot(stream["frames"], stream["ms_per_imagined_frame"], "--o", ms=3, color=color,
                  label=f"{label}: imagine")  # fmt: skip
        right.plot(stream["frames"], stream["state_bytes"], "-o", ms=3, color=color, label=label)
    for axis, label in ((left, "median ms per frame"), (right, "bytes of state")):
        axis.set_xscale("log")
        axis.set_xlabel("frames seen")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle("Streaming", fontsize=11)
    _save(figure, path)
