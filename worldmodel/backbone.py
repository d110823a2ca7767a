"""The stack of layers between latents and features: what holds memory and what denoises."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.conditioning import FrameConditioning
from lssvwm_agents.worldmodel.config import WorldModelConfig
from lssvwm_agents.worldmodel.denoiser import DiffusersDenoiser, FrameDenoiser
from lssvwm_agents.worldmodel.layer import Layer, Stream
from lssvwm_agents.worldmodel.patches import from_patches, to_patches
from lssvwm_agents.worldmodel.place import place_of
from lssvwm_agents.worldmodel.place_memory import PlaceMemory
from lssvwm_agents.worldmodel.place_regression import PlacePrior
from lssvwm_agents.worldmodel.ssm import BlockScan
from lssvwm_agents.worldmodel.state import LayerState


class Frames(NamedTuple):
    """Latents of frames with what conditions them.

    Attributes:
        latents: (B,T,C,h,w); zeros where the noise level is 1 (pure noise tells nothing).
        noise_level: (B,T) in [0, 1].
        action: (B,T,A).
        action_known: (B,T).
        proprio: (B,T,P).
        proprio_known: (B,T).
    """

    latents: torch.Tensor
    noise_level: torch.Tensor
    action: torch.Tensor
    action_known: torch.Tensor
    proprio: torch.Tensor
    proprio_known: torch.Tensor


class BackboneOutput(NamedTuple):
    """``features`` (B,T,F) of the writing frames, ``clean`` (B,T,C,h,w) predicted latents, and memory."""

    features: torch.Tensor | None
    clean: torch.Tensor | None
    layers: tuple[LayerState, ...]


class Backbone(nn.Module):
    """Reads memory to denoise frames, and writes finished frames into it."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        width, grid = config.backbone.width, (config.grid_size, config.grid_size)
        self.odometry = config.odometry
        self.by_place = config.backbone.place_keys or config.backbone.place_features > 0
        self.patch_size, self.width = config.patch_size, width
        patch_dim = config.tokenizer.latent_channels * config.patch_size**2
        self.feature_dim = 2 * width
        self.conditioning = FrameConditioning(
            config.backbone.conditioning_width, config.action_dim, config.proprio_dim
        )
        self.embed = nn.Linear(patch_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(*grid, width))
        self.layers = nn.ModuleList(
            Layer(config.backbone, block, grid, (config.odometry, config.proprio_dim), index)
            for index, block in enumerate(config.backbone.block_sizes)
        )
        self.denoiser: nn.Module | None = None  # a FrameDenoiser; None for the reading stream's own
        if config.denoiser == "stream":
            self.modulate_out = nn.Linear(config.backbone.conditioning_width, 2 * width)
            self.project_out = nn.Linear(width, patch_dim)
            for linear in (self.modulate_out, self.project_out):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        else:
            self.denoiser = DiffusersDenoiser(config)
        self.pool_position = nn.Parameter(0.5 * torch.randn(*grid, width))
        self.pool = nn.Linear(width, self.feature_dim)

    @property
    def scan_groups(self) -> tuple[int, ...]:
        """Groups ``G`` of every layer's scan; 0 for a layer without one."""
        scans: list[BlockScan | None] = [layer.scan for layer in self.layers]  # type: ignore[misc]
        return tuple(0 if scan is None else scan.groups for scan in scans)

    @property
    def place_priors(self) -> tuple[PlacePrior | None, ...]:
        """Of every layer's memory of places; None for a layer without."""
        memories: list[PlaceMemory | None] = [layer.place_memory for layer in self.layers]  # type: ignore[misc]
        return tuple(None if memory is None else memory.prior for memory in memories)

    def initial_layers(self, batch: int) -> tuple[LayerState, ...]:
        """Empty memory for ``batch`` episodes."""
        return tuple(layer.initial_state(batch, self.position) for layer in self.layers)  # type: ignore[operator]

    def forward(
        self,
        write: Frames | None,
        read: Frames | None,
        layers: tuple[LayerState, ...],
        *,
        denoise_writes: bool = False,
    ) -> BackboneOutput:
        """Write some frames into memory and denoise others from it.

        Args:
            write: Frames that enter memory, or None.
            read: Frames to be denoised: frame t sees memory up to frame t-1 of ``write``. Without ``write``,
                T = 1.
            layers: Memory before the first frame.
            denoise_writes: Predict clean latents of the writing frames instead (diffusion forcing).
        """
        w = None if write is None else self._embed(write)
        r = None
        if read is not None:
            known = None  # the very same tensor of places saves the layers work
            if write is not None and w is not None and write.proprio is read.proprio:
                known = w.place if write.proprio_known is read.proprio_known else None
            r = self._embed(self._query(read), known)
        after = []
        for layer, state in zip(self.layers, layers, strict=True):
            w, r, state = layer(w, r, state)
            after.append(state)
        features = None if w is None else self._features(w.tokens)
        frames, stream = (write, w) if denoise_writes else (read, r)
        clean = None
        if frames is not None and stream is not None:
            clean = self.denoise(frames.latents, frames.noise_level, stream)
        return BackboneOutput(features, clean, tuple(after))

    def recall(self, coming: Frames, layers: tuple[LayerState, ...]) -> Stream:
        """What memory answers about one coming frame, whose latents and noise level are not looked at.

        Args:
            coming: T = 1.
            layers: Memory before it.
        """
        stream: Stream | None = self._embed(_at_full_noise(coming))
        for layer, state in zip(self.layers, layers, strict=True):
            _, stream, _ = layer(None, stream, state)
        assert stream is not None
        return stream

    def denoise(self, noisy: torch.Tensor, noise_level: torch.Tensor, memory: Stream) -> torch.Tensor:
        """Clean latents (B,T,C,h,w) of frames, by the denoiser in use; arguments as `FrameDenoiser`'s."""
        denoiser: FrameDenoiser = self._read_out if self.denoiser is None else self.denoiser
        return denoiser(noisy, noise_level, memory.tokens, memory.conditioning)

    def _query(self, read: Frames) -> Frames:
        """What asks memory: the noisy frames themselves, or for another denoiser their conditions alone."""
        return read if self.denoiser is None else _at_full_noise(read)

    def _embed(self, frames: Frames, place: torch.Tensor | None = None) -> Stream:
        """Tokens of frames; their places are worked out if not given, and if a layer asks for them."""
        conditioning = self.conditioning(*frames[1:])
        embedded = self.embed(to_patches(frames.latents, self.patch_size))
        if place is None and self.by_place:
            standardised = self.conditioning.standardise(frames.proprio.to(self.position.dtype))
            place = place_of(self.odometry, frames.proprio, standardised, frames.proprio_known)
        return Stream(embedded + self.position.to(embedded.dtype), conditioning, place)

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = F.rms_norm(tokens, (self.width,)) + self.pool_position.to(tokens.dtype)
        return F.silu(self.pool(normed)).mean(dim=(2, 3))

    def _read_out(
        self,
        noisy: torch.Tensor,
        noise_level: torch.Tensor,
        memory: torch.Tensor,
        conditioning: torch.Tensor,
    ) -> torch.Tensor:
        """The denoiser ``stream``: noisy tokens went through the layers and came out as ``memory``."""
        shift, scale = self.modulate_out(conditioning)[:, :, None, None, :].chunk(2, dim=-1)
        normed = F.rms_norm(memory, (self.width,)) * (1 + scale) + shift
        return from_patches(self.project_out(normed), self.patch_size)


def _at_full_noise(frames: Frames) -> Frames:
    """The same frames with nothing known of them but action and odometry."""
    return frames._replace(
        latents=torch.zeros_like(frames.latents), noise_level=torch.ones_like(frames.noise_level)
    )
