"""What of an environment's observation is recorded as the frame, and what as proprio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from lssvwm_agents.errors import UserError

RENDERED_FRAME_SIZE = 64


def is_image(space: gymnasium.Space[Any]) -> bool:
    """Whether the space holds (H, W, 3) uint8 frames."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


def _vector_keys(space: gymnasium.Space[Any]) -> tuple[str, ...]:
    """Names of the flat Box parts of a Dict space."""
    if not isinstance(space, spaces.Dict):
        return ()
    return tuple(k for k, part in space.items() if isinstance(part, spaces.Box) and len(part.shape) == 1)


def resize(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale one (H, W, 3) frame to (size, size, 3), averaging over pixels where it shrinks."""
    if frame.shape[:2] == (size, size):
        return frame
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BOX))


@dataclass(frozen=True)
class ObservationReader:
    """Reads frames and proprio from what a vector environment returns.

    Attributes:
        kind: ``image``: the observation is the frame, and ``info["proprio"]``, if there, the proprio;
            ``dict``: its parts ``frame`` and ``proprio``; ``rendered``: ``render()`` is the frame, and the
            flat Box parts of the observation, one after the other, are the proprio.
        frame_shape: (H, W, 3) as recorded.
        proprio_dim: Width ``P``.
        vector_keys: Parts of a Dict observation that make up the proprio of a ``rendered`` environment.
    """

    kind: Literal["image", "dict", "rendered"]
    frame_shape: tuple[int, int, int]
    proprio_dim: int
    vector_keys: tuple[str, ...] = ()

    @classmethod
    def for_env(cls, env: gymnasium.Env[Any, Any], frame_size: int | None = None) -> ObservationReader:
        """Look at one environment (resetting it) and decide.

        Args:
            env: The environment.
            frame_size: Edge in pixels of the recorded frames; None keeps the size of image observations and
                takes 64 for rendered ones.
        """
        space = env.observation_space
        _, info = env.reset(seed=0)
        if is_image(space):
            shape = space.shape or ()
            proprio_dim = int(np.size(info["proprio"])) if "proprio" in info else 0
            return cls("image", (frame_size or shape[0], frame_size or shape[1], 3), proprio_dim)
        if isinstance(space, spaces.Dict) and "frame" in space.spaces and is_image(space["frame"]):
            shape = space["frame"].shape or ()
            proprio_dim = int(np.prod(space["proprio"].shape or ())) if "proprio" in space.spaces else 0
            return cls("dict", (frame_size or shape[0], frame_size or shape[1], 3), proprio_dim)
        size = frame_size or RENDERED_FRAME_SIZE
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            return cls("rendered", (size, size, 3), space.shape[0])
        keys = _vector_keys(space)
        width = (
            sum(int((space[key].shape or (0,))[0]) for key in keys) if isinstance(space, spaces.Dict) else 0
        )
        return cls("rendered", (size, size, 3), width, keys)

    def read(
        self, envs: gymnasium.vector.VectorEnv[Any, Any, Any], observations: Any, infos: dict[str, Any]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Frames (B, H, W, 3) and proprio (B, P) of the step or reset that has just been made."""
        count = envs.num_envs
        proprio: Any = np.zeros((count, 0), np.float32)
        if self.kind == "image":
            frames = _numpy(observations)
            if self.proprio_dim:
                proprio = infos["proprio"]
        elif self.kind == "dict":
            frames = _numpy(observations["frame"])
            proprio = observations["proprio"] if self.proprio_dim else proprio
        else:
            rendered = envs.render()
            if rendered is None or any(frame is None for frame in rendered):
                raise UserError(
                    "This environment's observation is no image and its `render()` returns no frames, "
                    "so there is nothing to record."
                )
            frames = np.stack(
                [resize(np.asarray(frame, np.uint8), self.frame_shape[0]) for frame in rendered]
            )
            if self.proprio_dim:
                parts = [observations[key] for key in self.vector_keys] or [observations]
                proprio = np.concatenate([_numpy(part).reshape(count, -1) for part in parts], axis=1)
        if frames.shape[1:] != self.frame_shape:
            frames = np.stack([resize(frame, self.frame_shape[0]) for frame in frames])
        return frames, _numpy(proprio).reshape(count, self.proprio_dim).astype(np.float32)


def _numpy(value: Any) -> NDArray[Any]:
    """An array of a tensor on any device, or of anything else that numpy takes."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)
