"""`lssvwm bench planning`: time whole plans in a world model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PlannerChoice = Literal["cem", "icem", "mppi", "categorical_cem"]
RolloutsChoice = Literal["eager", "cuda_graph", "compiled_cuda_graph"]


@dataclass(frozen=True)
class BenchPlanningArgs:
    """Time whole plans in a world model, after a short and a long real past.

    Each planner imagines samples x horizon frames in every iteration, from the same walk through a maze.
    Beside the times stand the operations, FLOPs and bytes of one plan, and the state's bytes.
    """

    model: str | None = None
    """A shipped model's name, a run's folder, or a Hugging Face id; by default the preset."""
    preset: Literal["tiny", "small", "debug"] = "small"
    """Shape of a model with random weights, if no model is named: good for timing, and for nothing else."""
    device: str = "cpu"
    """cpu or cuda."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of matrix products; tf32 and bf16 on cuda alone."""
    planners: tuple[PlannerChoice, ...] = ("cem", "icem", "mppi", "categorical_cem")
    """Searches."""
    rollouts: tuple[RolloutsChoice, ...] = ("eager",)
    """Ways to compute imagined futures; all but eager need cuda."""
    contexts: tuple[int, ...] = (256, 10_000)
    """Real frames seen before the plan."""
    samples: int = 512
    """Candidates of an iteration."""
    horizon: int = 16
    """Frames of a plan."""
    iterations: int = 4
    """Refits of a plan."""
    repeats: int = 20
    """Timed plans of each; 5 at most where they are eager."""
    seed: int = 0
    """Of the maze, the candidates and random weights."""
    json: Path | None = None
    """File for the result."""


def run(args: BenchPlanningArgs) -> None:
    """Measure, print a table, and write the JSON."""
    import sys

    from lssvwm_agents.weights import load_model

    model = None if args.model is None else load_model(args.model, args.device)
    from lssvwm_agents.evaluate.bench_planning import PlanningBench, bench_planning, random_model
    from lssvwm_agents.report import model_sha256, run_info, write_json

    bench = PlanningBench(
        planners=args.planners,
        rollouts=args.rollouts,
        contexts=args.contexts,
        num_samples=args.samples,
        horizon=args.horizon,
        num_iterations=args.iterations,
        repeats=args.repeats,
        precision=args.precision,
        seed=args.seed,
    )
    about: dict[str, object] = {"model": args.model, "weights": "trained"}
    if args.model is not None:
        about["model_sha256"] = model_sha256(args.model)
    if model is None:
        model = random_model(args.preset, args.device, args.seed)
        about = {"preset": args.preset, "weights": "random"}
    result = bench_planning(model, bench, say=lambda text: print(text, file=sys.stderr, flush=True))
    print(f"{about['weights']} weights, {result['parameters']:,} parameters, {args.precision}")
    print(
        f"{'planner':<17}{'rollouts':<21}{'context':>8}{'ms/plan':>9}   {'95 % interval':<18}{'first s':>8}"
    )
    for entry in result["entries"]:
        low, high = entry["ci95_ms"]
        print(
            f"{entry['planner']:<17}{entry['rollouts']:<21}{entry['context']:>8,}{entry['median_ms']:>9.1f}"
            f"   {f'{low:.1f} to {high:.1f}':<18}{entry['first_s']:>8.1f}"
        )
    for ratio in result["ratios"]:
        long, short = ratio["contexts"]
        if long != short:
            print(
                f"{ratio['planner']}, {ratio['rollouts']}: after {long:,} frames {ratio['ratio']:.3f} times "
                f"as long as after {short:,}."
            )
    for work in result["work"]:
        print(
            f"{work['planner']}: {work['operations']:,} operations, {work['flops'] / 1e12:.2f} TFLOP and "
            f"{work['bytes_touched'] / 1e9:.1f} GB touched a plan, run eagerly."
        )
    state = result["state"]
    print(
        f"State: {state['context_bytes']:,} bytes of context, {state['bytes_per_candidate']:,} of a "
        "of its own at the end of its plan."
    )
    if args.json is not None:
        write_json(args.json, result | about | run_info(args.device))
        print(f"Written to {args.json}.")
    print("Next: `lssvwm evaluate planning` says what such plans are worth.")
