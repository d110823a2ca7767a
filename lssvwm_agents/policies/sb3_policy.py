"""A policy of stable-baselines3, trained on a world model's features, in the shape of our own.

So planners, evaluations and films take it as they take an `ActorCritic`.

Legend: ``R`` rows, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium
import torch

from lssvwm_agents.agents.action_codec import action_spec_from_space
from lssvwm_agents.planners import ActionSpec, ContinuousActions
from lssvwm_agents.policies.actors import ActionDistribution, OneHotActions, SquashedNormal
from lssvwm_agents.policies.inputs import read_inputs

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class SB3Actor:
    """From features to what an SB3 agent may do: PPO's categorical, SAC's squashed normal."""

    def __init__(self, agent: BaseAlgorithm) -> None:
        self.action_spec: ActionSpec = action_spec_from_space(agent.action_space)
        self._policy: Any = agent.policy
        self.discrete = not isinstance(self.action_spec, ContinuousActions)
        if self.discrete != hasattr(self._policy, "get_distribution"):
            raise ValueError(
                "this policy must be of PPO or A2C with discrete actions, or of SAC with continuous, got "
                f"{type(agent).__name__} with {agent.action_space}."
            )

    def __call__(self, features: torch.Tensor) -> ActionDistribution:
        """(R, F) -> what may be done."""
        if self.discrete:
            return OneHotActions(self._policy.get_distribution(features).distribution.logits)
        mean, log_std, _ = self._policy.actor.get_action_dist_params(features)
        assert isinstance(self.action_spec, ContinuousActions)
        low, high = self.action_spec.bounds(features.device, mean.dtype)
        return SquashedNormal(mean, log_std.exp(), low, high)


class SB3Policy:
    """Actor and critic of an agent of stable-baselines3.

    Args:
        agent: PPO, A2C (discrete actions) or SAC, trained on features.
        model_hash: Of the world model whose features these are.
    """

    def __init__(self, agent: BaseAlgorithm, model_hash: str) -> None:
        self.agent, self.actor, self._hash = agent, SB3Actor(agent), model_hash
        self.critic: Callable[[torch.Tensor], torch.Tensor] = (
            self._value if self.actor.discrete else self._smallest_q
        )

    def check_features(self, model_hash: str) -> None:
        """Refuse the features of another world model.

        Raises:
            ValueError: If the hashes differ.
        """
        if model_hash != self._hash:
            raise ValueError(f"this policy reads the features of {self._hash}, got those of {model_hash}.")

    def check_actions(self, space: gymnasium.Space[Any]) -> None:
        """Refuse another action space.

        Raises:
            ValueError: If they differ.
        """
        if action_spec_from_space(space) != self.actor.action_spec:
            raise ValueError(f"this policy acts in {self.actor.action_spec}, got the action space {space}.")

    def read(self, seen: Any) -> torch.Tensor:
        """(R, F) the features of a world model's state or prediction."""
        return read_inputs(seen)

    @torch.no_grad()
    def _value(self, features: torch.Tensor) -> torch.Tensor:
        policy: Any = self.agent.policy
        values: torch.Tensor = policy.predict_values(features.flatten(0, -2)).view(features.shape[:-1])
        return values

    @torch.no_grad()
    def _smallest_q(self, features: torch.Tensor) -> torch.Tensor:
        """Of the likeliest action, by the most careful of SAC's critics; SAC's actions lie in [-1, 1]."""
        policy: Any = self.agent.policy
        flat = features.flatten(0, -2)
        action = policy.actor(flat, deterministic=True)
        values: torch.Tensor = torch.cat(policy.critic(flat, action), dim=1).amin(dim=1)
        return values.view(features.shape[:-1])
