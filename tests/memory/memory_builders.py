"""Debug models and hand-made episodes that the tests of the memory benchmark share."""

from __future__ import annotations

from dataclasses import replace

import torch

from lssvwm_agents.baselines import BASELINES
from lssvwm_agents.evaluate.memory.episodes import Episodes
from lssvwm_agents.recipes import maze_debug, with_maze
from lssvwm_agents.worldmodel import WorldModel


def debug_model(
    baseline: str = "ours", odometry: bool = True, seed: int = 0, places: bool = False
) -> WorldModel:
    """An untrained model of the recipe `maze-debug` whose zero-initialised gates are random.

    With ``places``, the base has a memory of places.
    """
    config = with_maze(maze_debug()).model
    if places:
        config = replace(config, backbone=replace(config.backbone, place_features=8, place_values=8))
    if not odometry:
        config = replace(config, proprio_dim=0)
    torch.manual_seed(seed)
    model = WorldModel(BASELINES[baseline](config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any() and "null" not in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def hand_made(pose: list[int], center: list[int], seen: list[list[int]]) -> Episodes:
    """One maze whose poses and places are single integers."""
    time = len(pose)
    return Episodes(
        frames=torch.arange(time, dtype=torch.uint8).view(1, time, 1, 1, 1).expand(-1, -1, 8, 8, 3),
        actions=torch.nn.functional.one_hot(torch.arange(time) % 6, 6).float()[None],
        action_known=(torch.arange(time) > 0)[None],
        proprio=torch.arange(time).float().view(1, time, 1).expand(-1, -1, 4),
        pose=torch.tensor(pose).view(1, time, 1).expand(-1, -1, 3),
        color=torch.zeros(1, time, dtype=torch.int64),
        center=torch.tensor(center)[None],
        seen=torch.tensor(seen)[None],
    )
