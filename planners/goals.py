"""Goals: objectives that are largest where a field of the outcome equals a wanted one.

Shapes: ``B`` rows of the batch, ``R`` rows imagined at once (R = B * n, row b*n + i), ``...`` the field's
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from lssvwm_agents.planners._validation import require


@dataclass(frozen=True, eq=False)
class Goal:
    """Minus the distance between a field of the outcome and a goal, at every imagined frame.

    As an objective it draws the whole horizon towards the goal; as a terminal value the last frame alone.

    Attributes:
        field: The outcome's tensor to compare: ``latent`` for a goal image, ``proprio`` for goal odometry.
        goal: (...) one goal for all rows, or (B, ...) one for each row of the batch.
        weights: (...) of each number of the field, or broadcast to it; None for ones.
        distance: ``mean_square`` of the numbers, or ``euclidean``.

    Raises:
        ValueError: If the distance is another, or the goal holds a number that is not finite.
    """

    field: str
    goal: torch.Tensor
    weights: torch.Tensor | None = None
    distance: Literal["mean_square", "euclidean"] = "mean_square"

    def __post_init__(self) -> None:
        require(
            self.distance in ("mean_square", "euclidean"),
            '`distance` must be "mean_square" or "euclidean"',
            self.distance,
        )
        require(bool(self.goal.isfinite().all()), "`goal` must be finite", self.goal)

    def __call__(self, outcome: Any) -> torch.Tensor:
        """(R,) at most 0.

        Raises:
            ValueError: If the outcome lacks the field, or the goal's shape does not fit it.
        """
        values: torch.Tensor | None = getattr(outcome, self.field, None)
        if values is None:
            raise ValueError(f"a goal of `{self.field}` needs an outcome with that field, got none.")
        goal = self.goal.to(values)
        if goal.ndim == values.ndim:  # one for each row of the batch
            require(
                values.shape[0] % goal.shape[0] == 0 and goal.shape[1:] == values.shape[1:],
                f"`goal` must have shape {tuple(values.shape[1:])}, or that for each row of the batch",
                tuple(goal.shape),
            )
            by_row = values.reshape(goal.shape[0], -1, *goal.shape[1:])
            apart = (by_row - goal.unsqueeze(1)).flatten(0, 1)
        else:
            require(
                goal.shape == values.shape[1:],
                f"`goal` must have shape {tuple(values.shape[1:])}, or that for each row of the batch",
                tuple(goal.shape),
            )
            apart = values - goal
        squared = apart.square()
        if self.weights is not None:
            squared = squared * self.weights.to(values)
        squared = squared.flatten(start_dim=1)
        if self.distance == "mean_square":
            return -squared.mean(dim=1)
        # The root has no derivative at the goal itself: there its gradient is taken as zero.
        total = squared.sum(dim=1)
        away = total > 0
        root: torch.Tensor = torch.where(away, torch.where(away, total, 1.0).sqrt(), 0.0)
        return -root


def goal_image(latent: torch.Tensor) -> Goal:
    """Look like a goal image: mean squared distance between latents, over the horizon.

    Args:
        latent: (C, h, w), or (B, C, h, w) one for each row; what the model's tokenizer makes of the image.
    """
    require(latent.ndim in (3, 4), "`latent` must be (C, h, w) or (B, C, h, w)", tuple(latent.shape))
    return Goal("latent", latent)


def goal_odometry(pose: torch.Tensor, weights: torch.Tensor | None = None) -> Goal:
    """Be at a goal pose: Euclidean distance between odometries, over the horizon.

    Args:
        pose: (P,), or (B, P) one for each row.
        weights: (P,) of each number's square, such as (1, 1, 0, 0) for the position alone; None for ones.
    """
    require(pose.ndim in (1, 2), "`pose` must be (P,) or (B, P)", tuple(pose.shape))
    return Goal("proprio", pose, weights, "euclidean")
