"""Where the agent will be: the head that predicts the next odometry from a clean frame and an action.

It predicts a *change*, in units of the changes seen in the data, so that its error weighs as much as any
other. For a ``pose`` the change is a motion in the agent's own frame, composed with the pose exactly: a turn
of 15 degrees is the same turn wherever the agent stands.

What the action alone says of a change is found by linear regression before the training: exact where the
action decides. What is left to learn is what stops a move. (Errors of odometry add up; a hundredth of a turn
too much in every frame is a quarter turn after a few hundred.)

Odometry that is a physical state, such as the place and speed of a ball, says most of its own change: a wall
is where no recorded ball went. :class:`OdometryDynamics` learns that from odometry and action alone, for
which few examples suffice, and features add what odometry does not hold. Where both are learnt as one,
features, many times as many numbers, are believed as much, and a ball pressed against a wall creeps through.

Shape legend: P odometry   C change (P; for a pose P - 1)   F features   A action
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lssvwm_agents.worldmodel.config import Odometry

POSE_DIM = 4


class OdometryDynamics(nn.Module):
    """What odometry and action alone say of a change: an MLP on Fourier features of the odometry.

    Sines and cosines (Tancik et al. 2020, arXiv 2006.10739) let it bend sharply where something is touched.

    Args:
        proprio_dim: ``P``.
        action_dim: ``A``.
        changes: ``C``.
        hidden: Width of the layers.
        num_layers: How many.
        num_bands: Frequencies, each twice the one before.
        lowest: The first of them, in radians for each standard deviation of the odometry.
    """

    def __init__(
        self,
        proprio_dim: int,
        action_dim: int,
        changes: int,
        hidden: int = 192,
        num_layers: int = 3,
        num_bands: int = 3,
        lowest: float = 1.5,
    ) -> None:
        super().__init__()
        self.frequencies = [lowest * 2.0**k for k in range(num_bands)]
        layers: list[nn.Module] = []
        width = proprio_dim * (1 + 2 * num_bands) + action_dim
        for _ in range(num_layers):
            layers += [nn.Linear(width, hidden), nn.SiLU()]
            width = hidden
        self.mlp = nn.Sequential(*layers, nn.Linear(width, changes))
        self.forget()

    @torch.no_grad()
    def forget(self) -> None:
        """Say nothing, as before any training."""
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, standardised: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(..., P) standardised odometry, (..., A) -> (..., C) what it adds to what the action says."""
        waves = [standardised * frequency for frequency in self.frequencies]
        inputs = [standardised, *(w.sin() for w in waves), *(w.cos() for w in waves), action]
        dtype = next(self.mlp.parameters()).dtype
        with torch.autocast(standardised.device.type, enabled=False):  # a hundredth of a metre counts
            said: torch.Tensor = self.mlp(torch.cat([part.to(dtype) for part in inputs], dim=-1))
        return said


class OdometryHead(nn.Module):
    """Next odometry from features, odometry and action.

    Args:
        mlp: (..., F + inputs) -> (..., C), see :meth:`input_dim` and :meth:`change_dim`.
        kind: ``vector``, changes are differences; ``pose``, the first four numbers are position ahead and to
            the left, sine and cosine of the heading, counter-clockwise, and changes are steps ahead, to the
            left, and a turn in radians. Numbers after the pose change by differences.
        proprio_dim: ``P``.
        action_dim: ``A``.
        by_odometry: What odometry and action alone say; None for nothing.
    """

    def __init__(
        self,
        mlp: nn.Module,
        kind: Odometry,
        proprio_dim: int,
        action_dim: int,
        by_odometry: OdometryDynamics | None = None,
    ) -> None:
        super().__init__()
        self.mlp, self.kind, self.by_odometry = mlp, kind, by_odometry
        size = self.change_dim(kind, proprio_dim)
        self.register_buffer("change_mean", torch.zeros(size))
        self.register_buffer("change_std", torch.ones(size))
        self.register_buffer("by_action", torch.zeros(1 + action_dim, size))  # first row: without any
        self.register_buffer("left_open", torch.ones(size))  # deviation of what the action leaves open
        self.change_mean: torch.Tensor
        self.change_std: torch.Tensor
        self.by_action: torch.Tensor
        self.left_open: torch.Tensor

    @staticmethod
    def change_dim(kind: Odometry, proprio_dim: int) -> int:
        """Numbers ``C`` of a change."""
        return proprio_dim - 1 if kind == "pose" else proprio_dim

    @staticmethod
    def input_dim(kind: Odometry, proprio_dim: int) -> int:
        """Numbers of the odometry that the head sees: a pose changes in the same way everywhere."""
        return proprio_dim - POSE_DIM if kind == "pose" else proprio_dim

    @torch.no_grad()
    def fit(self, before: torch.Tensor, after: torch.Tensor, action: torch.Tensor) -> None:
        """Measure changes from odometry (M, P) to (M, P) a frame later, and what actions (M, A) tell."""
        change = _change(self.kind, before, after)
        self.change_mean.copy_(change.mean(0))
        self.change_std.copy_(self._deviation(change).clamp(min=1e-3))
        target = self.change(before, after).double()
        known = torch.cat([torch.ones_like(action[:, :1]), action], dim=1).double()
        # One-hot actions and the constant are one too many: a trace of a ridge decides.
        ridge = 1e-9 * len(known) * torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
        weights = torch.linalg.solve(known.T @ known + ridge, known.T @ target)
        self.by_action.copy_(weights)
        self.left_open.copy_(self._deviation(target - known @ weights).clamp(min=1e-3))

    def _deviation(self, change: torch.Tensor) -> torch.Tensor:
        """(M, C) -> (C)."""
        deviation = change.std(0)
        if self.kind == "pose":  # ahead and to the left are one unit
            deviation[:2] = deviation[:2].square().mean().sqrt()
        return deviation

    def expect(self, action: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(..., A) action and (..., C) what a network adds to it -> (..., C) standardised change."""
        dtype = torch.promote_types(seen.dtype, torch.float32)
        weights, open_ = self.by_action.to(dtype), self.left_open.to(dtype)
        # Not a matrix product, which autocast would round.
        told = weights[0] + (action.to(dtype)[..., None] * weights[1:]).sum(-2)
        return told + open_ * seen.to(dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights from before actions were asked first have neither buffer: theirs are the initial ones."""
        for name in ("by_action", "left_open"):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def change(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """What the head should have said: (..., P), (..., P) -> (..., C) standardised."""
        return (_change(self.kind, before, after) - self.change_mean) / self.change_std

    def predict(
        self, features: torch.Tensor, standardised: torch.Tensor, action: torch.Tensor
    ) -> torch.Tensor:
        """(..., F), (..., P) standardised odometry, (..., A) -> (..., C) standardised change."""
        seen = standardised[..., POSE_DIM:] if self.kind == "pose" else standardised
        inputs = torch.cat([features, seen.to(features.dtype), action.to(features.dtype)], -1)
        change = self.expect(action, self.mlp(inputs))
        if self.by_odometry is not None:
            said = self.by_odometry(standardised, action)
            change = change + self.left_open.to(change.dtype) * said.to(change.dtype)
        return change

    def apply_change(self, proprio: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Odometry (..., P) after a standardised change (..., C), in the odometry's dtype at least."""
        dtype = torch.promote_types(proprio.dtype, torch.float32)
        change = change.to(dtype) * self.change_std.to(dtype) + self.change_mean.to(dtype)
        if self.kind == "vector":
            return proprio + change
        x, y, sin, cos = proprio[..., :POSE_DIM].to(dtype).unbind(-1)
        ahead, left, turn = change[..., :3].unbind(-1)
        turn_sin, turn_cos = torch.sin(turn), torch.cos(turn)
        pose = torch.stack(
            [
                x + ahead * cos - left * sin,
                y + ahead * sin + left * cos,
                sin * turn_cos + cos * turn_sin,
                cos * turn_cos - sin * turn_sin,
            ],
            dim=-1,
        )
        return torch.cat([pose, proprio[..., POSE_DIM:] + change[..., 3:]], dim=-1)


def _change(kind: Odometry, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(..., P), (..., P) -> (..., C) in the odometry's own units, turns in radians."""
    if kind == "vector":
        return after - before
    sin, cos = before[..., 2], before[..., 3]
    dx, dy = (after - before)[..., 0], (after - before)[..., 1]
    turn = torch.atan2(
        after[..., 2] * cos - after[..., 3] * sin,
        after[..., 3] * cos + after[..., 2] * sin,
    )
    motion = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin, turn], dim=-1)
    return torch.cat([motion, (after - before)[..., POSE_DIM:]], dim=-1)
