"""A small real environment whose frames say what happened to it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class CountingEnv(gymnasium.Env):
    """Ends after a length drawn from its seed; pixel (0, 0) is (step, draw of the reset, last action).

    ``observation`` is image, dict or vector (then `render` shows the frame, 32 pixels wide).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "image",
        continuous: bool = False,
        size: int = 16,
        lengths: tuple[int, int] = (3, 30),
    ) -> None:
        self.render_mode = render_mode
        self.kind, self.continuous, self.size, self.lengths = observation, continuous, size, lengths
        frame = spaces.Box(0, 255, (size, size, 3), np.uint8)
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space: Any = {
            "image": frame,
            "dict": spaces.Dict(frame=frame, proprio=vector),
            "vector": vector,
        }[observation]
        self.action_space = spaces.Box(-1, 1, (2,), np.float32) if continuous else spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.count, self.action = 0, 0
        self.length = int(self.np_random.integers(*self.lengths))
        self.draw = int(self.np_random.integers(256))
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action) or self.action_space.contains(int(action))
        self.count += 1
        self.action = int(abs(np.ravel(action)[0]) * 100) if self.continuous else int(action)
        observation, info = self._observe()
        ended = self.count >= self.length
        return (
            observation,
            float(self.count),
            ended and self.draw % 2 == 0,
            ended and self.draw % 2 == 1,
            info,
        )

    def render(self) -> np.ndarray:
        image = np.random.default_rng(self.draw).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        image[0, 0] = (self.count % 256, self.draw, self.action)
        return image if self.kind != "vector" else image.repeat(2, 0).repeat(2, 1)

    def _observe(self) -> tuple[Any, dict]:
        vector = np.array([self.count, self.draw], np.float32)
        if self.kind == "vector":
            return vector, {}
        frame = self.render()
        if self.kind == "dict":
            return {"frame": frame, "proprio": vector}, {}
        return frame, {"proprio": vector}


if "tests/Counting-v0" not in gymnasium.registry:
    gymnasium.register("tests/Counting-v0", entry_point=CountingEnv)
