"""Let a policy act in imagination.

Legend: ``R`` rollouts side by side, ``H`` imagined frames, ``T = H + 1`` frames with the one they start at,
    ``A`` action width, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

import torch

from lssvwm_agents.policies.actors import ActionDistribution


class FeatureState(Protocol):
    """What dynamics remember, as far as a policy is concerned; a world model's state is one."""

    @property
    def features(self) -> torch.Tensor:
        """(R, F) of the last frame, memory included."""
        ...

    def detach(self) -> Self:
        """The same, cut from the autograd graph."""
        ...


class FeatureDynamics(Protocol):
    """A simulator that a policy is trained in; a world model is one."""

    def step(self, state: Any, action: torch.Tensor, /) -> tuple[Any, Any]:
        """Imagine one frame under (R, A) float actions.

        Returns:
            The new state, and an outcome with ``reward`` (R,) and ``continuation`` (R,) or None.
        """
        ...


FeatureValue: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From (..., F) features to (...) what follows; differentiable, its parameters frozen."""

FeaturePolicy: TypeAlias = Callable[[torch.Tensor], ActionDistribution]
"""From (R, F) features to what may be done; an :class:`~lssvwm_agents.policies.actors.Actor` is one."""


@dataclass(frozen=True)
class ImaginedRollouts:
    """Imagined episodes; time as everywhere: what has index t came with frame t, ``actions[:, t]`` led to it.

    Attributes:
        features: (R, T, F) what the policy reads.
        actions: (R, T, A); column 0 is zeros, it belongs to the past.
        reward: (R, T); column 0 is zeros.
        continuation: (R, T); column 0 is ones.
    """

    features: torch.Tensor
    actions: torch.Tensor
    reward: torch.Tensor
    continuation: torch.Tensor

    def detach(self) -> ImaginedRollouts:
        """The same, cut from the autograd graph."""
        return ImaginedRollouts(
            self.features.detach(), self.actions.detach(), self.reward.detach(), self.continuation.detach()
        )


def features_of(state: FeatureState) -> torch.Tensor:
    """(R, F) what a policy reads, if nothing else is said."""
    return state.features


def imagine_policy(
    dynamics: FeatureDynamics,
    state: FeatureState,
    actor: FeaturePolicy,
    noise: torch.Tensor,
    read: Callable[[Any], torch.Tensor] = features_of,
) -> tuple[FeatureState, ImaginedRollouts]:
    """Roll out a policy from ``state``; differentiable through actions and dynamics.

    Args:
        dynamics: What imagines.
        state: Of ``R`` rows.
        actor: The policy.
        noise: (H, R, A) standard normal: what the policy draws its actions with.
        read: From a state to the (R, F) that the policy reads, which the rollouts call features.

    Returns:
        The state after the last frame, and the rollouts.
    """
    features = [read(state)]
    actions = [torch.zeros_like(noise[0])]
    rewards, continuations = [], []
    for step_noise in noise:
        action = actor(features[-1]).sample(step_noise)
        state, outcome = dynamics.step(state, action)
        features.append(read(state))
        actions.append(action)
        rewards.append(outcome.reward)
        going_on = outcome.continuation
        continuations.append(torch.ones_like(outcome.reward) if going_on is None else going_on)
    reward, continuation = torch.stack(rewards, dim=1), torch.stack(continuations, dim=1)
    first = torch.zeros_like(reward[:, :1])
    return state, ImaginedRollouts(
        features=torch.stack(features, dim=1),
        actions=torch.stack(actions, dim=1),
        reward=torch.cat([first, reward], dim=1),
        continuation=torch.cat([first + 1, continuation], dim=1),
    )
