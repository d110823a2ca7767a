"""Problems whose answers are known: small dynamics written by hand, for the tests of planners."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch


class Outcome(NamedTuple):
    reward: torch.Tensor
    continuation: torch.Tensor
    state: torch.Tensor | None = None


class TensorDynamics:
    """The state is one tensor."""

    def repeat(self, state: torch.Tensor, n: int) -> torch.Tensor:
        return state.repeat_interleave(n, dim=0)


class DoubleIntegrator(TensorDynamics):
    """A mass on a line, (position, velocity), pushed by one force; quadratic cost of state and force.

    ``riccati`` gives P with optimal infinite-horizon cost x' P x, so that with -x' P x as terminal value a
    plan of any horizon is optimal for the infinite one.
    """

    dt, force_cost = 0.2, 0.1

    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.tensor([[1.0, self.dt], [0.0, 1.0]], dtype=torch.float64)
        b = torch.tensor([[0.0], [self.dt]], dtype=torch.float64)
        return a, b

    @cache  # noqa: B019
    def riccati(self) -> tuple[torch.Tensor, torch.Tensor]:
        """P (2, 2) and the gain K (1, 2) of u = -K x, for the cost sum_t |x_{t+1}|^2 + force_cost * u_t^2."""
        a, b = self.matrices()
        q, p = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
        for _ in range(2000):
            s = q + p  # the cost of a state is paid where an action leads
            gain = torch.linalg.solve(self.force_cost + b.T @ s @ b, b.T @ s @ a)
            p = a.T @ s @ (a - b @ gain)
        return p, gain

    def step(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Outcome]:
        position, velocity = state.unbind(dim=-1)
        force = action[:, 0]
        position, velocity = position + self.dt * velocity, velocity + self.dt * force
        cost = position.square() + velocity.square() + self.force_cost * force.square()
        state = torch.stack([position, velocity], dim=-1)
        return state, Outcome(-cost, torch.ones_like(cost), state)

    def terminal_value(self, outcome: Outcome) -> torch.Tensor:
        p, _ = self.riccati()
        x = outcome.state
        return -(x[:, 0] ** 2 * p[0, 0] + 2 * x[:, 0] * x[:, 1] * p[0, 1] + x[:, 1] ** 2 * p[1, 1]).to(
            x.dtype
        )


class DiscreteBandit(TensorDynamics):
    """The state (R, A) holds the pay of each arm; nothing changes."""

    def step(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Outcome]:
        reward = (state * action).sum(dim=-1)
        return state, Outcome(reward, torch.ones_like(reward))


class ContinuousBandit(TensorDynamics):
    """The state (R, A) is the action to find; the reward is minus the squared distance to it."""

    def step(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Outcome]:
        reward = -(state - action).square().sum(dim=-1)
        return state, Outcome(reward, torch.ones_like(reward))


class WalledGrid(TensorDynamics):
    """A wall between start and goal: the only way there begins by walking away from the goal.

    ::

        . . . .
        . # # .
        S # # G

    Actions: up, down, left, right. The reward is -0.1 times the Euclidean distance to the goal, plus 10 on
    it, where the episode ends. One step of foresight pushes against the wall for ever.
    """

    UP, DOWN, LEFT, RIGHT = range(4)
    start, goal = (2, 0), (2, 3)
    solution = [UP, UP, RIGHT, RIGHT, RIGHT, DOWN, DOWN]
    # Squared distances to the goal along the solution: 10, 13, 8, 5, 4, 1, 0.
    best_return = 10.0 - 0.1 * sum(d**0.5 for d in (10, 13, 8, 5, 4, 1, 0))

    def __init__(self) -> None:
        self.free = torch.ones(3, 4, dtype=torch.bool)
        self.free[1:, 1:3] = False
        self.moves = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])

    def step(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Outcome]:
        wanted = state + self.moves[action.argmax(dim=-1)]
        wanted = torch.stack([wanted[:, 0].clamp(0, 2), wanted[:, 1].clamp(0, 3)], dim=-1)
        free = self.free[wanted[:, 0], wanted[:, 1]]
        state = torch.where(free[:, None], wanted, state)
        distance = (state - torch.tensor(self.goal)).float().norm(dim=-1)
        at_goal = distance == 0
        return state, Outcome(-0.1 * distance + 10.0 * at_goal, 1.0 - at_goal.float())


class CountingWorld:
    """The state (a dict, to be a pytree) counts frames; the reward is the count; the end comes at ``end``."""

    def __init__(self, end: int, continuation: float = 0.0, after: float = 100.0) -> None:
        self.end, self.continuation, self.after = end, continuation, after
        self.repeats: list[int] = []
        self.actions: list[torch.Tensor] = []

    def repeat(self, state: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
        self.repeats.append(n)
        return {key: value.repeat_interleave(n, dim=0) for key, value in state.items()}

    def step(
        self, state: dict[str, torch.Tensor], action: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], Outcome]:
        self.actions.append(action)
        count = state["count"] + 1
        reward = torch.where(count > self.end, self.after, count.to(action.dtype))
        continuation = torch.where(count == self.end, self.continuation, torch.ones_like(reward))
        return {"count": count}, Outcome(reward, continuation, count)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
