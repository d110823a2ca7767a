"""Translate between an environment's actions and the float actions of models and planners."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import torch

from lssvwm_agents.planners import ActionSpec, ContinuousActions, DiscreteActions


def action_spec_from_space(space: gymnasium.Space) -> ActionSpec:
    """Say what a planner may choose from, given the action space of one environment.

    Raises:
        ValueError: If the space is neither Discrete nor a bounded Box.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteActions(int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        if not space.is_bounded("both"):
            raise ValueError(f"planning needs a Box with finite bounds on both sides, got {space}.")
        return ContinuousActions(low=space.low.reshape(-1).tolist(), high=space.high.reshape(-1).tolist())
    raise ValueError(f"planning needs a Discrete or a Box action space, got {space}; wrap the environment.")


@dataclass(frozen=True)
class ActionCodec:
    """Actions of one environment as floats (B, A) and back.

    Attributes:
        space: The action space of one environment (not of the vector of them).
    """

    space: gymnasium.Space

    def __post_init__(self) -> None:
        action_spec_from_space(self.space)

    @property
    def discrete(self) -> bool:
        """Whether actions are numbered, and so one-hot in the model."""
        return isinstance(self.space, gymnasium.spaces.Discrete)

    @property
    def action_dim(self) -> int:
        """Width ``A`` of the float action."""
        return int(self.space.n) if self.discrete else int(np.prod(self.space.shape))  # type: ignore[attr-defined]

    def null(self, batch_size: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B, A) zeros: the null action, which leads to the first frame of an episode."""
        return torch.zeros(batch_size, self.action_dim, device=device)

    def encode(self, actions: object, device: torch.device | str = "cpu") -> torch.Tensor:
        """Turn a batch of the environment's actions into floats (B, A).

        Args:
            actions: (B,) integers for Discrete; (B, *shape) for a Box; array or tensor.
            device: Where the result lies.

        Raises:
            ValueError: If the shape does not fit the space, or a number is outside it.
        """
        tensor = torch.as_tensor(actions, device=device)
        if self.discrete:
            if tensor.ndim != 1 or tensor.dtype.is_floating_point or tensor.dtype == torch.bool:
                raise ValueError(
                    f"a batch of actions for {self.space} must be integers of shape (B,), "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}."
                )
            index = tensor.long() - int(self.space.start)  # type: ignore[attr-defined]
            if bool(((index < 0) | (index >= self.action_dim)).any()):
                raise ValueError(f"actions must lie in {self.space}, got {tensor.tolist()}.")
            return torch.nn.functional.one_hot(index, self.action_dim).float()
        if tuple(tensor.shape[1:]) != self.space.shape:
            raise ValueError(
                f"a batch of actions for {self.space} must have shape (B, *{self.space.shape}), "
                f"got {tuple(tensor.shape)}."
            )
        return tensor.float().reshape(tensor.shape[0], -1)

    def decode(self, actions_BA: torch.Tensor) -> torch.Tensor:
        """Turn floats (B, A) into the environment's actions: (B,) int64, or (B, *shape) inside the Box.

        Relaxed one-hot vectors become their largest entry.
        """
        if actions_BA.ndim != 2 or actions_BA.shape[1] != self.action_dim:
            raise ValueError(
                f"model actions for {self.space} must have shape (B, {self.action_dim}), "
                f"got {tuple(actions_BA.shape)}."
            )
        if self.discrete:
            return actions_BA.argmax(dim=1) + int(self.space.start)  # type: ignore[attr-defined]
        box = self.space
        assert isinstance(box, gymnasium.spaces.Box)
        low, high = (torch.as_tensor(b, device=actions_BA.device).float() for b in (box.low, box.high))
        return actions_BA.reshape(-1, *box.shape).clamp(low, high)
