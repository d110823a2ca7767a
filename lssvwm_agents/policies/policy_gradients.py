"""One update of actor and critic in imagination, by either of two gradients of the return.

``score_function``: actions that turned out better than the critic expected are made likelier (REINFORCE with
a baseline; DreamerV3). Needs no gradient of the dynamics, so that imagining is cheap and horizons are free,
and one batch of rollouts can serve several updates: beyond ``clip`` the ratio of new to old probability earns
nothing more (PPO, Schulman et al. 2017). In the first of them that is the plain gradient.

``dynamics``: the return is differentiated through the simulator: `lssvwm_agents.policies.through_dynamics`.

Legend: ``R`` rollouts, ``H`` imagined frames, ``T = H + 1``, ``A`` action width, ``F`` features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.actor_critic_objective import (
    ActorCriticObjective,
    check_guides,
    critic_loss,
    entropy_search,
    entropy_weight,
    prior_kl,
    rollout_metrics,
)
from lssvwm_agents.policies.actors import ActionDistribution
from lssvwm_agents.policies.imagined_rollouts import (
    FeatureDynamics,
    FeaturePolicy,
    FeatureState,
    FeatureValue,
    ImaginedRollouts,
    imagine_policy,
)
from lssvwm_agents.policies.returns import lambda_return, reach
from lssvwm_agents.policies.through_dynamics import dynamics_gradients


def accumulate_gradients(
    dynamics: FeatureDynamics,
    state: FeatureState,
    policy: ActorCritic,
    noise: torch.Tensor,
    objective: ActorCriticObjective,
    prior: FeaturePolicy | None = None,
    bootstrap: FeatureValue | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Imagine with the policy and add the gradients of one update to its parameters.

    The parameters of the dynamics must not require gradients.

    Args:
        dynamics: What imagines.
        state: ``R`` rows to start from.
        policy: Actor and critic; the slow critic and the scale of returns move on.
        noise: (H, R, A) standard normal.
        objective: What to follow.
        prior: What the policy is held near by ``objective.prior_weight``; it is not trained.
        bootstrap: What says what follows after a frame, if ``objective.bootstrap`` is recorded; None for the
            slow critic.

    Returns:
        The loss (), and () metrics by name.

    Raises:
        ValueError: If the objective asks for a prior or a bootstrap that is not given.
    """
    check_guides(objective, prior, bootstrap)
    if objective.gradient == "dynamics":
        return dynamics_gradients(dynamics, state, policy, noise, objective, prior, bootstrap)[:2]
    policy.slow_critic.update(objective.slow_decay)
    with torch.no_grad():
        _, rollouts = imagine_policy(dynamics, state.detach(), policy.actor, noise, policy.read)
    batch = score_batch(policy, rollouts, objective, prior, bootstrap)
    return score_gradients(policy, batch, objective)


@dataclass(frozen=True)
class ScoredBatch:
    """Rollouts, and what was thought of them when they were imagined: what score-function updates learn from.

    Attributes:
        rollouts: The rollouts.
        target: (R, T) lambda-returns.
        value: (R, T) by the slow critic, or what stands in for it.
        reach: (R, H) share of the rollout that still goes on.
        advantage: (R, H) in units of the scale of returns.
        log_prob: (R, H) of the actions, by the policy that chose them.
        prior: (R, H) what the behaviour prior does; None without one.
    """

    rollouts: ImaginedRollouts
    target: torch.Tensor
    value: torch.Tensor
    reach: torch.Tensor
    advantage: torch.Tensor
    log_prob: torch.Tensor
    prior: ActionDistribution | None = None


@torch.no_grad()
def score_batch(
    policy: ActorCritic,
    rollouts: ImaginedRollouts,
    objective: ActorCriticObjective,
    prior: FeaturePolicy | None = None,
    bootstrap: FeatureValue | None = None,
) -> ScoredBatch:
    """Judge rollouts of the policy as it is; the scale of returns moves on."""
    features_RHF = rollouts.features[:, :-1]
    value_RT = (bootstrap or policy.slow_critic)(rollouts.features)
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
        policy.actor(features_RHF).log_prob(rollouts.actions[:, 1:]),
        None if prior is None else prior(features_RHF),
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
    critic = critic_loss(policy, rollouts, batch.target, reach_RH)
    loss = -gain - entropy_weight(policy, objective) * entropy + critic
    loss = loss + entropy_search(policy, objective, entropy)
    metrics = rollout_metrics(policy, rollouts, batch.target, batch.value, entropy, critic, objective)
    if batch.prior is not None:
        away = prior_kl(distribution, batch.prior, reach_RH)
        loss = loss + objective.prior_weight * away
        metrics["prior_kl"] = away.detach()
    loss.backward()
    return loss.detach(), {**metrics, "clipped": (ratio_RH != clipped_RH).float().mean().detach()}
