"""Back-propagation of the return through rewards, values, frames and actions, back to the policy.

Less noise than the score function's where the simulator is smooth (DreamerV2; SHAC, Xu et al. 2022, for the
truncation). After every ``truncation`` frames the state is cut from the graph and a slow critic says what
follows, so that memory and exploding gradients are bounded whatever the horizon. The critic may learn on from
the same rollouts for some updates, so that it keeps up with the policy whose future it tells (as SHAC's does,
section 3.3; ours takes all rollouts at once, and its targets move with the slow critic).

Legend: ``R`` rollouts, ``H`` imagined frames, ``T = H + 1``, ``A`` action width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.actor_critic_objective import (
    ActorCriticObjective,
    critic_loss,
    entropy_search,
    entropy_weight,
    prior_kl,
    rollout_metrics,
)
from lssvwm_agents.policies.imagined_rollouts import (
    FeatureDynamics,
    FeaturePolicy,
    FeatureState,
    FeatureValue,
    ImaginedRollouts,
    imagine_policy,
)
from lssvwm_agents.policies.returns import imagined_return, lambda_return, reach


@dataclass(frozen=True)
class RolloutSpan:
    """A stretch of rollouts between two cuts, for the critic to learn from; nothing has a gradient.

    Attributes:
        rollouts: The stretch.
        reach: (R, H) share of the rollout that still goes on.
        end: Of the last stretch: the dynamics' state after its last frame; None of the others.
    """

    rollouts: ImaginedRollouts
    reach: torch.Tensor
    end: FeatureState | None = None


def dynamics_gradients(
    dynamics: FeatureDynamics,
    state: FeatureState,
    policy: ActorCritic,
    noise: torch.Tensor,
    objective: ActorCriticObjective,
    prior: FeaturePolicy | None = None,
    bootstrap: FeatureValue | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[RolloutSpan]]:
    """Imagine, and add the gradients of one update through the dynamics to the policy's parameters.

    Args:
        dynamics: What imagines; its parameters must not require gradients.
        state: ``R`` rows to start from.
        policy: Actor and critic; the slow critic and the scale of returns move on.
        noise: (H, R, A) standard normal.
        objective: What to follow.
        prior: What the policy is held near by ``objective.prior_weight``; it is not trained.
        bootstrap: What says what follows after a frame; None for the slow critic.

    Returns:
        The loss (), () metrics by name, and what the critic can learn on from (:func:`critic_gradients`).
    """
    policy.slow_critic.update(objective.slow_decay)
    state, horizon = state.detach(), len(noise)
    alive_R1 = torch.ones_like(noise[0, :, :1])
    total, earned = torch.zeros((), device=noise.device), torch.zeros((), device=noise.device)
    shares, kept, spans = [], [], []
    for begin in range(0, horizon, objective.truncation):
        part = noise[begin : begin + objective.truncation]
        state, rollouts = imagine_policy(dynamics, state.detach(), policy.actor, part, policy.read)
        value_RT = (bootstrap or policy.slow_critic)(rollouts.features)
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
        seen_RHF = rollouts.features[:, :-1].detach()
        distribution = policy.actor(seen_RHF)
        entropy = (reach_RH * distribution.entropy()).mean()
        critic = critic_loss(policy, rollouts, target_RT, reach_RH)
        loss = -gain - entropy_weight(policy, objective) * entropy + critic
        loss = loss + entropy_search(policy, objective, entropy)
        told = rollout_metrics(policy, rollouts, target_RT, value_RT, entropy, critic, objective)
        if prior is not None:
            with torch.no_grad():
                recorded = prior(seen_RHF)
            away = prior_kl(distribution, recorded, reach_RH)
            loss = loss + objective.prior_weight * away
            told["prior_kl"] = away.detach()
        share = len(part) / horizon
        (share * loss).backward()
        total = total + share * loss.detach()
        shares.append(share)
        kept.append(told)
        end = state.detach() if begin + objective.truncation >= horizon else None
        spans.append(RolloutSpan(rollouts.detach(), reach_RH, end))
    metrics = {
        name: sum(share * one[name] for share, one in zip(shares, kept, strict=True))  # type: ignore[misc]
        for name in kept[0]
    }
    return total, {**metrics, "imagined_return": earned}, spans


def critic_gradients(
    policy: ActorCritic,
    spans: list[RolloutSpan],
    objective: ActorCriticObjective,
    bootstrap: FeatureValue | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Add the gradients of one update of the critic alone; the actor's stay as they are.

    Args:
        policy: Actor and critic; the slow critic moves on, and with it the targets.
        spans: What :func:`dynamics_gradients` imagined.
        objective: What to follow.
        bootstrap: As there.

    Returns:
        The loss (), and () metrics by name.
    """
    policy.slow_critic.update(objective.slow_decay)
    frames = sum(span.reach.shape[1] for span in spans)
    zero = torch.zeros((), device=policy.device)
    metrics = {"loss/critic": zero, "target": zero, "value": zero}
    for span in spans:
        with torch.no_grad():
            value_RT = (bootstrap or policy.slow_critic)(span.rollouts.features)
            target_RT = lambda_return(
                span.rollouts.reward, span.rollouts.continuation, value_RT, objective.discount, objective.lam
            )
        share = span.reach.shape[1] / frames
        loss = share * critic_loss(policy, span.rollouts, target_RT, span.reach)
        loss.backward()
        metrics["loss/critic"] = metrics["loss/critic"] + loss.detach()
        metrics["target"] = metrics["target"] + share * target_RT[:, :-1].mean()
        metrics["value"] = metrics["value"] + share * value_RT[:, :-1].mean()
    return metrics["loss/critic"], metrics
