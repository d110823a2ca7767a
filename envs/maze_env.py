"""RaycastMaze as a Gymnasium environment: a thin shell around the batched rules with a batch of one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import error
from numpy.typing import NDArray

from lssvwm_agents.envs.hashing import derive_seeds
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.maze_shell import (
    SEED_LIMIT,
    ObservationKind,
    action_space,
    check_action,
    check_open,
    check_options,
    human_view,
    make_config,
    observation_space,
    observe,
)
from lssvwm_agents.envs.raycast_maze import MazeState, reset, step


class RaycastMazeEnv(gymnasium.Env[Any, Any]):
    """Find the target whose colour the frame's border shows (one environment).

    ``gymnasium.make`` truncates through its own ``TimeLimit``; a directly made environment truncates only if
    ``max_episode_steps`` is given here. ``reset(seed=s)`` starts the episode of seed ``s``; later resets
    without a seed continue with seeds derived from it. Seeds from 2**40 on are those of the mazes that
    `lssvwm train` renders: give smaller ones to score an agent in mazes that it has never seen.

    Args:
        observation: ``frame`` (S, S, 3) uint8, or ``dict`` of ``frame`` and ``proprio``.
        layout: Put ``layout`` (G, G) uint8, 1 for walls, [y, x] with y up, into the info.
        render_mode: None or ``rgb_array`` (frame and map side by side, 256 x 512).
        max_episode_steps: Steps before truncation; None for no limit of its own.
        device: Where the tensors live.
        settings: Fields of ``MazeConfig``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        observation: ObservationKind = "frame",
        layout: bool = False,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        check_options(observation, render_mode)
        if max_episode_steps is not None:
            settings["max_episode_steps"] = max_episode_steps
        self.maze_config: MazeConfig = make_config(settings)
        self.render_mode = render_mode
        self.observation_space = observation_space(self.maze_config, observation)
        self.action_space = action_space(self.maze_config)
        self._observation, self._layout, self._device = observation, layout, device
        self._limit = max_episode_steps
        self._state: MazeState | None = None
        self._base_seed: int | None = None
        self._episode = 0
        self._over = False
        self._closed = False

    @property
    def maze_state(self) -> MazeState:
        """The current state, with a batch of one."""
        if self._state is None:
            raise error.ResetNeeded("Call reset() first: there is no maze yet.")
        return self._state

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        observation, info = observe(self.maze_config, self.maze_state, self._observation, self._layout)
        if isinstance(observation, dict):
            return {key: value[0] for key, value in observation.items()}, {k: v[0] for k, v in info.items()}
        return observation[0], {key: value[0] for key, value in info.items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see the class for what a seed means."""
        check_open(self, self._closed)
        super().reset(seed=seed)
        if seed is not None:
            self._base_seed, self._episode = seed % SEED_LIMIT, 0
        elif self._base_seed is None:
            self._base_seed, self._episode = int(self.np_random.integers(SEED_LIMIT)), 0
        else:
            self._episode += 1
        seeds = derive_seeds(torch.tensor([self._base_seed]), self._episode)
        self._state, self._over = reset(self.maze_config, seeds, self._device), False
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action: an integer in [0, 6), or two floats in [-1, 1]."""
        check_open(self, self._closed)
        if self._over:
            raise error.ResetNeeded("The episode is over; call reset() before the next step().")
        state = self.maze_state
        batch = check_action(self.maze_config, action, ()).unsqueeze(0).to(self._device)
        self._state, reward, terminated = step(self.maze_config, state, batch)
        ended = bool(terminated)
        truncated = self._limit is not None and int(self._state.step_count) >= self._limit
        self._over = ended or truncated
        observation, info = self._observe()
        return observation, float(reward), ended, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Frame and map side by side, if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        check_open(self, self._closed)
        view: NDArray[np.uint8] = human_view(self.maze_config, self.maze_state)[0]
        return view

    def close(self) -> None:
        """Refuse every later call."""
        self._closed = True
