"""How long an imagined environment pays what the real one would, under the very same actions.

The oracle walks through unseen mazes. The imagined environments are given the first 64 frames of each walk,
and then its next 32 actions, which earn real rewards in the real mazes.

    python benchmarks/imagined_rewards.py --json benchmarks/results/imagined_rewards.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lssvwm_agents.envs import ImaginedVectorEnv, MazeConfig, MazeContexts, RaycastMazeVectorEnv
from lssvwm_agents.weights import load_model

CONTEXT, AHEAD, BLOCK = 64, 32, 8
FIRST_SEED = 1 << 31  # of unseen mazes


def main() -> None:
    """Print mean rewards an episode, in blocks of 8 frames."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import torch

    config, seeds = MazeConfig(size=7), list(range(FIRST_SEED, FIRST_SEED + args.episodes))
    walk = MazeContexts(config, "oracle", CONTEXT + AHEAD).draw(torch.tensor(seeds))
    actions = walk.actions.argmax(-1).numpy()  # actions[:, t] led to frame t
    maze = RaycastMazeVectorEnv(num_envs=args.episodes, size=config.size)
    maze.reset(seed=seeds)
    rewards = [maze.step(actions[:, t])[1] for t in range(1, CONTEXT + AHEAD)][CONTEXT - 1 :]
    report = {
        "model": args.model,
        "episodes": args.episodes,
        "context_frames": CONTEXT,
        "real": blocks(rewards),
    }
    model = load_model(args.model)
    for steps in (1, 8):
        env = ImaginedVectorEnv(
            model,
            args.episodes,
            MazeContexts(config, "oracle", CONTEXT),
            observation="features",
            num_denoising_steps=steps,
            termination="never",
        )
        env.reset(seed=seeds)
        imagined = [env.step(actions[:, t])[1] for t in range(CONTEXT, CONTEXT + AHEAD)]
        early = slice(0, BLOCK)
        report[f"imagined, {steps} denoising step(s)"] = blocks(imagined)
        report[f"correlation in the first {BLOCK} frames, {steps} denoising step(s)"] = round(
            float(np.corrcoef(np.ravel(imagined[early]), np.ravel(rewards[early]))[0, 1]), 3
        )
    text = json.dumps(report, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n")


def blocks(rewards: list[np.ndarray]) -> list[float]:
    """Mean reward an episode, in each block of 8 frames."""
    return [round(float(part.sum(0).mean()), 3) for part in np.split(np.array(rewards), AHEAD // BLOCK)]


if __name__ == "__main__":
    main()
