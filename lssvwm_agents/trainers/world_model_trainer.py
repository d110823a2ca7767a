"""Train the world model on windows of latents, with a frozen tokenizer inside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lssvwm_agents.data.windows import sample_windows
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.config import TrainingConfig
from lssvwm_agents.trainers.cuda_graph import GraphedWorldModelLoss
from lssvwm_agents.trainers.data_source import DataSource
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.loop import LoopResult, Share, TrainingLoop
from lssvwm_agents.trainers.loss_modules import WorldModelLoss
from lssvwm_agents.trainers.schedules import curriculum_length
from lssvwm_agents.trainers.validation import ValidationSet, validate_world_model
from lssvwm_agents.worldmodel import ObjectiveConfig, Tokenizer, WorldModel, WorldModelConfig


def build_world_model(
    config: WorldModelConfig,
    tokenizer: Tokenizer,
    seed: int,
    device: torch.device | str,
    init: WorldModel | None = None,
) -> WorldModel:
    """A world model with a trained, frozen tokenizer inside; the rest is fresh, or that of ``init``.

    Visual odometry and odometry dynamics may be had by one of the two alone: they are then fresh, and say
    nothing at first, or left behind. Heads of reward and
    value whose bins mean other numbers (``symlog_limit``) are fresh.
    """
    torch.manual_seed(fold_in(seed, 4))
    model = WorldModel(config)
    if init is not None:
        weights, own = init.state_dict(), model.state_dict()
        fresh: tuple[str, ...] = ()
        if init.config.sees_motion != config.sees_motion:
            fresh += ("heads.visual_odometry.",)
        if has_odometry_dynamics(init) != has_odometry_dynamics(model):
            fresh += ("heads.proprio.by_odometry.",)
        if init.config.symlog_limit != config.symlog_limit:
            fresh += ("heads.reward.", "heads.value.")
        if fresh:
            weights = {name: value for name, value in weights.items() if not name.startswith(fresh)}
            weights |= {name: value for name, value in own.items() if name.startswith(fresh)}
        model.load_state_dict(weights)
    model.tokenizer.load_state_dict(tokenizer.state_dict())
    model.tokenizer.requires_grad_(False)
    return model.to(device)


def has_odometry_dynamics(model: WorldModel) -> bool:
    """Whether odometry and action alone say a part of how the model's odometry changes."""
    return model.heads.proprio is not None and model.heads.proprio.by_odometry is not None


@contextmanager
def eager(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Within this context compiled modules run as written: other shapes are not worth compiling for."""
    modules = list(modules)
    compiled = [module._compiled_call_impl for module in modules]
    for module in modules:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, implementation in zip(modules, compiled, strict=True):
            module._compiled_call_impl = implementation


def freeze_all_but(model: WorldModel, prefixes: tuple[str, ...]) -> None:
    """Freeze every parameter whose name begins with none of the prefixes; without prefixes, none.

    Raises:
        ValueError: If a prefix names no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(
                f"`only` must name parameters of the model, such as heads.proprio, got {prefix!r}."
            )
    for name, parameter in model.named_parameters():
        if prefixes and not name.startswith(prefixes):
            parameter.requires_grad_(False)


def train_world_model(
    model: WorldModel,
    training: TrainingConfig,
    objective: ObjectiveConfig,
    source: DataSource,
    process: Process,
    directory: Path,
    held_out: ValidationSet | None = None,
    fit_proprio: bool = True,
    deadline: float | None = None,
    tensorboard: bool = True,
) -> LoopResult:
    """Train a world model and save its averaged weights under ``directory/model``.

    They are saved also when the deadline stops the training, so that what there is can be tried; the
    checkpoint left beside them is what a resumed run goes on from.

    Args:
        model: On the training device.
        training: Settings of the loop.
        objective: Noise and weights of the loss.
        source: Episodes.
        process: This process among those that train together.
        directory: The run's folder.
        held_out: Episodes to be scored on.
        fit_proprio: Whether to measure the odometry's mean and deviation first.
        deadline: Value of `time.monotonic` at which to stop.
        tensorboard: Whether to write TensorBoard files.
    """
    device = process.device
    first = source.at(0)
    fit_proprio = fit_proprio or training.refit_odometry_heads
    if fit_proprio and model.config.proprio_dim and first.proprio is not None:
        recorded = torch.arange(first.max_length, device=device) < first.lengths[:, None]
        heads_alone = training.refit_odometry_heads
        model.fit_odometry(first.proprio.float(), first.actions.float(), recorded, heads_alone)
    freeze_all_but(model, training.only)
    module = WorldModelLoss(model, objective, process.sum if process.world_size > 1 else None)
    graphed = None
    if training.cuda_graph and device.type == "cuda" and process.world_size == 1:
        graphed = GraphedWorldModelLoss(module, training.bfloat16)
    loop = TrainingLoop(module, training, process, directory, "world_model", tensorboard, graphed)
    compiled = [*model.backbone.layers, model.backbone.conditioning]
    if training.compile and device.type == "cuda":
        from torch import _dynamo

        # One graph per block size and window length, rather than one per model and window length.
        _dynamo.config.cache_size_limit = max(_dynamo.config.cache_size_limit, 64)
        for part in compiled:
            part.compile(dynamic=False)

    def make_share(update: int, progress: float) -> Share:
        length = curriculum_length(training.curriculum, progress)
        total = max(1, training.frames_per_batch // length)
        start, stop = process.rows(total)
        batch = sample_windows(
            source.at(update),
            total,
            length,
            generator(device, training.seed, 5, update),
            training.memory_replay,
            training.priority,
            replay_mode=training.replay_mode,
            rows=(start, stop),
        )
        noise_seed = fold_in(training.seed, 6, update)
        return Share(
            (batch, noise_seed, start, total, progress >= training.rollout_start),
            stop - start,
            total,
            total * length,
            {"window_length": float(length)},
        )

    def validate() -> dict[str, float]:
        assert held_out is not None
        with eager(compiled):
            return validate_world_model(model, held_out, objective)

    result = loop.run(make_share, validate if held_out is not None else None, deadline)
    if process.is_main:
        with loop.averaged():
            model.save_pretrained(directory / "model", compact=training.compact_weights)
    process.wait()
    return result
