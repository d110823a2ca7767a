"""One update of actor and critic in imagination, by either of two gradients of the return.

``score_function``: actions that turned out better than the critic expected are made likelier (REINFORCE with
a baseline; DreamerV3). Needs no gradient of the dynamics, so that imagining is cheap and horizons are free,
and one batch of rollouts can serve several updates: beyond ``clip`` the ratio of new to old probability earns
nothing more (PPO, Schulman et al. 2017). In the first of them that is the plain gradient.

``dynamics``: the return is differentiated through rewards, values, frames and actions, back to the policy
(DreamerV2; SHAC, Xu et al. 2022, for the truncation). Less noise where the simulator is smooth. After every
``truncation`` frames the state is cut from the graph and a slow critic says what follows, so that memory and
exploding gradients are bounded whatever the horizon. The critic may learn on from the same rollouts for some
updates, so that it keeps up with the policy whose future it tells (SHAC, section 3.2).

Legend: ``R`` rollouts, ``H`` imagined frames, ``T = H + 1``, ``A`` action width, ``F`` features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.imagined_rollouts import (
    FeatureDynamics,
    FeatureState,
    ImaginedRollouts,
    imagine_policy,
)
from lssvwm_agents.policies.returns import imagined_return, lambda_return, reach

GradientKind = Literal["score_function", "dynamics"]


@dataclass(frozen=True)
class ActorCriticObjective:
    """What an update follows.

    Attributes:
        gradient: ``score_function`` or ``dynamics``.
        discount: Of rewards, per frame.
        lam: Of the lambda-returns: 0 trusts the critic, 1 the imagined rewards.
        clip: ``score_function``, where a batch serves several updates: beyond this share of what an action's
            probability was when the batch was imagined, moving it further earns nothing.
        truncation: ``dynamics``: frames after which back-propagation through the state is cut.
        entropy_weight: Worth of a nat of entropy, in units of the scaled return; the start of the search
            with an ``entropy_target``.
        entropy_target: Share, in (0, 1), of the largest entropy that the policy is held at by adapting the
            weight (as SAC's temperature); 0 for the fixed weight. For continuous actions: nats below the
            largest entropy are -log of it for each entry of the action.
        slow_decay: Of the slow critic, per update.

    Raises:
        ValueError: If a number is out of range.
    """

    gradient: GradientKind = "score_function"
    discount: float = 0.985
    lam: float = 0.95
    clip: float = 0.2
    truncation: int = 16
    entropy_weight: float = 5e-3
    entropy_target: float = 0.0
    slow_decay: float = 0.98

    def __post_init__(self) -> None:
        if self.gradient not in ("score_function", "dynamics"):
            raise ValueError(f"`gradient` must be score_function or dynamics, got {self.gradient!r}.")
        for name in ("discount", "lam", "slow_decay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")
        if self.clip <= 0:
            raise ValueError(f"`clip` must be positive, got {self.clip}.")
        if self.truncation < 1:
            raise ValueError(f"`truncation` must be at least 1, got {self.truncation}.")
        if self.entropy_weight < 0 or not 0.0 <= self.entropy_target < 1.0:
            raise ValueError(
                "`entropy_weight` must be at least 0 and `entropy_target` in [0, 1), got "
                f"{self.entropy_weight} and {self.entropy_target}."
            )


def accumulate_gradients(
    dynamics: FeatureDynamics,
    state: FeatureState,
    policy: ActorCritic,
    noise: torch.Tensor,
    objective: ActorCriticObjective,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Imagine with the policy and add the gradients of one update to its parameters.

    The parameters of the dynamics must not require gradients.

    Args:
        dynamics: What imagines.
        state: ``R`` rows to start from.
        policy: Actor and critic; the slow critic and the scale of returns move on.
        noise: (H, R, A) standard normal.
        objective: What to follow.

    Returns:
        The loss (), and () metrics by name.
    """
    if objective.gradient == "dynamics":
        return dynamics_gradients(dynamics, state, policy, noise, objective)[:2]
    policy.slow_critic.update(objective.slow_decay)
    with torch.no_grad():
        _, rollouts = imagine_policy(dynamics, state.detach(), policy.actor, noise)
    return score_gradients(policy, score_batch(policy, rollouts, objective), objective)


@dataclass(frozen=True)
class ScoredBatch:
    """Rollouts, and what was thought of them when they were imagined: what score-function updates learn from.

    Attributes:
        rollouts: The rollouts.
        target: (R, T) lambda-returns.
        value: (R, T) by the slow critic.
        reach: (R, H) share of the rollout that still goes on.
        advantage: (R, H) in units of the scale of returns.
        log_prob: (R, H) of the actions, by the policy that chose them.
    """

    rollouts: ImaginedRollouts
    target: torch.Tensor
    value: torch.Tensor
    reach: torch.Tensor
    advantage: torch.Tensor
    log_prob: torch.Tensor


@torch.no_grad()
def score_batch(
    policy: ActorCritic, rollouts: ImaginedRollouts, objective: ActorCriticObjective
) -> ScoredBatch:
    """Judge rollouts of the policy as it is; the scale of returns moves on."""
    value_RT = policy.slow_critic(rollouts.features)
    target_RT = lambda_return(
        rollouts.reward, rollouts.continuation, value_RT, objective.discount, objective.lam
    )
    policy.scale.update(target_RT[:, :-1])
    return ScoredBatch(
        rollouts,
        target_RT,
        value_RT,
        reach(rollouts.continuation)[:, :-1],
        (target_RT - value_RT)[:, :-1] / policy.scale(),
        policy.actor(rollouts.features[:, :-1]).log_prob(rollouts.actions[:, 1:]),
    )


def score_gradients(
    policy: ActorCritic, batch: ScoredBatch, objective: ActorCriticObjective
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Add the gradients of one score-function update to the policy's parameters.

    Args:
        policy: Actor and critic, perhaps some updates younger than the batch.
        batch: What to learn from.
        objective: What to follow.

    Returns:
        The loss (), and () metrics by name.
    """
    rollouts, reach_RH = batch.rollouts, batch.reach
    distribution = policy.actor(rollouts.features[:, :-1])
    ratio_RH = (distribution.log_prob(rollouts.actions[:, 1:]) - batch.log_prob).exp()
    clipped_RH = ratio_RH.clamp(1 - objective.clip, 1 + objective.clip)
    gain = (reach_RH * torch.minimum(ratio_RH * batch.advantage, clipped_RH * batch.advantage)).mean()
    entropy = (reach_RH * distribution.entropy()).mean()
    critic = _critic_loss(policy, rollouts, batch.target, reach_RH)
    loss = -gain - entropy_weight(policy, objective) * entropy + critic
    loss = loss + _entropy_search(policy, objective, entropy)
    loss.backward()
    metrics = _metrics(policy, rollouts, batch.target, batch.value, entropy, critic, objective)
    return loss.detach(), {**metrics, "clipped": (ratio_RH != clipped_RH).float().mean().detach()}


@dataclass(frozen=True)
class Span:
    """A stretch of rollouts between two cuts, for the critic to learn from; nothing has a gradient.

    Attributes:
        rollouts: The stretch.
        reach: (R, H) share of the rollout that still goes on.
    """

    rollouts: ImaginedRollouts
    reach: torch.Tensor


def dynamics_gradients(
    dynamics: FeatureDynamics,
    state: FeatureState,
    policy: ActorCritic,
    noise: torch.Tensor,
    objective: ActorCriticObjective,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[Span]]:
    """Imagine, and add the gradients of one update through the dynamics to the policy's parameters.

    Args:
        dynamics: What imagines; its parameters must not require gradients.
        state: ``R`` rows to start from.
        policy: Actor and critic; the slow critic and the scale of returns move on.
        noise: (H, R, A) standard normal.
        objective: What to follow.

    Returns:
        The loss (), () metrics by name, and what the critic can learn on from (:func:`critic_gradients`).
    """
    policy.slow_critic.update(objective.slow_decay)
    state, horizon = state.detach(), len(noise)
    alive_R1 = torch.ones_like(noise[0, :, :1])
    total, earned = torch.zeros((), device=noise.device), torch.zeros((), device=noise.device)
    shares, kept, spans = [], [], []
    for begin in range(0, horizon, objective.truncation):
        span = noise[begin : begin + objective.truncation]
        state, rollouts = imagine_policy(dynamics, state.detach(), policy.actor, span)
        value_RT = policy.slow_critic(rollouts.features)
        target_RT = lambda_return(
            rollouts.reward, rollouts.continuation, value_RT, objective.discount, objective.lam
        )
        with torch.no_grad():
            span_return = imagined_return(rollouts.reward, rollouts.continuation)
            earned = earned + (alive_R1[:, 0] * span_return).mean()
        reached_RT = alive_R1 * reach(rollouts.continuation.detach())
        reach_RH, alive_R1 = reached_RT[:, :-1], reached_RT[:, -1:]
        if begin == 0:
            policy.scale.update(target_RT[:, :-1])
        gain = (reach_RH * target_RT[:, :-1]).mean() / policy.scale()
        entropy = (reach_RH * policy.actor(rollouts.features[:, :-1].detach()).entropy()).mean()
        critic = _critic_loss(policy, rollouts, target_RT, reach_RH)
        loss = -gain - entropy_weight(policy, objective) * entropy + critic
        loss = loss + _entropy_search(policy, objective, entropy)
        share = len(span) / horizon
        (share * loss).backward()
        total = total + share * loss.detach()
        shares.append(share)
        kept.append(_metrics(policy, rollouts, target_RT, value_RT, entropy, critic, objective))
        spans.append(Span(rollouts.detach(), reach_RH))
    metrics = {
        name: sum(share * one[name] for share, one in zip(shares, kept, strict=True))  # type: ignore[misc]
        for name in kept[0]
    }
    return total, {**metrics, "imagined_return": earned}, spans


def critic_gradients(
    policy: ActorCritic, spans: list[Span], objective: ActorCriticObjective
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Add the gradients of one update of the critic alone; the actor's stay as they are.

    Args:
        policy: Actor and critic; the slow critic moves on, and with it the targets.
        spans: What :func:`dynamics_gradients` imagined.
        objective: What to follow.

    Returns:
        The loss (), and () metrics by name.
    """
    policy.slow_critic.update(objective.slow_decay)
    frames = sum(span.reach.shape[1] for span in spans)
    zero = torch.zeros((), device=policy.device)
    metrics = {"loss/critic": zero, "target": zero, "value": zero}
    for span in spans:
        with torch.no_grad():
            value_RT = policy.slow_critic(span.rollouts.features)
            target_RT = lambda_return(
                span.rollouts.reward, span.rollouts.continuation, value_RT, objective.discount, objective.lam
            )
        share = span.reach.shape[1] / frames
        loss = share * _critic_loss(policy, span.rollouts, target_RT, span.reach)
        loss.backward()
        metrics["loss/critic"] = metrics["loss/critic"] + loss.detach()
        metrics["target"] = metrics["target"] + share * target_RT[:, :-1].mean()
        metrics["value"] = metrics["value"] + share * value_RT[:, :-1].mean()
    return metrics["loss/critic"], metrics


def _critic_loss(
    policy: ActorCritic, rollouts: ImaginedRollouts, target_RT: torch.Tensor, reach_RH: torch.Tensor
) -> torch.Tensor:
    seen = rollouts.features[:, :-1].detach()
    return (reach_RH * policy.critic.loss(seen, target_RT[:, :-1].detach())).mean()


def entropy_weight(policy: ActorCritic, objective: ActorCriticObjective) -> torch.Tensor:
    """() what a nat of entropy is worth now."""
    if objective.entropy_target > 0:
        return policy.log_entropy_weight.detach().exp() * objective.entropy_weight
    return torch.full((), objective.entropy_weight, device=policy.device)


def wanted_entropy(policy: ActorCritic, objective: ActorCriticObjective) -> float:
    """Entropy in nats that ``entropy_target`` asks for."""
    if policy.actor.discrete:
        return objective.entropy_target * policy.actor.max_entropy
    width = policy.actor.action_spec.action_dim
    return policy.actor.max_entropy + width * math.log(objective.entropy_target)


def _entropy_search(
    policy: ActorCritic, objective: ActorCriticObjective, entropy: torch.Tensor
) -> torch.Tensor:
    """A loss that raises the weight where the entropy is too small, and lowers it where it is too large."""
    if objective.entropy_target == 0:
        return entropy.new_zeros(())
    return policy.log_entropy_weight * (entropy.detach() - wanted_entropy(policy, objective))


@torch.no_grad()
def _metrics(
    policy: ActorCritic,
    rollouts: ImaginedRollouts,
    target_RT: torch.Tensor,
    value_RT: torch.Tensor,
    entropy: torch.Tensor,
    critic: torch.Tensor,
    objective: ActorCriticObjective,
) -> dict[str, torch.Tensor]:
    return {
        "imagined_return": imagined_return(rollouts.reward, rollouts.continuation).mean(),
        "imagined_reward": rollouts.reward[:, 1:].mean(),
        "continuation": rollouts.continuation[:, 1:].mean(),
        "target": target_RT[:, :-1].mean(),
        "value": value_RT[:, :-1].mean(),
        "entropy": entropy,
        "entropy_weight": entropy_weight(policy, objective),
        "return_scale": policy.scale(),
        "loss/critic": critic,
    }
