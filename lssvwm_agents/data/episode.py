"""One recorded episode."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_agents.errors import StoreError


@dataclass(frozen=True)
class Episode:
    """``T`` frames and what came with them. Index 0 is the reset frame: null action (zeros) and reward 0.

    Attributes:
        frames: (T, H, W, 3) uint8.
        actions: (T, ...) in the environment's own dtype; ``actions[t]`` led to ``frames[t]``.
        rewards: (T,) float32; ``rewards[t]`` came with ``frames[t]``.
        terminated: (T,) bool.
        truncated: (T,) bool.
        proprio: (T, P) float32 odometry and any other vector the robot has; P is 0 where there is none.
        seed: The seed that the environment was reset with, or -1 where it is unknown.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    proprio: NDArray[np.float32]
    seed: int = -1

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if len(shape) != 4 or shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise StoreError(f"`frames` must be (T, H, W, 3) uint8, got {shape} {self.frames.dtype}.")
        if shape[0] < 1:
            raise StoreError("An episode must have at least its reset frame, got 0 frames.")
        for name, dtype in (("rewards", "float32"), ("terminated", "bool"), ("truncated", "bool")):
            array = getattr(self, name)
            if array.shape != shape[:1] or array.dtype != dtype:
                raise StoreError(
                    f"`{name}` must be (T,) {dtype} with T={shape[0]} frames, "
                    f"got {array.shape} {array.dtype}."
                )
        if self.proprio.ndim != 2 or len(self.proprio) != shape[0] or self.proprio.dtype != np.float32:
            raise StoreError(
                f"`proprio` must be (T, P) float32 with T={shape[0]} frames, "
                f"got {self.proprio.shape} {self.proprio.dtype}."
            )
        if self.actions.ndim < 1 or len(self.actions) != shape[0]:
            raise StoreError(
                f"`actions` must be (T, ...) with T={shape[0]} frames, got {self.actions.shape}."
            )
        if not np.isfinite(self.rewards).all() or not np.isfinite(self.proprio).all():
            raise StoreError("`rewards` and `proprio` must be finite, got a NaN or an infinity.")

    def __len__(self) -> int:
        """Number of frames ``T``."""
        return len(self.frames)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, in the order in which a store keeps them."""
        return {
            "frames": self.frames,
            "actions": self.actions,
            "rewards": self.rewards,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "proprio": self.proprio,
        }

    def checksum(self) -> int:
        """CRC-32 of everything recorded."""
        value = zlib.crc32(str(self.seed).encode())
        for array in self.arrays().values():
            value = zlib.crc32(np.ascontiguousarray(array).data.cast("B") if array.size else b"", value)
        return value
