"""Are the rewards that a policy is promised in imagination paid? Its imagined moves, played in the true maze.

    python benchmarks/policy_reward_haze.py --policy runs/policy --json FILE

From 96 real frames of the explorer the policy acts in imagination; the very same moves are then made in the
maze. Printed for the mean future and for sampled ones: return by depth, imagined (plain, and what is sure)
and real; and by the size of the predicted reward, its share of the imagined return and what was paid there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from lssvwm_agents.data.online import float_actions
from lssvwm_agents.envs import MazeConfig, make_policy
from lssvwm_agents.envs.raycast_maze import MazeState, odometry, reset, step
from lssvwm_agents.envs.raycast_render import render
from lssvwm_agents.policies import imagine_policy, load_policy
from lssvwm_agents.policies.sure_rewards import sure_reward
from lssvwm_agents.report import run_info, write_json
from lssvwm_agents.trainers.imagined_dynamics import ImaginedDynamics, frame_noise
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel, WorldState

EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 2.0)
CONTEXT, SEED = 96, 2**33


@torch.no_grad()
def remembered(model: WorldModel, config: MazeConfig, mazes: int) -> tuple[MazeState, WorldState]:
    """Mazes that the explorer has walked, and what the model remembers of the walk."""
    seeds = torch.arange(mazes)
    state, explorer = reset(config, seeds + SEED, "cpu"), make_policy("explorer", config)
    carry = explorer.initial_carry(seeds, "cpu")
    frames, poses = [render(config, state)], [odometry(config, state)]
    actions = [torch.zeros(mazes, config.action_size)]
    for _ in range(CONTEXT - 1):
        action, carry = explorer.act(state, carry)
        state, _, _ = step(config, state, action)
        frames.append(render(config, state))
        poses.append(odometry(config, state))
        actions.append(float_actions(config, action))
    video = torch.stack(frames, 1).permute(0, 1, 4, 2, 3) / 255
    world, _ = model.observe(
        model.initial_state(mazes), video, torch.stack(actions, 1), torch.stack(poses, 1)
    )
    return state, world


@torch.no_grad()
def compare(args: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Imagined and real rewards of the same moves."""
    policy = load_policy(args.policy)
    model, config = load_model(policy.config.world_model), MazeConfig(size=7)
    state, world = remembered(model, config, args.mazes)
    rows = torch.arange(args.mazes).repeat_interleave(args.forks)
    noise = torch.randn(
        args.horizon, len(rows), config.action_size, generator=torch.Generator().manual_seed(0)
    )
    dynamics = ImaginedDynamics(
        model, steps, frame_noise(model, steps, args.horizon, len(rows), torch.Generator().manual_seed(1))
    )
    _, rollouts = imagine_policy(dynamics, model.repeat(world, args.forks), policy.actor, noise, policy.read)
    state, paid = state.select(rows), []
    for t in range(1, args.horizon + 1):
        state, reward, _ = step(config, state, rollouts.actions[:, t].argmax(-1))
        paid.append(reward)
    real, imagined = torch.stack(paid, 1).float(), rollouts.reward[:, 1:]
    heads = model.heads
    sure = sure_reward(
        heads.reward(rollouts.features[:, 1:, : model.feature_dim]), heads.two_hot.bins, args.doubt
    )
    sizes = []
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        inside = (imagined >= low) & (imagined < high)
        sizes.append(
            {
                "predicted": [low, high],
                "frames": int(inside.sum()),
                "share_of_imagined_return": float((imagined * inside).sum() / imagined.sum()),
                "paid": float(real[inside].mean()) if inside.any() else None,
            }
        )
    depth = {
        name: [float(part.sum(1).mean()) for part in value.split(4, dim=1)]
        for name, value in (("imagined", imagined), ("sure", sure), ("real", real))
    }
    return {"num_denoising_steps": steps, "by_four_frames": depth, "by_size": sizes}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", required=True)
    parser.add_argument("--mazes", type=int, default=64)
    parser.add_argument("--forks", type=int, default=4)
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--doubt", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    for steps in (1, 8):
        result = compare(args, steps)
        print(f"{steps} denoising steps; sums of rewards by four frames:")
        for name, values in result["by_four_frames"].items():
            print(f"  {name:<10}" + "".join(f"{value:>8.3f}" for value in values) + f"  = {sum(values):.3f}")
        for size in result["by_size"]:
            low, high = size["predicted"]
            share, paid = size["share_of_imagined_return"], size["paid"]
            words = "-" if paid is None else f"{paid:.3f}"
            print(f"  predicted {low:.2f} to {high:.2f}: {share:>5.0%} of the imagined return, paid {words}")
        results.append(result)
    if args.json is not None:
        settings = {"mazes": args.mazes, "forks": args.forks, "doubt": args.doubt, "context": CONTEXT}
        write_json(args.json, {"results": results, **settings, **run_info("cpu")})


if __name__ == "__main__":
    main()
