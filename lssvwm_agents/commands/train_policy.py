"""``lssvwm train-policy``: train a policy in imagination, judge it in the real environment."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from lssvwm_agents.trainers.model_refresh import RefreshConfig
from lssvwm_agents.trainers.policy_config import Algorithm, PolicyRecipe


@dataclass(frozen=True)
class TrainPolicyArgs:
    """Train a policy in imagination.

    With --model the world model stays as it is. Without, every iteration collects real episodes with the
    policy as it is, fits the world model to all of them, improves the policy in it, and evaluates. Killed at
    any moment, the same command goes on at the last checkpoint.
    """

    out: Path
    """Folder of the run: policy, checkpoints, log, evaluations and films."""
    env: str = ""
    """Gymnasium id; with --model by default the one that it was trained for."""
    algo: Algorithm = "actor-critic"
    """actor-critic (ours, differentiable), or stable-baselines3's ppo (discrete) or sac (continuous)."""
    model: str | None = None
    """A shipped model's name, a run's folder, or a Hugging Face id, to train in as it is."""
    store: Path | None = None
    """With --model: recorded episodes that imagination starts from, instead of episodes played live."""
    iterations: int = 5
    """Times that the policy is improved and evaluated; more may be asked for later."""
    allow_other_env: bool = False
    """Also take an environment that the model was not trained for by name, such as the cue corridor for
    tiny-cue."""
    controls: bool = True
    """Mazes: score random moves, the explorer and the oracle too, at the first evaluation."""
    device: str = "auto"
    """auto, cpu or cuda."""
    seed: int | None = None
    """Names the policy's weights, its starts and noise, the evaluation's episodes, and, in the loop, the
    collected episodes and the world model's weights; by default --training.seed."""
    json: Path | None = None
    """File for the result: every score, the last evaluation, where the policy lies, versions."""
    stop_after: float = 0.0
    """Seconds after which to stop with a checkpoint, to be resumed by the same command; 0 for no limit."""
    tensorboard: bool = True
    """Write TensorBoard files beside log.jsonl."""
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    """How episodes are collected and the world model is fitted, without --model."""
    recipe: Annotated[PolicyRecipe, tyro.conf.arg(name="")] = field(default_factory=PolicyRecipe)
    """How the policy is trained and judged."""


def result_of(out: Path) -> dict[str, Any]:
    """What a run's folder says of its policy: every score, and the last evaluation."""
    found = [json.loads(path.read_text()) for path in sorted((out / "evaluations").glob("*.json"))]
    scores = [
        {"iteration": one["iteration"], "updates": one["updates"]}
        | {key: one["policy"][key] for key in ("mean", "ci95")}
        for one in found
    ]
    return {
        "out": str(out),
        "policy": str(out / "policy"),
        "scores": scores,
        "last_evaluation": found[-1] if found else None,
    }


def run(args: TrainPolicyArgs) -> None:
    """Train, and say how the policy does and where it lies."""
    from lssvwm_agents.trainers.policy_run import PolicyRunOptions, run_policy

    options = PolicyRunOptions(
        out=args.out,
        env=args.env,
        algo=args.algo,
        model=args.model,
        store=args.store,
        iterations=args.iterations,
        allow_other_env=args.allow_other_env,
        controls=args.controls,
        device=args.device,
        stop_after=args.stop_after,
        tensorboard=args.tensorboard,
        refresh=args.refresh,
    )
    recipe = args.recipe
    if args.seed is not None:
        recipe = replace(recipe, training=replace(recipe.training, seed=args.seed))
    finished = run_policy(recipe, options)
    if args.json is not None:
        from lssvwm_agents.report import run_info, write_json
        from lssvwm_agents.trainers.distributed import choose_device

        about = {"finished": finished, "algo": args.algo, "model": args.model, "env": args.env or None}
        about |= {"seed": recipe.training.seed, **run_info(choose_device(args.device))}
        write_json(args.json, {**result_of(args.out), **about})
        print(f"Written to {args.json}.")
    if not finished:
        print(f"Next: the same command goes on; `lssvwm report {args.out}` draws the curves so far.")
    elif args.algo == "actor-critic":
        print(
            f"Next: `lssvwm evaluate policy --policy {args.out} --with-planner` scores it inside the planner "
            f"too; `lssvwm report {args.out}` draws the curves."
        )
    else:
        print(f"Next: `lssvwm report {args.out}` draws the curves; more --iterations go on from here.")
