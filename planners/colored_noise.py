"""Noise that is correlated in time: the plans that it makes reach further than those of white noise."""

from __future__ import annotations

import torch


def coloured_normal(
    num_iterations: int,
    num_samples: int,
    horizon: int,
    width: int,
    colour: float,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Standard normal noise whose power falls with frequency as ``1 / frequency ** colour``.

    Drawn in the frequency domain (Timmer and Koenig 1995, as Pinneri et al. 2020 use it, section 3.1). Each
    entry has mean 0 and variance 1 by itself, and no two samples, iterations or entries of an action depend
    on each other.

    Args:
        num_iterations: ``I``.
        num_samples: ``N``.
        horizon: ``H``, the length in time.
        width: ``A``, entries of an action.
        colour: 0 is white, 1 pink, 2 red (a random walk).
        generator: Source of the noise, on any device; None uses torch's own.
        device: Where the result lies.
        dtype: Of the result.

    Returns:
        (I, N, H, A).
    """
    source = device if generator is None else generator.device
    if colour == 0.0 or horizon == 1:
        white = (num_iterations, horizon, num_samples, width)  # time outermost, as rollouts read it
        return torch.randn(white, generator=generator, device=source, dtype=dtype).to(device).transpose(1, 2)
    frequencies = torch.arange(horizon // 2 + 1, device=device, dtype=dtype).clamp(min=1.0) / horizon
    scale = frequencies ** (-0.5 * colour)
    # A real signal has a real part alone at frequency 0 and, of an even length, at the highest one.
    real_only = torch.zeros_like(scale, dtype=torch.bool)
    real_only[0] = True
    if horizon % 2 == 0:
        real_only[-1] = True
    power = torch.where(real_only, 1.0, 2.0) * scale.square()
    # With unit variances of both parts the inverse transform has variance sum(power) / horizon**2.
    scale = scale * horizon / power.sum().sqrt()
    shape = (2, num_iterations, num_samples, width, len(scale))
    parts = torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device)
    imaginary = torch.where(real_only, 0.0, parts[1])
    # Two parts share the power of an ordinary frequency; where there is but one it takes all.
    spectrum = torch.complex(parts[0] * torch.where(real_only, 1.0, 0.5**0.5), imaginary * 0.5**0.5) * scale
    noise: torch.Tensor = torch.fft.irfft(spectrum, n=horizon, dim=-1)
    return noise.transpose(-1, -2)
