"""RaycastMaze as a Gymnasium vector environment: all mazes in one batch of tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import error
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
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
from lssvwm_agents.envs.raycast_maze import MazeState, reset, step, truncated


class RaycastMazeVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Many RaycastMazes at once; environment i equals the single environment with its seed.

    ``reset(seed=s)`` gives environment i the seed ``s + i``; later episodes use seeds derived from it.
    Truncation after ``max_episode_steps`` happens inside.

    Args:
        num_envs: How many.
        autoreset_mode: When a finished environment starts anew (``gymnasium.vector.AutoresetMode``).
        observation: ``frame`` or ``dict``, as for the single environment.
        layout: Put ``layout`` (num_envs, G, G) uint8 into the infos.
        render_mode: None or ``rgb_array``.
        device: Where the tensors live; observations are numpy arrays in any case.
        settings: Fields of ``MazeConfig``.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        observation: ObservationKind = "frame",
        layout: bool = False,
        render_mode: str | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        check_options(observation, render_mode)
        if num_envs < 1:
            raise ValueError(f"`num_envs` must be at least 1, got {num_envs}.")
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.maze_config: MazeConfig = make_config(settings)
        self.single_observation_space = observation_space(self.maze_config, observation)
        self.single_action_space = action_space(self.maze_config)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._observation, self._layout, self._device = observation, layout, device
        self._state: MazeState | None = None
        self._base_seeds: NDArray[np.int64] | None = None
        self._episodes = np.zeros(num_envs, dtype=np.int64)
        self._over = np.zeros(num_envs, dtype=np.bool_)

    @property
    def maze_state(self) -> MazeState:
        """The current state of all environments."""
        if self._state is None:
            raise error.ResetNeeded("Call reset() first: there are no mazes yet.")
        return self._state

    def ask_for(self, targets: NDArray[np.int64]) -> tuple[Any, dict[str, Any]]:
        """Let other targets, (num_envs,) of them, pay from now on.

        Returns:
            The observation and infos of the same moment, in which the frames' borders ask for them.

        Raises:
            ValueError: If a maze has no such target.
        """
        asked = np.asarray(targets)
        count = self.maze_config.num_targets
        if asked.shape != (self.num_envs,) or not ((asked >= 0) & (asked < count)).all():
            raise ValueError(
                f"`targets` must be ({self.num_envs},) numbers in [0, {count - 1}], got {asked.tolist()}."
            )
        current = torch.from_numpy(asked.astype(np.int64)).to(self._device)
        self._state = replace(self.maze_state, current_target=current)
        return self._observe()

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        observation, info = observe(self.maze_config, self.maze_state, self._observation, self._layout)
        return observation, self._with_masks(info, np.ones(self.num_envs, dtype=np.bool_))

    def _with_masks(self, info: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
        return {**info, **{f"_{key}": mask.copy() for key in info}}

    def _start(self, rows: NDArray[np.int64]) -> None:
        """Begin the episodes numbered ``self._episodes`` in the given rows."""
        assert self._base_seeds is not None
        seeds = derive_seeds(torch.from_numpy(self._base_seeds[rows]), torch.from_numpy(self._episodes[rows]))
        fresh = reset(self.maze_config, seeds, self._device)
        if self._state is None or rows.size == self.num_envs:
            self._state = fresh
        else:
            self._state = self._state.replace_rows(torch.from_numpy(rows).to(self._device), fresh)

    def _next_episode(self, rows: NDArray[np.int64]) -> None:
        self._episodes[rows] += 1
        self._start(rows)

    def _take_seeds(self, seed: int | list[int | None] | None, mask: NDArray[np.bool_]) -> None:
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"`seed` must hold num_envs={self.num_envs} seeds, got {len(seeds)}.")
        first = self._base_seeds is None
        if self._base_seeds is None:
            self._base_seeds = self.np_random.integers(SEED_LIMIT, size=self.num_envs, dtype=np.int64)
        for row in np.flatnonzero(mask):
            given = seeds[row]
            if given is not None:
                self._base_seeds[row], self._episodes[row] = given % SEED_LIMIT, 0
            elif not first:
                self._episodes[row] += 1

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start all episodes, or those that ``options["reset_mask"]`` (num_envs,) bool names."""
        check_open(self, self.closed)
        if isinstance(seed, int):
            super().reset(seed=seed)
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            mask = options["reset_mask"]
            if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
                raise ValueError(f"`reset_mask` must be bool of shape ({self.num_envs},), got {mask!r}.")
            if not mask.any():
                raise ValueError("`reset_mask` must name at least one environment, got none.")
            if self._state is None and not mask.all():
                raise error.ResetNeeded("Reset all environments once before resetting some of them.")
        self._take_seeds(seed, mask)
        self._over[mask] = False
        self._start(np.flatnonzero(mask))
        return self._observe()

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one action in every environment: (num_envs,) integers, or (num_envs, 2) floats."""
        check_open(self, self.closed)
        state = self.maze_state
        if self.autoreset_mode is AutoresetMode.DISABLED and self._over.any():
            rows = np.flatnonzero(self._over).tolist()
            raise error.ResetNeeded(f"Episodes are over in rows {rows}; reset them with `reset_mask`.")
        batch = check_action(self.maze_config, actions, (self.num_envs,)).to(self._device)
        self._state, reward_B, terminated_B = step(self.maze_config, state, batch)
        rewards = reward_B.cpu().numpy().astype(np.float64)
        terminations = terminated_B.cpu().numpy().copy()
        truncations = truncated(self.maze_config, self._state).cpu().numpy().copy()
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._over.any():
            restarted = np.flatnonzero(self._over)
            self._next_episode(restarted)
            rewards[restarted], terminations[restarted], truncations[restarted] = 0.0, False, False
        self._over = terminations | truncations
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._over.any():
            final = self._final(self._over.copy())
            self._next_episode(np.flatnonzero(self._over))
        observation, info = self._observe()
        return observation, rewards, terminations, truncations, {**info, **final}

    def _final(self, over: NDArray[np.bool_]) -> dict[str, Any]:
        """Last observations and infos of the episodes that ended in this step, as Gymnasium lays them out."""
        rows = np.flatnonzero(over)
        ended = self.maze_state.select(torch.from_numpy(rows).to(self._device))
        observation, info = observe(self.maze_config, ended, self._observation, self._layout)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for place, row in enumerate(rows):
            if isinstance(observation, dict):
                final_obs[row] = {key: value[place] for key, value in observation.items()}
            else:
                final_obs[row] = observation[place]
        spread = {}
        for key, value in info.items():
            spread[key] = np.zeros((self.num_envs, *value.shape[1:]), dtype=value.dtype)
            spread[key][rows] = value
        return {
            "final_obs": final_obs,
            "_final_obs": over,
            "final_info": self._with_masks(spread, over),
            "_final_info": over.copy(),
        }

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Frame and map side by side for every environment, if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        check_open(self, self.closed)
        return tuple(human_view(self.maze_config, self.maze_state))
