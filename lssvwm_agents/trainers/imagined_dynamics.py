"""A world model as what a policy is trained in."""

from __future__ import annotations

import dataclasses

import torch

from lssvwm_agents.policies.imagined_rollouts import FeatureValue
from lssvwm_agents.policies.sure_rewards import sure_reward
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState


class ImaginedDynamics:
    """A world model as a policy's dynamics: frozen, with noise of its own where frames are samples.

    Args:
        model: The world model.
        num_denoising_steps: Of every imagined frame.
        noise: (H, R, C, h, w) of the frames, in their order; None with one denoising step.
        doubt: See :func:`sure_reward`.
    """

    def __init__(
        self,
        model: WorldModel,
        num_denoising_steps: int = 1,
        noise: torch.Tensor | None = None,
        doubt: float = 0.0,
    ) -> None:
        self.model, self.num_denoising_steps, self.doubt = model, num_denoising_steps, doubt
        self._noise = None if noise is None else iter(noise.unbind())

    def step(self, state: WorldState, action: torch.Tensor) -> tuple[WorldState, Prediction]:
        """Imagine one frame."""
        noise = None if self._noise is None else next(self._noise)
        state, prediction = self.model.step(state, action, self.num_denoising_steps, noise=noise)
        if self.doubt > 0:
            heads = self.model.heads
            reward = sure_reward(heads.reward(prediction.features), heads.two_hot.bins, self.doubt)
            prediction = dataclasses.replace(prediction, reward=reward)
        return state, prediction


def recorded_value(model: WorldModel) -> FeatureValue:
    """The model's value head as a function of what a policy reads, features first: what followed in its data.

    Raises:
        ValueError: If the model has none.
    """
    heads = model.heads
    head = heads.value
    if head is None:
        raise ValueError("recorded values are told by a world model's value head, got `value_head`=False.")
    return lambda inputs: heads.two_hot.mean(head(inputs[..., : model.feature_dim]))


def frame_noise(
    model: WorldModel, num_denoising_steps: int, horizon: int, rows: int, noise: torch.Generator
) -> torch.Tensor | None:
    """(H, R, C, h, w) noise of a batch's frames, on the generator's device; None for mean futures."""
    if num_denoising_steps == 1:
        return None
    shape = (horizon, rows, *model.config.tokenizer.latent_shape)
    return torch.randn(shape, generator=noise, device=noise.device)
