"""RaycastMaze's rules: pure batched functions over a ``MazeState``, on any device.

The task is Memory Maze's (Pasukonis et al. 2022, arXiv 2210.13383): touch the target whose colour the border
of the frame shows, +1 each, then another one becomes current. Positions are multiples of 1/1024 cell and
headings integers, so that one environment or thousands, on a CPU or a GPU, make the very same numbers.

Shapes: B environments, G grid cells per side, N targets. World: x right, y up, in cells; heading
counter-clockwise from +x, in units of 1/16 degree; cell (x, y) spans [x, x+1) x [y, y+1) and is ``walls[b, y,
x]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from lssvwm_agents.envs.hashing import below, hash_bits
from lssvwm_agents.envs.maze_config import (
    AGENT_RADIUS,
    BACKWARD_SCALE,
    HEADING_UNITS,
    NUM_DISCRETE_ACTIONS,
    POSITION_UNITS,
    TOUCH_RADIUS,
    MazeConfig,
)
from lssvwm_agents.envs.maze_layouts import (
    cue_corridor,
    cue_geometry,
    lattice_maze,
    paint_cue,
    unique_keys,
    wall_materials,
)
from lssvwm_agents.envs.palette import WHITE_TARGET

__all__ = ["MazeConfig", "MazeState", "heading_vectors", "odometry", "reset", "step", "truncated"]

_START, _HEADING, _TARGET, _COLOR, _FIRST, _NEXT, _CUE = range(1, 8)
_FAR_FROM_START, _FAR_FROM_TARGETS = 4, 3
_FORWARD = (False, True, False, False, True, True)
_TURN = (0, 0, 1, -1, 1, -1)  # noop, forward, left, right, forward-left, forward-right


@dataclass(frozen=True)
class MazeState:
    """Everything there is to know about B mazes; a dataclass of tensors with leading dimension B.

    Attributes:
        seed: (B,) int64, the seed that made the maze.
        step_count: (B,) int64, steps since the reset.
        walls: (B, G, G) bool, [y, x].
        materials: (B, 2, G, G) uint8, what the faces of a wall cell are made of, across x and across y.
        position: (B, 2) float32, (x, y) in cells.
        heading: (B,) int64 in [0, 5760), units of 1/16 degree.
        start_position: (B, 2) float32.
        start_heading: (B,) int64.
        target_position: (B, N, 2) float32.
        target_color: (B, N) int64, index into ``palette.TARGET_COLORS``.
        current_target: (B,) int64: the target that pays (cue task: the branch that pays, 0 left, 1 right).
        targets_reached: (B,) int64, how often a target paid.
    """

    seed: Tensor
    step_count: Tensor
    walls: Tensor
    materials: Tensor
    position: Tensor
    heading: Tensor
    start_position: Tensor
    start_heading: Tensor
    target_position: Tensor
    target_color: Tensor
    current_target: Tensor
    targets_reached: Tensor

    def _map(self, function: Callable[[Tensor], Tensor]) -> MazeState:
        return MazeState(**{f.name: function(getattr(self, f.name)) for f in fields(self)})

    @property
    def batch_size(self) -> int:
        """Number of mazes B."""
        return self.seed.shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.seed.device

    def to(self, device: torch.device | str) -> MazeState:
        """Copy to a device."""
        return self._map(lambda tensor: tensor.to(device))

    def clone(self) -> MazeState:
        """Copy, so that nothing is shared."""
        return self._map(torch.clone)

    def select(self, index: Tensor | slice) -> MazeState:
        """Take the rows given by an index tensor, a mask or a slice."""
        return self._map(lambda tensor: tensor[index])

    def replace_rows(self, index: Tensor, rows: MazeState) -> MazeState:
        """Return a copy whose rows ``index`` (K,) are the K rows of another state."""
        return MazeState(
            **{
                f.name: getattr(self, f.name).index_copy(0, index, getattr(rows, f.name).to(self.device))
                for f in fields(self)
            }
        )


@lru_cache(maxsize=16)
def heading_table(device: torch.device) -> Tensor:
    """(HEADING_UNITS, 2) float32 of (cos, sin); the same numbers on every device, exact at 90 degrees."""
    angles = [2 * math.pi * unit / HEADING_UNITS for unit in range(HEADING_UNITS)]
    table = torch.tensor([[math.cos(a), math.sin(a)] for a in angles], dtype=torch.float64)
    table = torch.where(table.abs() < 1e-12, 0.0, table)
    return table.to(torch.float32).to(device)


def heading_vectors(heading: Tensor) -> Tensor:
    """Turn headings (B,) int64 into unit vectors (B, 2) float32 (cos, sin)."""
    return heading_table(heading.device).index_select(0, heading % HEADING_UNITS)


@lru_cache(maxsize=16)
def _action_table(device: torch.device) -> tuple[Tensor, Tensor]:
    forward = torch.tensor(_FORWARD, dtype=torch.float32, device=device)
    return forward, torch.tensor(_TURN, dtype=torch.int64, device=device)


def _cell_centers(index: Tensor, grid: int) -> Tensor:
    return torch.stack([index % grid, index // grid], dim=-1).to(torch.float32) + 0.5


def _place_targets(seed: Tensor, walls: Tensor, start: Tensor, config: MazeConfig) -> Tensor:
    """Pick target cells one by one, preferably far from the start and from each other: (B, N, 2) centres."""
    grid = config.grid_size
    cells = torch.arange(grid * grid, device=seed.device)
    center = _cell_centers(cells, grid)
    free = ~walls.flatten(1)

    def apart(point: Tensor) -> Tensor:
        return (center[None] - point[:, None]).abs().sum(-1).to(torch.int64)

    clearance = apart(start).clamp(max=_FAR_FROM_START) * _FAR_FROM_TARGETS
    chosen: list[Tensor] = []
    for number in range(config.num_targets):
        key = hash_bits(seed[:, None], _TARGET, number, cells)
        score = unique_keys((clearance << 32) + key)
        pick = _cell_centers(torch.where(free, score, -1).argmax(1), grid)
        chosen.append(pick)
        distance = apart(pick)
        free = free & (distance > 0)
        clearance = torch.minimum(clearance, distance.clamp(max=_FAR_FROM_TARGETS) * _FAR_FROM_START)
    return torch.stack(chosen, dim=1)


def _as_seeds(seeds: Tensor | list[int], device: torch.device | str) -> Tensor:
    seed = (seeds if isinstance(seeds, Tensor) else torch.tensor(seeds)).to(device)
    if seed.dim() != 1 or seed.shape[0] < 1 or seed.dtype != torch.int64:
        raise ValueError(
            f"`seeds` must be a non-empty (B,) int64 tensor, got {seed.dtype} {tuple(seed.shape)}."
        )
    return seed


def reset(config: MazeConfig, seeds: Tensor | list[int], device: torch.device | str = "cpu") -> MazeState:
    """Make one maze per seed and put the agent at its start.

    Args:
        config: The family of mazes.
        seeds: (B,) int64; the same seed gives the same maze in every batch, on every device.
        device: Where the state shall live.

    Returns:
        The state before the first step.
    """
    seed = _as_seeds(seeds, device)
    return _reset_collect(config, seed) if config.task == "collect" else _reset_cue(config, seed)


def _reset_collect(config: MazeConfig, seed: Tensor) -> MazeState:
    side, device = (config.size + 1) // 2, seed.device
    walls = lattice_maze(seed, config.size, config.loop_fraction)
    node_x, node_y = (below(hash_bits(seed, _START, axis), side) for axis in range(2))
    position = torch.stack([2 * node_x + 1, 2 * node_y + 1], dim=1).to(torch.float32) + 0.5
    heading = below(hash_bits(seed, _HEADING), 4) * (HEADING_UNITS // 4)
    colors = unique_keys(hash_bits(seed[:, None], _COLOR, torch.arange(WHITE_TARGET, device=device)))
    zero = torch.zeros_like(seed)
    return MazeState(
        seed=seed,
        step_count=zero,
        walls=walls,
        materials=wall_materials(seed, config),
        position=position,
        heading=heading,
        start_position=position,
        start_heading=heading,
        target_position=_place_targets(seed, walls, position, config),
        target_color=colors.argsort(1)[:, : config.num_targets],
        current_target=below(hash_bits(seed, _FIRST), config.num_targets),
        targets_reached=zero,
    )


def _reset_cue(config: MazeConfig, seed: Tensor) -> MazeState:
    batch, device, where = seed.shape[0], seed.device, cue_geometry(config)
    cue = below(hash_bits(seed, _CUE), 2)
    zero = torch.zeros_like(seed)
    position = torch.tensor([where["start"]], dtype=torch.float32, device=device).expand(batch, 2) + 0.5
    heading = torch.full_like(seed, HEADING_UNITS // 2)  # west, towards the cue
    ends = torch.tensor([where["left"], where["right"]], dtype=torch.float32, device=device) + 0.5
    return MazeState(
        seed=seed,
        step_count=zero,
        walls=cue_corridor(config, device).expand(batch, -1, -1).clone(),
        materials=paint_cue(wall_materials(seed, config), cue, config),
        position=position,
        heading=heading,
        start_position=position,
        start_heading=heading,
        target_position=ends.expand(batch, 2, 2).clone(),
        target_color=torch.full((batch, 2), WHITE_TARGET, dtype=torch.int64, device=device),
        current_target=cue,
        targets_reached=zero,
    )


def _decode_action(config: MazeConfig, action: Tensor) -> tuple[Tensor, Tensor]:
    """Turn actions into (cells forward (B,) float32, heading change (B,) int64 units)."""
    if config.continuous:
        if action.dim() != 2 or action.shape[1] != 2 or not action.is_floating_point():
            raise ValueError(f"`action` must be (B, 2) float, got {tuple(action.shape)} {action.dtype}.")
        action = action.to(torch.float32).clamp(-1, 1)
        speed = action[:, 0]
        speed = torch.where(speed < 0, speed * BACKWARD_SCALE, speed)
        return speed * config.move_per_step, torch.round(action[:, 1] * config.turn_units).to(torch.int64)
    if action.dim() != 1 or action.is_floating_point():
        raise ValueError(f"`action` must be (B,) int64, got {tuple(action.shape)} {action.dtype}.")
    forward, turn = _action_table(action.device)
    index = action.to(torch.int64).clamp(0, NUM_DISCRETE_ACTIONS - 1)
    return forward[index] * config.move_per_step, turn[index] * config.turn_units


def _slide(walls: Tensor, position: Tensor, delta: Tensor, axis: int) -> Tensor:
    """Move a square agent along one axis up to the first wall: (B, 2) positions."""
    grid = walls.shape[-1]
    along, across, move = position[:, axis], position[:, 1 - axis], delta[:, axis]
    ahead = move >= 0
    moved = along + move
    # The cell that the leading edge enters; an edge that lies on a cell's border has not entered the next
    # one.
    edge = torch.where(ahead, torch.ceil(moved + AGENT_RADIUS) - 1, torch.floor(moved - AGENT_RADIUS))
    low, high = torch.floor(across - AGENT_RADIUS), torch.ceil(across + AGENT_RADIUS) - 1
    stride_along, stride_across = (1, grid) if axis == 0 else (grid, 1)
    cell = torch.stack([low, high], dim=1) * stride_across + edge[:, None] * stride_along
    blocked = walls.flatten(1).gather(1, cell.to(torch.int64)).any(1)
    contact = torch.where(ahead, edge - AGENT_RADIUS, edge + 1 + AGENT_RADIUS)
    stopped = torch.where(blocked, contact, moved)
    return torch.stack([stopped, across] if axis == 0 else [across, stopped], dim=1)


def step(config: MazeConfig, state: MazeState, action: Tensor) -> tuple[MazeState, Tensor, Tensor]:
    """Turn, then move along the new heading, sliding along walls; touch targets.

    Args:
        config: The family of mazes.
        state: The state before the step; not changed.
        action: Discrete: (B,) int64 in [0, 6): noop, forward, left, right, forward-left, forward-right.
            Continuous: (B, 2) float in [-1, 1]: speed (forward 1 = ``move_per_step``; backwards at a quarter
                of it) and turn
            (1 = ``turn_degrees`` to the left). Values outside are clamped.

    Returns:
        (state, reward (B,) float32, terminated (B,) bool). Truncation is the caller's: see ``truncated``.
    """
    if action.shape[0] != state.batch_size:
        raise ValueError(f"`action` must have {state.batch_size} rows like the state, got {action.shape[0]}.")
    forward, turn = _decode_action(config, action)
    heading = (state.heading + turn) % HEADING_UNITS
    delta = torch.round(heading_vectors(heading) * forward[:, None] * POSITION_UNITS) / POSITION_UNITS
    position = _slide(state.walls, state.position, delta, axis=0)
    position = _slide(state.walls, position, delta, axis=1)

    offset = state.target_position - position[:, None]
    touched = (offset * offset).sum(-1) < TOUCH_RADIUS**2
    reached = touched.gather(1, state.current_target[:, None])[:, 0]
    count = state.step_count + 1
    walls, current = state.walls, state.current_target
    if config.task == "cue":
        terminated = touched.any(1)
        x, y = cue_geometry(config)["gate"]
        walls = walls.clone()
        walls[:, y, x] = count < config.cue_gate_frame
    else:
        terminated = torch.zeros_like(reached)
        jump = 1 + below(hash_bits(state.seed, _NEXT, state.targets_reached), config.num_targets - 1)
        current = torch.where(reached, (current + jump) % config.num_targets, current)
    new_state = replace(
        state,
        step_count=count,
        walls=walls,
        position=position,
        heading=heading,
        current_target=current,
        targets_reached=state.targets_reached + reached.to(torch.int64),
    )
    return new_state, reached.to(torch.float32), terminated


def truncated(config: MazeConfig, state: MazeState) -> Tensor:
    """Say which episodes have run out of steps: (B,) bool."""
    return state.step_count >= config.max_episode_steps


def odometry(config: MazeConfig, state: MazeState) -> Tensor:
    """Pose relative to the first one, in its frame: (B, 4) float32.

    Columns: cells ahead of the start pose, cells to its left, sine and cosine of the heading relative to it
    (counter-clockwise positive).
    """
    forward = heading_vectors(state.start_heading)
    moved = state.position - state.start_position
    ahead = (moved * forward).sum(-1)
    left = moved[:, 1] * forward[:, 0] - moved[:, 0] * forward[:, 1]
    turned = heading_vectors(state.heading - state.start_heading)
    return torch.stack([ahead, left, turned[:, 1], turned[:, 0]], dim=1)
