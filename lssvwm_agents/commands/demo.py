"""`lssvwm demo`: plan in unseen mazes with the shipped world model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lssvwm_agents.evaluate.planner_options import PlannerOptions, claim_threads


@dataclass(frozen=True)
class DemoArgs:
    """Drop agents into mazes never seen before, let them look around, then plan every move, and film it."""

    out: Path = Path("runs/demo")
    """Folder for episode.mp4, episode.gif, plan.png and report.json."""
    seconds: float = 150.0
    """Wall time for everything."""
    model: str = "tiny"
    """A shipped model's name, a run's folder, or a Hugging Face id."""
    env: str | None = None
    """Environment; by default the one that the model was trained for."""
    mazes: int = 4
    """Mazes played side by side, at least 4; more batches follow while time is left."""
    seed: int = 0
    """Names the mazes and all choices."""
    look_around: int = 96
    """Moves of the explorer before the agent takes over."""
    max_moves: int = 250
    """Planned moves of an episode."""
    min_moves: int = 40
    """Planned moves even if the time is over."""
    json: Path | None = None
    """File for the result; report.json in the folder by default."""
    allow_other_env: bool = False
    """Also take an environment that the model was not trained for."""
    device: str = "cpu"
    """cpu or cuda."""
    planner: PlannerOptions = field(default_factory=PlannerOptions)
    """The planner's numbers."""


def run(args: DemoArgs) -> None:
    """Play, write the files, and say where they are."""
    import time

    began = time.perf_counter()
    from lssvwm_agents.weights import load_model

    model = load_model(args.model, args.device)  # before slower imports: a wrong name is told at once
    from lssvwm_agents.evaluate.demo import run_demo
    from lssvwm_agents.report import model_sha256, run_info, write_json

    report = run_demo(
        model,
        args.out,
        env_id=args.env,
        seconds=args.seconds,
        mazes=args.mazes,
        seed=args.seed,
        look_around_moves=args.look_around,
        max_moves=args.max_moves,
        min_moves=args.min_moves,
        options=args.planner,
        allow_other_env=args.allow_other_env,
        num_threads=claim_threads(),
        already_spent=time.perf_counter() - began,
    )
    report |= {"out": str(args.out), "model": args.model, "model_sha256": model_sha256(args.model)}
    report |= run_info(args.device)
    path = args.json or args.out / "report.json"
    write_json(path, report)
    episodes, mean = report["episodes"], report["mean"]
    print(f"\n{'maze':<8}{'moves':>6}{'planner':>10}{'random':>9}{'oracle':>9}   (targets found)")
    for number, one in enumerate(episodes, 1):
        print(
            f"{number:<8}{one['moves']:>6}{one['planner']:>10.0f}{one['random']:>9.0f}{one['oracle']:>9.0f}"
        )
    print(f"{'mean':<14}{mean['planner']:>10.2f}{mean['random']:>9.2f}{mean['oracle']:>9.2f}")
    speed, wall = report["imagined_frames_per_second"], report["wall_seconds"]
    print(f"{speed:.0f} imagined frames/s; {wall:.0f} s in all.")
    print(f"\n{args.out}/episode.mp4  real frame, imagined frame and map, of the best episode")
    print(f"{args.out}/plan.png     candidate futures of one plan, with their returns")
    print(f"{path}  all figures\n")
    print(
        f"Next: `lssvwm demo --seed {args.seed + 1}` for other mazes, `lssvwm play` to walk in the dream, "
        "`lssvwm train --help` for a world model of your own."
    )
