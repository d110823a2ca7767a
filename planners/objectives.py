"""What a plan maximises: functions from the outcome of one imagined frame to one number a row."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.protocols import Objective, Outcome


def predicted_reward(outcome: Outcome) -> torch.Tensor:
    """(R,) the reward that the dynamics predict: the default objective."""
    return outcome.reward


def predicted_value(outcome: Outcome) -> torch.Tensor:
    """(R,) the value that the dynamics predict for what comes after the frame: a terminal value.

    Raises:
        ValueError: If the outcome carries no value.
    """
    value: torch.Tensor | None = getattr(outcome, "value", None)
    if value is None:
        raise ValueError(
            "`predicted_value` needs an outcome with a `value`, got none: "
            "use a world model with a value head, or plan without a terminal value."
        )
    return value


@dataclass(frozen=True)
class WeightedSum:
    """The sum of several objectives, each times its weight.

    >>> objective = WeightedSum((predicted_reward, lambda outcome: -outcome.effort), (1.0, 0.1))

    Attributes:
        objectives: Functions of an outcome, each giving (R,).
        weights: One number each.

    Raises:
        ValueError: If there are none, or their numbers differ.
    """

    objectives: tuple[Objective, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.objectives) >= 1, "`objectives` must name at least one", self.objectives)
        require(
            len(self.weights) == len(self.objectives),
            f"`weights` must have one number for each of the {len(self.objectives)} objectives",
            len(self.weights),
        )

    def __call__(self, outcome: Outcome) -> torch.Tensor:
        """(R,) the weighted sum for one frame."""
        total = self.weights[0] * self.objectives[0](outcome)
        for weight, objective in zip(self.weights[1:], self.objectives[1:], strict=True):
            total = total + weight * objective(outcome)
        return total
