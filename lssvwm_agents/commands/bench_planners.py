"""`lssvwm bench planners`: time planners beside those of other packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchPlannersArgs:
    """Time our planners beside TorchRL's, pytorch_mppi's and a loop written by hand, and see how they drive.

    One process, one thread, the double integrator, horizon 15, 512 candidates, 6 iterations. A package that
    is not installed is told with the command that installs it.
    """

    json: Path | None = None
    """File for the result."""
    batch: tuple[int, ...] = (1, 8)
    """Batch sizes that plans are timed at."""
    repeats: int = 50
    """Timed plans of each planner and batch size."""
    seeds: int = 3
    """Closed-loop runs of each planner from each of four starts."""
    seed: int = 0
    """Names the first of those runs; the others follow it."""
    names: tuple[str, ...] = ()
    """Only these planners; by default all."""


def run(args: BenchPlannersArgs) -> None:
    """Measure, print a table, and write the JSON."""
    import sys

    from lssvwm_agents.evaluate.bench_planners import NAMES, bench_planners

    seeds = tuple(range(args.seed, args.seed + args.seeds))
    result = bench_planners(
        args.batch,
        args.repeats,
        seeds,
        args.names or NAMES,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(f"{'planner':<18}{'batch':>6}{'ms/plan':>10}{'ms/update':>11}{'cost/optimum':>14}{'worst':>8}")
    for entry in result["planners"]:
        head = f"{entry['name']:<18}{entry['batch']:>6}"
        if entry["missing"]:
            print(f"{head}   missing: {entry['install']}")
            continue
        print(
            f"{head}{entry['median_ms']:>10.2f}{entry['ms_per_update']:>11.3f}"
            f"{entry['relative_cost']:>14.4f}{entry['relative_cost_worst']:>8.3f}"
        )
    if args.json is not None:
        from lssvwm_agents.files import write_json
        from lssvwm_agents.report.run_info import run_info

        write_json(args.json, result | run_info("cpu"))
        print(f"Written to {args.json}.")
    print("Next: `lssvwm evaluate planning` to see a planner in a world model.")
