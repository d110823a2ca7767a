"""The whole loop in one file: see real frames, remember them, imagine futures, act.

    python examples/minimal.py                       # the shipped world model
    python examples/minimal.py --model runs/train    # one of your own

Agents in a few unseen mazes watch an explorer drive for a while, then choose every move by planning inside
the world model. `PlanningAgent` does the same with fewer lines; here every step can be seen.
"""

from __future__ import annotations

import argparse
import time

import gymnasium
import numpy as np
import torch

import lssvwm_agents.envs  # registers the mazes  # noqa: F401
from lssvwm_agents.agents import ActionCodec, action_spec_from_space, environment_kwargs
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.envs import make_policy
from lssvwm_agents.planners import CEM, predicted_value
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel, WorldState

ACTION_REPEAT = 4  # moves for which a decision is held
REPLAN_EVERY = 8  # moves played from one plan


def look(
    model: WorldModel, state: WorldState, observation: dict[str, np.ndarray], action: torch.Tensor
) -> WorldState:
    """Take one real frame into memory, with the action (B, A) that led to it (zeros after a reset)."""
    frames = torch.from_numpy(observation["frame"]).permute(0, 3, 1, 2)[:, None] / 255  # (B, 1, 3, H, W)
    proprio = torch.from_numpy(observation["proprio"])[:, None] if model.config.proprio_dim else None
    state, _ = model.observe(state, frames, action[:, None], proprio)
    return state


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="shipped name, folder of a run, or Hugging Face id")
    parser.add_argument("--mazes", type=int, default=4)
    parser.add_argument("--watch", type=int, default=64, help="moves of the explorer before planning")
    parser.add_argument("--moves", type=int, default=48, help="planned moves")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    cores = torch.get_num_threads()
    torch.set_num_threads(1)  # cores share imagined futures, not single operations: faster for small models
    model = load_model(args.model)
    config = model.config
    settings = environment_kwargs(config)  # the environment as it was in training
    settings |= {"observation": "dict", "max_episode_steps": args.watch + args.moves + 1}
    env = gymnasium.make_vec(
        config.env_id, num_envs=args.mazes, vectorization_mode="vector_entry_point", **settings
    )
    mazes = env.unwrapped  # a RaycastMazeVectorEnv: scripted policies may read its maze_state
    codec = ActionCodec(env.single_action_space)  # the environment's actions to floats and back
    planner = CEM(
        action_spec_from_space(env.single_action_space),
        horizon=10,
        num_samples=64,
        num_elites=8,
        num_iterations=2,
        action_repeat=ACTION_REPEAT,
        discount=0.99,
        terminal_value=predicted_value if config.value_head else None,
        max_rows=256 * cores,
    )

    # Burn-in: the explorer drives, the model watches.
    observation, _ = env.reset(seed=args.seed)
    no_action = torch.zeros(args.mazes, config.action_dim)
    state = look(model, model.initial_state(args.mazes), observation, no_action)
    explorer = make_policy("explorer", mazes.maze_config)
    carry = explorer.initial_carry(torch.arange(args.mazes) + args.seed)
    for _ in range(args.watch):
        taken, carry = explorer.act(mazes.maze_state, carry)
        observation, *_ = env.step(taken.numpy())
        state = look(model, state, observation, codec.encode(taken, model.device))
    kib = state.nbytes / args.mazes / 1024  # the same after 10 frames or 10,000
    print(f"watched {args.watch + 1} frames; memory: {kib:.0f} KiB a maze")

    # Act: imagine candidate futures from what is remembered, play the start of the best, look, plan again.
    dynamics = Imagination(model, num_threads=cores)  # `model` itself would do, on one core
    noise = torch.Generator().manual_seed(args.seed)
    scores, warm_start, began = np.zeros(args.mazes), None, time.perf_counter()
    for move in range(args.moves):
        played = move % REPLAN_EVERY
        if played == 0:
            plan = planner.plan(dynamics, state, warm_start=warm_start, generator=noise)
            warm_start = plan.shift(REPLAN_EVERY)
        action = plan.actions[:, played]  # (B, A) floats: one-hot for discrete actions
        observation, reward, *_ = env.step(codec.decode(action).numpy())
        state = look(model, state, observation, action)
        scores += reward
    seconds = time.perf_counter() - began
    found = ", ".join(f"{score:.0f}" for score in scores)
    print(f"targets found in {args.moves} planned moves: {found} (mean {scores.mean():.2f})")
    frames = dynamics.imagined_frames
    print(f"imagined {frames:,} frames in {seconds:.0f} s, {frames / seconds:,.0f} a second")


if __name__ == "__main__":
    main()
