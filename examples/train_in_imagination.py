"""Train a policy of stable-baselines3 inside a world model, then try it in real mazes.

    pip install 'lssvwm-agents[sb3]'
    python examples/train_in_imagination.py                       # the shipped world model
    python examples/train_in_imagination.py --model runs/train    # one of your own

Imagined episodes are short and begin where a scripted explorer has walked for a while: that is as far as the
small shipped model can be believed.
"""

from __future__ import annotations

import argparse

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

import lssvwm_agents.envs  # registers the environments  # noqa: F401
from lssvwm_agents.envs.sb3_bridge import SB3ImaginedVecEnv, SB3VecEnv

IMAGINED_STEPS = 8
REAL_STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=8192, help="imagined steps to train for")
    parser.add_argument("--episodes", type=int, default=32, help="real episodes of each score")
    args = parser.parse_args()

    imagined = gymnasium.make_vec(
        "lssvwm/Imagined-v0",
        num_envs=16,
        model=args.model,
        autoreset_mode="SameStep",
        max_episode_steps=IMAGINED_STEPS,
        num_starts=256,
    )
    agent = PPO("CnnPolicy", VecMonitor(SB3ImaginedVecEnv(imagined)), n_steps=64, n_epochs=3, seed=0)

    mazes = gymnasium.make_vec(
        "lssvwm/RaycastMaze-7x7-v0", num_envs=16, autoreset_mode="SameStep", max_episode_steps=REAL_STEPS
    )
    real = VecMonitor(SB3VecEnv(mazes))
    for when in ("before", "after"):
        real.seed(1 << 31)  # mazes that no model was trained on
        mean, std = evaluate_policy(agent, real, args.episodes, deterministic=False)
        print(
            f"{when}: {mean:.2f} targets in {REAL_STEPS} moves (std {std:.2f} over {args.episodes} episodes)"
        )
        if when == "before":
            agent.learn(args.steps)
            returns = [episode["r"] for episode in agent.ep_info_buffer]
            print(f"imagined return of the last episodes: {sum(returns) / len(returns):.3f}")


if __name__ == "__main__":
    main()
