"""Critics: what will follow, as a distribution over returns, and a slow copy that bootstraps from it."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from lssvwm_agents.policies.actors import Mlp
from lssvwm_agents.worldmodel.heads import TwoHot


class Critic(nn.Module):
    """The expected return after a frame, from its features; categorical over bins evenly spaced in symlog.

    Two-hot targets and their cross-entropy (DreamerV3, arXiv 2301.04104, section "Critic learning") learn
    small and large returns alike; the mean is taken in plain units, so that it is not biased.

    Args:
        feature_dim: Width ``F``.
        hidden: Width of the layers.
        num_layers: How many.
        num_bins: Odd.
        symlog_limit: The bins reach from -symexp to symexp of it: 5 is about 147; further bins bias small
            returns until they are unlearnt.
    """

    def __init__(
        self,
        feature_dim: int,
        hidden: int = 256,
        num_layers: int = 2,
        num_bins: int = 127,
        symlog_limit: float = 5.0,
    ) -> None:
        super().__init__()
        if num_bins < 3 or num_bins % 2 == 0 or not 0 < symlog_limit <= 15:
            raise ValueError(
                "`num_bins` must be odd and at least 3, and `symlog_limit` in (0, 15], "
                f"got {num_bins} and {symlog_limit}."
            )
        self.mlp = Mlp(feature_dim, hidden, num_layers, num_bins)
        self.two_hot = TwoHot(num_bins, symlog_limit)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., F) -> (...) expected return after the frame."""
        return self.two_hot.mean(self.mlp(features))

    def loss(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(..., F), (...) -> (...) cross-entropy against the two-hot target."""
        return self.two_hot.loss(self.mlp(features), target)


class SlowCopy(nn.Module):
    """An exponential moving average of a module's parameters, which answers in its place; has no gradients.

    It lies in buffers, so that optimisers leave it alone and checkpoints keep it.

    Args:
        module: What is copied; held by whoever trains it, not by this.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._of = (module,)  # in a tuple, so that its parameters are not ours
        for name, parameter in module.named_parameters():
            self.register_buffer(name.replace(".", "/"), parameter.detach().clone())

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move towards the module by ``1 - decay``."""
        current = [parameter for _, parameter in self._of[0].named_parameters()]
        torch._foreach_lerp_(list(self.buffers()), current, 1.0 - decay)

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        """As the module would answer; gradients flow to the arguments alone."""
        weights = {name.replace("/", "."): buffer for name, buffer in self.named_buffers()}
        answer: torch.Tensor = functional_call(self._of[0], weights, arguments)
        return answer
