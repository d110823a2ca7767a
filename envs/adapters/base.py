"""What all adapters share: one convention of observations, checked actions, calls in order, seeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import error, spaces
from numpy.typing import NDArray

ObservationKind = Literal["frame", "dict"]
HUMAN_SIZE = 256
SEED_LIMIT = 2**32  # numpy's RandomState, which Memory Maze takes, has no larger seeds


@dataclass(frozen=True)
class View:
    """What can be seen and measured at one moment.

    Attributes:
        frame: (H, W, 3) uint8.
        proprio: (P,) what the robot measures of itself, odometry first; None where there is nothing.
        task: (G,) what it is asked for, such as a goal; None where there is nothing.
        extra: More parts of the observation, by name.
    """

    frame: NDArray[np.uint8]
    proprio: NDArray[Any] | None = None
    task: NDArray[Any] | None = None
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class AdaptedEnv(gymnasium.Env[Any, Any], ABC):
    """An environment of another package that observes as RaycastMaze does.

    The observation is the frame (``observation="frame"``) or a Dict of ``frame`` and, where the environment
    has them, ``proprio`` and ``task`` (``observation="dict"``). ``info`` holds ``proprio`` and ``task`` in
    either case. ``reset(seed=s)`` starts the episode of seed ``s``; resets without a seed go on with seeds
    drawn from it.

    Args:
        frame_shape: (H, W, 3).
        action_space: Discrete or Box.
        proprio_space: Space of ``View.proprio``, if there is one.
        task_space: Space of ``View.task``, if there is one.
        extra_spaces: Spaces of ``View.extra``; they are part of every observation.
        observation: ``frame`` or ``dict``.
        render_mode: None or ``rgb_array``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        frame_shape: tuple[int, int, int],
        action_space: spaces.Space[Any],
        proprio_space: spaces.Box | None,
        task_space: spaces.Box | None,
        observation: ObservationKind,
        render_mode: str | None,
        extra_spaces: Mapping[str, spaces.Space[Any]] | None = None,
    ) -> None:
        if observation not in ("frame", "dict"):
            raise ValueError(f"`observation` must be 'frame' or 'dict', got {observation!r}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"`render_mode` must be None or 'rgb_array', got {render_mode!r}.")
        self.render_mode = render_mode
        self.action_space = action_space
        frame_space = spaces.Box(0, 255, frame_shape, np.uint8)
        parts: dict[str, spaces.Space[Any] | None] = {"proprio": proprio_space, "task": task_space}
        self._vectors = {name: space for name, space in parts.items() if space is not None}
        self._extra_names = tuple(extra_spaces or {})
        self._as_dict = observation == "dict" or bool(extra_spaces)
        self.observation_space = (
            spaces.Dict({"frame": frame_space, **self._vectors, **(extra_spaces or {})})
            if self._as_dict
            else frame_space
        )
        self._phase: Literal["new", "playing", "over", "closed"] = "new"

    # --- what each family says ----------------------------------------------------------------------

    @abstractmethod
    def _begin(self, seed: int, options: dict[str, Any] | None) -> dict[str, Any]:
        """Start the episode of ``seed``; gives the info."""

    @abstractmethod
    def _advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        """Take a checked action; gives reward, terminated, truncated and info."""

    @abstractmethod
    def _view(self) -> View:
        """This moment, in arrays that nobody else holds."""

    @abstractmethod
    def _shut(self) -> None:
        """Give back windows and memory."""

    def _picture(self) -> NDArray[np.uint8]:
        """What people look at; the frame, enlarged, unless a family has something better."""
        frame = self._view().frame
        return enlarge(frame, HUMAN_SIZE)

    # --- Gymnasium ----------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see the class for what a seed means."""
        self._check_open()
        super().reset(seed=seed)
        own = int(self.np_random.integers(SEED_LIMIT)) if seed is None else seed % SEED_LIMIT
        info = self._begin(own, options)
        self._phase = "playing"
        return self._observe(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action of ``action_space``.

        Raises:
            gymnasium.error.InvalidAction: Wrong shape or dtype, not finite, or out of range.
            gymnasium.error.ResetNeeded: Before ``reset``, or after the end of the episode.
        """
        self._check_open()
        if self._phase == "new":
            raise error.ResetNeeded("Call reset() first: no episode has begun.")
        if self._phase == "over":
            raise error.ResetNeeded("The episode is over; call reset() before the next step().")
        reward, terminated, truncated, info = self._advance(check_action(self.action_space, action))
        if terminated or truncated:
            self._phase = "over"
        observation, info = self._observe(info)
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> NDArray[np.uint8] | None:
        """A picture for people, if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        self._check_open()
        if self._phase == "new":
            raise error.ResetNeeded("Call reset() first: there is nothing to see yet.")
        return self._picture()

    def close(self) -> None:
        """Refuse every later call; closing twice is no mistake."""
        if self._phase != "closed":
            self._phase = "closed"
            self._shut()

    def _check_open(self) -> None:
        if self._phase == "closed":
            raise error.ClosedEnvironmentError(f"{type(self).__name__} is closed; make a new one.")

    def _observe(self, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        view = self._view()
        vectors = {
            name: np.asarray(getattr(view, name), np.float32).reshape(space.shape)
            for name, space in self._vectors.items()
        }
        info = {**info, **{name: value.copy() for name, value in vectors.items()}}
        if not self._as_dict:
            return view.frame, info
        extra = {name: view.extra[name] for name in self._extra_names}
        return {"frame": view.frame, **vectors, **extra}, info


def check_action(space: spaces.Space[Any], action: Any) -> Any:
    """An integer for a Discrete space, an array in its own dtype for a Box.

    Raises:
        gymnasium.error.InvalidAction: Wrong shape or dtype, not finite, or out of range.
    """
    array = np.asarray(action)
    if isinstance(space, spaces.Discrete):
        if array.shape != () or array.dtype.kind not in "iu":
            raise error.InvalidAction(
                f"An action must be one integer, got {array.dtype} of shape {array.shape}."
            )
        low, high = int(space.start), int(space.start + space.n)
        if not low <= int(array) < high:
            raise error.InvalidAction(f"An action must be in [{low}, {high}), got {int(array)}.")
        return int(array)
    if not isinstance(space, spaces.Box):
        if not space.contains(action):
            raise error.InvalidAction(f"An action must be in {space}, got {action!r}.")
        return action
    if array.shape != space.shape or array.dtype.kind not in "fiu":
        raise error.InvalidAction(
            f"An action must be float of shape {space.shape}, got {array.dtype} of shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise error.InvalidAction(f"An action must be finite, got {array.tolist()}.")
    if (array < space.low).any() or (array > space.high).any():
        raise error.InvalidAction(
            f"An action must be in [{space.low.tolist()}, {space.high.tolist()}], got {array.tolist()}."
        )
    return array.astype(space.dtype)


def check_image_size(image_size: int, smallest: int = 16, largest: int = 512) -> int:
    """Refuse frames that are no frames.

    Raises:
        ValueError: If the size is outside of [smallest, largest].
    """
    if not smallest <= image_size <= largest:
        raise ValueError(f"`image_size` must be in [{smallest}, {largest}], got {image_size!r}.")
    return image_size


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Scale (H, W, 3) uint8 by averaging over areas; always a new array."""
    if frame.shape[:2] == (height, width):
        return np.array(frame, np.uint8)
    pixels = torch.from_numpy(np.array(frame, np.uint8)).permute(2, 0, 1)[None].float()
    scaled = torch.nn.functional.interpolate(pixels, size=(height, width), mode="area")
    result: NDArray[np.uint8] = scaled[0].round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return result


def enlarge(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Repeat pixels until the shorter side has about ``size``."""
    times = max(1, round(size / min(frame.shape[:2])))
    return np.repeat(np.repeat(frame, times, axis=0), times, axis=1)


def relative_pose(start: tuple[NDArray[Any], float], now: tuple[NDArray[Any], float]) -> NDArray[np.float32]:
    """Odometry (ahead, left, sine, cosine): the pose ``now`` seen from the pose ``start``.

    Args:
        start: Position (x, y) and heading in radians, counter-clockwise from x.
        now: The same, later.
    """
    (origin, heading), (position, direction) = start, now
    east, north = np.asarray(position, np.float64) - np.asarray(origin, np.float64)
    cosine, sine, turned = np.cos(heading), np.sin(heading), direction - heading
    return np.array(
        [
            east * cosine + north * sine,
            north * cosine - east * sine,
            np.sin(turned),
            np.cos(turned),
        ],
        np.float32,
    )


def pose_space(reach: float) -> spaces.Box:
    """The space of :func:`relative_pose` where nobody gets farther than ``reach`` in x or y."""
    far = float(np.float32(reach * np.sqrt(2.0) + 1e-3))
    bound = np.array([far, far, 1, 1], np.float32)
    return spaces.Box(-bound, bound, dtype=np.float32)
