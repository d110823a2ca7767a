"""A world model as a Gymnasium environment: one imagined episode at a time."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import error, spaces
from numpy.typing import NDArray

from lssvwm_agents.envs.contexts import ContextSource
from lssvwm_agents.envs.imagined_spaces import (
    ImaginedObservation,
    imagined_action_space,
    imagined_observation_space,
    read_actions,
)
from lssvwm_agents.envs.imagined_view import ArrayType, ImaginedView, first_row
from lssvwm_agents.envs.imagined_worlds import ImaginedMoment, ImaginedWorlds, Termination
from lssvwm_agents.envs.maze_shell import SEED_LIMIT, check_open
from lssvwm_agents.worldmodel import WorldModel


class ImaginedEnv(gymnasium.Env[Any, Any]):
    """Live in what a world model imagines (one environment).

    An episode begins with a context: real frames that the model observes. The observation of ``reset`` is
    the last of them, as the tokenizer keeps it; every ``step`` imagines the frame that the action leads to.
    Reward and end come from the model's heads. ``info`` holds ``continuation``, the model's probability that
    the episode goes on, and ``proprio`` (P,), if the model has odometry.

    ``reset(seed=s)`` begins the episode of seed ``s``; later resets without a seed continue with seeds
    derived from it. Context, noise and sampled ends follow from the seed alone.

    Args:
        model: The world model. Environments may share one: it holds nothing of their episodes.
        contexts: Where episodes begin; None for a cold state, in which the first frame is imagined too.
        observation: ``frame``: decoded, (S, S, 3) uint8; ``latent``: (C, h, w) float32; ``features``: (F,)
            float32, what the heads see; ``dict``: ``frame`` and ``proprio`` (P,).
        termination: ``sampled``: ends with probability 1 - continuation, so that expected returns are the
            model's; ``threshold``: ends where continuation is below ``threshold``; ``never``.
        threshold: Of ``termination="threshold"``.
        num_denoising_steps: Of every imagined frame: 1 imagines the mean of what may come, as planners do,
            and blurs with time; 8 or more sample it, and stay sharp.
        max_episode_steps: Steps before truncation; None for no limit (``gymnasium.make`` adds its own).
        num_starts: Draw episodes from so many beginnings only, kept in memory, so that a reset costs next to
            nothing; None for a context of its own for each episode.
        array_type: ``numpy``, or ``torch`` for observations and infos as tensors on the model's device.
        action_space: Of one environment; None for Discrete(A) or a Box of [-1, 1].
        render_mode: None or ``rgb_array``: the decoded frame, enlarged to 256 x 256.

    Raises:
        ValueError: If an argument is out of range or does not fit the model.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        model: WorldModel,
        contexts: ContextSource | None = None,
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
        self.worlds = ImaginedWorlds(
            model, contexts, num_denoising_steps, termination, threshold, max_episode_steps, num_starts
        )
        self.view = ImaginedView(self.worlds, observation, array_type, render_mode)
        self.render_mode = render_mode
        self.observation_space = imagined_observation_space(model, observation)
        self.action_space = imagined_action_space(model.config, action_space)
        self._moment: ImaginedMoment | None = None
        self._closed = False

    @property
    def moment(self) -> ImaginedMoment:
        """The current moment, with a batch of one."""
        check_open(self, self._closed)
        if self._moment is None:
            raise error.ResetNeeded("Call reset() first: no episode has begun yet.")
        return self._moment

    def get_state(self) -> ImaginedMoment:
        """This moment, to go back to by :meth:`set_state`; it may be pickled."""
        return self.moment

    def set_state(self, moment: ImaginedMoment) -> tuple[Any, dict[str, Any]]:
        """Go back to a moment of this or another environment of the same model; gives what is seen there.

        Raises:
            ValueError: If the moment is of another model, or holds more than one episode.
        """
        check_open(self, self._closed)
        self._moment = self.worlds.check_moment(moment, 1)
        return self._observe()

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        observation, info = self.view.observe(self.moment)
        return first_row(observation), first_row(info)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see the class for what a seed means."""
        check_open(self, self._closed)
        super().reset(seed=seed)
        if seed is not None:
            base, episode = torch.tensor([seed % SEED_LIMIT]), torch.tensor([0])
        elif self._moment is None:
            base, episode = torch.tensor([int(self.np_random.integers(SEED_LIMIT))]), torch.tensor([0])
        else:
            base, episode = self._moment.base_seed, self._moment.episode + 1
        self._moment = self.worlds.start(base, episode)
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Imagine the frame that the action leads to.

        Raises:
            gymnasium.error.InvalidAction: If the action is outside the space.
            gymnasium.error.ResetNeeded: If no episode has begun, or it is over.
        """
        moment = self.moment
        if bool(moment.over):
            raise error.ResetNeeded("The episode is over; call reset() before the next step().")
        taken = read_actions(self.action_space, action, (), self.worlds.device)
        self._moment, reward, terminated, truncated = self.worlds.step(moment, taken)
        observation, info = self._observe()
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> NDArray[np.uint8] | None:
        """The decoded frame, enlarged to (256, 256, 3), if ``render_mode`` asks for it."""
        if self.render_mode is None:
            return None
        frame: NDArray[np.uint8] = self.view.enlarged(self.moment)[0]
        return frame

    def close(self) -> None:
        """Refuse every later call."""
        self._closed = True
