"""What an actor-critic follows in imagination, and the parts of its loss that both gradients share.

Legend: ``R`` rollouts, ``H`` imagined frames, ``T = H + 1``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.actors import ActionDistribution
from lssvwm_agents.policies.imagined_rollouts import FeaturePolicy, FeatureValue, ImaginedRollouts
from lssvwm_agents.policies.returns import imagined_return

GradientKind = Literal["score_function", "dynamics"]
Bootstrap = Literal["critic", "recorded"]


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
        bootstrap: What says what follows after each frame, in the targets and as the baseline: the slow
            ``critic``, which learns it from imagination, or the world model's value head, which learnt what
            followed in the ``recorded`` episodes (MBOP, Argenson and Dulac-Arnold 2021, arXiv 2008.05556):
            an improvement over who recorded them, that no mistake of the model is bootstrapped into.
        prior_weight: Worth of a nat of KL from the behaviour prior (`lssvwm_agents.policies.behaviour`), in
            units of the scaled return; 0 to let the policy leave it.

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
    bootstrap: Bootstrap = "critic"
    prior_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.gradient not in ("score_function", "dynamics"):
            raise ValueError(f"`gradient` must be score_function or dynamics, got {self.gradient!r}.")
        if self.bootstrap not in ("critic", "recorded"):
            raise ValueError(f"`bootstrap` must be critic or recorded, got {self.bootstrap!r}.")
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
        if self.prior_weight < 0:
            raise ValueError(f"`prior_weight` must be at least 0, got {self.prior_weight}.")


def check_guides(
    objective: ActorCriticObjective, prior: FeaturePolicy | None, bootstrap: FeatureValue | None
) -> None:
    """Refuse an objective without what it asks for.

    Raises:
        ValueError: If a weight of the prior has no prior, or ``bootstrap`` names another than is given.
    """
    if objective.prior_weight > 0 and prior is None:
        raise ValueError(
            f"`prior_weight` needs a behaviour prior (`prior`), got {objective.prior_weight} and none."
        )
    if (objective.bootstrap == "recorded") != (bootstrap is not None):
        given = "none" if bootstrap is None else "one"
        raise ValueError(
            "a function `bootstrap` goes with the objective's bootstrap='recorded', and with no other, got "
            f"{objective.bootstrap!r} and {given}."
        )


def critic_loss(
    policy: ActorCritic, rollouts: ImaginedRollouts, target_RT: torch.Tensor, reach_RH: torch.Tensor
) -> torch.Tensor:
    """() mean over frames of the critic's cross-entropy; no gradient reaches features or targets."""
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


def entropy_search(
    policy: ActorCritic, objective: ActorCriticObjective, entropy: torch.Tensor
) -> torch.Tensor:
    """A loss that raises the weight where the entropy is too small, and lowers it where it is too large."""
    if objective.entropy_target == 0:
        return entropy.new_zeros(())
    return policy.log_entropy_weight * (entropy.detach() - wanted_entropy(policy, objective))


def prior_kl(
    distribution: ActionDistribution, prior: ActionDistribution, reach_RH: torch.Tensor
) -> torch.Tensor:
    """() mean over frames of the nats of KL of what the policy does from the behaviour prior."""
    return (reach_RH * distribution.kl(prior)).mean()


@torch.no_grad()
def rollout_metrics(
    policy: ActorCritic,
    rollouts: ImaginedRollouts,
    target_RT: torch.Tensor,
    value_RT: torch.Tensor,
    entropy: torch.Tensor,
    critic: torch.Tensor,
    objective: ActorCriticObjective,
) -> dict[str, torch.Tensor]:
    """What the log says of a batch of rollouts, () each."""
    return {
        "imagined_return": imagined_return(rollouts.reward, rollouts.continuation).mean(),
        "imagined_reward": rollouts.reward[:, 1:].mean(),
        "continuation": rollouts.continuation[:, 1:].mean(),
        "target": target_RT[:, :-1].mean(),
        "value": value_RT[:, :-1].mean(),
        "entropy": entropy,
        "entropy_weight": entropy_weight(policy, objective),
        "return_scale": policy.scale(),
        "beyond_bins": (target_RT[:, :-1].abs() > policy.critic.two_hot.bins[-1]).float().mean(),
        "loss/critic": critic,
    }
