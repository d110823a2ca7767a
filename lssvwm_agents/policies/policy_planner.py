"""A trained policy where a planner is expected: alone, or proposing plans to a search.

As a planner it makes plans of one move, so that everything that plays with planners (``PlanningAgent`` with
its streamed memory, its saved carries, evaluations, films) plays a policy too.

Legend: ``B`` rows, ``R`` rows of imagined futures, ``A`` action width, ``F`` features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch

from lssvwm_agents.planners import ActionSpec, Distribution, Objective, Plan, PlanRecord
from lssvwm_agents.planners.distributions import initial_distribution
from lssvwm_agents.planners.sampling import SamplingPlanner
from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.sb3_policy import SB3Policy
from lssvwm_agents.worldmodel import Prediction

Search = TypeVar("Search", bound=SamplingPlanner)


@dataclass(frozen=True)
class PolicyPlanner:
    """Play a policy: every plan is the one move that it chooses now, worth what its critic says.

    >>> agent = PlanningAgent(model, PolicyPlanner(policy))  # doctest: +SKIP

    Attributes:
        policy: Actor and critic.
        deterministic: Play the likeliest action instead of sampling.
    """

    policy: ActorCritic | SB3Policy
    deterministic: bool = False

    @property
    def action_spec(self) -> ActionSpec:
        """The actions it chooses among."""
        return self.policy.actor.action_spec

    @property
    def horizon(self) -> int:
        """One move."""
        return 1

    @property
    def action_repeat(self) -> int:
        """Every move is a choice of its own."""
        return 1

    @property
    def objective(self) -> Objective | None:
        """None: what it wants was settled in its training."""
        return None

    def with_objective(self, objective: Objective, /) -> Self:
        """Refused.

        Raises:
            ValueError: Always: a trained policy cannot be told what to want.
        """
        raise ValueError(
            "a policy wants what it was trained for: give other objectives, such as exploration, to a "
            "planner that takes its proposals (`with_policy`)."
        )

    @torch.no_grad()
    def plan(
        self,
        dynamics: Any,
        state: Any,
        warm_start: Distribution | None = None,
        generator: torch.Generator | None = None,
        **_: Any,
    ) -> Plan:
        """Choose a move for each row; nothing is imagined, no warm start, budget or callback is used."""
        features = self.policy.read(state)
        chosen = self.policy.actor(features)
        shape = (len(features), self.action_spec.action_dim)
        if self.deterministic:
            action_BA = chosen.mode()
        else:
            device = features.device if generator is None else generator.device
            action_BA = chosen.sample(torch.randn(shape, generator=generator, device=device).to(features))
        value_B = self.policy.critic(features)
        distribution = initial_distribution(
            self.action_spec, len(features), 1, device=features.device, dtype=features.dtype
        )
        return Plan(
            actions=action_BA[:, None],
            expected_return=value_B,
            distribution=distribution,
            action_repeat=1,
            candidates=action_BA[:, None, None],
            candidate_returns=value_B[:, None],
            record=PlanRecord(
                (value_B[:, None],), value_B[None, :, None], (distribution,), torch.zeros_like(value_B)[None]
            ),
            violations=value_B.new_zeros(len(features), 0),
        )


@dataclass(frozen=True)
class Proposals:
    """A policy as planners ask for one: (R, A) actions in (R rows of) a state, given normal noise."""

    policy: ActorCritic | SB3Policy

    def __call__(self, state: Any, noise: torch.Tensor, /) -> torch.Tensor:
        """Sample an action for each row."""
        return self.policy.actor(self.policy.read(state)).sample(noise)


@dataclass(frozen=True)
class CriticValue:
    """The critic as a planner's terminal value: what follows after the last imagined frame."""

    policy: ActorCritic | SB3Policy

    def __call__(self, outcome: Prediction, /) -> torch.Tensor:
        """(R,) of one imagined frame."""
        value: torch.Tensor = self.policy.critic(self.policy.read(outcome))
        return value


def with_policy(planner: Search, policy: ActorCritic | SB3Policy, num_proposals: int = 16) -> Search:
    """A sampling planner that also imagines what the policy proposes (TD-MPC2, Hansen et al. 2024).

    Its plans end in the critic's value.

    Args:
        planner: The search; its discount should be that of the critic.
        policy: Actor and critic.
        num_proposals: Candidates of every iteration that the policy makes.

    Raises:
        ValueError: If the two choose among different actions, or there is no room for the proposals.
    """
    if planner.action_spec != policy.actor.action_spec:
        raise ValueError(
            f"planner and policy must have the same actions, got {planner.action_spec} and "
            f"{policy.actor.action_spec}."
        )
    return replace(
        planner, policy=Proposals(policy), num_proposals=num_proposals, terminal_value=CriticValue(policy)
    )
