"""Imagine what follows a context, as it should be done and as controls do it.

Shapes: B mazes, C context frames, H imagined frames, A actions, P odometry; latents (B, T, c, h, w).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from lssvwm_agents.data.latents import encode_frames
from lssvwm_agents.evaluate.memory.episodes import Episodes
from lssvwm_agents.seeding import generator
from lssvwm_agents.worldmodel import WorldModel, WorldState

OURS, WINDOW_ONLY = "ours", "window_only"
WRONG_ACTIONS, CONTEXT_CUT, SHUFFLED = "wrong_actions", "context_cut", "shuffled_context"
CEILING, NEAREST, COPY_LAST, MEAN_FRAME = "tokenizer", "nearest_view", "copy_last", "mean_frame"
CONDITIONS = (
    OURS,
    WINDOW_ONLY,
    WRONG_ACTIONS,
    CONTEXT_CUT,
    SHUFFLED,
    CEILING,
    NEAREST,
    COPY_LAST,
    MEAN_FRAME,
)


@dataclass(frozen=True)
class Trial:
    """A context, and what is told about the frames to be imagined after it.

    Attributes:
        latents: (B, C, c, h, w) of the context.
        actions: (B, C + H, A).
        action_known: (B, C + H) bool.
        proprio: (B, C + H, P), or None for a model without odometry.
        own_odometry: The odometry of imagined frames is the model's own prediction instead.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    action_known: torch.Tensor
    proprio: torch.Tensor | None
    own_odometry: bool = False

    @property
    def context(self) -> int:
        """Context frames C."""
        return self.latents.shape[1]


def unit(frames: torch.Tensor) -> torch.Tensor:
    """(..., S, S, 3) uint8 -> (..., 3, S, S) float in [0, 1]."""
    return frames.movedim(-1, -3).to(torch.float32) / 255.0


def mean_frame(frames: torch.Tensor) -> torch.Tensor:
    """(B, T, S, S, 3) uint8 -> their mean (3, S, S) in [0, 1], without a copy of them all."""
    total = frames.sum(dim=(0, 1), dtype=torch.int64).movedim(-1, -3)
    return total.to(torch.float32) / (255.0 * frames.shape[0] * frames.shape[1])


def encode(model: WorldModel, frames: torch.Tensor) -> torch.Tensor:
    """(B, T, S, S, 3) uint8 -> latents (B, T, c, h, w) float32."""
    flat = encode_frames(model.tokenizer, frames.flatten(0, 1), model.device, dtype=torch.float32)
    return flat.reshape(*frames.shape[:2], *flat.shape[1:])


def make_trial(
    model: WorldModel,
    episodes: Episodes,
    context: int,
    own_odometry: bool = False,
    give_odometry: bool = True,
) -> Trial:
    """What a model is given of played episodes; the rest of their frames stays hidden."""
    return Trial(
        latents=encode(model, episodes.frames[:, :context]),
        actions=episodes.actions,
        action_known=episodes.action_known,
        proprio=episodes.proprio if model.config.proprio_dim and give_odometry else None,
        own_odometry=own_odometry,
    )


def remember(model: WorldModel, trial: Trial, frames: int | None = None) -> WorldState:
    """The state after the context, or after its last ``frames`` alone."""
    start = 0 if frames is None else max(0, trial.context - frames)
    part = slice(start, trial.context)
    state, _ = model.observe_latents(
        model.initial_state(len(trial.latents)),
        trial.latents[:, part],
        trial.actions[:, part],
        None if trial.proprio is None else trial.proprio[:, part],
        trial.action_known[:, part].to(trial.latents.dtype),
    )
    return state


def follow(
    model: WorldModel,
    state: WorldState,
    actions: torch.Tensor,
    action_known: torch.Tensor,
    proprio: torch.Tensor | None,
) -> tuple[WorldState, torch.Tensor]:
    """Imagine along a path, one denoising step a frame.

    Args:
        model: The model.
        state: Of B mazes.
        actions: (B, H, A).
        action_known: (B, H); where 0 the model is given its null action.
        proprio: (B, H, P) odometry, or None for the model's own (then every action must be known).

    Returns:
        The state after the path, and latents (B, H, c, h, w).
    """
    imagined = []
    for t in range(actions.shape[1]):
        if proprio is None:
            state, prediction = model.step(state, actions[:, t])
            latent = prediction.latent
        else:
            known, told = action_known[:, t].to(actions.dtype), torch.ones_like(state.proprio_known)
            state, latent, _ = model.advance(state, actions[:, t], known, proprio[:, t], told)
        imagined.append(latent)
    return state, torch.stack(imagined, dim=1)


def imagine(model: WorldModel, state: WorldState, trial: Trial) -> torch.Tensor:
    """Latents (B, H, c, h, w) of the frames after a trial's context."""
    future = slice(trial.context, None)
    given = None if trial.proprio is None or trial.own_odometry else trial.proprio[:, future]
    return follow(model, state, trial.actions[:, future], trial.action_known[:, future], given)[1]


def with_wrong_actions(trial: Trial) -> Trial:
    """Every maze is told the next maze's actions and odometry for the frames to be imagined."""
    index = torch.arange(trial.actions.shape[1], device=trial.actions.device) >= trial.context

    def mixed(tensor: torch.Tensor) -> torch.Tensor:
        where = index.view(1, -1, *([1] * (tensor.ndim - 2)))
        return torch.where(where, tensor.roll(1, dims=0), tensor)

    return replace(
        trial,
        actions=mixed(trial.actions),
        action_known=mixed(trial.action_known),
        proprio=None if trial.proprio is None else mixed(trial.proprio),
    )


def with_shuffled_context(trial: Trial, kept: int, seed: int) -> Trial:
    """The context's frames in random order, the last ``kept`` excepted; actions and odometry stay in order.

    What was seen is all there, but no longer where it was seen.
    """
    loose = max(0, trial.context - kept)
    draw = generator("cpu", seed, 0x73687566)
    orders = [torch.randperm(loose, generator=draw) for _ in range(len(trial.latents))]
    latents = trial.latents.clone()
    for row, order in enumerate(orders):
        latents[row, :loose] = trial.latents[row, order.to(latents.device)]
    return replace(trial, latents=latents)


def nearest_views(latents: torch.Tensor, proprio: torch.Tensor) -> torch.Tensor:
    """What a perfect memory that only copies would show: the context's frame nearest in pose.

    Args:
        latents: (B, C, c, h, w) of the context.
        proprio: (B, C + H, 4) true odometry; a cell counts as much as a heading 60 degrees off.

    Returns:
        (B, H, c, h, w); of equally near frames the last one.
    """
    context = latents.shape[1]
    ahead, behind = proprio[:, context:].double(), proprio[:, :context].double().flip(1)
    distance = torch.cdist(ahead, behind, compute_mode="donot_use_mm_for_euclid_dist")
    index = context - 1 - distance.argmin(-1)
    rows = torch.arange(len(latents), device=latents.device)[:, None]
    return latents[rows, index]


@torch.no_grad()
def run_conditions(
    model: WorldModel,
    window_only: WorldModel | None,
    episodes: Episodes,
    context: int,
    seed: int,
    own_odometry: bool = False,
    give_odometry: bool = True,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every condition's frames (B, H, 3, S, S) for what follows the context, one after the other.

    Args:
        model: The model in question.
        window_only: The model that it is compared with, or None.
        episodes: C + H frames of B mazes.
        context: C.
        seed: Of the shuffled context.
        own_odometry: Imagined frames get the model's own odometry.
        give_odometry: The context comes with odometry.
    """
    trial = make_trial(model, episodes, context, own_odometry, give_odometry)
    reach = window_reach(model)
    state = remember(model, trial)
    yield OURS, model.decode(imagine(model, state, trial))
    if window_only is not None:
        other = make_trial(window_only, episodes, context, own_odometry, give_odometry)
        yield WINDOW_ONLY, window_only.decode(imagine(window_only, remember(window_only, other), other))
    wrong = with_wrong_actions(trial)
    yield WRONG_ACTIONS, model.decode(imagine(model, state, wrong))
    yield CONTEXT_CUT, model.decode(imagine(model, remember(model, trial, reach), trial))
    shuffled = with_shuffled_context(trial, reach, seed)
    yield SHUFFLED, model.decode(imagine(model, remember(model, shuffled), shuffled))
    future = episodes.frames[:, context:]
    yield CEILING, model.decode(encode(model, future))
    yield NEAREST, model.decode(nearest_views(trial.latents, episodes.proprio))
    real = unit(episodes.frames[:, context - 1 : context])
    yield COPY_LAST, real.expand(-1, future.shape[1], -1, -1, -1)
    yield MEAN_FRAME, mean_frame(episodes.frames[:, :context]).expand(*future.shape[:2], -1, -1, -1)


def window_reach(model: WorldModel) -> int:
    """Frames that a stack of L layers sees through windows of k frames: L * k."""
    return model.config.backbone.num_layers * model.config.backbone.window
