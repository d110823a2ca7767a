"""Train the tokenizer on frames, freeze its statistics, and save it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from lssvwm_agents.errors import UserError
from lssvwm_agents.files import write_tensors
from lssvwm_agents.metrics import psnr
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.config import TokenizerTrainingConfig
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.loop import Share, TrainingLoop
from lssvwm_agents.trainers.loss_modules import TokenizerLoss, unit_frames
from lssvwm_agents.worldmodel import Tokenizer, TokenizerConfig, TokenizerLossConfig

_STATISTICS_FRAMES = 8192


def train_tokenizer(
    config: TokenizerConfig,
    training: TokenizerTrainingConfig,
    loss_config: TokenizerLossConfig,
    frames: torch.Tensor,
    validation_frames: torch.Tensor,
    process: Process,
    directory: Path,
    deadline: float | None = None,
    tensorboard: bool = True,
) -> Tokenizer | None:
    """Train a tokenizer and save it under ``directory/tokenizer``.

    Args:
        config: Its shape.
        training: Settings of the loop.
        loss_config: Weights of the loss.
        frames: (N, H, W, 3) uint8 on the training device.
        validation_frames: The same, of other mazes or episodes.
        process: This process among those that train together.
        directory: The run's folder.
        deadline: Value of `time.monotonic` at which to stop.
        tensorboard: Whether to write TensorBoard files.

    Returns:
        The tokenizer, or None if the deadline came first (a checkpoint is left).
    """
    device = process.device
    torch.manual_seed(fold_in(training.seed, 1))
    tokenizer = Tokenizer(config).to(device)
    if device.type == "cuda":
        tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not any(True for _ in tokenizer.parameters()):  # identity: statistics are all there is to learn
        return _finish(tokenizer, training, frames, process, directory)
    module = TokenizerLoss(tokenizer, loss_config)
    loop = TrainingLoop(module, training, process, directory, "tokenizer", tensorboard)
    if training.compile and device.type == "cuda":
        tokenizer.encoder.compile()
        tokenizer.decoder.compile()

    def make_share(update: int, progress: float) -> Share:
        draw = generator(device, training.seed, 2, update)
        rows = training.frames_per_batch
        index = torch.randint(len(frames), (rows,), generator=draw, device=device)
        start, stop = process.rows(rows)
        return Share((frames[index[start:stop]],), stop - start, rows, rows, {})

    @torch.no_grad()
    def validate() -> dict[str, float]:
        real = unit_frames(validation_frames)
        decoded = torch.cat([tokenizer.decode(tokenizer.encode(part)) for part in real.split(256)])
        return {"val/psnr": float(psnr(decoded, real).mean())}

    result = loop.run(make_share, validate, deadline)
    if not result.finished:
        return None
    with loop.averaged():
        return _finish(tokenizer, training, frames, process, directory)


def _finish(
    tokenizer: Tokenizer,
    training: TokenizerTrainingConfig,
    frames: torch.Tensor,
    process: Process,
    directory: Path,
) -> Tokenizer:
    """Measure the latents' statistics, save the tokenizer, and load it, frozen."""
    draw = generator(process.device, training.seed, 3)
    count = min(len(frames), _STATISTICS_FRAMES)
    index = torch.randint(len(frames), (count,), generator=draw, device=process.device)
    tokenizer.fit_statistics(unit_frames(frames[index]))
    if process.is_main:
        save_tokenizer(tokenizer, directory / "tokenizer")
    process.wait()
    return load_tokenizer(directory / "tokenizer", process.device)


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a new folder that appears whole or not at all."""
    temporary = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    temporary.mkdir(parents=True)
    write_tensors(temporary / "model.safetensors", tokenizer.state_dict())
    (temporary / "config.json").write_text(json.dumps(dataclasses.asdict(tokenizer.config), indent=2))
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(temporary, directory)


def load_tokenizer(directory: Path, device: torch.device | str = "cpu") -> Tokenizer:
    """Load a tokenizer saved by `save_tokenizer`, frozen.

    Raises:
        UserError: If the folder is none.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is no tokenizer: its config.json is missing.")
    values = json.loads(path.read_text())
    config = TokenizerConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    tokenizer = Tokenizer(config)
    tokenizer.load_state_dict(load_file(directory / "model.safetensors"))
    return tokenizer.to(device).eval().requires_grad_(False)
