"""Averaged weights: what is validated and shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Ema:
    """Exponential moving average of a module's trainable parameters, in float32.

    Args:
        module: The module that is trained; its frozen parameters and buffers are left out.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone().float() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average towards the parameters by ``1 - decay``."""
        torch._foreach_lerp_(list(self.average.values()), list(self._parameters.values()), 1.0 - decay)

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore the average from a checkpoint."""
        for name, average in self.average.items():
            average.copy_(tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the module has the averaged weights."""
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._write(self.average)
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
