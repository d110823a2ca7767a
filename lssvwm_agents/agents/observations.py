"""Read frames and odometry from what an environment returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Observed:
    """One moment of ``B`` environments.

    Attributes:
        frames: (B, 3, H, W) float in [0, 1].
        proprio: (B, P) float odometry, or None.
        batched: Whether the observation had a batch dimension of its own.
        as_numpy: Whether it came as NumPy, so that the answer does too.
    """

    frames: torch.Tensor
    proprio: torch.Tensor | None
    batched: bool
    as_numpy: bool


def read_observation(observation: object, device: torch.device | str) -> Observed:
    """Turn an observation into frames and odometry on ``device``.

    Args:
        observation: (H, W, 3) or (B, H, W, 3) uint8, array or tensor; or a mapping with such a ``frame``, and
            ``proprio`` (P,) or (B, P).
        device: Where the result lies.

    Raises:
        ValueError: If the frame's shape or dtype is another one.
    """
    proprio = None
    frame = observation
    if isinstance(observation, Mapping):
        if "frame" not in observation:
            raise ValueError(
                f"a Dict observation needs a `frame` of (H, W, 3) uint8, got keys {sorted(observation)}."
            )
        frame, proprio = observation["frame"], observation.get("proprio")
    if not isinstance(frame, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"an observation must be an array, a tensor or a mapping of them, got {type(frame).__name__}."
        )
    as_numpy = isinstance(frame, np.ndarray)
    tensor = torch.as_tensor(frame, device=device)
    if tensor.dtype != torch.uint8 or tensor.ndim not in (3, 4) or tensor.shape[-1] != 3:
        raise ValueError(
            "a frame must be uint8 of shape (H, W, 3) or (B, H, W, 3), "
            f"got {tensor.dtype} of {tuple(tensor.shape)}."
        )
    batched = tensor.ndim == 4
    tensor = tensor if batched else tensor[None]
    if proprio is not None:
        proprio = torch.as_tensor(proprio, device=device).float()
        proprio = proprio if batched else proprio[None]
        if proprio.ndim != 2 or proprio.shape[0] != tensor.shape[0]:
            raise ValueError(
                f"`proprio` must have shape (B={tensor.shape[0]}, P), got {tuple(proprio.shape)}."
            )
    return Observed(tensor.permute(0, 3, 1, 2).float() / 255.0, proprio, batched, as_numpy)
