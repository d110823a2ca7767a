"""What a plan maximises: functions from the outcome of one imagined frame to one number a row.

Shapes: ``R`` rows imagined at once, ``A`` action width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.protocols import Objective, Outcome


class ActionObjective(ABC):
    """An objective that also looks at the action that led to the frame; planners hand it over."""

    @abstractmethod
    def __call__(self, outcome: Any, action: torch.Tensor | None = None, /) -> torch.Tensor:
        """(R,) what one frame is worth, given its outcome and (R, A) actions."""


def caller(objective: Objective) -> Callable[[Any, torch.Tensor | None], torch.Tensor]:
    """``objective`` as a function of an outcome and an action, whether or not it looks at the action."""
    if isinstance(objective, ActionObjective):
        return objective
    return lambda outcome, action: objective(outcome)


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
class WeightedSum(ActionObjective):
    """The sum of several objectives, each times its weight.

    >>> objective = WeightedSum((predicted_reward, ControlPenalty()), (1.0, 0.1))

    Attributes:
        objectives: Functions of an outcome, each giving (R,); some may want the action as well.
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

    def __call__(self, outcome: Any, action: torch.Tensor | None = None, /) -> torch.Tensor:
        """(R,) the weighted sum for one frame."""
        total = self.weights[0] * caller(self.objectives[0])(outcome, action)
        for weight, objective in zip(self.weights[1:], self.objectives[1:], strict=True):
            total = total + weight * caller(objective)(outcome, action)
        return total


@dataclass(frozen=True, eq=False)
class ControlPenalty(ActionObjective):
    """Minus the squared distance of the action from an action that costs nothing.

    >>> ControlPenalty()(None, torch.tensor([[3.0, 4.0]]))
    tensor([-25.])

    Attributes:
        rest: (A,) the action that costs nothing; None for zeros.
        weights: (A,) the price of each entry; None for ones.
    """

    rest: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def __call__(self, outcome: Any, action: torch.Tensor | None = None, /) -> torch.Tensor:
        """(R,) at most 0.

        Raises:
            ValueError: If no action is given, as where it stands as a terminal value in a search of its own.
        """
        if action is None:
            raise ValueError("`ControlPenalty` needs the action of the frame, got none.")
        apart = action if self.rest is None else action - self.rest.to(action)
        squared = apart.square()
        return -(squared if self.weights is None else self.weights.to(action) * squared).sum(dim=-1)
