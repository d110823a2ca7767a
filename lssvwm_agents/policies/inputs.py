"""What a policy reads of a world model's state: its features, and beside them odometry and the last latent.

Features are a mean over the frame's tokens, made to foretell rewards, values and odometry. They say how far a
goal is, and only vaguely in which direction: a few pixels of a frame. The latent of the last frame, real or
imagined, says it; what memory recalls is in the features alone.

Legend: ``R`` rows, ``F`` features, ``P`` odometry, ``C, h, w`` latent, ``I`` all that is read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from lssvwm_agents.agents.imagination import FutureState, SharedState
from lssvwm_agents.worldmodel import WorldModelConfig

Input = Literal["features", "odometry", "latent"]
FEATURES: tuple[Input, ...] = ("features",)
INPUTS: tuple[Input, ...] = ("features", "odometry", "latent")


def check_inputs(inputs: Sequence[str]) -> None:
    """Refuse inputs that are unknown, named twice, or without the features in front.

    Raises:
        ValueError: If they are.
    """
    if not inputs or inputs[0] != "features" or len(set(inputs)) < len(inputs) or set(inputs) - set(INPUTS):
        raise ValueError(
            "`inputs` must be features, and after them odometry, latent, both or neither, each once, got "
            f"{', '.join(map(str, inputs)) or 'nothing'}."
        )


def input_width(inputs: Sequence[str], feature_dim: int, config: WorldModelConfig) -> int:
    """Numbers ``I`` that are read.

    Args:
        inputs: What is read.
        feature_dim: ``F`` of the world model.
        config: Of the world model.

    Raises:
        ValueError: If odometry is asked for of a world model that has none.
    """
    check_inputs(inputs)
    if "odometry" in inputs and config.proprio_dim == 0:
        raise ValueError("`inputs` must not hold odometry for a world model without, got `proprio_dim`=0.")
    widths = {
        "features": feature_dim,
        "odometry": config.proprio_dim,
        "latent": math.prod(config.tokenizer.latent_shape),
    }
    return sum(widths[name] for name in inputs)


def read_inputs(seen: Any, inputs: Sequence[str] = FEATURES) -> torch.Tensor:
    """(..., I) of what was seen or imagined last; differentiable.

    Odometry that was never given is read as the zeros that the state holds for it.

    Args:
        seen: A world model's state, parts of one, a sampled future, or a prediction.
        inputs: What is read, in this order.
    """
    if isinstance(seen, SharedState):
        return torch.cat([read_inputs(part, inputs) for part in seen.parts])
    if isinstance(seen, FutureState):
        return read_inputs(seen.world, inputs)
    features: torch.Tensor = seen.features
    if tuple(inputs) == FEATURES:
        return features
    named = {"features": features, "odometry": seen.proprio, "latent": seen.latent.flatten(features.ndim - 1)}
    parts = [named[name] for name in inputs]
    dtype = functools.reduce(torch.promote_types, [part.dtype for part in parts])  # no metre in bfloat16
    return torch.cat([part.to(dtype) for part in parts], dim=-1)
