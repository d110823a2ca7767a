"""Play RaycastMaze episodes by the same rules for every policy: look around first, then score.

Shapes: B mazes side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from lssvwm_agents.agents import PlanningAgent, PlanningCarry
from lssvwm_agents.evaluate.environments import make_envs
from lssvwm_agents.seeding import fold_in


class MazePolicy(Protocol):
    """A policy that sees the maze's true state: the scripted ones of :mod:`lssvwm_agents.envs`."""

    def initial_carry(self, seeds: torch.Tensor, device: torch.device | str) -> Any:
        """Remember nothing yet; ``seeds`` (B,) int64 fix each row's choices."""
        ...

    def act(self, state: Any, carry: Any) -> tuple[torch.Tensor, Any]:
        """Choose (B,) or (B, A) actions."""
        ...


class HeldRandom:
    """Draw uniform actions and hold each for ``action_repeat`` moves, as the planner holds its decisions.

    A stricter control than moves that are random one by one: held moves travel further.

    Args:
        random: The policy that draws.
        action_repeat: Moves for which each action is held.
    """

    def __init__(self, random: MazePolicy, action_repeat: int) -> None:
        if action_repeat < 1:
            raise ValueError(f"`action_repeat` must be at least 1, got {action_repeat}.")
        self.random = random
        self.action_repeat = action_repeat

    def initial_carry(
        self, seeds: torch.Tensor, device: torch.device | str
    ) -> tuple[Any, torch.Tensor | None, int]:
        """The random policy's carry, the held action, and for how many more moves it is held."""
        return self.random.initial_carry(seeds, device), None, 0

    def act(
        self, state: Any, carry: tuple[Any, torch.Tensor | None, int]
    ) -> tuple[torch.Tensor, tuple[Any, torch.Tensor | None, int]]:
        """Hold the last action, or draw a new one."""
        inner, held, remaining = carry
        if held is None or remaining == 0:
            held, inner = self.random.act(state, inner)
            remaining = self.action_repeat
        return held, (inner, held, remaining - 1)


def episode_seeds(seed: int, count: int) -> list[int]:
    """One seed per episode, in [2**31, 2**32): others for every ``seed``, and never one of training.

    Stores are collected with seeds below 2**31, and mazes rendered for training have seeds from 2**40 on.
    """
    return [2**31 + fold_in(seed, index) % 2**31 for index in range(count)]


def make_mazes(
    env_id: str, num_envs: int, num_moves: int, kwargs: dict[str, Any]
) -> gymnasium.vector.VectorEnv:
    """Make ``num_envs`` mazes that last for more than ``num_moves`` moves.

    Raises:
        ValueError: If the environment is unknown, or none whose true state the scripted policies can read.
    """
    env = make_envs(env_id, num_envs, {**kwargs, "max_episode_steps": num_moves + 1})
    if not hasattr(env.unwrapped, "maze_config"):
        raise ValueError(
            f"{env_id} is no RaycastMaze, and explorer and oracle know only those: "
            "use `lssvwm plan` to see a planner's score in it."
        )
    return env


def maze_of(env: gymnasium.vector.VectorEnv) -> tuple[Any, Any]:
    """The environment's :class:`MazeConfig` and present :class:`MazeState`."""
    inner = env.unwrapped
    return inner.maze_config, inner.maze_state  # type: ignore[attr-defined]


def seeds_tensor(seeds: list[int], salt: int) -> torch.Tensor:
    """(B,) int64 seeds of a policy's choices, independent of the mazes' own and of other ``salt``."""
    return torch.tensor([fold_in(seed, salt) % 2**31 for seed in seeds], dtype=torch.int64)


def look_around(
    env: gymnasium.vector.VectorEnv,
    seeds: list[int],
    num_moves: int,
    agent: PlanningAgent | None = None,
    carry: PlanningCarry | None = None,
    visit: Callable[[Any], None] | None = None,
    guide: str = "explorer",
) -> tuple[Any, PlanningCarry | None]:
    """Reset the mazes and let a scripted policy drive, while the agent, if there is one, watches.

    Args:
        env: From :func:`make_mazes`.
        seeds: One per maze.
        num_moves: Moves of the guide; the same for the same seeds, whoever watches.
        agent: Who watches.
        carry: The agent's, fresh.
        visit: Called with every observation before the last.
        guide: Name of the scripted policy that drives.

    Returns:
        The observation after the last move, which the agent has not seen yet, and its carry.
    """
    from lssvwm_agents.envs import make_policy

    observation, _ = env.reset(seed=seeds)  # type: ignore[arg-type]
    driver = make_policy(guide, maze_of(env)[0])
    memory = driver.initial_carry(seeds_tensor(seeds, 1), "cpu")
    for _ in range(num_moves):
        if visit is not None:
            visit(observation)
        action, memory = driver.act(maze_of(env)[1], memory)
        if agent is not None:
            assert carry is not None
            carry = agent.record_action(agent.observe(observation, carry), action)
        observation, _, terminated, truncated, _ = env.step(np.asarray(action))
        require_going_on(terminated, truncated)
    return observation, carry


def require_going_on(terminated: Any, truncated: Any) -> None:
    """Refuse mazes that end before the last scored move: their scores could not be compared."""
    if bool(np.any(np.asarray(terminated))) or bool(np.any(np.asarray(truncated))):
        raise ValueError(
            "this environment ended an episode before the last scored move: use one that does not terminate, "
            "such as lssvwm/RaycastMaze-9x9-v0, or fewer --steps."
        )
