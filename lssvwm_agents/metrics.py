"""Figures of merit and their uncertainty: PSNR and 95 % confidence intervals of a mean."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch


def psnr(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How close two frames are: peak signal-to-noise ratio in dB, for values in [0, 1].

    Args:
        prediction: (..., 3, H, W).
        target: (..., 3, H, W).

    Returns:
        (...,) one figure per frame; equal frames give 100 dB, since the error is floored at 1e-10.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"`prediction` and `target` must have one shape, "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}."
        )
    error = (prediction - target).square().mean(dim=(-3, -2, -1))
    return -10.0 * torch.log10(error.clamp_min(1e-10))


def _samples(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"`values` must be a non-empty sequence of finite numbers, got {values!r}.")
    return array


def _student_t_tail(t: float, df: int) -> float:
    """P(|T| <= t) of Student's t with ``df`` degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    if df % 2 == 0:
        term = total = 1.0
        for k in range(1, df // 2):
            term *= cosine**2 * (2 * k - 1) / (2 * k)
            total += term
        return sine * total
    total = 0.0
    if df > 1:
        term = total = cosine
        for k in range(1, (df - 1) // 2):
            term *= cosine**2 * (2 * k) / (2 * k + 1)
            total += term
    return 2.0 / math.pi * (angle + sine * total)


@functools.cache
def student_t_quantile_95(df: int) -> float:
    """The two-sided 95 % quantile of Student's t: 12.706 at 1 degree of freedom, 2.093 at 19."""
    if df < 1:
        raise ValueError(f"`df` must be at least 1, got {df}.")
    low, high = 1.0, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_tail(middle, df) < 0.95 else (low, middle)
    return high


def mean_ci95(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % confidence interval from Student's t: ``(mean, low, high)``.

    Chosen for results of record over a percentile bootstrap, which is too narrow for 20 episodes. One value
    alone has no interval: low and high are the value itself.
    """
    array = _samples(values)
    mean = float(array.mean())
    if array.size == 1:
        return mean, mean, mean
    half = student_t_quantile_95(array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return mean, mean - half, mean + half
