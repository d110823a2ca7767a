"""Few-step sampling of one frame's latent: quiet and differentiable in everything the denoiser depends on."""

from __future__ import annotations

from collections.abc import Callable

import torch

Denoiser = Callable[[torch.Tensor, float], torch.Tensor]


def sample(
    denoise: Denoiser,
    shape: tuple[int, ...],
    num_denoising_steps: int,
    generator: torch.Generator | None,
    like: torch.Tensor,
    common_noise: bool = False,
) -> torch.Tensor:
    """Integrate the flow from noise to a clean latent in ``num_denoising_steps`` Euler steps.

    One step gives the mean of what may come (for planning); 8 or more give samples.

    Args:
        denoise: (noisy latent, noise level) -> predicted clean latent.
        shape: (B, 1, C, h, w).
        num_denoising_steps: At least 1.
        generator: Source of the noise; only used with more than one step.
        like: Tensor whose device and dtype to use.
        common_noise: Give all rows the same noise, so that only their states and actions tell them apart.

    Raises:
        ValueError: If ``num_denoising_steps`` is below 1.
    """
    if num_denoising_steps < 1:
        raise ValueError(f"`num_denoising_steps` must be at least 1, got {num_denoising_steps}.")
    clean = denoise(like.new_zeros(shape), 1.0)
    if num_denoising_steps == 1:
        return clean
    noise_device = like.device if generator is None else generator.device
    drawn = (1, *shape[1:]) if common_noise else shape
    noise = torch.randn(drawn, generator=generator, device=noise_device, dtype=like.dtype)
    noisy = noise.to(like.device).expand(shape)
    for step in range(1, num_denoising_steps):
        level = 1.0 - (step - 1) / num_denoising_steps
        lower = 1.0 - step / num_denoising_steps
        noisy = clean + (lower / level) * (noisy - clean)
        clean = denoise(noisy, lower)
    return clean
