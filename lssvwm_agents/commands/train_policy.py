"""``lssvwm train-policy``: train a policy in imagination, judge it in the real environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

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
    stop_after: float = 0.0
    """Seconds after which to stop with a checkpoint, to be resumed by the same command; 0 for no limit."""
    tensorboard: bool = True
    """Write TensorBoard files beside log.jsonl."""
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    """How episodes are collected and the world model is fitted, without --model."""
    recipe: Annotated[PolicyRecipe, tyro.conf.arg(name="")] = field(default_factory=PolicyRecipe)
    """How the policy is trained and judged."""


def run(args: TrainPolicyArgs) -> None:
    """Train, and say how the policy does."""
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
    run_policy(args.recipe, options)
