"""Distributions over actions, and the networks that choose them from features.

Every distribution turns standard normal noise into actions, differentiably, so that one row's action follows
from its own noise, and planners can hand theirs over.

Legend: ``...`` any leading sizes, ``A`` width of a float action, ``F`` features, or whatever a policy reads
    (`lssvwm_agents.policies.inputs`).
"""

from __future__ import annotations

import functools
import math
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.planners import ActionSpec, ContinuousActions, DiscreteActions

_QUADRATURE_NODES = 15


class ActionDistribution(Protocol):
    """What a policy may do."""

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(..., A) permitted actions from (..., A) standard normal noise; differentiable."""
        ...

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(...) log-probability (density, for continuous actions) of permitted actions (..., A)."""
        ...

    def entropy(self) -> torch.Tensor:
        """(...) in nats, differentiable."""
        ...

    def mode(self) -> torch.Tensor:
        """(..., A) the action that is chosen where nothing is left to chance."""
        ...

    def kl(self, other: Self) -> torch.Tensor:
        """(...) nats of KL(self || other), of the same kind and over the same actions; differentiable."""
        ...


class OneHotActions:
    """Discrete actions, exactly one-hot, with straight-through gradients (Bengio et al. 2013).

    A share of the uniform distribution is mixed in, so that no action is ever lost (DreamerV3).

    Args:
        logits: (..., A).
        uniform_share: That share, in [0, 1).
    """

    def __init__(self, logits: torch.Tensor, uniform_share: float = 0.0) -> None:
        self.probabilities = torch.softmax(logits, dim=-1)
        if uniform_share > 0:
            self.probabilities = (1 - uniform_share) * self.probabilities + uniform_share / logits.shape[-1]
        self.log_probabilities = self.probabilities.clamp_min(1e-30).log()

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """The largest log-probability plus Gumbel noise; the gradient is that of the probabilities."""
        uniform = torch.special.ndtr(noise).clamp(1e-7, 1 - 1e-7)
        gumbel = -torch.log(-torch.log(uniform))
        index = (self.log_probabilities.detach() + gumbel).argmax(dim=-1)
        hard = F.one_hot(index, noise.shape[-1]).to(self.probabilities.dtype)
        if not self.probabilities.requires_grad:
            return hard
        return hard + (self.probabilities - self.probabilities.detach())

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Of one-hot actions."""
        return (self.log_probabilities * action).sum(dim=-1)

    def entropy(self) -> torch.Tensor:
        """Exact."""
        return -(self.probabilities * self.log_probabilities).sum(dim=-1)

    def mode(self) -> torch.Tensor:
        """The likeliest action."""
        index = self.probabilities.argmax(dim=-1)
        return F.one_hot(index, self.probabilities.shape[-1]).to(self.probabilities.dtype)

    def kl(self, other: Self) -> torch.Tensor:
        """Exact."""
        return (self.probabilities * (self.log_probabilities - other.log_probabilities)).sum(dim=-1)


@functools.lru_cache
def _quadrature(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Hermite points and shares; kept, because a CUDA graph copies nothing from the host."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
    with torch.inference_mode(False):  # whoever asks first, later ones may want gradients
        shares = torch.as_tensor(weights / weights.sum(), dtype=dtype, device=device)
        return torch.as_tensor(nodes, dtype=dtype, device=device), shares


class SquashedNormal:
    """Continuous actions in a box: a normal distribution put through tanh (SAC, Haarnoja et al. 2018).

    Args:
        mean: (..., A) before the squashing.
        std: (..., A) before the squashing.
        low: (A,) of the box.
        high: (A,) of the box.
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
        self.mean, self.std = mean, std
        self.centre, self.half = (high + low) / 2, (high - low) / 2

    def _permitted(self, raw: torch.Tensor) -> torch.Tensor:
        return self.centre + self.half * torch.tanh(raw)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Reparametrised."""
        return self._permitted(self.mean + self.std * noise)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Density inside the box; on its faces that of a point just inside."""
        limit = 1 - 4 * torch.finfo(action.dtype).eps
        raw = torch.atanh(((action - self.centre) / self.half).clamp(-limit, limit))
        standard = (raw - self.mean) / self.std
        normal = -0.5 * standard.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (normal - self._log_slope(raw)).sum(dim=-1)

    def entropy(self) -> torch.Tensor:
        """By Gauss-Hermite quadrature: that of the normal, and the mean log-slope of the squashing."""
        shape = (-1, *[1] * self.mean.ndim)
        points, shares = (part.view(shape) for part in _quadrature(self.mean.dtype, self.mean.device))
        slope = (shares * self._log_slope(self.mean + self.std * points)).sum(dim=0)
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e) + slope).sum(dim=-1)

    def mode(self) -> torch.Tensor:
        """The squashed mean."""
        return self._permitted(self.mean)

    def kl(self, other: Self) -> torch.Tensor:
        """Exact: that of the normals, because both are put through one bijection, which changes no KL."""
        ratio, shift = self.std / other.std, (self.mean - other.mean) / other.std
        return (0.5 * (ratio.square() + shift.square() - 1) - ratio.log()).sum(dim=-1)

    def _log_slope(self, raw: torch.Tensor) -> torch.Tensor:
        """Log of the derivative of the squashing, in the form that does not underflow."""
        return torch.log(self.half) + 2 * (math.log(2) - raw - F.softplus(-2 * raw))


class Mlp(nn.Module):
    """Layers of linear, RMS norm and SiLU; the last linear layer starts at zero.

    Inputs are standardised by a mean and a deviation measured once (:meth:`fit`): a layer norm would take
    away their size, which may say something.
    """

    def __init__(self, inputs: int, hidden: int, num_layers: int, outputs: int) -> None:
        super().__init__()
        if num_layers < 1 or hidden < 1:
            raise ValueError(f"`hidden` and `num_layers` must be at least 1, got {hidden} and {num_layers}.")
        widths = [inputs] + [hidden] * num_layers
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(num_layers))
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @torch.no_grad()
    def fit(self, inputs: torch.Tensor) -> None:
        """Measure mean and deviation of inputs (N, inputs); those that hardly vary are left small."""
        self.mean.copy_(inputs.mean(dim=0))
        std = inputs.std(dim=0)
        self.std.copy_(std.clamp_min(0.05 * float(std.mean()) + 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., outputs)."""
        x = (x - self.mean) / self.std
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        out: torch.Tensor = self.last(x)
        return out


class Actor(nn.Module):
    """A policy: from features to a distribution over the actions of ``action_spec``.

    Args:
        feature_dim: Width ``F``.
        action_spec: What is permitted.
        hidden: Width of the layers.
        num_layers: How many.
        uniform_share: Discrete actions: share of the uniform distribution that is always mixed in.
        min_std: Continuous actions: smallest standard deviation before the squashing.
        max_std: And the largest.
    """

    def __init__(
        self,
        feature_dim: int,
        action_spec: ActionSpec,
        hidden: int = 256,
        num_layers: int = 2,
        uniform_share: float = 0.01,
        min_std: float = 0.1,
        max_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.action_spec, self.uniform_share = action_spec, uniform_share
        self.discrete = isinstance(action_spec, DiscreteActions)
        self.min_std, self.max_std = min_std, max_std
        width = action_spec.action_dim
        self.mlp = Mlp(feature_dim, hidden, num_layers, width if self.discrete else 2 * width)
        if isinstance(action_spec, ContinuousActions):
            self.register_buffer("low", torch.tensor(action_spec.low), persistent=False)
            self.register_buffer("high", torch.tensor(action_spec.high), persistent=False)

    def forward(self, features: torch.Tensor) -> ActionDistribution:
        """(..., F) -> what may be done."""
        out = self.mlp(features)
        if self.discrete:
            return OneHotActions(out, self.uniform_share)
        mean, spread = out.chunk(2, dim=-1)
        std = self.min_std + (self.max_std - self.min_std) * torch.sigmoid(spread)
        return SquashedNormal(mean, std, self.low.to(mean), self.high.to(mean))  # type: ignore[arg-type,operator]

    @property
    def max_entropy(self) -> float:
        """Entropy in nats of the uniform distribution over what is permitted."""
        if isinstance(self.action_spec, ContinuousActions):
            pairs = zip(self.action_spec.low, self.action_spec.high, strict=True)
            return sum(math.log(high - low) for low, high in pairs)
        return math.log(self.action_spec.action_dim)
