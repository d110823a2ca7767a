"""A bonus for imagined places that were not seen lately: what to do while no reward is foreseen.

Shapes: B episodes, M remembered positions of each, R rows of imagined futures (R = B * n, row b*n + i).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners import Outcome


@dataclass(frozen=True)
class Exploration:
    """How much an imagined frame is worth for being somewhere new.

    The first two numbers of the odometry are the position. A place is as new as it is far from where the
    agent has been, and becomes new again with time: rewards may have moved.

    Attributes:
        weight: Largest bonus of one frame, in units of reward; 0 for none.
        radius: Distance, in the odometry's unit (cells), at which a place is wholly new.
        fade_frames: Frames after which a place is wholly new again.
        memory_frames: Last real frames whose positions are remembered.
    """

    weight: float = 0.0
    radius: float = 2.0
    fade_frames: float = 200.0
    memory_frames: int = 256

    def __post_init__(self) -> None:
        for name in ("radius", "fade_frames", "memory_frames"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.weight < 0:
            raise ValueError(f"`weight` must be at least 0, got {self.weight}.")


class Novelty:
    """An objective of :mod:`lssvwm_agents.planners`: the bonus of an imagined frame, from its odometry.

    Args:
        config: The bonus.
        visited: (B, M, 2) positions of the last M real frames, oldest first; infinite before the episode
            began.
    """

    def __init__(self, config: Exploration, visited: torch.Tensor) -> None:
        self.config, self.visited = config, visited
        age = torch.arange(visited.shape[1] - 1, -1, -1, device=visited.device, dtype=visited.dtype)
        self.age_M = age / config.fade_frames

    def __call__(self, outcome: Outcome) -> torch.Tensor:
        """(R,) between 0 and ``weight``.

        Raises:
            ValueError: If the outcome carries no odometry.
        """
        proprio: torch.Tensor | None = getattr(outcome, "proprio", None)
        if proprio is None:
            raise ValueError(
                "exploring needs a world model with odometry, got one without: set its weight to 0."
            )
        position = (
            proprio[:, :2].unflatten(0, (self.visited.shape[0], -1)).to(self.visited.dtype)
        )  # (B, n, 2)
        apart = torch.cdist(position, self.visited.nan_to_num(posinf=1e6)) / self.config.radius
        new = (apart + self.age_M).amin(dim=-1).clamp(max=1.0)
        return self.config.weight * new.flatten()
