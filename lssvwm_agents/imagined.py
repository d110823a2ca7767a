"""Imagined environments by name: what ``gymnasium.make("lssvwm/Imagined-v0")`` calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from lssvwm_agents.agents.compatibility import environment_kwargs
from lssvwm_agents.envs.contexts import ContextSource, MazeContexts, PlayedContexts
from lssvwm_agents.envs.imagined_env import ImaginedEnv
from lssvwm_agents.envs.imagined_vector_env import ImaginedVectorEnv
from lssvwm_agents.errors import UserError
from lssvwm_agents.weights import shared_model
from lssvwm_agents.worldmodel.config import WorldModelConfig


def make_imagined_env(
    model: str | Path = "tiny",
    contexts: str | Path | ContextSource = "live",
    context_frames: int = 64,
    policy: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> ImaginedEnv:
    """Make one environment that imagines with the world model of that name.

    Args:
        model: A shipped name, a run's folder or a hub id. Environments of one model share its weights.
        contexts: Where episodes begin: ``live``, in the environment that the model was trained for; ``cold``,
            without any real frame; the path of an episode store; or a source of one's own.
        context_frames: Real frames of each context.
        policy: What plays ``live`` contexts: a scripted policy in our mazes (by default the explorer), else
            ``random``.
        device: Where the model lies.
        settings: Further arguments of :class:`ImaginedEnv`.

    Raises:
        UserError: If there is no such model, or the contexts cannot be made.
    """
    return ImaginedEnv(**_arguments(model, contexts, context_frames, policy, device, settings))


def make_imagined_vector_env(
    num_envs: int = 1,
    model: str | Path = "tiny",
    contexts: str | Path | ContextSource = "live",
    context_frames: int = 64,
    policy: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> ImaginedVectorEnv:
    """As :func:`make_imagined_env`, but many; ``settings`` are those of :class:`ImaginedVectorEnv`."""
    arguments = _arguments(model, contexts, context_frames, policy, device, settings)
    return ImaginedVectorEnv(num_envs=num_envs, **arguments)


def _arguments(
    model: object,
    contexts: str | Path | ContextSource,
    context_frames: int,
    policy: str | None,
    device: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    if not isinstance(model, str | Path):
        raise UserError(
            "`model` must be a path or a name, because Gymnasium copies what an environment is made with, "
            f"got a {type(model).__name__}: save it first, or make ImaginedEnv(model) directly."
        )
    world_model = shared_model(model, device)
    source, action_space = make_contexts(world_model.config, contexts, context_frames, policy, device)
    return {"model": world_model, "contexts": source, "action_space": action_space, **settings}


def make_contexts(
    config: WorldModelConfig,
    contexts: str | Path | ContextSource,
    num_frames: int = 64,
    policy: str | None = None,
    device: str = "cpu",
) -> tuple[ContextSource | None, spaces.Space[Any] | None]:
    """A source of contexts for a world model, and the action space they were recorded with, if known.

    Raises:
        UserError: If the contexts cannot be made.
    """
    if policy is not None and contexts != "live":
        raise UserError(f"`policy` plays contexts='live' only, got contexts={str(contexts)!r}.")
    if contexts == "cold":
        return None, None
    if contexts == "live":
        return _live(config, num_frames, policy, device)
    if isinstance(contexts, str | Path):
        from lssvwm_agents.data.contexts import StoreContexts  # zarr is slow to import

        source = StoreContexts(contexts, num_frames)
        spec = source.spec
        if spec.num_actions or not spec.action_low:
            return source, None
        low, high = (
            np.array(bound, np.float32).reshape(spec.action_shape)
            for bound in (spec.action_low, spec.action_high)
        )
        return source, spaces.Box(low, high, dtype=np.float32)
    return contexts, None


def _live(
    config: WorldModelConfig, num_frames: int, policy: str | None, device: str
) -> tuple[ContextSource, spaces.Space[Any]]:
    if not config.env_id:
        raise UserError(
            "this model names no environment to take contexts from: give contexts='cold', or the path of an "
            "episode store."
        )
    kwargs = environment_kwargs(config)
    with gymnasium.make(config.env_id, **kwargs) as env:
        maze, action_space = getattr(env.unwrapped, "maze_config", None), env.action_space
    if maze is not None:
        return MazeContexts(maze, policy or "explorer", num_frames, device), action_space
    if policy not in (None, "random"):
        raise UserError(
            f"`policy` must be 'random' for {config.env_id}, got {policy!r}: others play our mazes."
        )
    return PlayedContexts(config.env_id, kwargs, num_frames), action_space
