"""What becomes of a long imagination: error along a known path, statistics, and a full turn on the spot.

Shapes: B mazes, H imagined frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.evaluate.memory.controls import (
    CEILING,
    COPY_LAST,
    MEAN_FRAME,
    encode,
    follow,
    make_trial,
    mean_frame,
    remember,
    unit,
)
from lssvwm_agents.evaluate.memory.curves import interval
from lssvwm_agents.evaluate.memory.episodes import Episodes
from lssvwm_agents.evaluate.memory.paths import LEFT, MoveSizes
from lssvwm_agents.evaluate.memory.scoring import inside_border
from lssvwm_agents.metrics import psnr
from lssvwm_agents.worldmodel import WorldModel, WorldState

DEPTHS = (1, 4, 16, 64, 128, 256, 512, 1000)
"""Upper edges of the bins of imagined frames."""
_FRAMES_AT_ONCE = 64


@torch.no_grad()
def drift(
    model: WorldModel, config: MazeConfig, episodes: Episodes, context: int, give_odometry: bool = True
) -> dict[str, Any]:
    """Imagine all frames after the context, then turn around on the spot.

    Returns:
        ``depths``; per depth ``psnr`` along the known path beside ``tokenizer``, ``copy_last``,
        ``mean_frame``; ``statistics`` of imagined and real frames (mean and deviation of pixels, mean
        absolute difference of neighbours); ``full_turn``, after the context and after the last frame: PSNR in
        dB between the views before and after a full turn, beside that between opposite views (where all views
        are alike, so are the two).
    """
    trial = make_trial(model, episodes, context, give_odometry=give_odometry)
    start = remember(model, trial)
    horizon = episodes.frames.shape[1] - context
    proprio = trial.proprio

    def view_psnr(frames: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return psnr(inside_border(config, frames), inside_border(config, truth)).cpu()

    told = None if proprio is None else proprio[:, context:]
    end, latents = follow(model, start, trial.actions[:, context:], trial.action_known[:, context:], told)
    seen = episodes.frames[:, :context]
    controls = {COPY_LAST: unit(seen[:, -1:]), MEAN_FRAME: mean_frame(seen)}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in ("psnr", CEILING, COPY_LAST, MEAN_FRAME)}
    ours, real = [], []
    for first in range(0, horizon, _FRAMES_AT_ONCE):
        part = slice(first, min(first + _FRAMES_AT_ONCE, horizon))
        truth = episodes.frames[:, context:][:, part]
        frames = model.decode(latents[:, part])
        found["psnr"].append(view_psnr(frames, unit(truth)))
        found[CEILING].append(view_psnr(model.decode(encode(model, truth)), unit(truth)))
        for name, control in controls.items():
            found[name].append(view_psnr(control.expand_as(frames), unit(truth)))
        ours.append(_statistics(frames))
        real.append(_statistics(unit(truth)))
    depth = torch.arange(1, horizon + 1)
    depths = [d for d in DEPTHS if d <= horizon]
    edges = [0, *depths]
    masks = [(depth > low) & (depth <= high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    wide = [mask.expand(len(episodes.frames), -1) for mask in masks]
    names = ("mean", "deviation", "sharpness")
    here, there = (None if proprio is None else proprio[:, t] for t in (context - 1, context + horizon - 1))
    return {
        "depths": depths,
        **{name: [interval(torch.cat(parts, 1), mask) for mask in wide] for name, parts in found.items()},
        "statistics": {
            kind: {
                name: [float(torch.cat(values, 1)[..., i][mask].mean()) for mask in wide]
                for i, name in enumerate(names)
            }
            for kind, values in (("imagined", ours), ("real", real))
        },
        "full_turn": {
            "after_context": full_turn(model, config, start, here),
            f"after_{horizon}_imagined": full_turn(model, config, end, there),
        },
    }


@torch.no_grad()
def full_turn(
    model: WorldModel, config: MazeConfig, state: WorldState, proprio: torch.Tensor | None
) -> dict[str, Any]:
    """Imagine one frame at rest and then a full turn to the left, and compare views.

    Args:
        model: The model.
        config: The maze, whose moves turn.
        state: Of B mazes.
        proprio: (B, P) odometry of the state's last frame, or None for a model without.
    """
    turns = MoveSizes.of(config).shortest_loop
    rows, width = state.batch_size, model.config.action_dim
    moves = torch.tensor([0] + [LEFT] * turns, device=model.device)
    actions = torch.nn.functional.one_hot(moves, width).to(state.features.dtype).expand(rows, -1, -1)
    told = None if proprio is None else turning_odometry(proprio, turns, config.turn_degrees)
    _, latents = follow(model, state, actions, torch.ones(rows, turns + 1, device=model.device), told)
    frames = inside_border(config, model.decode(latents[:, [0, turns // 2, turns]]))
    everywhere = torch.ones(rows, 1, dtype=torch.bool)
    return {
        "same_view": interval(psnr(frames[:, 0], frames[:, 2]).cpu()[:, None], everywhere),
        "opposite_view": interval(psnr(frames[:, 0], frames[:, 1]).cpu()[:, None], everywhere),
    }


def turning_odometry(proprio: torch.Tensor, turns: int, degrees: float) -> torch.Tensor:
    """Odometry (B, turns + 1, P) of turning left on the spot from (B, P): cells ahead, left, sine, cosine."""
    angle = torch.arange(turns + 1, device=proprio.device) * math.radians(degrees)
    sine, cosine = torch.sin(angle).to(proprio.dtype), torch.cos(angle).to(proprio.dtype)
    here = proprio[:, None].repeat(1, turns + 1, 1)
    here[..., 2] = proprio[:, 2:3] * cosine + proprio[:, 3:4] * sine
    here[..., 3] = proprio[:, 3:4] * cosine - proprio[:, 2:3] * sine
    return here


def _statistics(frames: torch.Tensor) -> torch.Tensor:
    """(B, H, 3, S, S) -> (B, H, 3): mean, deviation, mean absolute difference of neighbours in a row."""
    sharp = (frames[..., 1:] - frames[..., :-1]).abs().mean(dim=(-3, -2, -1))
    return torch.stack([frames.mean(dim=(-3, -2, -1)), frames.std(dim=(-3, -2, -1)), sharp], dim=-1).cpu()
