"""The arithmetic of gradient planning: Adam without a constant, and the augmented Lagrangian.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``T`` frames, ``C`` constraints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Shorter memories than the (0.9, 0.999) made for noisy gradients: those of a plan have no noise. On the
# double integrator 100 updates then end within 1e-4 of the optimum, instead of 1e-2.
BETA1, BETA2 = 0.8, 0.9


class Adam:
    """Adam on one tensor, entry by entry, so that no row of a batch depends on another."""

    def __init__(self, parameters: torch.Tensor) -> None:
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self.count = 0

    def ascend(self, parameters: torch.Tensor, gradient: torch.Tensor, rate: float) -> torch.Tensor:
        """The parameters after one update towards a larger return.

        No constant is added to the root, so that no scale of the reward changes the update; where a gradient
        has always been zero, nothing moves.
        """
        self.count += 1
        self.mean = torch.lerp(self.mean, gradient, 1.0 - BETA1)
        self.square = torch.lerp(self.square, gradient.square(), 1.0 - BETA2)
        mean = self.mean / (1.0 - BETA1**self.count)
        root = (self.square / (1.0 - BETA2**self.count)).sqrt()
        return parameters + rate * torch.where(root == 0, 0.0, mean / root)


@dataclass(frozen=True)
class Lagrangian:
    """What constraints cost: multipliers, and a weight of the square.

    Attributes:
        penalty: Weight ``rho``.
        multipliers: (B, N, T, C) at least 0; None before their first update, for zeros.
    """

    penalty: float
    multipliers: torch.Tensor | None = None

    def price(self, constraints: torch.Tensor) -> torch.Tensor:
        """(B, N) of (B, N, T, C) constraints.

        It is ``sum(relu(multiplier + rho * g)^2 - multiplier^2) / (2 rho)``.
        """
        known = 0.0 if self.multipliers is None else self.multipliers
        pushed = torch.relu(known + self.penalty * constraints).square()
        total = pushed if self.multipliers is None else pushed - self.multipliers.square()
        return total.sum(dim=(2, 3)) / (2.0 * self.penalty)

    def updated(self, constraints: torch.Tensor, growth: float) -> Lagrangian:
        """Raise the multipliers where constraints are broken, lower them where there is room."""
        known = 0.0 if self.multipliers is None else self.multipliers
        return Lagrangian(self.penalty * growth, torch.relu(known + self.penalty * constraints))
