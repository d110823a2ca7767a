"""What imagined environments show and what actions they take: spaces, checks, arrays or tensors."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import error, spaces
from torch import Tensor

from lssvwm_agents.envs.contexts import action_width
from lssvwm_agents.worldmodel import WorldModel
from lssvwm_agents.worldmodel.config import WorldModelConfig

ImaginedObservation = Literal["frame", "latent", "features", "dict"]


def check_choice(name: str, value: object, literal: object) -> None:
    """Refuse a value that is none of a Literal's.

    Raises:
        ValueError: Naming all that there are.
    """
    if value not in get_args(literal):
        raise ValueError(f"`{name}` must be one of {get_args(literal)}, got {value!r}.")


def imagined_action_space(config: WorldModelConfig, given: spaces.Space[Any] | None) -> spaces.Space[Any]:
    """The given space if it fits the model; else Discrete(A), or Box(A) of [-1, 1].

    Raises:
        ValueError: If the given one does not fit.
    """
    if given is None:
        if config.discrete_actions:
            return spaces.Discrete(config.action_dim)
        return spaces.Box(-1.0, 1.0, (config.action_dim,), np.float32)
    kind: type = spaces.Discrete if config.discrete_actions else spaces.Box
    if not isinstance(given, kind) or action_width(given) != config.action_dim:
        raise ValueError(
            f"`action_space` must be a {kind.__name__} of width {config.action_dim} for this model, "
            f"got {given}."
        )
    return given


def imagined_observation_space(model: WorldModel, observation: ImaginedObservation) -> spaces.Space[Any]:
    """The space of one environment's observations; see :class:`ImaginedEnv`.

    Raises:
        ValueError: If the kind is unknown, or ``dict`` is asked of a model without odometry.
    """
    check_choice("observation", observation, ImaginedObservation)
    config = model.config
    size = config.tokenizer.frame_size
    frame = spaces.Box(0, 255, (size, size, 3), np.uint8)
    if observation == "frame":
        return frame
    if observation == "latent":
        return _unbounded(config.tokenizer.latent_shape)
    if observation == "features":
        return _unbounded((model.feature_dim,))
    if not config.proprio_dim:
        raise ValueError(
            "`observation`='dict' needs a model with odometry, got one with `proprio_dim`=0: "
            "choose 'frame', 'latent' or 'features'."
        )
    return spaces.Dict({"frame": frame, "proprio": _unbounded((config.proprio_dim,))})


def _unbounded(shape: tuple[int, ...]) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def read_actions(
    space: spaces.Space[Any], actions: Any, lead: tuple[int, ...], device: torch.device
) -> Tensor:
    """Turn the actions of ``lead`` (() or (B,)) environments into floats (B, A) on ``device``.

    Raises:
        gymnasium.error.InvalidAction: Wrong shape or dtype, not finite, or outside the space.
    """
    wanted = (*lead, *(space.shape or ()))
    discrete = isinstance(space, spaces.Discrete)
    try:
        tensor = torch.as_tensor(actions if isinstance(actions, Tensor) else np.asarray(actions))
    except (TypeError, ValueError) as problem:
        raise error.InvalidAction(
            f"An action must be an array or a tensor of numbers, got {actions!r}."
        ) from problem
    dtype = tensor.dtype
    integral = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    fits = integral if discrete else dtype.is_floating_point
    if tuple(tensor.shape) != wanted or not fits:
        kind = "integers" if discrete else "floats"
        raise error.InvalidAction(
            f"Actions must be {kind} of shape {wanted}, got {dtype} of shape {tuple(tensor.shape)}."
        )
    if isinstance(space, spaces.Discrete):
        index = tensor.to(device, torch.int64).reshape(-1) - int(space.start)
        if bool(((index < 0) | (index >= int(space.n))).any()):
            raise error.InvalidAction(f"Actions must lie in {space}, got {tensor.tolist()}.")
        return torch.nn.functional.one_hot(index, int(space.n)).float()
    assert isinstance(space, spaces.Box)
    flat = tensor.to(device, torch.float32).reshape(-1, int(np.prod(space.shape)))
    if not bool(torch.isfinite(flat).all()):
        raise error.InvalidAction(f"Actions must be finite, got {tensor.tolist()}.")
    low, high = (torch.as_tensor(bound, device=device).reshape(-1) for bound in (space.low, space.high))
    if bool(((flat < low) | (flat > high)).any()):
        raise error.InvalidAction(f"Actions must lie in {space}, got {tensor.tolist()}.")
    return flat
