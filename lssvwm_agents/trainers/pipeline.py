"""The whole of a training run: tokenizer, data, world model."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lssvwm_agents.data.latents import LatentDataset, encode_store, make_dataset
from lssvwm_agents.data.online import maze_seeds, render_episodes, render_frames, rollout, tokenizer_encoder
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import Experiment, experiment_to_dict, odometry_kind
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers import distributed
from lssvwm_agents.trainers.data_source import DataSource, FixedData, RefreshedData
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.run_folder import claim
from lssvwm_agents.trainers.tokenizer_trainer import load_tokenizer, save_tokenizer, train_tokenizer
from lssvwm_agents.trainers.validation import ValidationSet
from lssvwm_agents.trainers.world_model_trainer import build_world_model, train_world_model
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import Tokenizer, WorldModel, WorldModelConfig

_VALUE_FRAMES = 128
FEW_VALUES = 0.1
"""A smaller share of frames with a value target is warned of: the value head would learn little."""
POOL_EPISODES = 1024
"""Of a store with at least twice as many episodes, the tokenizer's frames come from about so many."""
_SHAPES = (
    "backbone",
    "tokenizer",
    "patch_size",
    "action_dim",
    "proprio_dim",
    "odometry",
    "denoiser",
    "transformer",
    "num_bins",
    "value_head",
)
"""Fields of a model's configuration that decide which weights it has; visual odometry may differ."""


@dataclass(frozen=True)
class RunOptions:
    """What a run takes from outside its experiment.

    Attributes:
        out: The run's folder.
        store: Episodes recorded before; None to render mazes on the device.
        tokenizer: A run or model whose tokenizer is taken over.
        init: A model whose weights are the start.
        device: ``auto``, ``cpu`` or ``cuda``.
        stop_after: Seconds after which to stop with a checkpoint; 0 for no limit.
        tensorboard: Whether to write TensorBoard files.
    """

    out: Path
    store: Path | None = None
    tokenizer: str | None = None
    init: str | None = None
    device: str = "auto"
    stop_after: float = 0.0
    tensorboard: bool = True


def run_experiment(experiment: Experiment, options: RunOptions) -> Path | None:
    """Train, or go on training, and return the folder of the weights; None if stopped before there were any.

    Raises:
        UserError: If the folder holds another run, or the parts do not fit together.
    """
    deadline = time.monotonic() + options.stop_after if options.stop_after > 0 else None
    process = distributed.start(options.device)
    try:
        return _run(experiment, options, process, deadline)
    finally:
        distributed.stop(process)


def run_settings(
    experiment: Experiment, options: RunOptions, store: EpisodeStore | None = None
) -> dict[str, Any]:
    """What a run is made by, as its ``experiment.json`` notes it (see :func:`claim`)."""
    return {
        "experiment": experiment_to_dict(experiment),
        "store": None if options.store is None else str(options.store.resolve()),
        "store_episodes": None if store is None else store.num_episodes,
        "tokenizer": options.tokenizer,
        "init": options.init,
    }


SETTING_DEFAULTS: dict[str, Any] = {"experiment": experiment_to_dict(Experiment("", MazeConfig()))}
"""What settings are that a run of an earlier version knew nothing of (see :func:`claim`)."""


def _run(
    experiment: Experiment, options: RunOptions, process: Process, deadline: float | None
) -> Path | None:
    with torch.device("meta"):  # a package that the model needs is missed now, not after the tokenizer
        WorldModel(experiment.model)
    store = None if options.store is None else EpisodeStore.open(options.store)
    if store is not None:
        experiment = with_store(experiment, store)
        check_store(store, experiment)
    init = None if options.init is None else load_model(options.init)
    if init is not None:
        for name in _SHAPES:
            theirs, ours = getattr(init.config, name), getattr(experiment.model, name)
            if theirs != ours:
                raise UserError(
                    f"the weights `{options.init}` have another shape than the recipe: their `{name}` is "
                    f"{theirs}, the recipe's {ours}."
                )
    if process.is_main:
        claim(options.out, run_settings(experiment, options, store), SETTING_DEFAULTS)
    process.wait()
    held_out = None
    if store is not None:
        train_range, held_out = split_episodes(store, experiment.data.num_validation_store_episodes)
        if process.is_main:
            print(f"store: {len(train_range)} episodes to train on, {len(held_out)} held out", flush=True)

    tokenizer = _tokenizer(experiment, options, process, deadline, store, init)
    if tokenizer is None:
        if process.is_main:
            print(f"stopped while training the tokenizer; the same command goes on: {options.out}")
        return None
    # Mazes and stores alike are encoded by every process: they then sample the same windows.
    if store is None:
        source = _rendered(experiment, tokenizer, process)
        validation = _rendered_validation(experiment, tokenizer, process)
    else:
        source, validation = _stored(experiment, store, tokenizer, process, options)
    if process.is_main:
        dataset = source.at(0)
        print(
            f"data: {dataset.num_frames} frames, {dataset.nbytes / 2**20:.0f} MiB on {dataset.device}",
            flush=True,
        )
        if store is not None and experiment.model.value_head:
            warn_of_values(dataset, experiment.model)
    model = build_world_model(experiment.model, tokenizer, experiment.training.seed, process.device, init)
    if process.is_main:
        count = sum(p.numel() for p in model.parameters())
        print(f"world model: {count} parameters, {count * 4 / 1e6:.2f} MB", flush=True)
    result = train_world_model(
        model,
        experiment.training,
        experiment.objective,
        source,
        process,
        options.out,
        validation,
        fit_proprio=init is None,
        deadline=deadline,
        tensorboard=options.tensorboard,
    )
    if process.is_main:
        state = "finished" if result.finished else "stopped, the same command goes on"
        print(
            f"{state} after {result.update} updates and {result.elapsed:.0f} s; "
            f"weights: {options.out / 'model'}"
        )
    return options.out / "model"


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


# --------------------------------------------------------------------------------------------- the tokenizer


def _tokenizer(
    experiment: Experiment,
    options: RunOptions,
    process: Process,
    deadline: float | None,
    store: EpisodeStore | None,
    init: WorldModel | None,
) -> Tokenizer | None:
    """The run's tokenizer: there already, taken over, or trained now."""
    folder = options.out / "tokenizer"
    if not (folder / "config.json").is_file():
        taken = None
        if options.tokenizer is not None:
            place = Path(options.tokenizer)
            trained = place / "tokenizer"
            if (trained / "config.json").is_file():
                taken = load_tokenizer(trained)
            else:
                taken = load_model(options.tokenizer).tokenizer
        elif init is not None:
            taken = init.tokenizer
        if taken is not None:
            if taken.config != experiment.model.tokenizer:
                raise UserError(
                    f"the tokenizer taken over is {taken.config}, and the recipe's model needs "
                    f"{experiment.model.tokenizer}."
                )
            if process.is_main:
                save_tokenizer(taken, folder)
            process.wait()
    if (folder / "config.json").is_file():
        return load_tokenizer(folder, process.device)
    training = experiment.tokenizer_training
    if store is None:
        mazes, device = experiment.mazes, process.device
        frames = render_frames(mazes, training.num_frames, fold_in(training.seed, 10), device)
        held_out = render_frames(mazes, training.num_validation_frames, fold_in(training.seed, 11), device)
    else:
        train_range, held_out_range = split_episodes(store, experiment.data.num_validation_store_episodes)
        frames = stored_frames(store, train_range, training.num_frames, training.seed).to(process.device)
        held_out = stored_frames(store, held_out_range, training.num_validation_frames, training.seed)
        held_out = held_out.to(process.device)
    return train_tokenizer(
        experiment.model.tokenizer,
        training,
        experiment.tokenizer_loss,
        frames,
        held_out,
        process,
        options.out,
        deadline,
        options.tensorboard,
    )


def stored_frames(store: EpisodeStore, episodes: range, count: int, seed: int) -> torch.Tensor:
    """(about count, H, W, 3) uint8 frames, spread over the episodes, or over some of very many."""
    episodes = episodes[:: max(1, len(episodes) // POOL_EPISODES)]
    each = -(-count // len(episodes))
    draw = np.random.default_rng(fold_in(seed, 12))
    frames = []
    for index in episodes:
        episode = store.episode(index)
        frames.append(episode.frames[np.sort(draw.permutation(len(episode))[:each])])
    return torch.from_numpy(np.concatenate(frames)[:count])


# --------------------------------------------------------------------------------------------- the data


def _rendered(experiment: Experiment, tokenizer: Tokenizer, process: Process) -> DataSource:
    data, training, device = experiment.data, experiment.training, process.device
    encode = tokenizer_encoder(tokenizer, device)

    def render(count: int, rendering: int) -> LatentDataset:
        return render_episodes(
            experiment.mazes,
            count,
            data.episode_length,
            data.policies,
            fold_in(training.seed, 13, rendering),
            device,
            encode,
            value_discount=experiment.model.value_discount,
            envs_at_once=data.envs_at_once,
            compile_render=data.compile_render,
            progress=process.is_main and rendering == 0,
        )

    return RefreshedData(render, data.num_envs, data.refresh_every, data.refresh_share)


def _rendered_validation(
    experiment: Experiment, tokenizer: Tokenizer, process: Process
) -> ValidationSet | None:
    training, device = experiment.training, process.device
    if training.num_validation_episodes == 0:
        return None
    latent_shape = experiment.model.tokenizer.latent_shape
    length = training.validation_context + training.validation_horizon
    seeds = maze_seeds(fold_in(training.seed, 14), training.num_validation_episodes, device, salt=2)
    # The value targets need the future: played on without being drawn, and then cut off.
    played = list(
        rollout(
            experiment.maze,
            seeds,
            length + _VALUE_FRAMES,
            experiment.data.policies[0],
            draw=lambda t: t < length,
        )
    )
    frames = torch.stack([now.frame for now in played[:length]], dim=1)
    actions, proprio, reward, terminated = (
        torch.stack([getattr(now, name) for now in played], dim=1)
        for name in ("action", "proprio", "reward", "terminated")
    )
    latents = tokenizer_encoder(tokenizer, device)(frames.flatten(0, 1)).reshape(
        *frames.shape[:2], *latent_shape
    )
    whole = make_dataset(
        torch.zeros(len(seeds), len(played), 1, device=device),
        actions,
        proprio,
        reward,
        1.0 - terminated.to(torch.float32),
        torch.full((len(seeds),), len(played), dtype=torch.int64, device=device),
        experiment.model.value_discount,
    )
    dataset = replace(first_frames(whole, length), latents=latents)
    return ValidationSet(dataset, frames, training.validation_context)


def first_frames(dataset: LatentDataset, length: int) -> LatentDataset:
    """The first ``length`` frames of every episode; their values still know what came after."""
    cut = dataset.map(lambda tensor: tensor[:, :length] if tensor.ndim > 1 else tensor.clamp(max=length))
    return replace(cut, min_length=min(length, dataset.min_length))


def split_episodes(store: EpisodeStore, num_held_out: int) -> tuple[range, range]:
    """Episodes to train on, and the last ones, held out.

    Raises:
        UserError: If nothing would be left to train on.
    """
    total = store.num_episodes
    held_out = min(num_held_out, total // 2)
    if held_out < 1:
        raise UserError(
            f"`{store.path}` must hold at least 2 episodes, one of them for validation, got {total}."
        )
    return range(total - held_out), range(total - held_out, total)


def check_store(store: EpisodeStore, experiment: Experiment) -> None:
    """Refuse a store that the recipe cannot train on, before anything is trained.

    Raises:
        UserError: If an episode is shorter than the recipe's windows, or odometry is needed and missing.
    """
    training = experiment.training
    width = store.spec.proprio_dim
    if (width < 1 and training.memory_replay > 0) or (width < 4 and training.priority > 0):
        raise UserError(
            f"`{store.path}` holds odometry of {width} values; memory replay needs some, and priority a pose "
            "(x, y, sine and cosine): pass --training.memory-replay 0 --training.priority 0."
        )
    train_range, held_out = split_episodes(store, experiment.data.num_validation_store_episodes)
    longest = max(length for _, length in training.curriculum)
    shortest = int(store.lengths[train_range.start : train_range.stop].min())
    if shortest < longest:
        raise UserError(
            f"every episode of `{store.path}` must have at least the {longest} frames of the longest window, "
            f"got one of {shortest}: shorten --training.curriculum or collect longer episodes."
        )
    length = training.validation_context + training.validation_horizon
    shortest = int(store.lengths[held_out.start : held_out.stop].min())
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


def _stored(
    experiment: Experiment, store: EpisodeStore, tokenizer: Tokenizer, process: Process, options: RunOptions
) -> tuple[DataSource, ValidationSet | None]:
    training, device = experiment.training, process.device
    train_range, held_out_range = split_episodes(store, experiment.data.num_validation_store_episodes)
    cache = options.out / "latents"
    discount = experiment.model.value_discount

    def encode(episodes: range) -> LatentDataset:
        return encode_store(store, tokenizer, device, discount, episodes=episodes, cache_dir=cache)

    # One process fills the cache, the others then read it.
    if process.is_main:
        dataset, held_out = encode(train_range), encode(held_out_range)
    process.wait()
    if not process.is_main:
        dataset, held_out = encode(train_range), encode(held_out_range)
    length = training.validation_context + training.validation_horizon
    if training.num_validation_episodes == 0:
        return FixedData(dataset), None
    frames = np.stack([store.episode(index).frames[:length] for index in held_out_range])
    scored = first_frames(held_out, length)
    return FixedData(dataset), ValidationSet(
        scored, torch.from_numpy(frames).to(device), training.validation_context
    )
