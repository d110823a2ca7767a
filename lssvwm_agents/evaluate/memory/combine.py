"""Many evaluations of the memory benchmark as one record: what is compared with what, per training seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from lssvwm_agents.evaluate.memory.controls import CEILING, CONTEXT_CUT, COPY_LAST, OURS, WRONG_ACTIONS

Evaluations = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Name of the baseline to training seed to the record of `evaluate_memory`."""

ACTIONS = "actions_"
"""Prefix of what was evaluated from frames and actions alone, without odometry."""


def combine(evaluations: Evaluations, ours: str) -> dict[str, Any]:
    """Line up evaluations of one benchmark.

    Args:
        evaluations: By baseline and training seed.
        ours: The baseline that is also called ``ours`` (and, with the prefix, ``actions_ours``), unless that
            is its name.

    Returns:
        ``distances``; ``psnr`` and ``psnr_backwards`` (name to one list over distances per training seed, dB
        or None), the controls being those of ours; ``psnr_far``; ``ceiling_db``; ``gap_closed_far``;
        ``event_accuracy`` by delay and ``streaming`` by frame count, of ours; ``by_baseline``: the last four
        of everything, its parameters, ``far`` and ``unseen`` (path to condition to metric to a mean per
        training seed) and ``drift``.
    """
    named = dict(evaluations)
    for prefix in ("", ACTIONS):
        if prefix + ours in named:
            named[prefix + OURS] = named[prefix + ours]
    first = next(iter(next(iter(evaluations.values())).values()))
    result: dict[str, Any] = {
        "distances": first["distances"],
        "far_frames": first["far_frames"],
        "psnr": _psnr(named, "loop"),
        "psnr_backwards": _psnr(named, "backwards"),
        "psnr_far": {
            name: [_far_psnr(record, "loop") for record in by_seed.values()]
            for name, by_seed in named.items()
        },
        "training_seeds": {name: list(by_seed) for name, by_seed in evaluations.items()},
        "by_baseline": {
            name: {
                "gap_closed_far": [_gap(record) for record in by_seed.values()],
                "event_accuracy": event_accuracy(by_seed.values()),
                "streaming": _streaming(by_seed),
                "parameters": [record["parameters"] for record in by_seed.values()],
                "far": _scores(by_seed, "far"),
                "unseen": _scores(by_seed, "unseen"),
                "drift": [record["drift"] for record in by_seed.values() if "drift" in record],
            }
            for name, by_seed in named.items()
        },
    }
    main = result["by_baseline"].get(OURS)
    for key in ("gap_closed_far", "event_accuracy", "streaming"):
        result[key] = None if main is None else main[key]
    ceilings = [_far_psnr(record, "loop", CEILING) for record in named.get(OURS, {}).values()]
    known = [value for value in ceilings if value is not None]
    result["ceiling_db"] = fmean(known) if known else None
    return result


def _means(intervals: list[Any]) -> list[float | None]:
    return [None if value is None else value[0] for value in intervals]


def _path(record: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = record.get("retrieval", {}).get(path)
    return found


def _psnr(named: Evaluations, path: str) -> dict[str, list[list[float | None]]]:
    """Name to a list over distances per training seed; the controls are those of ours."""
    wanted = {name: (name, OURS) for name in named}
    for prefix in ("", ACTIONS):
        wanted |= {
            prefix + control: (prefix + OURS, control) for control in (COPY_LAST, WRONG_ACTIONS, CONTEXT_CUT)
        }
    lists: dict[str, list[list[float | None]]] = {}
    for name, (baseline, condition) in wanted.items():
        found = [_path(record, path) for record in named.get(baseline, {}).values()]
        rows = [_means(p["conditions"][condition]["psnr"]) for p in found if p is not None]
        if rows:
            lists[name] = rows
    return lists


def _far_psnr(record: Mapping[str, Any], path: str, condition: str = OURS) -> float | None:
    found = _path(record, path)
    value = None if found is None else found["far"]["conditions"][condition]["psnr"]
    return None if value is None else float(value[0])


def _scores(by_seed: Mapping[int, Mapping[str, Any]], part: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Path to condition to metric to its mean per training seed, of places seen long ago or never."""
    paths = [{**r.get("retrieval", {}), **r.get("reasoning", {})} for r in by_seed.values()]
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for found in paths:
        for path, values in found.items():
            for condition, metrics in values[part]["conditions"].items():
                kept = scores.setdefault(path, {}).setdefault(condition, {})
                for metric, interval in metrics.items():
                    kept.setdefault(metric, []).append(None if interval is None else interval[0])
    return scores


def _gap(record: Mapping[str, Any]) -> float | None:
    found = _path(record, "loop")
    value = None if found is None else found["far"].get("gap_closed")
    return None if value is None else float(value[0])


def event_accuracy(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Delay to the accuracy of each record that has events, in their order."""
    found = [record["events"]["accuracy"][OURS] for record in records if "events" in record]
    delays = list(found[0]) if found else []
    return {delay: [accuracy[delay][0] for accuracy in found] for delay in delays}


def _streaming(by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, float]] | None:
    """Of the first training seed: weights change neither time nor size."""
    for record in by_seed.values():
        if "streaming" in record:
            stream = record["streaming"][OURS]
            return {
                key: {str(count): value for count, value in zip(stream["frames"], stream[key], strict=True)}
                for key in ("ms_per_frame", "ms_per_imagined_frame", "state_bytes")
            }
    return None
