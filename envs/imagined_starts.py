"""How imagined episodes begin: burn-in of real contexts, or a first frame imagined from nothing.

Shapes: B episodes, T frames of a context, C h w latent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lssvwm_agents.envs.contexts import Context, ContextSource
from lssvwm_agents.envs.hashing import below, derive_seeds, hash_bits
from lssvwm_agents.worldmodel import WorldModel, WorldState

FIRST_FRAME_STEPS = 16
"""Denoising steps of the first frame of an episode that begins without a context, at least."""

_NOISE, _START = 0x2015E, 0x57A27
_FRAMES_AT_ONCE = 4096
_POSE_DIM = 4

Start = tuple[WorldState, Tensor]
"""What the world model remembers when an episode begins, and the latent (B, C, h, w) shown then."""


class StartStates:
    """Draws the beginnings of episodes, each from its own seed.

    Args:
        model: The world model.
        contexts: Real frames to burn in; None for a cold state, in which the first frame is imagined.
        num_denoising_steps: Of an imagined first frame, if more than 16.
        num_starts: Draw from so many beginnings only, made when first needed and kept: then an episode begins
            at no cost, but memory holds their states. None to make each anew.

    Raises:
        ValueError: If ``num_starts`` is below 1.
    """

    def __init__(
        self,
        model: WorldModel,
        contexts: ContextSource | None,
        num_denoising_steps: int = 1,
        num_starts: int | None = None,
    ) -> None:
        if num_starts is not None and num_starts < 1:
            raise ValueError(f"`num_starts` must be at least 1 or None, got {num_starts}.")
        self.model, self.contexts, self.num_starts = model, contexts, num_starts
        self._first_frame_steps = max(FIRST_FRAME_STEPS, num_denoising_steps)
        self._kept: dict[int, Start] = {}

    @torch.no_grad()
    def draw(self, seed: Tensor) -> Start:
        """Beginnings of the episodes of ``seed`` (B,) int64.

        Raises:
            ValueError: If the contexts do not fit the model.
        """
        if self.num_starts is None:
            return self._make(seed)
        which = below(hash_bits(seed, _START), self.num_starts).tolist()
        missing = sorted(set(which) - self._kept.keys())
        if missing:
            made = self._make(derive_seeds(torch.tensor(missing, device=seed.device), 1))
            for place, index in enumerate(missing):
                self._kept[index] = pytree.tree_map(lambda leaf, at=place: leaf[at : at + 1].clone(), made)
        return _joined([self._kept[index] for index in which])

    def _make(self, seed: Tensor) -> Start:
        return self._cold(seed) if self.contexts is None else self._warm(self.contexts, seed)

    def _warm(self, contexts: ContextSource, seed: Tensor) -> Start:
        """Burn in the seeds' contexts, a bounded number of frames at once."""
        rows = max(1, _FRAMES_AT_ONCE // contexts.num_frames)
        parts = [self._burn_in(contexts.draw(some)) for some in torch.split(seed, rows)]
        return _joined(parts)

    def _burn_in(self, context: Context) -> Start:
        config, dtype = self.model.config, self.model.backbone.position.dtype
        size = config.tokenizer.frame_size
        if tuple(context.frames.shape[2:4]) != (size, size):
            raise ValueError(
                f"this model sees frames of {size}x{size}, but the contexts' are of "
                f"{'x'.join(map(str, context.frames.shape[2:4]))}."
            )
        if context.actions.shape[2] != config.action_dim:
            raise ValueError(
                f"this model's actions have {config.action_dim} numbers, but the contexts' have "
                f"{context.actions.shape[2]}."
            )
        width = 0 if context.proprio is None else context.proprio.shape[2]
        if config.proprio_dim not in (0, width) and not (width == 0 and config.sees_motion):
            raise ValueError(
                f"this model needs odometry of {config.proprio_dim} values, but the contexts have {width}."
            )
        frames = context.frames.to(self.model.device).permute(0, 1, 4, 2, 3).to(dtype) / 255
        latents = self.model.tokenizer.encode(frames)
        proprio = None
        if config.proprio_dim and context.proprio is not None:
            proprio = context.proprio.to(self.model.device, dtype)
        state, _ = self.model.observe_latents(
            self.model.initial_state(len(frames)),
            latents,
            context.actions.to(self.model.device, dtype),
            proprio,
            context.action_known.to(self.model.device, dtype),
        )
        return state, latents[:, -1]

    def _cold(self, seed: Tensor) -> Start:
        """Imagine even the first frame, which no action led to, from the seed's noise."""
        model, batch = self.model, len(seed)
        state = model.initial_state(batch)
        like = model.backbone.position
        proprio, pose = state.proprio, model.config.odometry == "pose"
        if model.config.proprio_dim:
            proprio = model.backbone.conditioning.proprio_mean.to(like).expand(batch, -1).clone()
            if pose:  # relative to the first frame: here it is the first frame
                proprio[:, :_POSE_DIM] = like.new_tensor([0.0, 0.0, 0.0, 1.0])
        count = torch.zeros_like(seed)
        state, latent, _ = model.advance(
            state,
            like.new_zeros(batch, model.config.action_dim),
            like.new_zeros(batch),
            proprio,
            like.new_full((batch,), float(pose and model.config.proprio_dim > 0)),
            self._first_frame_steps,
            noise=normal_noise(model, seed, count),
        )
        return state, latent


def _joined(parts: list[Start]) -> Start:
    joined: Start = pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)
    return joined


def normal_noise(model: WorldModel, seed: Tensor, count: Tensor) -> Tensor:
    """Standard normal noise (B, C, h, w) of step ``count`` of the episodes of ``seed``."""
    shape = model.config.tokenizer.latent_shape
    place = torch.arange(math.prod(shape), device=seed.device)
    radius, angle = (uniform(seed[:, None], _NOISE + part, count[:, None], place[None]) for part in (0, 1))
    normal = (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller (1958)
    return normal.to(model.backbone.position.dtype).view(-1, *shape)


def uniform(seed: Tensor, stream: int, *counters: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64, by :func:`hash_bits`."""
    return (hash_bits(seed, stream, *counters).double() + 0.5) / 2**32
