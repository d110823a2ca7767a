"""Does a store fit a recipe: what is held out, what is refused, and what is warned of."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from lssvwm_agents.data.latents import LatentDataset
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.envs.mirror import POSE_DIM, check_mirror
from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import DataConfig, Experiment, odometry_kind
from lssvwm_agents.worldmodel import WorldModelConfig

FEW_VALUES = 0.1
"""A smaller share of frames with a value target is warned of: the value head would learn little."""


def split_episodes(store: EpisodeStore, data: DataConfig) -> tuple[Sequence[int], Sequence[int]]:
    """Episodes to train on, and those held out: the last ones, or every so-many-th.

    With ``hold_out_every`` those held out stay so while the store grows.

    Raises:
        UserError: If nothing would be left to train on.
    """
    total = store.num_episodes
    held_out = min(data.num_validation_store_episodes, total // 2)
    if held_out < 1:
        raise UserError(
            f"`{store.path}` must hold at least 2 episodes, one of them for validation, got {total}."
        )
    if data.hold_out_every == 0:
        return range(total - held_out), range(total - held_out, total)
    every = data.hold_out_every
    return [index for index in range(total) if index % every], range(0, total, every)


def check_store(store: EpisodeStore, experiment: Experiment) -> None:
    """Refuse a store that the recipe cannot train on, before anything is trained.

    Raises:
        UserError: If an episode is shorter than the recipe's windows, odometry is needed and missing, or
            mirror images are asked for and the environment has none.
    """
    if experiment.data.mirror:
        try:
            check_mirror(store.spec.env_id, store.spec.env_kwargs)
        except ValueError as error:
            raise UserError(f"`{store.path}` cannot be mirrored, leave out --data.mirror: {error}") from error
    training = experiment.training
    width = store.spec.proprio_dim
    if experiment.data.mirror and width not in (0, POSE_DIM):
        raise UserError(
            f"`{store.path}` cannot be mirrored, leave out --data.mirror: its odometry must be a pose of "
            f"{POSE_DIM} values or none, got {width}."
        )
    if (width < 1 and training.memory_replay > 0) or (width < 4 and training.priority > 0):
        raise UserError(
            f"`{store.path}` holds odometry of {width} values; memory replay needs some, and priority a pose "
            "(x, y, sine and cosine): pass --training.memory-replay 0 --training.priority 0."
        )
    played, held_out = split_episodes(store, experiment.data)
    longest = max(length for _, length in training.curriculum)
    shortest = int(store.lengths[list(played)].min())
    if shortest < longest:
        raise UserError(
            f"every episode of `{store.path}` must have at least the {longest} frames of the longest window, "
            f"got one of {shortest}: shorten --training.curriculum or collect longer episodes."
        )
    length = training.validation_context + training.validation_horizon
    shortest = int(store.lengths[list(held_out)].min())
    if training.num_validation_episodes and shortest < length:
        raise UserError(
            f"every held-out episode of `{store.path}` must have the validation's {length} frames, got one "
            f"of {shortest}: shorten --training.validation-context, or pass "
            "--training.num-validation-episodes 0."
        )


def with_store(experiment: Experiment, store: EpisodeStore) -> Experiment:
    """The experiment with the model's environment, action and odometry fields filled in from a store.

    Raises:
        UserError: If its frames do not fit the recipe's tokenizer, or its odometry not the recipe's model.
    """
    spec = store.spec
    size = experiment.model.tokenizer.frame_size
    if tuple(spec.frame_shape) != (size, size, 3):
        raise UserError(
            f"`{store.path}` holds frames of {spec.frame_shape} and the recipe's tokenizer needs "
            f"({size}, {size}, 3): collect with --frame-size {size}, or set --model.tokenizer.frame-size."
        )
    try:
        model = replace(
            experiment.model,
            env_id=spec.env_id,
            env_kwargs_json=json.dumps(spec.env_kwargs, sort_keys=True),
            action_dim=spec.action_dim,
            discrete_actions=spec.num_actions > 0,
            # A recipe without odometry stays without.
            proprio_dim=spec.proprio_dim if experiment.model.proprio_dim else 0,
            odometry=odometry_kind(spec.env_id, experiment.model.odometry),
        )
    except ValueError as error:
        raise UserError(f"`{store.path}` does not fit the recipe: {error}") from error
    return replace(experiment, model=model)


def warn_of_values(dataset: LatentDataset, config: WorldModelConfig) -> None:
    """Say what the value head cannot learn from a store's episodes."""
    if dataset.value_share < FEW_VALUES:
        print(
            f"warning: only {100 * dataset.value_share:.0f} % of the frames are followed by enough of "
            f"their episode for a value of discount {config.value_discount}: record longer episodes, or take "
            "a smaller --model.value-discount.",
            flush=True,
        )
    limit = math.expm1(config.symlog_limit)
    beyond = dataset.share_beyond(limit)
    if beyond > 0:
        print(
            f"warning: {100 * beyond:.1f} % of the values are beyond {limit:.1f}, the largest that the heads "
            f"can say, and count as that: raise --model.symlog-limit (now {config.symlog_limit}).",
            flush=True,
        )
