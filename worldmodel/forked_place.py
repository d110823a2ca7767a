"""Many futures of one past, for the memory of places: forks share what is known and keep their own frames.

As `forked_scan` does for the scan: a private copy of W and P would have to be read and written for every
imagined frame of every fork. Here a query meets the shared regression once, and each own frame through a
small triangle of covariances. The numbers are those of the private copies.

Shape legend, beside the one of ``place_regression.py``:
    n forks of each of B pasts (row b*n + i)   R = B*n   L own frames since the fork
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lssvwm_agents.worldmodel.place_regression import PlacePrior, PlaceState, Said

MAX_FRAMES = 64  # beyond this a private state is cheaper


@dataclass(frozen=True)
class ForkedPlace:
    """What one layer of every fork knows of places.

    Attributes:
        base: Shared, of ``B`` pasts.
        phi: (R, L, N) features of the fork's own frames.
        through: (R, L, N) the same times the base's certainty.
        error: (R, L, S*V) their innovations.
        inverse: (R, L, L) inverse of the lower Cholesky factor of their covariance.
        forks: n.
        prior: The memory's.
    """

    base: PlaceState
    phi: torch.Tensor
    through: torch.Tensor
    error: torch.Tensor
    inverse: torch.Tensor
    forks: int
    prior: PlacePrior

    @property
    def frames(self) -> int:
        """Own frames ``L``."""
        return self.phi.shape[1]

    def materialise(self) -> PlaceState:
        """Private states of all forks, as if each had copied what was known at once."""
        weights = self.base.weights.repeat_interleave(self.forks, dim=0)
        certainty = self.base.certainty.repeat_interleave(self.forks, dim=0)
        time = torch.arange(1, self.frames + 1, device=self.phi.device, dtype=self.phi.dtype)
        decay = torch.exp(self.prior.log_decay * time)
        last = torch.exp(
            torch.as_tensor(self.prior.log_decay * self.frames, dtype=decay.dtype, device=decay.device)
        )
        to_end = (last / decay)[:, None] / self.prior.ridge * self.phi - (last * decay)[
            :, None
        ] * self.through
        gain = self.inverse @ to_end
        return PlaceState(
            last * weights + torch.unflatten(self.error.transpose(1, 2) @ gain, 1, weights.shape[1:3]),
            last.square() * certainty + gain.transpose(1, 2) @ gain,
        )


def fork_place(state: PlaceState, n: int, prior: PlacePrior) -> ForkedPlace:
    """Fork what ``B`` pasts know n times without copying it."""
    batch, size = state.certainty.shape[:2]
    empty = state.certainty.new_zeros(batch * n, 0, size)
    values = state.weights.shape[1] * state.weights.shape[2]
    return ForkedPlace(
        base=state,
        phi=empty,
        through=empty,
        error=state.weights.new_zeros(batch * n, 0, values),
        inverse=state.certainty.new_zeros(batch * n, 0, 0),
        forks=n,
        prior=prior,
    )


def forked_recall(phi: torch.Tensor, fork: ForkedPlace) -> Said:
    """As `place_regression.recall`, of every fork: (R,1,N)."""
    return _ask(phi, fork)[0]


def forked_learn(v: torch.Tensor, phi: torch.Tensor, fork: ForkedPlace) -> tuple[Said, ForkedPlace]:
    """As `place_regression.learn`, one frame of every fork: (R,1,S,V), (R,1,N)."""
    said, row, through = _ask(phi, fork)
    left_over = said.novelty / fork.prior.ridge  # (R,1)
    scale = torch.rsqrt(1.0 + left_over)[..., None]
    error = (v.to(said.values.dtype) - said.values).flatten(2) * scale
    last = torch.cat([-scale * (row @ fork.inverse), scale], dim=2)  # (R,1,L+1)
    after = ForkedPlace(
        base=fork.base,
        phi=torch.cat([fork.phi, phi.to(fork.phi.dtype)], dim=1),
        through=torch.cat([fork.through, through], dim=1),
        error=torch.cat([fork.error, error], dim=1),
        inverse=torch.cat([F.pad(fork.inverse, (0, 1)), last], dim=1),
        forks=fork.forks,
        prior=fork.prior,
    )
    return said, after


def _ask(phi: torch.Tensor, fork: ForkedPlace) -> tuple[Said, torch.Tensor, torch.Tensor]:
    """What is said of (R,1,N), its row (R,1,L) of the Cholesky factor, and it times the base's certainty."""
    batch, tokens = fork.base.weights.shape[0], fork.base.weights.shape[1:3]
    phi = phi.to(fork.base.weights.dtype)
    grouped = phi.reshape(batch, fork.forks, -1)  # all forks of a past are one matrix product
    through = (grouped @ fork.base.certainty).reshape(phi.shape)
    known = (grouped @ fork.base.weights.flatten(1, 2).transpose(1, 2)).reshape(len(phi), 1, -1)
    now = fork.frames + 1
    time = torch.arange(1, now + 1, device=phi.device, dtype=phi.dtype)
    decay = torch.exp(fork.prior.log_decay * time)
    own, here = decay[:-1], decay[-1]
    between = torch.exp(fork.prior.log_decay * (now - time[:-1]))
    covariance = between / fork.prior.ridge * (phi @ fork.phi.transpose(1, 2))
    covariance = covariance - here * own * (phi @ fork.through.transpose(1, 2))
    row = covariance @ fork.inverse.transpose(1, 2)
    values = here * known + row @ fork.error
    certain = here.square() * (through * phi).sum(-1) + row.square().sum(-1)
    novelty = (phi.square().sum(-1) - fork.prior.ridge * certain).clamp(min=0.0)
    return Said(torch.unflatten(values, 2, tokens), novelty), row, through
