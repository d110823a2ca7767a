"""Hand-made worlds whose returns, gradients and best policies are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lssvwm_agents.planners import ActionSpec, ContinuousActions, DiscreteActions
from lssvwm_agents.policies.actor_critic import ActorCritic, PolicyConfig
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.imagined_rollouts import FeaturePolicy, FeatureValue
from lssvwm_agents.policies.policy_gradients import accumulate_gradients


@dataclass(frozen=True)
class HandState:
    features: torch.Tensor

    def detach(self) -> HandState:
        return replace(self, features=self.features.detach())


@dataclass(frozen=True)
class HandOutcome:
    reward: torch.Tensor
    continuation: torch.Tensor | None = None


class Clock:
    """Two actions; frame t (one-hot in the features) pays ``reward(t, second)``, where ``second`` is how much
    the second action was chosen, and goes on with ``going_on(t, second)``."""

    def __init__(self, length: int, reward: Any, going_on: Any = None) -> None:
        self.length, self.reward, self.going_on = length, reward, going_on

    def start(self, rows: int) -> HandState:
        return HandState(torch.eye(self.length + 1)[0].expand(rows, -1))

    def step(self, state: HandState, action: torch.Tensor) -> tuple[HandState, HandOutcome]:
        now = state.features.argmax(dim=1)
        after = (now + 1).clamp(max=self.length)
        second = action[:, 1]
        going_on = torch.ones_like(second) if self.going_on is None else self.going_on(after, second)
        features = torch.eye(self.length + 1)[after]
        return HandState(features), HandOutcome(self.reward(after, second), going_on)


class Line:
    """x <- x + action in [-1, 1], reward -(x - goal)^2; features are (x, 1)."""

    def __init__(self, goal: float = 0.0) -> None:
        self.goal = goal

    def start(self, x: torch.Tensor) -> HandState:
        return HandState(torch.stack([x, torch.ones_like(x)], dim=1))

    def step(self, state: HandState, action: torch.Tensor) -> tuple[HandState, HandOutcome]:
        x = state.features[:, 0] + action[:, 0]
        return self.start(x), HandOutcome(-(x - self.goal).square())


TWO = DiscreteActions(2)
BOX = ContinuousActions((-1.0,), (1.0,))


def make_policy(action_spec: ActionSpec, feature_dim: int, seed: int = 0, **settings: Any) -> ActorCritic:
    torch.manual_seed(seed)
    small = {"hidden": 32, "num_layers": 1, **settings}
    return ActorCritic(PolicyConfig.for_actions(action_spec, feature_dim, **small))


def train(
    world: Any,
    state: HandState,
    policy: ActorCritic,
    horizon: int,
    updates: int,
    learning_rate: float = 1e-2,
    prior: FeaturePolicy | None = None,
    value: FeatureValue | None = None,
    **objective: Any,
) -> dict[str, float]:
    """Improve a policy from one state, judged by ``value`` if there is one; gives the last metrics."""
    if value is not None:
        objective["bootstrap"] = "recorded"
    if objective.get("entropy_target", 0) > 0:
        policy.log_entropy_weight.requires_grad_()
    optimizer = torch.optim.Adam((p for p in policy.parameters() if p.requires_grad), lr=learning_rate)
    settings = ActorCriticObjective(**{"discount": 1.0, "entropy_weight": 1e-4, **objective})
    generator = torch.Generator().manual_seed(1)
    width = policy.actor.action_spec.action_dim
    metrics: dict[str, torch.Tensor] = {}
    for _ in range(updates):
        noise = torch.randn(horizon, len(state.features), width, generator=generator)
        _, metrics = accumulate_gradients(world, state, policy, noise, settings, prior, value)
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.item() for name, value in metrics.items()}
