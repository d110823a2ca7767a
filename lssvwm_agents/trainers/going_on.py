"""Imagined starts: rollouts that go on where those of the last batch ended.

A rollout of a dozen frames from recorded moments hardly gets where the policy itself comes to rest, such as
the corner that it is stuck in. One that goes on does, at no more frames an update, and an update sees
rollouts of many ages (SHAC, Xu et al. 2022, section 3.2, lets all of its episodes go on).

Legend: ``S`` starts of a batch, ``R`` its rollouts, some forks of each start.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from lssvwm_agents.seeding import generator
from lssvwm_agents.worldmodel import WorldState

RolloutEnds: TypeAlias = tuple[WorldState, torch.Tensor]
"""The state after the last frame of ``R`` rollouts, and the (R,) shares of them that still go on there."""


class GoingOn:
    """Keeps where the rollouts of a batch ended, for some of the next batch to go on.

    Args:
        share: Of the starts that it is asked for; fewer where too few rollouts may go on, and never all.
        frames: A rollout goes on while it is at most so many imagined frames long in the end.
        horizon: Frames that a batch adds.
        seed: Names the choice.
    """

    def __init__(self, share: float, frames: int, horizon: int, seed: int) -> None:
        self._share, self._frames, self._horizon, self._seed = share, frames, horizon, seed
        self._ended: WorldState | None = None
        self._ages = torch.zeros(0, dtype=torch.int64)  # imagined frames at the rollouts' ends

    def draw(self, batch: int, starts: int) -> tuple[WorldState | None, torch.Tensor]:
        """States that the batch with this number goes on from, and the frames that led to each."""
        may = torch.where(self._ages + self._horizon <= self._frames)[0]
        count = min(round(self._share * starts), len(may), starts - 1)
        if self._ended is None or count <= 0:
            return None, torch.zeros(0, dtype=torch.int64)
        order = torch.randperm(len(may), generator=generator("cpu", self._seed, 37, batch))
        rows = may[order[:count]].sort().values
        return self._ended.select(rows), self._ages[rows]

    def keep(self, ended: RolloutEnds, ages: torch.Tensor) -> None:
        """Keep where a batch ended, whose (S,) starts were ``ages`` frames old; not what came to an end."""
        if self._share == 0:
            return
        state, continues = ended
        self._ended = state
        forks = len(continues) // len(ages)
        ages = ages.repeat_interleave(forks) + self._horizon
        self._ages = torch.where(continues.cpu() > 0.5, ages, self._frames + 1)
