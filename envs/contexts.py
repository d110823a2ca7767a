"""Where imagined episodes begin: real frames that a world model has seen before it imagines.

A source draws one context for each seed, and row b of what it draws depends on seed b alone.

Shapes: B episodes, T frames of each, A width of a float action, P odometry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from lssvwm_agents.envs.hashing import derive_seeds, hash_bits
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.raycast_maze import odometry, reset, step
from lssvwm_agents.envs.raycast_render import render
from lssvwm_agents.envs.scripted_policies import make_policy

_POLICY_SEED = 0xC0FFEE
_ATTEMPTS = 32

PlayPolicy = Callable[[Any, np.random.Generator], Any]
"""(observation, generator) -> action of one environment."""


@dataclass(frozen=True)
class Context:
    """Real frames of ``B`` episodes, and what came with them; ``actions[:, t]`` led to frame t.

    Attributes:
        frames: (B, T, H, W, 3) uint8.
        actions: (B, T, A) float; one-hot for discrete actions.
        action_known: (B, T) bool; False where no action led to the frame, as at an episode's first.
        proprio: (B, T, P) float odometry, or None where there is none.
    """

    frames: Tensor
    actions: Tensor
    action_known: Tensor
    proprio: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.frames.shape)
        if len(shape) != 5 or shape[-1] != 3 or shape[1] < 1 or self.frames.dtype != torch.uint8:
            raise ValueError(
                f"`frames` of a context must be (B, T, H, W, 3) uint8, got {self.frames.dtype} of {shape}."
            )
        for name, size in (("actions", 3), ("action_known", 2), ("proprio", 3)):
            tensor = getattr(self, name)
            if tensor is not None and (tensor.ndim != size or tuple(tensor.shape[:2]) != shape[:2]):
                raise ValueError(
                    f"`{name}` of a context must lead with (B, T)={shape[:2]} and have {size} dimensions, "
                    f"got {tuple(tensor.shape)}."
                )


class ContextSource(Protocol):
    """What an imagined environment asks for real frames."""

    @property
    def num_frames(self) -> int:
        """Frames ``T`` of each context."""

    def draw(self, seeds: Tensor) -> Context:
        """One context for each of ``seeds`` (B,) int64; row b depends on ``seeds[b]`` alone."""


@dataclass(frozen=True)
class MazeContexts:
    """Frames of a RaycastMaze that a scripted policy walks through, from the episode's first frame on.

    Attributes:
        config: The mazes; seed s of a context is seed s of the maze.
        policy: Name of a scripted policy.
        num_frames: Frames ``T`` of each context.
        device: Where the mazes are played.
    """

    config: MazeConfig
    policy: str = "explorer"
    num_frames: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)
        make_policy(self.policy, self.config)  # refuses unknown names

    def draw(self, seeds: Tensor) -> Context:
        """Walk; a walk that ends the episode too early is replaced by that of a derived seed.

        Raises:
            ValueError: If episodes end too early again and again.
        """
        seeds = seeds.to(self.device)
        context, ended = self._walk(seeds)
        for attempt in range(1, _ATTEMPTS):
            rows = ended.nonzero()[:, 0]
            if not len(rows):
                return context
            again, ended_again = self._walk(derive_seeds(seeds[rows], attempt))
            context = replace_rows(context, rows, again)
            ended = ended.index_copy(0, rows, ended_again)
        if bool(ended.any()):
            raise _too_short(self.num_frames)
        return context

    def _walk(self, seeds: Tensor) -> tuple[Context, Tensor]:
        policy = make_policy(self.policy, self.config)
        state = reset(self.config, seeds, self.device)
        carry = policy.initial_carry(hash_bits(seeds, _POLICY_SEED), self.device)
        ended = torch.zeros_like(seeds, dtype=torch.bool)
        frames, proprios = [render(self.config, state)], [odometry(self.config, state)]
        actions = [torch.zeros(len(seeds), self.config.action_size, device=seeds.device)]
        for _ in range(self.num_frames - 1):
            action, carry = policy.act(state, carry)
            state, _, terminated = step(self.config, state, action)
            ended = ended | terminated
            frames.append(render(self.config, state))
            proprios.append(odometry(self.config, state))
            taken = action if self.config.continuous else one_hot(action, self.config.action_size)
            actions.append(taken.float())
        return (
            Context(
                torch.stack(frames, 1),
                torch.stack(actions, 1),
                _all_but_the_first(len(seeds), self.num_frames, seeds.device),
                torch.stack(proprios, 1),
            ),
            ended,
        )


@dataclass(frozen=True)
class PlayedContexts:
    """Frames of any registered environment, played one episode after the other.

    The environment's observation is a frame (H, W, 3) uint8, with ``info["proprio"]`` beside it if there is
    odometry, or a Dict of ``frame`` and, if there is odometry, ``proprio``.

    Attributes:
        env_id: Gymnasium id.
        env_kwargs: Its keyword arguments.
        num_frames: Frames ``T`` of each context.
        policy: What plays; None for uniformly random actions.
    """

    env_id: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    num_frames: int = 64
    policy: PlayPolicy | None = None

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)

    def draw(self, seeds: Tensor) -> Context:
        """Play; an episode that ends too early is replaced by that of a derived seed.

        Raises:
            ValueError: If episodes end too early again and again, or the observation holds no frame.
        """
        with gymnasium.make(self.env_id, **self.env_kwargs) as env:
            played = [self._episode(env, seed) for seed in seeds.cpu()]
        return Context(
            frames=torch.stack([one.frames[0] for one in played]),
            actions=torch.stack([one.actions[0] for one in played]),
            action_known=torch.cat([one.action_known for one in played]),
            proprio=None if played[0].proprio is None else torch.stack([one.proprio[0] for one in played]),  # type: ignore[index]
        )

    def _episode(self, env: gymnasium.Env[Any, Any], seed: Tensor) -> Context:
        for attempt in range(_ATTEMPTS):
            context = self._play(env, int(derive_seeds(seed[None], attempt)))
            if context is not None:
                return context
        raise _too_short(self.num_frames)

    def _play(self, env: gymnasium.Env[Any, Any], seed: int) -> Context | None:
        """One episode's first frames, or None where it ended before there were so many."""
        space = env.action_space
        generator = np.random.default_rng([_POLICY_SEED, seed])
        space.seed(int(generator.integers(2**31)))
        observation, info = env.reset(seed=seed)
        seen = [_frame_and_proprio(observation, info)]
        actions = [torch.zeros(action_width(space))]
        while len(seen) < self.num_frames:
            action = space.sample() if self.policy is None else self.policy(observation, generator)
            observation, _, terminated, truncated, info = env.step(action)
            if terminated or (truncated and len(seen) + 1 < self.num_frames):
                return None
            seen.append(_frame_and_proprio(observation, info))
            actions.append(encode_action(space, action))
        proprio = None
        if seen[0][1] is not None:
            proprio = torch.from_numpy(np.stack([one[1] for one in seen]))[None]  # type: ignore[misc]
        return Context(
            frames=torch.from_numpy(np.stack([one[0] for one in seen]))[None],
            actions=torch.stack(actions)[None],
            action_known=_all_but_the_first(1, len(seen), torch.device("cpu")),
            proprio=proprio,
        )


def replace_rows(context: Context, rows: Tensor, new: Context) -> Context:
    """``context`` with its ``rows`` (K,) int64 replaced by those of ``new``."""

    def put(name: str) -> Any:
        old, fresh = getattr(context, name), getattr(new, name)
        return None if old is None else old.index_copy(0, rows, fresh)

    return replace(context, **{name: put(name) for name in ("frames", "actions", "action_known", "proprio")})


def one_hot(index: Tensor, width: int) -> Tensor:
    """(...) int64 -> (..., width) float."""
    return torch.nn.functional.one_hot(index, width).float()


def action_width(space: gymnasium.Space[Any]) -> int:
    """Width ``A`` of a Discrete's or a Box's float action.

    Raises:
        ValueError: If the space is another one.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box):
        return int(np.prod(space.shape))
    raise ValueError(f"an action space must be Discrete or a Box, got {space}.")


def encode_action(space: gymnasium.Space[Any], action: Any) -> Tensor:
    """One action of ``space`` as floats (A,)."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return one_hot(torch.tensor(int(action) - int(space.start)), int(space.n))
    return torch.from_numpy(np.asarray(action, np.float32).reshape(-1).copy())


def _frame_and_proprio(observation: Any, info: dict[str, Any]) -> tuple[Any, Any]:
    frame, proprio = observation, info.get("proprio")
    if isinstance(observation, dict):
        frame, proprio = observation.get("frame"), observation.get("proprio")
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
        raise ValueError(
            "the observation of an environment that gives contexts must be a frame (H, W, 3) uint8 or a Dict "
            f"with one, got {frame.dtype} of {frame.shape}."
        )
    return frame.copy(), None if proprio is None else np.asarray(proprio, np.float32).reshape(-1).copy()


def _all_but_the_first(batch: int, time: int, device: torch.device) -> Tensor:
    known = torch.ones(batch, time, dtype=torch.bool, device=device)
    known[:, 0] = False
    return known


def _check_num_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"`num_frames` of a context must be at least 1, got {num_frames}.")


def _too_short(num_frames: int) -> ValueError:
    return ValueError(
        f"`num_frames` of a context must be less than the frames of an episode, got {num_frames}: "
        f"{_ATTEMPTS} episodes in a row ended before."
    )
