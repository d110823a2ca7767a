"""What a frame costs after so many frames: time, and bytes of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lssvwm_agents.evaluate.memory.controls import encode
from lssvwm_agents.evaluate.memory.episodes import Episodes
from lssvwm_agents.worldmodel import WorldModel, WorldState

FRAME_COUNTS = (100, 1_000, 10_000, 100_000)
_CHUNK = 64  # frames observed at once on the way
_WARM_UP = 3


@dataclass(frozen=True)
class _Stream:
    """An endless video of one maze, made of a finite one."""

    latents: torch.Tensor
    actions: torch.Tensor
    proprio: torch.Tensor | None

    def take(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        index = torch.arange(start, stop, device=self.latents.device) % self.latents.shape[1]
        told = None if self.proprio is None else self.proprio[:, index]
        return self.latents[:, index], self.actions[:, index], told


@torch.no_grad()
def streaming(
    model: WorldModel,
    episodes: Episodes,
    longest: int = FRAME_COUNTS[-1],
    repeats: int = 100,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Median milliseconds to observe and to imagine one frame of one maze, and bytes of the state.

    The states after so many frames are kept, and then timed in turn, there and back, so that whatever else
    slows the machine down slows all of them down. Even so a busy machine gives poor timings.

    Args:
        model: The model.
        episodes: Whose first maze is watched over and over.
        longest: Frame counts beyond this are left out.
        repeats: Timings of each.
        progress: Told the frames of every chunk.

    Raises:
        ValueError: If not even the smallest frame count is left.
    """
    counts = [count for count in FRAME_COUNTS if count <= longest]
    if not counts:
        raise ValueError(f"the longest stream must have at least {FRAME_COUNTS[0]} frames, got {longest}.")
    proprio = episodes.proprio[:1] if model.config.proprio_dim else None
    stream = _Stream(encode(model, episodes.frames[:1]), episodes.actions[:1], proprio)
    state, seen = model.initial_state(1), 0
    states: dict[int, WorldState] = {}
    for count in counts:
        while seen < count:
            stop = min(seen + _CHUNK, count)
            state, _ = model.observe_latents(state, *stream.take(seen, stop))
            if progress is not None:
                progress(stop - seen)
            seen = stop
        states[count] = state
    observe: dict[int, list[float]] = {count: [] for count in counts}
    imagine: dict[int, list[float]] = {count: [] for count in counts}
    for repeat in range(_WARM_UP + repeats):
        for count in counts if repeat % 2 else reversed(counts):
            kept = states[count]
            frame = stream.take(count, count + 1)
            seconds = _timed(model.device, model.observe_latents, kept, *frame)
            also = _timed(model.device, model.step, kept, frame[1][:, 0])
            if repeat >= _WARM_UP:
                observe[count].append(1000 * seconds)
                imagine[count].append(1000 * also)
    return {
        "frames": counts,
        "ms_per_frame": [float(np.median(observe[count])) for count in counts],
        "ms_per_imagined_frame": [float(np.median(imagine[count])) for count in counts],
        "state_bytes": [states[count].nbytes for count in counts],
        "finite": all(bool(torch.isfinite(states[count].features).all()) for count in counts),
    }


def _timed(device: torch.device, function: Callable[..., object], *arguments: object) -> float:
    """Seconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    function(*arguments)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
