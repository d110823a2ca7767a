"""Draw what is remembered by how long ago it was seen, from the records in benchmarks/results.

python docs/memory_curves.py     (writes docs/media/memory_curves.png)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parent
RESULTS = ROOT.parent / "benchmarks" / "results"
STYLES = {
    "ours": ("ours", "tab:blue", "-"),
    "full_attention": ("full attention", "tab:orange", "-"),
    "frame_scan": ("whole-frame scan", "tab:green", "-"),
    "scan_only": ("block scan alone", "tab:olive", "-"),
    "window_only": ("window alone", "tab:red", "-"),
    "context_cut": ("ours, context cut", "tab:blue", ":"),
    "wrong_actions": ("ours, wrong actions", "tab:gray", ":"),
}


def draw_ages(axes: Any, record: dict[str, Any], prefix: str, title: str) -> None:
    """PSNR over frames since last seen; the band is the range over training seeds."""
    ages = record["distances"]
    for name, (label, colour, line) in STYLES.items():
        rows = record["psnr"].get(prefix + name)
        if not rows:
            continue
        values = np.array(rows, dtype=float)
        keep = ~np.isnan(values).any(0)
        x, values = np.array(ages)[keep], values[:, keep]
        seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
        axes.plot(x, values.mean(0), line, color=colour, label=label + seeds, marker="o", markersize=3)
        axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    mean_frame = record["by_baseline"][f"{prefix}ours"]["far"]["loop"]["mean_frame"]["psnr"]
    axes.axhline(np.mean(mean_frame), color="black", linewidth=0.8, linestyle=":", label="mean frame, far")
    axes.axhline(record["ceiling_db"], color="black", linewidth=0.8, linestyle="--", label="tokenizer")
    axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel="frames since the place was last seen, at most", ylim=(11.5, 33.5))
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.grid(alpha=0.3)


def main() -> None:
    """Draw the three panels."""
    record = json.loads((RESULTS / "memory.json").read_text())
    growth = json.loads((RESULTS / "memory_growth.json").read_text())["entries"]
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.6), sharey=True, layout="constrained")
    draw_ages(panels[0], record, "", "odometry given")
    draw_ages(panels[1], record, "actions_", "from frames and actions alone")
    panels[0].set_ylabel("PSNR of imagined frames, dB")
    for setting, label in (("odometry", "odometry given"), ("actions", "from actions alone")):
        points = [(entry["updates"], *entry[setting]["psnr_far"]["ours"]) for entry in growth]
        prefix = "" if setting == "odometry" else "actions_"
        first = json.loads((RESULTS / f"memory_{prefix}ours_seed0.json").read_text())
        far = first["retrieval"]["loop"]["far"]["conditions"]["ours"]["psnr"]
        seeds = record["psnr_far"][f"{prefix}ours"]
        x, mean, low, high = np.array(sorted([*points, (2500, *far)])).T
        panels[2].errorbar(x, mean, yerr=[mean - low, high - mean], marker="o", capsize=3, label=label)
        panels[2].plot([2500] * len(seeds[1:]), seeds[1:], "x", color=panels[2].lines[-1].get_color())
    panels[2].set_xscale("log", base=2)
    panels[2].xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    panels[2].set_xticks([entry["updates"] for entry in growth] + [2500])
    panels[2].set(
        title=f"places seen more than {record['far_frames']} frames ago", xlabel="updates of training"
    )
    panels[2].grid(alpha=0.3)
    for axes in panels:
        axes.legend(fontsize=8, loc="lower left", ncols=2)
    figure.savefig(ROOT / "media" / "memory_curves.png", dpi=110)


if __name__ == "__main__":
    main()
