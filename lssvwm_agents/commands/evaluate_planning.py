"""`lssvwm evaluate planning`: score the planner beside random, explorer and oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lssvwm_agents.evaluate.planner_options import PlannerOptions, claim_threads


@dataclass(frozen=True)
class EvaluatePlanningArgs:
    """Score the planner beside random moves, the explorer and the oracle, in mazes never seen in training."""

    model: str = "tiny"
    """A shipped model's name, a run's folder, or a Hugging Face id."""
    env: str | None = None
    """Environment; by default the one that the model was trained for."""
    episodes: int = 20
    """Mazes that every policy plays."""
    seed: int = 0
    """Names the mazes and all choices."""
    json: Path | None = None
    """File for the result."""
    look_around: int = 96
    """Moves of the explorer before anything counts, watched by the planner's world model."""
    steps: int = 250
    """Moves that count."""
    memory_cut: int | None = None
    """Control: each plan starts from a memory of only the last so many frames."""
    envs_at_once: int = 32
    """Mazes played side by side."""
    allow_other_env: bool = False
    """Also take an environment that the model was not trained for."""
    device: str = "cpu"
    """cpu or cuda."""
    planner: PlannerOptions = field(default_factory=PlannerOptions)
    """The planner's numbers."""


def run(args: EvaluatePlanningArgs) -> None:
    """Measure, print a table, and write the JSON."""
    from lssvwm_agents.weights import load_model

    model = load_model(args.model, args.device)  # before slower imports: a wrong name is told at once
    from lssvwm_agents.evaluate.planning import SCRIPTED, evaluate_planning
    from lssvwm_agents.report import model_sha256, run_info, write_json

    result = evaluate_planning(
        model,
        args.env,
        args.episodes,
        args.seed,
        look_around_moves=args.look_around,
        steps=args.steps,
        options=args.planner,
        memory_frames=args.memory_cut,
        envs_at_once=args.envs_at_once,
        allow_other_env=args.allow_other_env,
        num_threads=claim_threads(),
    )
    result |= {"model": args.model, "model_sha256": model_sha256(args.model), **run_info(args.device)}
    print(f"{'policy':<16}{'mean':>8}   95 % interval")
    for name in ("planner", *SCRIPTED):
        low, high = result[name]["ci95"]
        print(f"{name:<16}{result[name]['mean']:>8.2f}   {low:.2f} to {high:.2f}")
    if result["fraction_of_oracle"] is not None:
        print(f"The planner reaches {100 * result['fraction_of_oracle']:.0f} % of the oracle's score.")
    speed, wall = result["imagined_frames_per_second"], result["wall_seconds"]
    print(f"{speed:.0f} imagined frames/s; {wall:.0f} s in all.")
    if args.json is not None:
        write_json(args.json, result)
        print(f"Written to {args.json}.")
        print(f"Next: `lssvwm report {args.json}` draws it; --memory-cut 12 shows what memory is worth.")
    else:
        print("Next: --json FILE keeps the result; --memory-cut 12 shows what memory is worth.")
