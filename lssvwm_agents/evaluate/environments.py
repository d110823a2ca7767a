"""Choose and make the environment that an agent plays: by default the one its world model was trained for."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium

from lssvwm_agents.agents import check_env_id
from lssvwm_agents.worldmodel import WorldModelConfig


def choose_env_id(config: WorldModelConfig, env_id: str | None, allow_other_env: bool) -> str:
    """The environment to play: ``env_id``, or the one that the model was trained for.

    Raises:
        ValueError: If there is none, or it is not the model's and ``allow_other_env`` is False.
    """
    env_id = env_id or config.env_id
    if not env_id:
        raise ValueError(
            "this model names no environment of its own: pass --env, such as lssvwm/RaycastMaze-7x7-v0."
        )
    if not allow_other_env:
        check_env_id(config, env_id)
    return env_id


def make_envs(env_id: str, num_envs: int, kwargs: dict[str, Any]) -> gymnasium.vector.VectorEnv:
    """Make a vector of a registered environment, by its own vector class where it has one.

    ``module:Id-v0`` imports the module first, which registers the id.

    Raises:
        ValueError: If there is no such environment, or it does not take ``kwargs``.
    """
    import lssvwm_agents.envs  # noqa: F401  (registers the ids)

    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        own = gymnasium.spec(name).vector_entry_point is not None
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ValueError(
            f"there is no environment {env_id!r} ({' '.join(str(error).split())}): use one such as "
            "lssvwm/RaycastMaze-9x9-v0."
        ) from error
    mode = "vector_entry_point" if own else "sync"
    try:
        return gymnasium.make_vec(name, num_envs=num_envs, vectorization_mode=mode, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"{env_id} does not take the arguments {kwargs} of the environment that the model was trained "
            f"for ({error}): use that environment."
        ) from error
