"""What turns memory into a frame: the protocol of a denoiser, and a `diffusers` transformer that follows it.

Shape legend: B batch  T frames  C,h,w latent  h',w' token grid  D width of a token  K width of conditioning
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from lssvwm_agents.worldmodel.config import WorldModelConfig
from lssvwm_agents.worldmodel.diffusers_package import diffusers_package
from lssvwm_agents.worldmodel.patches import from_patches

_TIMESTEPS = 1000.0  # what a `diffusers` transformer calls pure noise


class FrameDenoiser(Protocol):
    """Predicts clean latents from noisy ones and from what memory says about each frame."""

    def __call__(
        self,
        noisy: torch.Tensor,
        noise_level: torch.Tensor,
        memory: torch.Tensor,
        conditioning: torch.Tensor,
    ) -> torch.Tensor:
        """Denoise every frame by itself.

        Args:
            noisy: (B,T,C,h,w) noisy latents; zeros where the noise level is 1.
            noise_level: (B,T), 0 clean, 1 noise.
            memory: (B,T,h',w',D) what memory, as it stood before each frame, answers to its action and
                odometry.
            conditioning: (B,T,K) embedding of that action and odometry.

        Returns:
            (B,T,C,h,w) clean latents. Frames and rows must not depend on each other.
        """
        ...


class DiffusersDenoiser(nn.Module):
    """PixArt's transformer (Chen et al. 2023, arXiv 2310.00426) around our memory.

    A linear map of the memory features, a draft of the clean latent, is stacked on the noisy latent as extra
    channels; memory features and conditioning are also the context of cross-attention, where PixArt has its
    prompt; the noise level is its timestep.

    Raises:
        ImportError: If `diffusers` is not installed.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        package = diffusers_package("`denoiser`='diffusers'")
        channels, size, _ = config.tokenizer.latent_shape
        width, shape = config.backbone.width, config.transformer
        self.patch_size = config.patch_size
        self.draft = nn.Linear(width, channels * config.patch_size**2)
        self.condition = nn.Linear(config.backbone.conditioning_width, width)
        self.transformer = package.PixArtTransformer2DModel(
            num_attention_heads=shape.num_heads,
            attention_head_dim=shape.head_dim,
            in_channels=2 * channels,
            out_channels=channels,
            num_layers=shape.num_layers,
            cross_attention_dim=shape.num_heads * shape.head_dim,
            caption_channels=width,
            sample_size=size,
            patch_size=config.patch_size,
            use_additional_conditions=False,
        )

    def forward(
        self,
        noisy: torch.Tensor,
        noise_level: torch.Tensor,
        memory: torch.Tensor,
        conditioning: torch.Tensor,
    ) -> torch.Tensor:
        """As :class:`FrameDenoiser`."""
        draft = from_patches(self.draft(memory), self.patch_size)
        stacked = torch.cat([noisy.to(draft.dtype), draft], dim=2).flatten(0, 1)
        context = torch.cat([self.condition(conditioning)[:, :, None], memory.flatten(2, 3)], dim=2)
        wide = torch.promote_types(noise_level.dtype, torch.float32)
        clean: torch.Tensor = self.transformer(
            stacked,
            encoder_hidden_states=context.flatten(0, 1),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            timestep=_TIMESTEPS * noise_level.to(wide).flatten(),
            return_dict=False,
        )[0]
        return clean.reshape(noisy.shape)
