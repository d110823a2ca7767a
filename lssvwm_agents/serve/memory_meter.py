"""How well a place comes back: the imagined frame beside the real maze, where that was seen long ago."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lssvwm_agents.envs.wall_places import visible_places
from lssvwm_agents.metrics import psnr
from lssvwm_agents.serve.dream import Dream, LookAround, Moment, inside

SEEN_SHARE = 0.5
"""Of a view's columns that must have been seen for it to count as a revisit."""

_NEAR_CELLS, _NEAR_RADIANS = 0.75, 0.35


@dataclass(frozen=True)
class Recall:
    """What memory makes of one view.

    Attributes:
        seen_share: Share of the view's columns whose piece of wall was shown by a real frame before.
        age: Median over those columns of the frames since it was last seen; None where none was.
        psnr: Of the imagined frame against the real maze, drawn from where the dreamer believes to be, in dB,
            without the coloured border; None where that is inside a wall.
        match: The same on a scale from 0, as unlike as any two views of this maze, to 1, as like as the
            tokenizer can draw; None as above.
        then: Index of the real frame seen from nearly the same pose, the last of them; None without one.
    """

    seen_share: float
    age: int | None
    psnr: float | None
    match: float | None
    then: int | None

    @property
    def revisit(self) -> bool:
        """Whether most of the view was seen before."""
        return self.seen_share >= SEEN_SHARE


class MemoryMeter:
    """Knows which piece of wall was last seen when, in one maze.

    Args:
        look: The real frames that the dream began with.
    """

    def __init__(self, look: LookAround) -> None:
        self.look = look
        self._last_seen: dict[int, int] = {}
        for index, places in enumerate(look.places):
            self._last_seen.update(dict.fromkeys(places.tolist(), index))

    @torch.no_grad()
    def read(self, dream: Dream, moment: Moment) -> Recall:
        """What memory makes of the view at a moment."""
        then = self._view_then(moment.proprio)
        real = dream.real_at(moment)
        if real is None:
            return Recall(0.0, None, None, None, then)
        places = visible_places(dream.maze, real)[0].tolist()
        seen = [self._last_seen[place] for place in places if place in self._last_seen]
        truth = torch.from_numpy(dream.real_frame(real))
        likeness = float(psnr(inside(torch.from_numpy(moment.frame)), inside(truth)))
        span = max(self.look.ceiling - self.look.typical, 1e-6)
        return Recall(
            seen_share=len(seen) / len(places),
            age=moment.index - int(np.median(seen)) if seen else None,
            psnr=likeness,
            match=float(np.clip((likeness - self.look.typical) / span, 0.0, 1.0)),
            then=then,
        )

    def _view_then(self, proprio: np.ndarray) -> int | None:
        """The last real frame seen from nearly this pose, or None."""
        poses = self.look.proprio
        apart = np.hypot(*(poses[:, :2] - proprio[:2]).T)
        turned = np.arctan2(poses[:, 2], poses[:, 3]) - np.arctan2(proprio[2], proprio[3])
        turned = np.abs((turned + np.pi) % (2 * np.pi) - np.pi)
        near = (apart < _NEAR_CELLS) & (turned < _NEAR_RADIANS)
        if not near.any():
            return None
        distance = np.where(near, np.round(apart + turned, 1), np.inf)
        return int(len(distance) - 1 - distance[::-1].argmin())
