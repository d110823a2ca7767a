"""Scripted policies: data, baselines and the upper bound of every score.

``random``: uniform actions. ``held_random``: each held for some moves. ``oracle``: shortest path to the
target that pays, without noise. ``explorer``: shortest paths to random cells, with noise and looking around.
``forager``: an explorer that heads for the paying target with probability one half, for data rich in rewards.
``wanderer``: a forager that now and then makes held random moves, so that anything is tried anywhere.
``guesser``: shortest paths to random targets, whichever pays: both ends of the cue corridor equally often.
All are batched and deterministic given their seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lssvwm_agents.envs.grid_paths import next_cell
from lssvwm_agents.envs.hashing import below, chance, hash_bits
from lssvwm_agents.envs.maze_config import (
    HEADING_UNITS,
    NUM_DISCRETE_ACTIONS,
    TOUCH_RADIUS,
    MazeConfig,
)
from lssvwm_agents.envs.maze_layouts import cue_geometry
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors

POLICY_NAMES = ("random", "held_random", "explorer", "oracle", "forager", "wanderer", "guesser")

_ACTION, _NOISE, _GOAL, _SPIN, _SPIN_LENGTH, _SPIN_SIDE, _FORAGE, _WANDER, _CARELESS = range(101, 110)
_NOISE_PROBABILITY = 0.12
_SPIN_AT_GOAL, _SPIN_ANYWHERE = 0.25, 0.004
_TURNS_WHILE_MOVING = 4.5  # a larger heading error, in turns of one step, is first reduced on the spot
_FORAGE_PROBABILITY = 0.5
_HELD_MOVES = 4
_WANDER_MOVES, _WANDER_PROBABILITY = 16, 0.5
_CARELESS_PROBABILITY = 0.5
_FORWARD, _LEFT, _RIGHT, _FORWARD_LEFT, _FORWARD_RIGHT = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class PolicyCarry:
    """What a scripted policy remembers; every field is (B,) int64.

    Attributes:
        seed: The policy's own seed.
        count: Actions chosen so far.
        goal: Flat index of the goal cell; -1 for none yet.
        spin: Turns on the spot still to make; positive to the left.
        maze: Seed of the maze that the goal belongs to.
    """

    seed: Tensor
    count: Tensor
    goal: Tensor
    spin: Tensor
    maze: Tensor


class ScriptedPolicy(Protocol):
    """A policy that may look at the whole state."""

    def initial_carry(self, seeds: Tensor, device: torch.device | str = "cpu") -> PolicyCarry:
        """Start one policy per seed."""
        ...

    def act(self, state: MazeState, carry: PolicyCarry) -> tuple[Tensor, PolicyCarry]:
        """Choose an action for every row: (B,) int64, or (B, 2) float32 in continuous mazes."""
        ...


def walkable(config: MazeConfig, state: MazeState) -> Tensor:
    """Cells that a path may use: (B, G, G) bool; a closed gate counts, for it will open."""
    free = ~state.walls
    if config.task == "cue":
        x, y = cue_geometry(config)["gate"]
        free[:, y, x] = True
    return free


def _flat_cell(point: Tensor, grid: int) -> Tensor:
    cell = point.floor().to(torch.int64)
    return cell[..., 1] * grid + cell[..., 0]


def _center(cell: Tensor, grid: int) -> Tensor:
    return torch.stack([cell % grid, cell // grid], dim=-1).to(torch.float32) + 0.5


class _Bearing(NamedTuple):
    """A point seen from the agent, by elementary operations: cells ahead, to the left, away, each (B,)."""

    ahead: Tensor
    left: Tensor
    distance: Tensor

    def within(self, degrees: float) -> Tensor:
        """Whether the point lies at most so many degrees to either side of the heading."""
        return self.ahead >= math.cos(math.radians(min(degrees, 180.0))) * self.distance

    def turns(self, turn_degrees: float) -> Tensor:
        """How many turns (of one step) to the left would face the point, clamped to [-1, 1]."""
        sine = self.left / self.distance.clamp(min=1e-6)
        cube = sine * sine * sine
        angle = sine + cube / 6 + cube * sine * sine * (3 / 40)  # arc sine, good to 1e-5 rad up to 15 degrees
        turns = (angle / math.radians(turn_degrees)).clamp(-1, 1)
        return torch.where(self.ahead > 0, turns, torch.where(self.left > 0, 1.0, -1.0))


def _bearing(state: MazeState, aim: Tensor) -> _Bearing:
    """Where the point ``aim`` (B, 2) lies."""
    forward, to_aim = heading_vectors(state.heading), aim - state.position
    ahead = to_aim[:, 0] * forward[:, 0] + to_aim[:, 1] * forward[:, 1]
    left = to_aim[:, 1] * forward[:, 0] - to_aim[:, 0] * forward[:, 1]
    return _Bearing(ahead, left, (ahead * ahead + left * left).sqrt())


def steer(config: MazeConfig, state: MazeState, free: Tensor, goal: Tensor, point: Tensor) -> Tensor:
    """Choose the action that follows a shortest path.

    Args:
        config: The family of mazes.
        state: B mazes.
        free: (B, G, G) bool, cells that the path may use.
        goal: (B,) int64, flat index of the goal cell.
        point: (B, 2) float32, where to go inside the goal cell.

    Returns:
        (B,) int64 or (B, 2) float32.
    """
    grid = config.grid_size
    cell = _flat_cell(state.position, grid)
    following = next_cell(free, cell, goal)
    # Whoever stands too far aside for the opening sees the next cell's middle at 9 degrees or more, heads
    # there to within half a turn, and so slides inwards along the wall: nobody gets stuck.
    aim = torch.where((cell == goal)[:, None], point, _center(following, grid))
    bearing, turn = _bearing(state, aim), config.turn_degrees
    may_move = bearing.within(_TURNS_WHILE_MOVING * turn)
    if config.continuous:
        return torch.stack([torch.where(may_move, 1.0, 0.0), bearing.turns(turn)], dim=1)
    left = bearing.left > 0
    on_the_spot = torch.where(left, _LEFT, _RIGHT)
    moving = torch.where(left, _FORWARD_LEFT, _FORWARD_RIGHT)
    action = torch.where(may_move, moving, on_the_spot)
    return torch.where(bearing.within(turn / 2), _FORWARD, action)


def current_target_position(state: MazeState) -> Tensor:
    """Where the paying target is: (B, 2) float32."""
    index = state.current_target[:, None, None].expand(-1, 1, 2)
    return state.target_position.gather(1, index)[:, 0]


def _uniform_action(config: MazeConfig, seed: Tensor, count: Tensor) -> Tensor:
    if config.continuous:
        bits = hash_bits(seed[:, None], _ACTION, count[:, None], torch.arange(2, device=seed.device))
        return (bits >> 8).to(torch.float32) / (1 << 23) - 1
    return below(hash_bits(seed, _ACTION, count), NUM_DISCRETE_ACTIONS)


class _Policy:
    def __init__(self, config: MazeConfig) -> None:
        self.config = config

    def initial_carry(self, seeds: Tensor, device: torch.device | str = "cpu") -> PolicyCarry:
        """Start one policy per seed (B,) int64."""
        seed = torch.as_tensor(seeds, dtype=torch.int64).to(device)
        zero = torch.zeros_like(seed)
        return PolicyCarry(seed=seed, count=zero, goal=zero - 1, spin=zero, maze=zero - 1)


class RandomPolicy(_Policy):
    """Every action equally likely."""

    def act(self, state: MazeState, carry: PolicyCarry) -> tuple[Tensor, PolicyCarry]:
        """Choose uniformly."""
        action = _uniform_action(self.config, carry.seed, carry.count)
        return action, replace(carry, count=carry.count + 1)


class HeldRandomPolicy(_Policy):
    """Every action equally likely, held for four moves.

    It bumps into walls and goes round in circles, as first plans do.
    """

    def act(self, state: MazeState, carry: PolicyCarry) -> tuple[Tensor, PolicyCarry]:
        """Choose uniformly every fourth time."""
        action = _uniform_action(self.config, carry.seed, carry.count // _HELD_MOVES)
        return action, replace(carry, count=carry.count + 1)


class OraclePolicy(_Policy):
    """The shortest path to what pays, with full knowledge of the maze."""

    def act(self, state: MazeState, carry: PolicyCarry) -> tuple[Tensor, PolicyCarry]:
        """Steer to the current target."""
        point = current_target_position(state)
        goal = _flat_cell(point, self.config.grid_size)
        action = steer(self.config, state, walkable(self.config, state), goal, point)
        return action, replace(carry, count=carry.count + 1)


class ExplorerPolicy(_Policy):
    """Shortest paths to random cells, about one action in eight random, now and then a look around."""

    forage_probability = 0.0

    def act(self, state: MazeState, carry: PolicyCarry) -> tuple[Tensor, PolicyCarry]:
        """Turn on the spot while looking around, else steer to the goal; pick a new one once there."""
        config, grid, seed, count = self.config, self.config.grid_size, carry.seed, carry.count
        free = walkable(config, state)
        fresh = (carry.maze != state.seed) | (state.step_count == 0) | (carry.goal < 0)
        reached = self._reached(state, carry.goal) & ~fresh
        goal = torch.where(fresh | reached, self._new_goal(state, free, seed, count), carry.goal)
        spin = torch.where(fresh, 0, carry.spin)
        spin = torch.where(spin == 0, self._new_spin(seed, count, reached), spin)

        action = steer(config, state, free, goal, _center(goal, grid))
        random = _uniform_action(config, seed, count)
        noise = self._new_noise(seed, count)
        left = spin > 0
        if config.continuous:
            turn = torch.stack([torch.zeros_like(action[:, 0]), torch.where(left, 1.0, -1.0)], dim=1)
            noise, spinning = noise[:, None], (spin != 0)[:, None]
        else:
            turn, spinning = torch.where(left, _LEFT, _RIGHT), spin != 0
        action = torch.where(spinning, turn, torch.where(noise, random, action))
        return action, PolicyCarry(
            seed=seed, count=count + 1, goal=goal, spin=spin - spin.sign(), maze=state.seed
        )

    def _reached(self, state: MazeState, goal: Tensor) -> Tensor:
        """Whether the agent is at its goal (B,) int64: (B,) bool."""
        return goal == _flat_cell(state.position, self.config.grid_size)

    def _new_noise(self, seed: Tensor, count: Tensor) -> Tensor:
        """Whether a random action is made now: (B,) bool."""
        return chance(hash_bits(seed, _NOISE, count), _NOISE_PROBABILITY)

    def _new_goal(self, state: MazeState, free: Tensor, seed: Tensor, count: Tensor) -> Tensor:
        """A random free cell, or the paying target's: (B,) int64."""
        free = free.flatten(1)
        number = below(hash_bits(seed, _GOAL, count), free.sum(1))
        goal = (free.cumsum(1) > number[:, None]).to(torch.uint8).argmax(1)
        if self.forage_probability == 0:
            return goal
        forage = chance(hash_bits(seed, _FORAGE, count), self.forage_probability)
        return torch.where(forage, _flat_cell(current_target_position(state), self.config.grid_size), goal)

    def _new_spin(self, seed: Tensor, count: Tensor, at_goal: Tensor) -> Tensor:
        """Turns on the spot to begin now, 0 for none: half of them full circles, (B,) int64."""
        bits = hash_bits(seed, _SPIN, count)
        begin = chance(bits, _SPIN_ANYWHERE) | (at_goal & chance(bits, _SPIN_AT_GOAL))
        circle = max(1, HEADING_UNITS // self.config.turn_units)
        length = below(hash_bits(seed, _SPIN_LENGTH, count), 2 * circle) + 1
        side = 2 * below(hash_bits(seed, _SPIN_SIDE, count), 2) - 1
        return torch.where(begin, length.clamp(max=circle) * side, 0)


class ForagerPolicy(ExplorerPolicy):
    """An explorer that heads for the paying target half of the time."""

    forage_probability = _FORAGE_PROBABILITY


class WandererPolicy(ForagerPolicy):
    """A forager that spends half of its time, in spells of 16 moves, on random actions held for four.

    Plans try such moves from everywhere, also beside a target or a wall, where a forager never would.
    """

    def act(self, state: MazeState, carry: PolicyCarry) -> tuple[Tensor, PolicyCarry]:
        """A random action in a spell of them, else the forager's."""
        action, after = super().act(state, carry)
        seed, count = carry.seed, carry.count
        wander = chance(hash_bits(seed, _WANDER, count // _WANDER_MOVES), _WANDER_PROBABILITY)
        random = _uniform_action(self.config, seed, count // _HELD_MOVES)
        return torch.where(wander[:, None] if self.config.continuous else wander, random, action), after


class GuesserPolicy(ExplorerPolicy):
    """Shortest paths to random targets, whichever pays; half of the seeds as noisily as the explorer.

    In the cue corridor that is past the cue, to the gate until it opens, and to either end, whatever the cue
    said.
    """

    def _reached(self, state: MazeState, goal: Tensor) -> Tensor:
        offset = _center(goal, self.config.grid_size) - state.position
        return (offset * offset).sum(-1) < TOUCH_RADIUS**2

    def _new_goal(self, state: MazeState, free: Tensor, seed: Tensor, count: Tensor) -> Tensor:
        number = below(hash_bits(seed, _GOAL, count), self.config.num_targets)
        point = state.target_position.gather(1, number[:, None, None].expand(-1, 1, 2))[:, 0]
        return _flat_cell(point, self.config.grid_size)

    def _new_noise(self, seed: Tensor, count: Tensor) -> Tensor:
        return super()._new_noise(seed, count) & _careless(seed)

    def _new_spin(self, seed: Tensor, count: Tensor, at_goal: Tensor) -> Tensor:
        return torch.where(_careless(seed), super()._new_spin(seed, count, at_goal), 0)


def _careless(seed: Tensor) -> Tensor:
    """Which seeds (B,) int64 make a guesser noisy: (B,) bool."""
    return chance(hash_bits(seed, _CARELESS), _CARELESS_PROBABILITY)


_POLICIES: dict[str, Callable[[MazeConfig], ScriptedPolicy]] = {
    "random": RandomPolicy,
    "held_random": HeldRandomPolicy,
    "explorer": ExplorerPolicy,
    "oracle": OraclePolicy,
    "forager": ForagerPolicy,
    "wanderer": WandererPolicy,
    "guesser": GuesserPolicy,
}


def make_policy(name: str, config: MazeConfig) -> ScriptedPolicy:
    """Make a scripted policy by name.

    Args:
        name: One of ``POLICY_NAMES``.
        config: The family of mazes that it will play.

    Raises:
        ValueError: There is no such policy.
    """
    if name not in _POLICIES:
        raise ValueError(f"`name` must be one of {', '.join(POLICY_NAMES)}, got {name!r}.")
    return _POLICIES[name](config)
