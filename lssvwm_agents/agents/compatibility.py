"""Check, before anything runs, that a model's weights and an environment belong together."""

from __future__ import annotations

import json
from typing import Any

import gymnasium

from lssvwm_agents.agents.action_codec import ActionCodec
from lssvwm_agents.worldmodel.config import WorldModelConfig


def environment_kwargs(config: WorldModelConfig) -> dict[str, Any]:
    """Keyword arguments of the environment that the weights were trained for; with odometry if needed."""
    kwargs = dict(json.loads(config.env_kwargs_json))
    if config.proprio_dim > 0:
        kwargs["observation"] = "dict"
    return kwargs


def check_env_id(config: WorldModelConfig, env_id: str) -> None:
    """Refuse an environment that the weights were not trained for.

    Raises:
        ValueError: If the ids differ. A model without an id (never trained) fits every environment.
    """
    if config.env_id and config.env_id != env_id:
        raise ValueError(
            f"this model was trained for {config.env_id}, not for {env_id}: use that environment, train a "
            f"model for {env_id} with `lssvwm train`, or pass --allow-other-env to try it all the same."
        )


def check_spaces(
    config: WorldModelConfig, observation_space: gymnasium.Space | None, action_space: gymnasium.Space
) -> None:
    """Refuse spaces that the weights cannot read or act in; both spaces are those of one environment.

    Raises:
        ValueError: If the action's kind or width, the frame's size or the odometry's width differ.
    """
    codec = ActionCodec(action_space)
    if codec.discrete != config.discrete_actions or codec.action_dim != config.action_dim:
        wants = (
            f"Discrete({config.action_dim})"
            if config.discrete_actions
            else f"a Box of {config.action_dim} values"
        )
        raise ValueError(
            f"this model acts in {wants}, but the environment's action space is {action_space}: "
            "use the environment that the model was trained for, or train a model for this one."
        )
    if observation_space is None:
        return
    frame_space, proprio_space = observation_space, None
    if isinstance(observation_space, gymnasium.spaces.Dict):
        frame_space = observation_space.spaces.get("frame")  # type: ignore[assignment]
        proprio_space = observation_space.spaces.get("proprio")
    size = config.tokenizer.frame_size
    if frame_space is None or frame_space.shape != (size, size, 3):
        raise ValueError(
            f"this model sees frames of ({size}, {size}, 3), but the environment's observations are "
            f"{observation_space}: resize its frames or train a model for this size."
        )
    if config.proprio_dim > 0 and proprio_space is None and not config.sees_motion:
        raise ValueError(
            f"this model needs odometry (`proprio` of {config.proprio_dim} values) beside the frame: make "
            "the environment with observation='dict', or use a model with visual odometry or without any."
        )
    if config.proprio_dim > 0 and proprio_space is not None and proprio_space.shape != (config.proprio_dim,):
        raise ValueError(
            f"this model needs odometry of {config.proprio_dim} values, but the environment gives "
            f"{proprio_space.shape}: use the environment that the model was trained for."
        )
