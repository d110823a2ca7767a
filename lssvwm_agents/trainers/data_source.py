"""Where the world model's windows come from: a store encoded once, or mazes rendered and renewed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lssvwm_agents.data.latents import LatentDataset

RenderFunction = Callable[[int, int], LatentDataset]
"""(number of episodes, number of the rendering) to fresh episodes; the same number, the same episodes."""


class DataSource(Protocol):
    """Episodes that may change as the training goes on."""

    def at(self, update: int) -> LatentDataset:
        """The episodes that update ``update`` samples from."""
        ...


class FixedData:
    """Episodes that stay as they are."""

    def __init__(self, dataset: LatentDataset) -> None:
        self.dataset = dataset

    def at(self, update: int) -> LatentDataset:
        """The same episodes for every update."""
        return self.dataset


class RefreshedData:
    """Rendered episodes, one block of which is rendered anew every so many updates.

    What block b holds depends on the update alone, so that a resumed run finds the same episodes.

    Args:
        render: Renders episodes.
        num_episodes: Episodes held.
        refresh_every: Updates between renderings; 0 for none.
        refresh_share: Share of the episodes that is renewed each time.
    """

    def __init__(
        self, render: RenderFunction, num_episodes: int, refresh_every: int = 0, refresh_share: float = 0.25
    ) -> None:
        if not 0.0 < refresh_share <= 1.0:
            raise ValueError(f"`refresh_share` must be in (0, 1], got {refresh_share}.")
        self._render = render
        self._refresh_every = refresh_every
        block = max(1, round(num_episodes * refresh_share)) if refresh_every else num_episodes
        self._starts = list(range(0, num_episodes, block))
        self._sizes = [min(block, num_episodes - start) for start in self._starts]
        self._dataset = render(num_episodes, 0)
        self._held = [0] * len(self._starts)

    def at(self, update: int) -> LatentDataset:
        """The episodes that update ``update`` samples from, renewed if it is time."""
        if self._refresh_every:
            rendering = update // self._refresh_every
            for block, start in enumerate(self._starts):
                wanted = latest_rendering(rendering, block, len(self._starts))
                if wanted != self._held[block]:
                    self._dataset.overwrite(start, self._render(self._sizes[block], wanted))
                    self._held[block] = wanted
        return self._dataset


def latest_rendering(rendering: int, block: int, num_blocks: int) -> int:
    """The last rendering up to ``rendering`` that renewed ``block``.

    Rendering 0 makes all blocks, rendering r > 0 renews block (r - 1) % num_blocks.
    """
    behind = (rendering - 1 - block) % num_blocks
    return max(0, rendering - behind) if rendering > 0 else 0
