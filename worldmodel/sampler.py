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
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Integrate the flow from noise to a clean latent in ``num_denoising_steps`` Euler steps.

    One step gives the mean of what may come (for planning); 8 or more give samples.

    Args:
        denoise: (noisy latent, noise level) -> predicted clean latent.
        shape: (B, 1, C, h, w).
        num_denoising_steps: At least 1.
        generator: Source of the noise; only used with more than one step.
        like: Tensor whose device and dtype to use.
        noise: The noise itself, of shape ``shape``, instead of a generator: so that each row of a batch can
            have its own.

    Raises:
        ValueError: If ``num_denoising_steps`` is below 1, or the noise has another shape.
    """
    if num_denoising_steps < 1:
        raise ValueError(f"`num_denoising_steps` must be at least 1, got {num_denoising_steps}.")
    if noise is not None and tuple(noise.shape) != shape:
        raise ValueError(f"`noise` must have shape {shape}, got {tuple(noise.shape)}.")
    clean = denoise(like.new_zeros(shape), 1.0)
    if num_denoising_steps == 1:
        return clean
    if noise is None:
        noise_device = like.device if generator is None else generator.device
        noise = torch.randn(shape, generator=generator, device=noise_device, dtype=like.dtype)
    noisy = noise.to(like)
    for step in range(1, num_denoising_steps):
        level = 1.0 - (step - 1) / num_denoising_steps
        lower = 1.0 - step / num_denoising_steps
        noisy = clean + (lower / level) * (noisy - clean)
        clean = denoise(noisy, lower)
    return clean
