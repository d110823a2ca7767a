"""How candidates compare: by their returns, and where constraints are broken by how far.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` picked ones, ``T`` frames, ``C`` constraints,
``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scores:
    """What a search knows of its candidates.

    Attributes:
        returns: (B, N).
        constraints: (B, N, T, C) each constraint at each frame (of each future, one after the other), kept
            where at most 0, and minus infinity at frames that do not count; None without constraints.
        tolerance: A constraint up to this much above 0 counts as kept.
        penalty: If given, candidates are ranked by their return less this times their violation; if None, all
            that keep every constraint come before all others, which are ranked by their violation alone
            (Deb 2000, section 3).
    """

    returns: torch.Tensor
    constraints: torch.Tensor | None = None
    tolerance: float = 0.0
    penalty: float | None = None

    def violations(self) -> torch.Tensor:
        """(B, N, C) how far each constraint is broken in the plan's worst frame; 0 where it is kept."""
        if self.constraints is None:
            return self.returns.new_zeros(*self.returns.shape, 0)
        worst = self.constraints.amax(dim=2)
        return torch.where(worst <= self.tolerance, 0.0, worst)

    def violation(self) -> torch.Tensor:
        """(B, N) the sum over the constraints of :meth:`violations`."""
        return self.violations().sum(dim=-1)

    def utilities(self) -> torch.Tensor:
        """(B, N) what a softmax over the candidates may weigh: larger is better, minus infinity is out.

        In rows where some candidate keeps all constraints these are the returns of those that do; in other
        rows, minus the violation.
        """
        if self.constraints is None:
            return self.returns
        violation = self.violation()
        if self.penalty is not None:
            return self.returns - self.penalty * violation
        kept = violation == 0
        inside = torch.where(kept | self.returns.isnan(), self.returns, -torch.inf)
        return torch.where(kept.any(dim=1, keepdim=True), inside, -violation)

    def best(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ``count`` best candidates of each row, best first, NaN before all.

        Returns:
            (B, K) int64, which they are, and (B, K) their returns.
        """
        if self.constraints is None:
            returns, index = self.returns.topk(count, dim=1)
            return index, returns
        index = self._order()[:, :count]
        return index, self.returns.gather(1, index)

    def _order(self) -> torch.Tensor:
        """(B, N) int64: all candidates under constraints, best first."""
        if self.penalty is not None:
            return self.utilities().argsort(dim=1, descending=True, stable=True)
        by_return = self.returns.argsort(dim=1, descending=True, stable=True)
        # NaN is to be found by the check at the end of a search, so it goes first here too.
        violation = self.violation()
        violation = torch.where(self.returns.isnan() | violation.isnan(), -torch.inf, violation)
        order = violation.gather(1, by_return).argsort(dim=1, stable=True)
        return by_return.gather(1, order)


def take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick (B, K, ...) of (B, N, ...) candidates by (B, K) index."""
    if values.shape[0] == 1:
        return values.index_select(1, index[0])
    rows = torch.arange(values.shape[0], device=values.device)
    return values[rows.unsqueeze(1), index]
