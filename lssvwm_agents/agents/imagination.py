"""The world model as a planner's dynamics, with its frames counted."""

from __future__ import annotations

import torch

from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState


class CountedImagination:
    """A :class:`~lssvwm_agents.planners.Dynamics` that imagines with a world model and counts frames.

    Args:
        model: The world model.
        num_denoising_steps: Of every imagined frame.
        generator: Noise of the imagined frames.
    """

    def __init__(
        self, model: WorldModel, num_denoising_steps: int = 1, generator: torch.Generator | None = None
    ) -> None:
        self.model = model
        self.num_denoising_steps = num_denoising_steps
        self.generator = generator
        self.imagined_frames = 0

    def step(self, state: WorldState, action: torch.Tensor) -> tuple[WorldState, Prediction]:
        """Imagine one frame for every row, given its action (B, A)."""
        self.imagined_frames += action.shape[0]
        return self.model.step(
            state, action, num_denoising_steps=self.num_denoising_steps, generator=self.generator
        )

    def repeat(self, state: WorldState, n: int) -> WorldState:
        """Fork every row n times, in the order of ``repeat_interleave``."""
        return self.model.repeat(state, n)
