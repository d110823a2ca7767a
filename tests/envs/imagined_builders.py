"""Micro world models, and contexts for them, that the tests of imagined environments share."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from lssvwm_agents.envs import Context, ImaginedVectorEnv
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

FRAME_SIZE = 8


def micro_model(dtype: torch.dtype = torch.float32, goes_on: float = 2.0, **overrides: Any) -> WorldModel:
    """Untrained, with random heads: rewards differ, and episodes end with probability sigmoid(-goes_on)."""
    backbone = BackboneConfig(
        width=8, conditioning_width=8, block_sizes=(2, 1), head_dim=4, state_dim=4, window=2, mlp_ratio=1.0
    )
    settings: dict[str, Any] = {
        "tokenizer": TokenizerConfig(frame_size=FRAME_SIZE, channels=(4,), latent_channels=2),
        "patch_size": 2,
        "backbone": backbone,
        "action_dim": 3,
        "proprio_dim": 4,
        "odometry": "pose",
        "num_bins": 5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(WorldModelConfig(**{**settings, **overrides}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not parameter.any() or name.endswith("continuation.weight"):
                    parameter.copy_(0.4 * torch.randn(parameter.shape))
                if name.endswith("heads.continuation.bias"):
                    parameter.fill_(goes_on)
    return model.to(dtype).eval()


@dataclass(frozen=True)
class NoiseContexts:
    """Frames of noise, each row from its own seed."""

    num_frames: int = 3
    action_dim: int = 3
    proprio_dim: int = 4
    size: int = FRAME_SIZE

    def draw(self, seeds: torch.Tensor) -> Context:
        rows = [self._row(int(seed)) for seed in seeds]
        frames, actions, proprio = (torch.stack(parts) for parts in zip(*rows, strict=True))
        known = torch.ones(len(seeds), self.num_frames, dtype=torch.bool)
        known[:, 0] = False
        return Context(frames, actions, known, proprio if self.proprio_dim else None)

    def _row(self, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = (self.num_frames, self.size, self.size, 3)
        frames = torch.randint(256, shape, generator=generator).to(torch.uint8)
        index = torch.randint(self.action_dim, (self.num_frames,), generator=generator)
        proprio = torch.rand(self.num_frames, self.proprio_dim, generator=generator)
        return frames, torch.nn.functional.one_hot(index, self.action_dim).float(), proprio


def micro_vector(num_envs: int = 2, goes_on: float = 50.0, **settings: Any) -> ImaginedVectorEnv:
    """Environments whose episodes are only ever truncated."""
    settings = {"contexts": NoiseContexts(), "observation": "features", "num_denoising_steps": 1, **settings}
    return ImaginedVectorEnv(micro_model(goes_on=goes_on), num_envs, **settings)


def same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether two observations or infos are equal, up to a tolerance."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    one, other = (np.asarray(value, dtype=np.float64) for value in (one, other))
    return one.shape == other.shape and bool((np.abs(one - other) <= tolerance).all())


def import_the_bridge(folder: str, told: Connection) -> None:
    """In a process of its own: tell why the bridge to a stable-baselines3 in ``folder`` is not imported."""
    sys.path.insert(0, folder)
    assert "stable_baselines3" not in sys.modules
    try:
        importlib.import_module("lssvwm_agents.envs.sb3_bridge")
    except ImportError as error:
        told.send(str(error))
