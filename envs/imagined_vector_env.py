"""A world model as a Gymnasium vector environment: many imagined episodes in one batch."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import error, spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_agents.envs.contexts import ContextSource
from lssvwm_agents.envs.imagined_spaces import (
    ImaginedObservation,
    imagined_action_space,
    imagined_observation_space,
    read_actions,
)
from lssvwm_agents.envs.imagined_view import ArrayType, ImaginedView, hand_over
from lssvwm_agents.envs.imagined_worlds import ImaginedMoment, ImaginedWorlds, Termination
from lssvwm_agents.envs.maze_shell import SEED_LIMIT, check_open
from lssvwm_agents.worldmodel import WorldModel


class ImaginedVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Live in what a world model imagines (many environments in one batch).

    Environment i is :class:`ImaginedEnv` with its seed, and does not depend on the others, up to the rounding
    of a batched matrix product. ``reset(seed=s)`` gives environment i the seed ``s + i``. Truncation after
    ``max_episode_steps`` happens inside.

    Args:
        model: As for :class:`ImaginedEnv`, and so are all that are not named here.
        num_envs: How many.
        contexts: Where episodes begin; None for a cold state.
        autoreset_mode: When a finished environment begins anew (``gymnasium.vector.AutoresetMode``).
        observation: ``frame``, ``latent``, ``features`` or ``dict``.
        termination: ``sampled``, ``threshold`` or ``never``.
        threshold: Of ``termination="threshold"``.
        num_denoising_steps: Of every imagined frame.
        max_episode_steps: Steps before truncation; None for no limit.
        num_starts: Draw episodes from so many beginnings only, kept in memory, so that a reset costs next to
            nothing; None for a context of its own for each episode.
        array_type: ``numpy``, or ``torch``: then observations, rewards, ends and infos are tensors on the
            model's device (``final_obs`` is Gymnasium's array of objects, each a tensor).
        action_space: Of one environment.
        render_mode: None or ``rgb_array``.

    Raises:
        ValueError: If an argument is out of range or does not fit the model.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        model: WorldModel,
        num_envs: int = 1,
        contexts: ContextSource | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        observation: ImaginedObservation = "frame",
        termination: Termination = "sampled",
        threshold: float = 0.5,
        num_denoising_steps: int = 1,
        max_episode_steps: int | None = None,
        num_starts: int | None = None,
        array_type: ArrayType = "numpy",
        action_space: spaces.Space[Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"`num_envs` must be at least 1, got {num_envs}.")
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.worlds = ImaginedWorlds(
            model, contexts, num_denoising_steps, termination, threshold, max_episode_steps, num_starts
        )
        self.view = ImaginedView(self.worlds, observation, array_type, render_mode)
        self.render_mode = render_mode
        self.single_observation_space = imagined_observation_space(model, observation)
        self.single_action_space = imagined_action_space(model.config, action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._moment: ImaginedMoment | None = None

    # --- moments ----------------------------------------------------------------------------------

    @property
    def moment(self) -> ImaginedMoment:
        """The current moment of all environments."""
        check_open(self, self.closed)
        if self._moment is None:
            raise error.ResetNeeded("Call reset() first: no episode has begun yet.")
        return self._moment

    def get_state(self) -> ImaginedMoment:
        """This moment, to go back to by :meth:`set_state`; it may be pickled."""
        return self.moment

    def set_state(self, moment: ImaginedMoment) -> tuple[Any, dict[str, Any]]:
        """Go back to a moment of this or another environment of the same model; gives what is seen there.

        Raises:
            ValueError: If the moment is of another model, or does not hold ``num_envs`` episodes.
        """
        check_open(self, self.closed)
        self._moment = self.worlds.check_moment(moment, self.num_envs)
        return self._observe(self._moment)

    def _observe(self, moment: ImaginedMoment) -> tuple[Any, dict[str, Any]]:
        observation, info = self.view.observe(moment)
        return observation, self._with_masks(info, torch.ones_like(moment.over))

    def _with_masks(self, info: dict[str, Any], mask: Tensor) -> dict[str, Any]:
        masks = {f"_{key}": hand_over(mask, self.view.array_type) for key in info}
        return {**info, **masks}

    def _next_episode(self, moment: ImaginedMoment, rows: Tensor) -> ImaginedMoment:
        fresh = self.worlds.start(moment.base_seed[rows], moment.episode[rows] + 1)
        return fresh if len(rows) == self.num_envs else moment.replace_rows(rows, fresh)

    # --- Gymnasium --------------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin all episodes, or those that ``options["reset_mask"]`` (num_envs,) bool names."""
        check_open(self, self.closed)
        if isinstance(seed, int):
            super().reset(seed=seed)
        mask = self._reset_mask(options)
        base, episode = self._seeds(seed)
        rows = torch.from_numpy(np.flatnonzero(mask))
        fresh = self.worlds.start(base[rows], episode[rows])
        if self._moment is None or mask.all():
            self._moment = fresh
        else:
            self._moment = self._moment.replace_rows(rows.to(self.worlds.device), fresh)
        return self._observe(self._moment)

    def _reset_mask(self, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if isinstance(mask, Tensor):
            mask = mask.cpu().numpy()
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(f"`reset_mask` must be bool of shape ({self.num_envs},), got {mask!r}.")
        if not mask.any():
            raise ValueError("`reset_mask` must name at least one environment, got none.")
        if self._moment is None and not mask.all():
            raise error.ResetNeeded("Reset all environments once before resetting some of them.")
        return mask

    def _seeds(self, seed: int | list[int | None] | None) -> tuple[Tensor, Tensor]:
        """Seeds and episode numbers of the environments, were all to begin anew: (B,) and (B,) int64."""
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"`seed` must hold num_envs={self.num_envs} seeds, got {len(seeds)}.")
        if self._moment is None:
            base = torch.from_numpy(self.np_random.integers(SEED_LIMIT, size=self.num_envs, dtype=np.int64))
            episode = torch.zeros_like(base)
        else:
            base, episode = self._moment.base_seed.cpu().clone(), self._moment.episode.cpu() + 1
        for row, given in enumerate(seeds):
            if given is not None:
                base[row], episode[row] = given % SEED_LIMIT, 0
        return base, episode

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Imagine one frame in every environment, under (num_envs,) integers or (num_envs, A) floats.

        Raises:
            gymnasium.error.InvalidAction: If an action is outside the space.
            gymnasium.error.ResetNeeded: If no episode has begun, or, with autoreset disabled, one is over.
        """
        before = self.moment
        taken = read_actions(self.single_action_space, actions, (self.num_envs,), self.worlds.device)
        over = bool(before.over.any())
        if over and self.autoreset_mode is AutoresetMode.DISABLED:
            rows = before.over.nonzero()[:, 0].tolist()
            raise error.ResetNeeded(f"Episodes are over in rows {rows}; reset them with `reset_mask`.")
        moment, reward, terminated, truncated = self.worlds.step(before, taken)
        if over and self.autoreset_mode is AutoresetMode.NEXT_STEP:
            moment = self._next_episode(moment, before.over.nonzero()[:, 0])
            reward = torch.where(before.over, 0.0, reward)
            terminated, truncated = terminated & ~before.over, truncated & ~before.over
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and bool(moment.over.any()):
            final = self._final(moment)
            moment = self._next_episode(moment, moment.over.nonzero()[:, 0])
        self._moment = moment
        observation, info = self._observe(moment)
        numpy = self.view.array_type == "numpy"
        return (
            observation,
            hand_over(reward.double() if numpy else reward, self.view.array_type),
            hand_over(terminated, self.view.array_type),
            hand_over(truncated, self.view.array_type),
            {**info, **final},
        )

    def _final(self, moment: ImaginedMoment) -> dict[str, Any]:
        """Last observations and infos of the episodes that are over, as Gymnasium lays them out."""
        rows = moment.over.nonzero()[:, 0]
        observation, info = self.view.observe(moment.select(rows))
        final_obs = np.full(self.num_envs, None, dtype=object)
        for place, row in enumerate(rows.tolist()):
            if isinstance(observation, dict):
                final_obs[row] = {key: value[place] for key, value in observation.items()}
            else:
                final_obs[row] = observation[place]
        return {
            "final_obs": final_obs,
            "_final_obs": hand_over(moment.over, self.view.array_type),
            "final_info": self._with_masks(
                {key: self._spread(value, rows) for key, value in info.items()}, moment.over
            ),
            "_final_info": hand_over(moment.over, self.view.array_type),
        }

    def _spread(self, value: Any, rows: Tensor) -> Any:
        """(K, ...) of ``rows`` -> (num_envs, ...), zeros elsewhere."""
        shape = (self.num_envs, *value.shape[1:])
        if isinstance(value, Tensor):
            return value.new_zeros(shape).index_copy(0, rows, value)
        spread = np.zeros(shape, dtype=value.dtype)
        spread[rows.cpu().numpy()] = value
        return spread

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The decoded frames, each enlarged to (256, 256, 3), if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        return tuple(self.view.enlarged(self.moment))
