"""Does a cue of many frames ago decide the plan made now? At the junction of the cue corridor.

    python benchmarks/cue_planning.py --models tiny-cue runs/cue-window --episodes 100 --json FILE

A scripted guide that knows nothing of the cue walks past it and waits at the gate. At the frame at which the
gate opens, each contender takes over: it has some moves to touch one of the two ends, and only one pays. Each
model plans with all its memory and, as a control, with that of its last frames. The corridors are held out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from lssvwm_agents.agents import PlanningAgent
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.evaluate.mazes import episode_seeds, make_mazes
from lssvwm_agents.evaluate.memory.events import wilson
from lssvwm_agents.evaluate.planner_options import PlannerOptions, claim_threads, make_planning_agent
from lssvwm_agents.evaluate.policy_play import Played, play
from lssvwm_agents.policies.actor_critic import load_policy
from lssvwm_agents.policies.policy_planner import PolicyPlanner
from lssvwm_agents.report import model_sha256, run_info, write_json
from lssvwm_agents.weights import load_model

ENV = "lssvwm/RaycastMaze-Cue-v0"


@dataclass(frozen=True)
class Args:
    """What to measure."""

    models: tuple[str, ...] = ("tiny-cue",)
    """World models to plan in: names or runs' folders."""
    policies: tuple[str, ...] = ()
    """Folders of trained policies, each played in the model that it names."""
    cue_delay: int = 64
    """Frames from the cue to the junction."""
    memory_cut: int = 12
    """The control plans from a memory of this many frames; 0 for no control."""
    episodes: int = 100
    """Corridors, the same for all."""
    moves: int = 40
    """Moves to touch an end."""
    seed: int = 0
    """Names the corridors and all choices."""
    device: str = "cpu"
    """cpu or cuda."""
    json: Path | None = None
    """File for the result."""
    planner: PlannerOptions = field(default_factory=lambda: PlannerOptions(exploration=0.0))
    """The planner's numbers."""


def contenders(args: Args, space: Any) -> dict[str, tuple[str, PlanningAgent]]:
    """Agents by name, each with the name of its model."""
    found = {}
    for name in args.models:
        model = load_model(name, args.device)
        for cut in (None, *([args.memory_cut] if args.memory_cut else [])):
            agent = make_planning_agent(
                model, args.planner, space, args.episodes, memory_frames=cut, num_threads=claim_threads()
            )
            found[name if cut is None else f"{name}/last {cut}"] = (name, agent)
    for folder in args.policies:
        policy = load_policy(Path(folder), args.device)
        model = load_model(policy.config.world_model, args.device)
        found[folder] = (
            policy.config.world_model,
            PlanningAgent(model, PolicyPlanner(policy), action_space=space),
        )
    return found


def summary(played: Played) -> dict[str, Any]:
    """Shares of the corridors: right end, and either end, with Wilson's interval."""
    right, number = played.scores > 0, len(played.scores)
    share, low, high = wilson(float(right.sum()), number)
    return {
        "right": share,
        "ci95": [low, high],
        "either": float(played.terminated.mean()),
        "episodes": right.astype(int).tolist(),
    }


def main(args: Args) -> None:
    """Play, print a table, and write the result."""
    before = MazeConfig(task="cue", cue_delay=args.cue_delay).cue_gate_frame
    kwargs = {"cue_delay": args.cue_delay, "observation": "dict"}
    env = make_mazes(ENV, args.episodes, before + args.moves, kwargs)
    seeds = episode_seeds(args.seed, args.episodes)
    agents = contenders(args, env.single_action_space)
    result: dict[str, Any] = {}
    with tqdm(total=args.moves * len(agents), unit="move", leave=False) as bar:
        for name, (model, agent) in agents.items():
            bar.set_description(name)
            played = play(env, agent, seeds, args.moves, None, before, bar, "guesser")
            result[name] = {**summary(played), "model_sha256": model_sha256(model)}
    env.close()
    for name, one in result.items():
        low, high = one["ci95"]
        print(f"{name:<32}{one['right']:.2f} ({low:.2f} to {high:.2f}) right, {one['either']:.2f} either end")
    if args.json is not None:
        options = {k: v for k, v in asdict(args).items() if k not in ("json", "device")}
        write_json(args.json, {"contenders": result, **options, "seeds": seeds, **run_info(args.device)})


if __name__ == "__main__":
    main(tyro.cli(Args))
