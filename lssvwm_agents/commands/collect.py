"""``lssvwm collect``: play episodes and write them to a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lssvwm_agents.json_options import json_object


@dataclass(frozen=True)
class CollectArgs:
    """Play episodes of any registered Gymnasium environment and write them to a store.

    Episode i is made from seed + i alone. Killed at any moment, the same command goes on where it was.
    """

    env: str
    """Gymnasium id, such as lssvwm/RaycastMaze-9x9-v0."""
    out: Path
    """Folder of the store."""
    policy: str = "random"
    """random, waypoints, a scripted policy of our mazes (held_random, explorer, forager, wanderer, guesser,
    oracle), a stable-baselines3 policy (.zip), or the folder of a policy of `lssvwm train-policy`."""
    episodes: int = 10
    """Episodes that the store holds in the end."""
    num_envs: int = 16
    """Environments played side by side."""
    seed: int = 0
    """Seed of episode 0."""
    epsilon: float = 0.0
    """Probability, at each step, of a uniformly random action instead of the policy's."""
    env_kwargs: str = "{}"
    """Keyword arguments of the environment, as JSON."""
    frame_size: int | None = None
    """Edge of the recorded frames in pixels; without it images keep their size, rendered frames take 64."""
    processes: bool = False
    """Each environment in a process of its own: for slow ones, such as those drawn by MuJoCo."""
    device: str = "cpu"
    """cpu or cuda: where our own mazes are stepped and drawn, and a trained policy remembers."""
    json: Path | None = None
    """File for the result: what the store holds, and what made it."""


def run(args: CollectArgs) -> None:
    """Collect, and say where the episodes lie."""
    env_kwargs = json_object(args.env_kwargs, "--env-kwargs")

    from lssvwm_agents.data.collect import CollectConfig, collect

    config = CollectConfig(
        env=args.env,
        policy=args.policy,
        episodes=args.episodes,
        num_envs=args.num_envs,
        seed=args.seed,
        env_kwargs=env_kwargs,
        epsilon=args.epsilon,
        frame_size=args.frame_size,
        processes=args.processes,
        device=args.device,
    )
    store = collect(config, args.out)
    from lssvwm_agents.data.summary import summarize
    from lssvwm_agents.trainers.suggestion import suggest_next

    print(f"{store.num_episodes} episodes, {store.num_frames:,} frames in {args.out}.")
    if args.json is not None:
        from lssvwm_agents.report import run_info, write_json

        about = {"out": str(args.out), "seed": args.seed, **run_info(args.device)}
        write_json(args.json, {**summarize(args.out), **about})
        print(f"Written to {args.json}.")
    print(f"Next: {suggest_next(store)}")
