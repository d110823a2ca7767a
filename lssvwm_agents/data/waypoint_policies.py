"""Policies called ``waypoints``: along shortest paths through the mazes of other packages, noisily.

They know the whole maze; each slot of the vector environment is independent of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lssvwm_agents.envs.adapters.walkers import MazeWalker, MemoryGuesser
from lssvwm_agents.envs.adapters.waypoints import WaypointController
from lssvwm_agents.errors import UserError
from lssvwm_agents.seeding import fold_in

VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


class Walker(Protocol):
    """Plays one episode in an environment that tells its ``situation()``."""

    def act(self, now: Any, /) -> Any:
        """The next move."""


class PointMazeWaypoints:
    """Goes to a PointMaze's goal and stays or, one time in four, to a random cell and then on; with noise.

    Its noise lasts some steps, and how strong it is each episode draws anew: the episodes reach far and keep
    bumping into walls. Most of them end at the goal, so that the value of being on the way there is plain.
    One in four begins by pushing straight at the goal, whatever lies between: who follows a reward that
    grows as the crow flies ends at such walls, and what they are worth must be in the data. Another begins by
    pushing about, each push held for some actions: a model that never saw a ball pressed into a corner lets
    it creep through the walls, and policies find that.
    """

    ELSEWHERE = 0.25
    NOISE_KEPT = 0.8
    REACHED = 0.2  # metres
    STRAIGHT, STRAIGHT_ACTIONS = 1 / 4, (5, 30)
    ABOUT, ABOUT_ACTIONS = 1 / 4, (20, 80)
    HELD, HELD_FORCE = (4, 20), (0.1, 1.4)

    def __init__(self, envs: VectorEnv) -> None:
        """Play in ``envs``, which must be ``lssvwm/PointMaze`` environments with Dict observations."""
        spec = envs.spec
        assert spec is not None
        of_vectors = ("num_envs", "vectorization_mode", "vector_kwargs")
        one = gymnasium.make(spec.id, **{k: v for k, v in spec.kwargs.items() if k not in of_vectors})
        self._controller = WaypointController(one.unwrapped.inner.unwrapped.maze)  # type: ignore[attr-defined]
        one.close()
        self._slots: list[dict[str, Any]] = [{} for _ in range(envs.num_envs)]

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Draw where the episodes of ``slots`` go, and how noisily."""
        for slot, seed in zip(slots, seeds, strict=True):
            draws = np.random.default_rng(fold_in(seed, 3))
            self._slots[slot] = {
                "draws": draws,
                "cell": self._next_cell(draws),
                "arrived": False,
                **self._beginning(draws),
                "held": 0,
                "strength": draws.uniform(0.0, 1.0),
                "noise": np.zeros(2),
            }

    def _next_cell(self, draws: np.random.Generator) -> tuple[int, int] | None:
        """A random cell, or None for the goal."""
        free = self._controller.free
        return free[int(draws.integers(len(free)))] if draws.random() < self.ELSEWHERE else None

    def _beginning(self, draws: np.random.Generator) -> dict[str, int]:
        """Actions for which an episode pushes straight at the goal, or about; most do neither."""
        kind = draws.random()
        straight = int(draws.integers(*self.STRAIGHT_ACTIONS)) if kind < self.STRAIGHT else 0
        about = self.STRAIGHT <= kind < self.STRAIGHT + self.ABOUT
        return {"straight": straight, "about": int(draws.integers(*self.ABOUT_ACTIONS)) if about else 0}

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """Push each point."""
        pushes = [
            self._push(slot, observations["proprio"][row], observations["task"][row])
            for row, slot in enumerate(self._slots)
        ]
        return np.clip(np.stack(pushes), -1.0, 1.0).astype(np.float32)

    def _push(self, slot: dict[str, Any], state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.float64]:
        controller = self._controller
        target = goal if slot["cell"] is None else controller.middle(slot["cell"])
        if np.linalg.norm(state[:2] - target) < self.REACHED and not slot["arrived"]:
            before, slot["cell"] = slot["cell"], self._next_cell(slot["draws"])
            slot["arrived"] = before is None and slot["cell"] is None
            target = goal if slot["cell"] is None else controller.middle(slot["cell"])
        fresh = slot["strength"] * slot["draws"].normal(size=2)
        slot["noise"] = self.NOISE_KEPT * slot["noise"] + np.sqrt(1 - self.NOISE_KEPT**2) * fresh
        if slot["straight"] > 0:
            slot["straight"] -= 1
            push = (goal - state[:2]) / max(float(np.abs(goal - state[:2]).max()), self.REACHED)
        elif slot["about"] > 0:
            push = self._held_push(slot)
        else:
            push = np.clip(controller.force(state[:2], state[2:4], target), -1.0, 1.0)
        pushed: NDArray[np.float64] = push + slot["noise"]
        return pushed

    def _held_push(self, slot: dict[str, Any]) -> NDArray[np.float64]:
        """One of the pushes about."""
        slot["about"] -= 1
        slot["held"] -= 1
        if slot["held"] <= 0:
            slot["held"] = int(slot["draws"].integers(*self.HELD))
            angle = slot["draws"].uniform(0.0, 2 * np.pi)
            force = slot["draws"].uniform(*self.HELD_FORCE)
            slot["push"] = force * np.array([np.cos(angle), np.sin(angle)])
        pushed: NDArray[np.float64] = slot["push"]
        return pushed


class WalkerPolicy:
    """One walker for each episode, asked with what the environment's ``situation()`` tells.

    Args:
        envs: Environments that have ``situation()``, in this process or in others.
        walker: Makes the walker of an episode from its generator.
        to_action: Turns a walker's move into an action of the environment.
    """

    def __init__(
        self,
        envs: VectorEnv,
        walker: Callable[[np.random.Generator], Walker],
        to_action: Callable[[Any], Any] = np.asarray,
    ) -> None:
        self._make, self._to_action = walker, to_action
        self._walkers = [walker(np.random.default_rng(0)) for _ in range(envs.num_envs)]

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Send new walkers into ``slots``."""
        for slot, seed in zip(slots, seeds, strict=True):
            self._walkers[slot] = self._make(np.random.default_rng(fold_in(seed, 3)))

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """Ask every walker."""
        situations = envs.call("situation")  # type: ignore[attr-defined]
        moves = [walker.act(now) for walker, now in zip(self._walkers, situations, strict=True)]
        return np.stack([self._to_action(move) for move in moves]).astype(envs.single_action_space.dtype)


def roll_action(move: tuple[float, float]) -> int:
    """Speed and turn as one of Memory Maze's six discrete actions."""
    speed, turn = move
    if speed > 0:
        return 1 if turn == 0 else (4 if turn > 0 else 5)
    return 0 if turn == 0 else (2 if turn > 0 else 3)


def make_waypoint_policy(envs: VectorEnv) -> PointMazeWaypoints | WalkerPolicy:
    """The policy ``waypoints`` for these environments.

    Raises:
        UserError: If there is none.
    """
    name = "" if envs.spec is None else envs.spec.id
    if name.startswith("lssvwm/PointMaze") and isinstance(envs.single_observation_space, spaces.Dict):
        return PointMazeWaypoints(envs)
    if name.startswith("lssvwm/MemoryMaze"):
        discrete = isinstance(envs.single_action_space, spaces.Discrete)
        return WalkerPolicy(envs, MazeWalker, roll_action if discrete else np.asarray)
    if name.startswith("lssvwm/MiniGrid-Memory"):
        return WalkerPolicy(envs, MemoryGuesser)
    raise UserError(
        "Policy `waypoints` plays lssvwm/PointMaze environments with Dict observations, lssvwm/MemoryMaze "
        "and lssvwm/MiniGrid-Memory only; for others choose `random` or the path of a "
        "stable-baselines3 policy."
    )
