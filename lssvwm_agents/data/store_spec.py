"""What every episode of a store has in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lssvwm_agents.errors import StoreError


@dataclass(frozen=True)
class StoreSpec:
    """What every episode of a store has in common.

    Attributes:
        env_id: Gymnasium id of the environment.
        env_kwargs: Its keyword arguments; JSON values only.
        policy: Name of the policy, or the path it was loaded from.
        seed: Episode i of a collection is made from ``seed + i``.
        frame_shape: (H, W, 3).
        action_shape: Shape of one action; () for discrete actions.
        action_dtype: The environment's own dtype, such as ``int64``.
        num_actions: Number of discrete actions; 0 for continuous ones.
        action_low: Lower bounds of continuous actions, flattened.
        action_high: Upper bounds.
        proprio_dim: Width ``P`` of ``proprio``; 0 where there is none.
        extra: Anything else that should be remembered; JSON values only.
    """

    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str = ""
    seed: int = 0
    frame_shape: tuple[int, ...] = (64, 64, 3)
    action_shape: tuple[int, ...] = ()
    action_dtype: str = "int64"
    num_actions: int = 0
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    proprio_dim: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("frame_shape", "action_shape", "action_low", "action_high"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.frame_shape) != 3 or self.frame_shape[-1] != 3 or min(self.frame_shape) < 1:
            raise StoreError(f"`frame_shape` must be (H, W, 3), got {self.frame_shape}.")
        if self.proprio_dim < 0:
            raise StoreError(f"`proprio_dim` must be at least 0, got {self.proprio_dim}.")

    @property
    def action_dim(self) -> int:
        """Width ``A`` of the action as models and planners see it: one-hot for discrete actions."""
        return self.num_actions or int(np.prod(self.action_shape, dtype=np.int64))
