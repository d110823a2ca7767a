"""The whole of a training run: tokenizer, data, world model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lssvwm_agents.data.online import render_frames
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import Experiment, experiment_to_dict
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers import distributed
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.run_folder import claim
from lssvwm_agents.trainers.store_fit import check_store, split_episodes, warn_of_values, with_store
from lssvwm_agents.trainers.tokenizer_trainer import load_tokenizer, save_tokenizer, train_tokenizer
from lssvwm_agents.trainers.training_data import (
    rendered_data,
    rendered_validation,
    stored_data,
    stored_frames,
)
from lssvwm_agents.trainers.world_model_trainer import build_world_model, train_world_model
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import Tokenizer, WorldModel

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
"""Fields of a model's configuration that decide which weights it has; visual odometry, odometry dynamics may
differ."""


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
    elif experiment.data.mirror:
        raise UserError(
            "--data.mirror needs recorded episodes (--store): mazes rendered on the device cost nothing, "
            "raise --data.num-envs or set --data.refresh-every for more of them."
        )
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
        played, held_out = split_episodes(store, experiment.data)
        if process.is_main:
            images = " with their mirror images" if experiment.data.mirror else ""
            print(
                f"store: {len(played)} episodes to train on{images}, {len(held_out)} held out",
                flush=True,
            )

    tokenizer = _tokenizer(experiment, options, process, deadline, store, init)
    if tokenizer is None:
        if process.is_main:
            print(f"stopped while training the tokenizer; the same command goes on: {options.out}")
        return None
    # Mazes and stores alike are encoded by every process: they then sample the same windows.
    if store is None:
        source = rendered_data(experiment, tokenizer, process)
        validation = rendered_validation(experiment, tokenizer, process)
    else:
        source, validation = stored_data(experiment, store, tokenizer, process, options.out / "latents")
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
        played, kept = split_episodes(store, experiment.data)
        mirror = experiment.data.mirror
        frames = stored_frames(store, played, training.num_frames, training.seed, mirror)
        frames = frames.to(process.device)
        held_out = stored_frames(store, kept, training.num_validation_frames, training.seed)
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
