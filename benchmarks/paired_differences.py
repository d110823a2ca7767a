"""Paired differences between contenders that played the same episodes, read from a record.

    python benchmarks/paired_differences.py RECORD --ours cem --theirs "cem/other model"

Takes records of `lssvwm evaluate planning` and of `cue_planning.py`. With several pairs, the last line is the
mean over pairs in each episode. Intervals are Student's t over episodes, 95 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from lssvwm_agents.metrics import mean_ci95


@dataclass(frozen=True)
class Args:
    """What to compare."""

    record: tyro.conf.Positional[Path]
    """A record whose contenders each hold their `episodes`."""
    ours: tuple[str, ...]
    """Contenders."""
    theirs: tuple[str, ...]
    """As many others, each to be subtracted."""


def differences(args: Args) -> dict[str, tuple[float, float, float]]:
    """Mean, low and high of each pair's difference, and of their mean.

    Raises:
        ValueError: If the names do not pair up or are not in the record.
    """
    if len(args.ours) != len(args.theirs):
        raise ValueError(f"`ours` and `theirs` must be as many, got {len(args.ours)} and {len(args.theirs)}.")
    record = json.loads(args.record.read_text())
    found = record.get("planners") or record.get("contenders") or {}
    for name in (*args.ours, *args.theirs):
        if name not in found:
            raise ValueError(f"`{args.record}` holds {', '.join(found) or 'no contenders'}, got {name!r}.")
    scores = {name: np.asarray(one["episodes"], np.float64) for name, one in found.items()}
    pairs = {
        f"{one} - {other}": scores[one] - scores[other]
        for one, other in zip(args.ours, args.theirs, strict=True)
    }
    if len(pairs) > 1:
        for name, names in (("mean of ours", args.ours), ("mean of theirs", args.theirs)):
            pairs[name] = np.mean([scores[one] for one in names], axis=0)
        pairs["mean of ours - mean of theirs"] = pairs["mean of ours"] - pairs["mean of theirs"]
    return {name: mean_ci95(values.tolist()) for name, values in pairs.items()}


def main(args: Args) -> None:
    """Print a line for each."""
    for name, (mean, low, high) in differences(args).items():
        print(f"{name:<56}{mean:>6.2f}   {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Args))
