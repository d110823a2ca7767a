"""Paired differences between contenders that played the same episodes, read from a record.

    python benchmarks/paired_differences.py RECORD --ours cem --theirs "cem/other model"

Takes records of `lssvwm evaluate planning`, with either task, of `lssvwm evaluate policy` and of
`cue_planning.py`; the others may stand in a record of their own, of the same episodes. Of recall, what is
compared is whether the target was touched, with `--within` in so many moves, or with `--spl` the success
weighted by path length. With several pairs, the last line is the mean over pairs
in each episode. Intervals are Student's t over episodes, 95 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from lssvwm_agents.evaluate.recall import spl
from lssvwm_agents.metrics import mean_ci95


@dataclass(frozen=True)
class Args:
    """What to compare."""

    record: tyro.conf.Positional[Path]
    """A record whose contenders each hold their `episodes`, or their `first_touch`."""
    ours: tuple[str, ...]
    """Contenders."""
    theirs: tuple[str, ...]
    """As many others, each to be subtracted."""
    their_record: Path | None = None
    """Where the others stand, if not in the same record."""
    within: int | None = None
    """Recall: moves within which a target is to be touched; by default all that were played."""
    spl: bool = False
    """Recall: compare success weighted by path length instead."""


_EPISODES = ("cases", "seeds", "seed", "env_id", "look_around", "steps")
"""What two records must share to be compared episode by episode."""


def scores_of(
    path: Path, names: tuple[str, ...], within: int | None, by_length: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What each contender scored in every episode, and what names the episodes.

    Raises:
        ValueError: If a name is not in the record, or what is of recall alone is asked of another task.
    """
    record = json.loads(path.read_text())
    beside = {key: one for key, one in record.items() if isinstance(one, dict) and "episodes" in one}
    found = beside | record.get("planners", {}) | record.get("contenders", {})
    scores = {}
    for name in names:
        if name not in found:
            raise ValueError(f"`{path}` holds {', '.join(found) or 'no contenders'}, got {name!r}.")
        touches = found[name].get("first_touch")
        if touches is None and (within is not None or by_length):
            raise ValueError(f"`within` and `spl` are of recall; `{path}` holds no `first_touch`.")
        if touches is None:
            scores[name] = np.asarray(found[name]["episodes"], np.float64)
        elif by_length:
            scores[name] = spl(touches, record["cases"]["shortest"])
        else:
            moves = np.asarray(touches)
            in_time = moves > 0 if within is None else (moves > 0) & (moves <= within)
            scores[name] = in_time.astype(np.float64)
    return scores, {key: record.get(key) for key in _EPISODES}


def differences(args: Args) -> dict[str, tuple[float, float, float]]:
    """Mean, low and high of each pair's difference, and of their mean.

    Raises:
        ValueError: If the names do not pair up or are not in the records, or these are of other episodes.
    """
    if len(args.ours) != len(args.theirs):
        raise ValueError(f"`ours` and `theirs` must be as many, got {len(args.ours)} and {len(args.theirs)}.")
    if args.within is not None and args.within < 1:
        raise ValueError(f"`within` must be at least 1 move, got {args.within}.")
    if args.within is not None and args.spl:
        raise ValueError("`within` counts touches, `spl` weighs them: give one of the two.")
    other = args.their_record or args.record
    ours, our_episodes = scores_of(args.record, args.ours, args.within, args.spl)
    theirs, their_episodes = scores_of(other, args.theirs, args.within, args.spl)
    unlike = [key for key in _EPISODES if our_episodes[key] != their_episodes[key]]
    if unlike:
        raise ValueError(
            f"`{args.their_record}` is of other episodes than `{args.record}`: {', '.join(unlike)} differ."
        )
    pairs = {
        f"{one} - {other}": ours[one] - theirs[other]
        for one, other in zip(args.ours, args.theirs, strict=True)
    }
    if len(pairs) > 1:
        for name, names, scores in (
            ("mean of ours", args.ours, ours),
            ("mean of theirs", args.theirs, theirs),
        ):
            pairs[name] = np.mean([scores[one] for one in names], axis=0)
        pairs["mean of ours - mean of theirs"] = pairs["mean of ours"] - pairs["mean of theirs"]
    return {name: mean_ci95(values.tolist()) for name, values in pairs.items()}


def main(args: Args) -> None:
    """Print a line for each."""
    for name, (mean, low, high) in differences(args).items():
        print(f"{name:<56}{mean:>6.2f}   {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Args))
