"""Play and draw the paths of the benchmark, with what is needed to say when a place was last seen.

Shapes: B mazes, T frames, C of them context, S pixels a side, A actions, P odometry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from lssvwm_agents.data.online import float_actions
from lssvwm_agents.envs import MazeConfig, MazeState, make_policy, odometry, render, reset, step
from lssvwm_agents.envs import wall_color_at_center as color_at_center
from lssvwm_agents.envs.wall_places import place_at_center, visible_places
from lssvwm_agents.evaluate.mazes import seeds_tensor

NEVER = -1
"""Age of what was never seen."""


@dataclass(frozen=True)
class Episodes:
    """T frames of B mazes.

    Attributes:
        frames: (B, T, S, S, 3) uint8.
        actions: (B, T, A) float; ``actions[:, t]`` led to frame t, zeros at frame 0.
        action_known: (B, T) bool; False where no action led to the frame.
        proprio: (B, T, P) odometry.
        pose: (B, T, 3) int64, position in 1/1024 cell and heading in 1/16 degree; equal poses show
            equal walls.
        color: (B, T) int64 wall colour at the image's centre; -1 where a target is in front.
        center: (B, T) int64 place at the image's centre.
        seen: (B, T, columns) int64 places that each frame shows.
    """

    frames: torch.Tensor
    actions: torch.Tensor
    action_known: torch.Tensor
    proprio: torch.Tensor
    pose: torch.Tensor
    color: torch.Tensor
    center: torch.Tensor
    seen: torch.Tensor

    def take(self, index: torch.Tensor) -> Episodes:
        """Frames ``index`` (K,) of every maze, in that order."""
        return Episodes(**{f.name: getattr(self, f.name)[:, index] for f in fields(self)})


@torch.no_grad()
def play(
    config: MazeConfig, state: MazeState, length: int, choose: Callable[[int, MazeState], torch.Tensor]
) -> Episodes:
    """Play mazes from a state for ``length`` frames, that of the state included.

    Args:
        config: The maze.
        state: B mazes.
        length: Frames T.
        choose: (t, state before) to the moves (B,) int64 that lead to frame t.
    """
    columns: dict[str, list[torch.Tensor]] = {f.name: [] for f in fields(Episodes)}
    action = torch.zeros(state.batch_size, config.action_size, device=state.device)
    for t in range(length):
        if t > 0:
            move = choose(t, state)
            state, _, _ = step(config, state, move)
            action = float_actions(config, move)
        position = (state.position * 1024).round().to(torch.int64)
        values = {
            "frames": render(config, state),
            "actions": action,
            "action_known": torch.full_like(state.seed, t > 0, dtype=torch.bool),
            "proprio": odometry(config, state),
            "pose": torch.cat([position, state.heading[:, None]], dim=1),
            "color": color_at_center(config, state),
            "center": place_at_center(state),
            "seen": visible_places(config, state),
        }
        for name, value in values.items():
            columns[name].append(value)
    return Episodes(**{name: torch.stack(parts, dim=1) for name, parts in columns.items()})


def play_moves(config: MazeConfig, seeds: list[int], moves: torch.Tensor) -> Episodes:
    """Play given moves (B, T); move t leads to frame t, move 0 is ignored."""
    state = reset(config, seeds, device=moves.device)
    return play(config, state, moves.shape[1], lambda t, _: moves[:, t])


def play_explorer(config: MazeConfig, seeds: list[int], length: int, device: str) -> Episodes:
    """Play the explorer for ``length`` frames."""
    policy = make_policy("explorer", config)
    carry = policy.initial_carry(seeds_tensor(seeds, 1), device)

    def choose(t: int, state: MazeState) -> torch.Tensor:
        nonlocal carry
        move, carry = policy.act(state, carry)
        return move

    return play(config, reset(config, seeds, device=device), length, choose)


def walked_back(episodes: Episodes, horizon: int) -> Episodes:
    """All frames, and then the last ``horizon`` of them backwards, with given odometry and no actions.

    The first frame of the way back is the last one once more, as in training's memory replay.

    Raises:
        ValueError: If there are fewer frames than ``horizon``.
    """
    length = episodes.frames.shape[1]
    if horizon > length:
        raise ValueError(
            f"the way back can have at most the {length} frames of the way there, got {horizon}."
        )
    time = torch.arange(length, device=episodes.frames.device)
    both = episodes.take(torch.cat([time, time.flip(0)[:horizon]]))
    known = both.action_known.clone()
    known[:, length:] = False
    return Episodes(
        **{f.name: getattr(both, f.name) for f in fields(both) if f.name not in ("actions", "action_known")},
        actions=both.actions * known[..., None],
        action_known=known,
    )


def age_of_pose(episodes: Episodes, context: int) -> torch.Tensor:
    """Frames since the agent last stood in the same pose, for each frame after the context.

    Only context counts: what was imagined in between does not.

    Returns:
        (B, T - context) int64; `NEVER` where it never did.
    """
    before = episodes.pose[:, :context]
    return _age(context, episodes.pose[:, context:], lambda pose: (before == pose[:, None]).all(-1))


def age_of_place(episodes: Episodes, context: int) -> torch.Tensor:
    """Frames since the place at the image's centre was last seen, anywhere in a frame of the context.

    Returns:
        (B, T - context) int64; `NEVER` where it was not.
    """
    before = episodes.seen[:, :context]
    return _age(context, episodes.center[:, context:], lambda place: (before == place[:, None, None]).any(-1))


def _age(context: int, future: torch.Tensor, matches: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    ages = []
    for ahead in range(future.shape[1]):
        match = matches(future[:, ahead])  # (B, C)
        last = context - 1 - match.flip(1).to(torch.uint8).argmax(1)
        ages.append(torch.where(match.any(1), context + ahead - last, torch.full_like(last, NEVER)))
    return torch.stack(ages, dim=1)
