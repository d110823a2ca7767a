"""Mazes in which only memory tells the way: the target that pays was seen long ago, far away, out of sight.

Nothing is staged but the question. The explorer walks through a maze, as it does before every score, and some
walks end so that a target has not been in sight for a long time and is many moves away; then that target is
the one asked for.

Shapes: B mazes, N targets, S columns of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lssvwm_agents.envs import make_policy
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.ray_casting import cast_rays
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors, reset, step
from lssvwm_agents.envs.raycast_render import border_pixels, ray_directions
from lssvwm_agents.envs.render_tables import BALL_RADIUS, NEAR, render_tables
from lssvwm_agents.evaluate.mazes import episode_seeds, seeds_tensor

SEEN_COLUMNS = 4
"""Columns of a frame that a target must have filled once to count as seen; out of sight is none at all."""
MAZES_AT_ONCE, MOST_MAZES, MOST_MOVES = 512, 20_000, 300


@dataclass(frozen=True)
class RecallCases:
    """Episodes that ask for memory; every list has one entry an episode.

    Attributes:
        seeds: Of the mazes, and of the explorer's walk.
        targets: Which target is asked for.
        shortest: Moves of the oracle from where the walk ends until it touches the target.
        frames_ago: Frames since any column of a frame last showed the target.
        mazes_searched: How many walks were looked at to find them.
    """

    seeds: list[int]
    targets: list[int]
    shortest: list[int]
    frames_ago: list[int]
    mazes_searched: int

    def rows(self, start: int, end: int) -> RecallCases:
        """Some of the episodes."""
        part = slice(start, end)
        return RecallCases(
            self.seeds[part],
            self.targets[part],
            self.shortest[part],
            self.frames_ago[part],
            self.mazes_searched,
        )


def visible_columns(config: MazeConfig, state: MazeState) -> Tensor:
    """How many columns of each frame, inside its border, show each target: (B, N) int64.

    A target hidden behind a nearer one counts as shown: too careful where it is asked that none is.
    """
    edge = border_pixels(config)
    slope = render_tables(config, state.device).slope
    slope = slope[edge : len(slope) - edge]
    forward = heading_vectors(state.heading)
    wall_depth = cast_rays(state.walls, state.position, ray_directions(forward, slope)).depth
    offset = state.target_position - state.position[:, None]
    depth = offset[..., 0] * forward[:, None, 0] + offset[..., 1] * forward[:, None, 1]
    right = offset[..., 0] * forward[:, None, 1] - offset[..., 1] * forward[:, None, 0]
    aside = (slope * depth[..., None] - right[..., None]) / BALL_RADIUS  # (B, N, S)
    shown = (aside.abs() < 1) & (depth > NEAR)[..., None] & (depth[..., None] < wall_depth[:, None])
    return shown.sum(-1)


def walk(config: MazeConfig, seeds: list[int], num_moves: int) -> tuple[MazeState, Tensor]:
    """The explorer's walk that :func:`lssvwm_agents.evaluate.mazes.look_around` makes.

    Returns:
        Where it ends, and (B, N) the frames since each target was last shown; -1 for one never seen well.
    """
    state = reset(config, torch.tensor(seeds))
    explorer = make_policy("explorer", config)
    carry = explorer.initial_carry(seeds_tensor(seeds, 1), "cpu")
    shown = visible_columns(config, state)
    last, seen = torch.where(shown > 0, 0, -1), shown >= SEEN_COLUMNS
    for frame in range(1, num_moves + 1):
        action, carry = explorer.act(state, carry)
        state, _, _ = step(config, state, action)
        shown = visible_columns(config, state)
        last, seen = torch.where(shown > 0, frame, last), seen | (shown >= SEEN_COLUMNS)
    return state, torch.where(seen, num_moves - last, -1)


def oracle_moves(config: MazeConfig, state: MazeState, limit: int = MOST_MOVES) -> Tensor:
    """Moves of the oracle until the paying target is touched: (B,) int64, ``limit`` + 1 where it is not."""
    oracle = make_policy("oracle", config)
    carry = oracle.initial_carry(torch.zeros_like(state.seed), "cpu")
    moves = torch.full_like(state.seed, limit + 1)
    for move in range(1, limit + 1):
        action, carry = oracle.act(state, carry)
        state, reward, _ = step(config, state, action)
        moves = torch.where((reward > 0) & (moves > limit), move, moves)
        if bool((moves <= limit).all()):
            break
    return moves


def find_recall_cases(
    config: MazeConfig,
    episodes: int,
    seed: int,
    look_around_moves: int = 300,
    least_frames_ago: int = 200,
    least_moves: int = 30,
) -> RecallCases:
    """Search mazes, in the order of their seeds, for episodes that only memory solves.

    Args:
        config: The mazes; of the task ``collect``.
        episodes: How many.
        seed: Names the mazes and the explorer's walks.
        look_around_moves: Moves of the walk.
        least_frames_ago: The target was last in sight *more* than so many frames ago.
        least_moves: The oracle needs at least so many moves to it.

    Raises:
        ValueError: If a number is out of range, or too few such episodes are found.
    """
    if config.task != "collect":
        raise ValueError(f"the recall task needs mazes of the task 'collect', got {config.task!r}.")
    if look_around_moves <= least_frames_ago:
        raise ValueError(
            f"`look_around` must be more than the {least_frames_ago} frames that the target is out of sight, "
            f"got {look_around_moves}."
        )
    found = RecallCases([], [], [], [], 0)
    while len(found.seeds) < episodes:
        searched = found.mazes_searched
        if searched >= MOST_MAZES:
            raise ValueError(
                f"{episodes} recall episodes were asked for, and {searched} mazes have {len(found.seeds)}: "
                "ask for fewer, a larger maze or a longer `look_around`."
            )
        seeds = episode_seeds(seed, searched + MAZES_AT_ONCE)[searched:]
        found = _join(found, _cases_among(config, seeds, look_around_moves, least_frames_ago, least_moves))
    return found.rows(0, episodes)


def _cases_among(
    config: MazeConfig, seeds: list[int], look_around_moves: int, least_frames_ago: int, least_moves: int
) -> RecallCases:
    """At most one case a maze: its target that was seen longest ago."""
    state, ago = walk(config, seeds, look_around_moves)
    longest, target = ago.max(dim=1)
    rows = (longest > least_frames_ago).nonzero()[:, 0]
    if not len(rows):
        return RecallCases([], [], [], [], len(seeds))
    asked = replace(state.select(rows), current_target=target[rows])
    shortest = oracle_moves(config, asked)
    far = (shortest >= least_moves) & (shortest <= MOST_MOVES)
    rows = rows[far]
    return RecallCases(
        seeds=[seeds[row] for row in rows.tolist()],
        targets=target[rows].tolist(),
        shortest=shortest[far].tolist(),
        frames_ago=longest[rows].tolist(),
        mazes_searched=len(seeds),
    )


def _join(one: RecallCases, other: RecallCases) -> RecallCases:
    return RecallCases(
        one.seeds + other.seeds,
        one.targets + other.targets,
        one.shortest + other.shortest,
        one.frames_ago + other.frames_ago,
        one.mazes_searched + other.mazes_searched,
    )
