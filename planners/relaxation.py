"""Numbers without bounds that stand for decisions, so that a gradient can move them.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from lssvwm_agents.planners.action_spec import ActionSpec, DiscreteActions, one_hot

Relaxation: TypeAlias = Literal["straight_through", "softmax"]


def to_parameters(action_spec: ActionSpec, decisions: torch.Tensor, confidence: float) -> torch.Tensor:
    """(B, N, H, A) decisions to parameters: the box scaled to [-1, 1], or logits.

    Args:
        action_spec: The actions.
        decisions: Permitted decisions; for discrete actions probabilities will do.
        confidence: Of discrete decisions: by how much the logit of a certain action exceeds the others.
    """
    if isinstance(action_spec, DiscreteActions):
        return confidence * decisions
    low, high = action_spec.bounds(decisions.device, decisions.dtype)
    return (decisions - 0.5 * (low + high)) / (0.5 * (high - low))


def to_decisions(
    action_spec: ActionSpec,
    parameters: torch.Tensor,
    softness: float,
    relaxation: Relaxation = "straight_through",
) -> torch.Tensor:
    """(B, N, H, A) parameters to decisions, differentiably.

    Continuous ones lie in the box exactly. Discrete ones are one-hot whose gradient is that of a softmax
    (straight-through, Bengio et al. 2013), or the softmax itself.
    """
    if isinstance(action_spec, DiscreteActions):
        soft = torch.softmax(parameters / softness, dim=-1)
        if relaxation == "softmax":
            return soft
        hard = one_hot(parameters.argmax(dim=-1), action_spec.num_actions, parameters.dtype)
        # In this order the sum is the one-hot vector exactly, not to rounding.
        return hard + (soft - soft.detach())
    low, high = action_spec.bounds(parameters.device, parameters.dtype)
    return torch.clamp(0.5 * (low + high) + 0.5 * (high - low) * parameters, low, high)


def inside(action_spec: ActionSpec, parameters: torch.Tensor) -> torch.Tensor:
    """Bring parameters of continuous actions back to [-1, 1]; logits have no bounds."""
    return parameters if isinstance(action_spec, DiscreteActions) else parameters.clamp(-1.0, 1.0)
