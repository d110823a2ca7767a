"""What a policy does about targets: how much of the maze it sees, which it touches, and which it heads for.

    python benchmarks/policy_targets.py --policy runs/policy --json FILE

After 96 moves of looking around, 250 moves of the policy in unseen mazes, and of the scripted explorer and
oracle in the same ones. Printed for each: cells entered, targets touched (of which paid), and of the targets
that come into view the share that is touched within 16 moves, by whether they pay. A policy that knows which
target pays heads for that one; one that also remembers where it was seen touches few others.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lssvwm_agents.data.latents import module_hash
from lssvwm_agents.data.online import float_actions
from lssvwm_agents.envs import MazeConfig, make_policy
from lssvwm_agents.envs.maze_config import TOUCH_RADIUS
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors, odometry, reset, step
from lssvwm_agents.envs.raycast_render import render
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.policies import load_policy
from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.report import run_info, write_json
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel

LOOK_AROUND, IN_VIEW_CELLS, WITHIN = 96, 4.5, 16


def in_view(config: MazeConfig, state: MazeState) -> torch.Tensor:
    """(B, N) whether a target's middle is seen, near enough, with no wall in between."""
    forward, offset = heading_vectors(state.heading), state.target_position - state.position[:, None]
    ahead = (offset * forward[:, None]).sum(-1)
    left = offset[..., 1] * forward[:, None, 0] - offset[..., 0] * forward[:, None, 1]
    half = math.radians(config.field_of_view_degrees / 2)
    seen = (ahead > 0) & (left.abs() < ahead * math.tan(half)) & (ahead < IN_VIEW_CELLS)
    rows = torch.arange(state.batch_size)[:, None]
    for share in torch.linspace(0.05, 0.95, 19):
        cell = (state.position[:, None] + share * offset).floor().long()
        seen &= ~state.walls[rows, cell[..., 1], cell[..., 0]]
    return seen


class Player:
    """A script, which knows the maze."""

    def __init__(self, name: str, config: MazeConfig, seeds: torch.Tensor) -> None:
        self.script = make_policy(name, config)
        self.carry = self.script.initial_carry(seeds)

    def act(self, state: MazeState) -> torch.Tensor:
        """(B,) actions."""
        action, self.carry = self.script.act(state, self.carry)
        return action

    def see(self, frame: torch.Tensor, action: torch.Tensor, pose: torch.Tensor) -> None:
        """A script needs no frames."""


class PolicyPlayer:
    """Samples the policy's actions, from what the world model makes of the frames so far."""

    def __init__(self, policy: ActorCritic, model: WorldModel, seeds: torch.Tensor) -> None:
        self.policy, self.model = policy, model
        self.world = model.initial_state(len(seeds))
        self.noise = torch.Generator().manual_seed(0)

    def see(self, frame: torch.Tensor, action: torch.Tensor, pose: torch.Tensor) -> None:
        """Remember a frame, the action that led to it, and where it was taken."""
        video = frame.permute(0, 3, 1, 2)[:, None] / 255
        self.world, _ = self.model.observe(self.world, video, action[:, None], pose[:, None])

    def act(self, state: MazeState) -> torch.Tensor:
        """(B,) actions; the maze itself is not looked at."""
        width = self.policy.actor.action_spec.action_dim
        noise = torch.randn(self.world.batch_size, width, generator=self.noise)
        return self.policy.actor(self.policy.read(self.world)).sample(noise).argmax(-1)


@torch.no_grad()
def watch(
    player: Player | PolicyPlayer, config: MazeConfig, seeds: torch.Tensor, moves: int, label: str
) -> dict[str, Any]:
    """Look around, then play; what was seen, touched and paid."""
    state = reset(config, seeds)
    player.see(render(config, state), torch.zeros(len(seeds), config.action_size), odometry(config, state))
    around = Player("explorer", config, seeds)
    places, views, current, near, paid = [], [], [], [], []
    for move in tqdm(range(LOOK_AROUND + moves), desc=label, unit="move"):
        begun = move >= LOOK_AROUND
        action = (player if begun else around).act(state)
        state, reward, _ = step(config, state, action)
        player.see(render(config, state), float_actions(config, action), odometry(config, state))
        if begun:
            places.append(state.position.floor())
            views.append(in_view(config, state))
            current.append(state.current_target)
            near.append((state.target_position - state.position[:, None]).norm(dim=-1) < TOUCH_RADIUS)
            paid.append(reward)
    place, view, touching, pays = (torch.stack(part, 1) for part in (places, views, near, current))
    entered = touching & ~torch.cat([torch.zeros_like(touching[:, :1]), touching[:, :-1]], 1)
    appears = view & ~torch.cat([torch.ones_like(view[:, :1]), view[:, :-1]], 1)
    headed: dict[bool, list[bool]] = {True: [], False: []}
    for row, move, target in appears.nonzero().tolist():
        if move + WITHIN < moves:
            touched = bool(entered[row, move + 1 : move + WITHIN + 1, target].any())
            headed[int(pays[row, move]) == target].append(touched)
    cells = [len(set(map(tuple, one.tolist()))) for one in place]
    return {
        "cells_entered": sum(cells) / len(cells),
        "free_cells": float((~state.walls).sum((1, 2)).float().mean()),
        "touched": float(entered.sum((1, 2)).float().mean()),
        "paid": float(torch.stack(paid, 1).sum(1).mean()),
        "came_into_view": {"paying": len(headed[True]), "others": len(headed[False])},
        "then_touched": {
            "paying": sum(headed[True]) / max(1, len(headed[True])),
            "others": sum(headed[False]) / max(1, len(headed[False])),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", required=True)
    parser.add_argument("--mazes", type=int, default=48)
    parser.add_argument("--moves", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    policy = load_policy(args.policy)
    model, config = load_model(policy.config.world_model), MazeConfig(size=7)
    policy.check_features(module_hash(model))
    seeds = torch.tensor(episode_seeds(args.seed, args.mazes))
    players = {
        "policy": PolicyPlayer(policy, model, seeds),
        "explorer": Player("explorer", config, seeds + 1),
        "oracle": Player("oracle", config, seeds),
    }
    results = {}
    for name, player in players.items():
        results[name] = found = watch(player, config, seeds, args.moves, name)
        then = found["then_touched"]
        print(
            f"{name:<9} {found['cells_entered']:.1f} of {found['free_cells']:.1f} cells entered; "
            f"{found['touched']:.2f} targets touched, {found['paid']:.2f} paid; of those that came into view "
            f"touched within {WITHIN} moves: paying {then['paying']:.0%}, others {then['others']:.0%}"
        )
    if args.json is not None:
        settings = {"mazes": args.mazes, "moves": args.moves, "seed": args.seed, "look_around": LOOK_AROUND}
        write_json(args.json, {"results": results, **settings, **run_info("cpu")})


if __name__ == "__main__":
    main()
