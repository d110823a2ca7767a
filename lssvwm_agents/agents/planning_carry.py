"""What a planning agent remembers between moves.

Shapes: B episodes side by side, A width of a float action, P width of the odometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners import Distribution, Plan
from lssvwm_agents.worldmodel import WorldState


@dataclass(frozen=True)
class PlanningStats:
    """What planning has cost so far.

    Attributes:
        plans: Times that all rows were planned for.
        imagined_frames: Frames imagined by the planner, over all rows and candidates.
        seconds: Time spent in the planner.
    """

    plans: int = 0
    imagined_frames: int = 0
    seconds: float = 0.0

    @property
    def imagined_frames_per_second(self) -> float:
        """Imagined frames per second of planning; 0 before the first plan."""
        return self.imagined_frames / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class SeenFrame:
    """One real frame as it was shown to the world model.

    Attributes:
        latent: (B, C, h, w).
        action: (B, A) the action that led to it; zeros where none did.
        action_known: (B,) bool; False where none did.
        proprio: (B, P) odometry, or None.
        start: (B,) bool; where it is an episode's first.
    """

    latent: torch.Tensor
    action: torch.Tensor
    action_known: torch.Tensor
    proprio: torch.Tensor | None
    start: torch.Tensor


@dataclass(frozen=True)
class PlanningCarry:
    """What a :class:`PlanningAgent` remembers between moves; never changed in place.

    Attributes:
        world: The world model's memory of all real frames seen, the last one included.
        last_action: (B, A) float action taken since the last frame; None where there is none (no frame was
            seen yet) or it is still to be recorded.
        frames_seen: Real frames seen since the carry was made.
        plan: The plan being played, or None.
        warm_start: Where the next search begins, if not at the shifted ``plan``.
        moves_played: Moves of ``plan`` already played.
        visited: (B, M, 2) positions of the last M real frames, oldest first, infinite before the episode
            began; M is 0 unless the agent explores.
        recent: The last real frames, oldest first; kept only for ``memory_frames``.
        seed: Seed of all planning noise.
        stats: What planning has cost.
    """

    world: WorldState
    last_action: torch.Tensor | None
    frames_seen: int
    plan: Plan | None
    warm_start: Distribution | None
    moves_played: int
    visited: torch.Tensor
    recent: tuple[SeenFrame, ...]
    seed: int
    stats: PlanningStats
