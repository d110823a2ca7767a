"""What the single and the vector environment share: spaces, checked actions, observations, seeds."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import error, spaces
from numpy.typing import NDArray

from lssvwm_agents.envs.maze_config import NUM_DISCRETE_ACTIONS, MazeConfig
from lssvwm_agents.envs.raycast_maze import MazeState, odometry
from lssvwm_agents.envs.raycast_render import render
from lssvwm_agents.envs.top_down import render_top_down

ObservationKind = Literal["frame", "dict"]
HUMAN_SIZE = 256
SEED_LIMIT = 1 << 62


def make_config(settings: dict[str, Any]) -> MazeConfig:
    """Make a configuration from keyword arguments of ``gymnasium.make``.

    Raises:
        ValueError: A keyword is no field of ``MazeConfig``, or a value is outside its range.
    """
    known = [field.name for field in fields(MazeConfig)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"A maze has no setting {unknown[0]!r}; it has {', '.join(known)}.")
    return MazeConfig(**settings)


def check_options(observation: str, render_mode: str | None) -> None:
    """Refuse unknown observation kinds and render modes."""
    if observation not in ("frame", "dict"):
        raise ValueError(f"`observation` must be 'frame' or 'dict', got {observation!r}.")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"`render_mode` must be None or 'rgb_array', got {render_mode!r}.")


def action_space(config: MazeConfig) -> spaces.Space[Any]:
    """Discrete(6), or Box(2) of speed and turn in [-1, 1]."""
    if config.continuous:
        return spaces.Box(-1.0, 1.0, (2,), np.float32)
    return spaces.Discrete(NUM_DISCRETE_ACTIONS)


def observation_space(config: MazeConfig, observation: ObservationKind) -> spaces.Space[Any]:
    """A frame (S, S, 3) uint8, or a Dict of ``frame`` and ``proprio`` (4,) float32."""
    frame = spaces.Box(0, 255, (config.image_size, config.image_size, 3), np.uint8)
    if observation == "frame":
        return frame
    bound = np.array([config.grid_size, config.grid_size, 1, 1], dtype=np.float32)
    return spaces.Dict({"frame": frame, "proprio": spaces.Box(-bound, bound, dtype=np.float32)})


def check_action(config: MazeConfig, action: Any, batch: tuple[int, ...]) -> torch.Tensor:
    """Turn actions of shape ``batch`` (+ (2,) if continuous) into a tensor.

    Raises:
        gymnasium.error.InvalidAction: Wrong shape or dtype, not finite, or out of range.
    """
    array = np.asarray(action)
    expected = (*batch, 2) if config.continuous else batch
    wanted = "float" if config.continuous else "integer"
    if array.shape != expected or array.dtype.kind not in ("f" if config.continuous else "iu"):
        raise error.InvalidAction(
            f"An action must be {wanted} of shape {expected}, got {array.dtype} of shape {array.shape}."
        )
    if config.continuous:
        if not np.isfinite(array).all():
            raise error.InvalidAction(f"An action must be finite, got {array.tolist()}.")
        if (np.abs(array) > 1).any():
            raise error.InvalidAction(f"An action must be in [-1, 1], got {array.tolist()}.")
        return torch.from_numpy(array.astype(np.float32))
    if ((array < 0) | (array >= NUM_DISCRETE_ACTIONS)).any():
        raise error.InvalidAction(f"An action must be in [0, {NUM_DISCRETE_ACTIONS}), got {array.tolist()}.")
    return torch.from_numpy(array.astype(np.int64))


def observe(
    config: MazeConfig, state: MazeState, observation: ObservationKind, layout: bool
) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Give observations and infos with a leading batch dimension, as fresh numpy arrays."""
    frames = render(config, state).cpu().numpy()
    proprio = odometry(config, state).cpu().numpy()
    info: dict[str, NDArray[Any]] = {"proprio": proprio.copy()}
    if layout:
        info["layout"] = state.walls.to(torch.uint8).cpu().numpy().copy()
    return (frames if observation == "frame" else {"frame": frames, "proprio": proprio}), info


def human_view(config: MazeConfig, state: MazeState) -> NDArray[np.uint8]:
    """Frame, enlarged, beside the map: (B, 256, 512, 3)."""
    frames = render(config, state).permute(0, 3, 1, 2)
    frames = torch.nn.functional.interpolate(frames, size=(HUMAN_SIZE, HUMAN_SIZE), mode="nearest")
    maps = render_top_down(config, state, HUMAN_SIZE)
    view: NDArray[np.uint8] = torch.cat([frames.permute(0, 2, 3, 1), maps], dim=2).cpu().numpy()
    return view


def check_open(env: object, closed: bool) -> None:
    """Refuse to work after ``close``."""
    if closed:
        raise error.ClosedEnvironmentError(f"{type(env).__name__} is closed; make a new one.")
