"""Starts of imagined rollouts: memories of real contexts, a block of which is made anew now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.data.online import maze_seeds
from lssvwm_agents.envs.contexts import ContextSource
from lssvwm_agents.envs.imagined_starts import StartStates
from lssvwm_agents.policies.imagined_rollouts import features_of
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.data_source import latest_rendering
from lssvwm_agents.worldmodel import WorldModel, WorldState


class StartPool:
    """Holds memories to start from; what it holds at a batch depends on seed and batch alone.

    Args:
        model: The world model whose memories they are.
        sources: Where real contexts come from; blocks take turns among them.
        size: Starts held, rounded up to whole blocks.
        block: Starts made at a time.
        refresh_every: Batches after which the oldest block is made anew; 0 for never.
        seed: Names the contexts; their mazes are never those of an evaluation.
    """

    def __init__(
        self,
        model: WorldModel,
        sources: Sequence[ContextSource],
        size: int,
        block: int,
        refresh_every: int,
        seed: int,
    ) -> None:
        if not sources:
            raise ValueError("at least one source of contexts is needed, got none.")
        self._starts = [StartStates(model, source) for source in sources]
        self._device, self._seed = model.device, seed
        self._block, self._refresh_every = block, refresh_every
        self._blocks: list[WorldState | None] = [None] * -(-size // block)
        self._held = [-1] * len(self._blocks)

    @property
    def size(self) -> int:
        """Starts held."""
        return self._block * len(self._blocks)

    def draw(self, update: int, count: int) -> WorldState:
        """Memories of ``count`` starts of the batch with number ``update``."""
        self._renew(update)
        noise = generator("cpu", self._seed, 31, update)
        chosen = torch.randint(self.size, (count,), generator=noise).sort().values
        parts = []
        for index, block in enumerate(self._blocks):
            rows = chosen[chosen // self._block == index] % self._block
            if len(rows):
                assert block is not None
                parts.append(block.select(rows.to(self._device)))
        state: WorldState = pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)
        return state

    def features(self, update: int, read: Callable[[WorldState], torch.Tensor] = features_of) -> torch.Tensor:
        """(size, F) of all starts held at a batch, or what else ``read`` makes of (B,) memories."""
        self._renew(update)
        return torch.cat([read(block) for block in self._blocks if block is not None])

    def _renew(self, update: int) -> None:
        rendering = update // self._refresh_every if self._refresh_every else 0
        for index in range(len(self._blocks)):
            wanted = latest_rendering(rendering, index, len(self._blocks))
            if wanted != self._held[index]:
                self._blocks[index] = None  # memory of the old one is free before the new one is made
                self._blocks[index] = self._make(wanted, index)
                self._held[index] = wanted

    def _make(self, rendering: int, index: int) -> WorldState:
        seeds = maze_seeds(fold_in(self._seed, 32, rendering, index), self._block, self._device)
        number = rendering + index if rendering == 0 else rendering + len(self._blocks) - 1
        return self._starts[number % len(self._starts)].draw(seeds)[0]
