"""A mass on a line with quadratic costs: the problem on which planners are timed, and whose optimum is known.

Shapes: ``R`` rows; a state is (position, velocity), an action one force.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

DT, FORCE_COST, MAX_FORCE = 0.2, 0.1, 4.0
STARTS = ((1.0, 0.0), (-0.5, 0.8), (0.3, -1.0), (0.0, 1.0))
FRAMES = 40


class Arrival(NamedTuple):
    """What one frame brings; nothing ever ends."""

    reward: torch.Tensor
    continuation: torch.Tensor | None
    state: torch.Tensor


def move(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """(R, 2) the state after force (R, 1) has acted for one frame."""
    position, velocity = state.unbind(dim=-1)
    return torch.stack([position + DT * velocity, velocity + DT * action[:, 0]], dim=-1)


def cost(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """(R,) the price of the state that an action led to, and of the action."""
    return state.square().sum(dim=-1) + FORCE_COST * action[:, 0].square()


class DoubleIntegrator:
    """The problem as planners see it."""

    def repeat(self, state: torch.Tensor, n: int) -> torch.Tensor:
        """Repeat every row n times."""
        return state.repeat_interleave(n, dim=0)

    def step(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Arrival]:
        """One frame."""
        state = move(state, action)
        return state, Arrival(-cost(state, action), None, state)


def riccati() -> tuple[torch.Tensor, torch.Tensor]:
    """P (2, 2) of the optimal cost ``x' P x`` of going on for ever, and the gain K (1, 2) of ``u = -K x``."""
    a = torch.tensor([[1.0, DT], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.0], [DT]], dtype=torch.float64)
    q, p = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(500):
        s = q + p  # the cost of a state is paid where an action leads
        gain = torch.linalg.solve(FORCE_COST + b.T @ s @ b, b.T @ s @ a)
        p = a.T @ s @ (a - b @ gain)
    return p, gain


(P_XX, P_XV), (_, P_VV) = riccati()[0].tolist()


def cost_to_go(state: torch.Tensor) -> torch.Tensor:
    """(R,) the optimal cost from (R, 2) states on."""
    x, v = state.unbind(dim=-1)
    return P_XX * x * x + 2.0 * P_XV * x * v + P_VV * v * v


def terminal_value(arrival: Arrival) -> torch.Tensor:
    """(R,) minus the optimal cost of what follows: with it, a plan of any horizon is optimal for ever."""
    return -cost_to_go(arrival.state)


def closed_loop(policy: Callable[[torch.Tensor], torch.Tensor], batch: int = len(STARTS)) -> torch.Tensor:
    """(batch,) cost of a policy (batch, 2) -> (batch, 1) over :data:`FRAMES`, and of what would follow."""
    state = torch.tensor(STARTS)[:batch]
    total = torch.zeros(batch)
    for _ in range(FRAMES):
        action = policy(state)
        state = move(state, action)
        total += cost(state, action)
    return total + cost_to_go(state)
