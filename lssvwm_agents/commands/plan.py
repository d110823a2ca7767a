"""`lssvwm plan`: let a planning agent play an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lssvwm_agents.evaluate.planner_options import PlannerOptions, claim_threads


@dataclass(frozen=True)
class PlanArgs:
    """Play whole episodes with a planning agent; write one video each and a report."""

    model: str = "tiny"
    """A shipped model's name, a run's folder, or a Hugging Face id."""
    env: str | None = None
    """Environment; by default the one that the model was trained for."""
    episodes: int = 4
    """Episodes, played side by side."""
    out: Path = Path("runs/plan")
    """Folder for the videos and report.json."""
    max_moves: int = 200
    """Moves after which an episode is cut."""
    seed: int = 0
    """Names the episodes and all choices."""
    json: Path | None = None
    """File for the result; report.json in the folder by default."""
    allow_other_env: bool = False
    """Also take an environment that the model was not trained for."""
    device: str = "cpu"
    """cpu or cuda."""
    planner: PlannerOptions = field(default_factory=PlannerOptions)
    """The planner's numbers."""


def run(args: PlanArgs) -> None:
    """Play, write the files, and print the returns."""
    from lssvwm_agents.weights import load_model

    model = load_model(args.model, args.device)  # before slower imports: a wrong name is told at once
    from lssvwm_agents.evaluate.play import play_episodes
    from lssvwm_agents.report import model_sha256, run_info, write_json

    report = play_episodes(
        model,
        args.out,
        env_id=args.env,
        episodes=args.episodes,
        max_moves=args.max_moves,
        seed=args.seed,
        options=args.planner,
        allow_other_env=args.allow_other_env,
        num_threads=claim_threads(),
    )
    report |= {"out": str(args.out), "model": args.model, "model_sha256": model_sha256(args.model)}
    report |= run_info(args.device)
    path = args.json or args.out / "report.json"
    write_json(path, report)
    for number, one in enumerate(report["episodes"], 1):
        print(
            f"episode {number}: return {one['return']:.2f} in {one['moves']} moves, {args.out / one['video']}"
        )
    speed = report["imagined_frames_per_second"]
    print(f"mean return {report['mean_return']:.2f}; {speed:.0f} imagined frames/s")
    print(f"Written to {path}; videos in {args.out}.")
    print(
        f"Next: `lssvwm report {args.out}` shows it on a page; `lssvwm evaluate planning` scores the planner."
    )
