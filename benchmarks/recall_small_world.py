"""Does recall appear, in the smallest world where it must? Mazes of 8x8 pixels, one token a frame.

    python benchmarks/recall_small_world.py --seconds 240 --backbone num_groups=4 state_dim=128 --json FILE

Trains a small model with odometry on explorer episodes, half of whose windows walk over themselves again,
and scores frames shown a second time, in random order, so that only memory knows them (odometry given), by
how long ago they were seen: squared error per latent number. `fresh` is that of new frames after their
predecessors, `mean frame` that of knowing nothing. A model without memory (`--backbone memory=none`) is the
control.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from lssvwm_agents.data.online import render_episodes
from lssvwm_agents.data.windows import WindowIndex, gather_windows, sample_windows
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.files import write_json
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.config import TrainingConfig
from lssvwm_agents.trainers.cuda_graph import GraphedWorldModelLoss
from lssvwm_agents.trainers.loss_modules import WorldModelLoss
from lssvwm_agents.trainers.optimizers import build_optimizers, set_learning_rate
from lssvwm_agents.trainers.schedules import curriculum_length
from lssvwm_agents.trainers.validation import one_step_latents
from lssvwm_agents.worldmodel import (
    BackboneConfig,
    ObjectiveConfig,
    TokenizerConfig,
    WorldModel,
    WorldModelConfig,
)

PIXELS = 8
BACKBONE: dict[str, Any] = {
    "width": 64,
    "conditioning_width": 64,
    "block_sizes": (1, 1, 1),
    "head_dim": 16,
    "state_dim": 64,
    "half_life_frames": (8.0, 1024.0),
}
AGES = ((1, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128))


def pixels_as_latents(frames: torch.Tensor) -> torch.Tensor:
    """(B, 16, 16, 3) uint8, halved -> (B, 192, 1, 1), roughly standardised."""
    halved = F.avg_pool2d(frames.movedim(-1, 1).float() / 255.0, 2)
    return ((halved - 0.45) / 0.2).flatten(1)[:, :, None, None]


def episodes(count: int, length: int, seed: int, size: int, device: str):
    config = MazeConfig(size=size, image_size=2 * PIXELS)
    return render_episodes(config, count, length, "explorer", seed, device, pixels_as_latents)


@torch.no_grad()
def errors_by_age(model: WorldModel, dataset, length: int) -> dict[str, float]:
    """Mean squared error of frames shown again, in random order, by frames since they were first seen."""
    model.eval()
    rows, half, device = dataset.num_episodes, length // 2, dataset.device
    order = torch.rand(rows, half, generator=torch.Generator().manual_seed(0)).argsort(1).to(device)
    first = torch.arange(half, device=device).expand(rows, -1)
    replayed = torch.zeros(rows, length, dtype=torch.bool, device=device)
    replayed[:, half:] = True
    index = WindowIndex(torch.arange(rows, device=device), torch.cat([first, order], 1), replayed)
    batch = gather_windows(dataset, index).map(
        lambda tensor: tensor.float() if tensor.is_floating_point() else tensor
    )
    error = (one_step_latents(model, batch) - batch.latents).square().mean(dim=(2, 3, 4))
    model.train()
    age, again = half + first - order, error[:, half:]
    result = {
        f"{low}-{high}": float(again[(age >= low) & (age <= high)].mean())
        for low, high in AGES
        if ((age >= low) & (age <= high)).any()
    }
    result["fresh"] = float(error[:, half // 2 : half].mean())
    result["mean frame"] = float((batch.latents - batch.latents.mean((0, 1))).square().mean())
    return result


def overrides(words: Sequence[str]) -> dict[str, Any]:
    """["state_dim=128", "memory=none"] as keyword arguments."""
    pairs = [word.split("=", 1) for word in words]
    if any(len(pair) < 2 or not pair[1] for pair in pairs):
        raise SystemExit(f"fields are given as words of the form name=value, got {' '.join(words)}")
    return {name: ast.literal_eval(value) if value[0] in "0123456789(TF" else value for name, value in pairs}


@dataclass(frozen=True)
class Settings:
    """One run in the small world; see ``--help``."""

    seconds: float = 240.0
    updates: int = 0
    size: int = 7
    replay: float = 0.5
    replay_mode: str = "backwards"
    lengths: tuple[int, ...] = (16, 32, 64)
    frames: int = 2048
    learning_rate: float = 3e-3
    optimizer: str = "muon"
    seed: int = 0
    episodes: int = 1024
    device: str = "cpu"
    prediction: str = "teacher_forcing"
    backbone: tuple[str, ...] = ()
    objective: tuple[str, ...] = ()


def build(settings: Settings) -> WorldModel:
    """The model of the settings, untrained."""
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(frame_size=2, channels=(8,), latent_channels=3 * PIXELS**2),
        patch_size=1,
        backbone=BackboneConfig(**(BACKBONE | overrides(settings.backbone))),
        odometry="pose",
        objective=settings.prediction,
        value_head=False,
    )
    torch.manual_seed(settings.seed)
    model = WorldModel(config).to(settings.device)
    model.tokenizer.requires_grad_(False)
    return model


def gradient(model: WorldModel, objective: ObjectiveConfig, device: str):
    """A function of (batch, seed) that leaves gradients in the parameters and returns the metrics."""
    module = WorldModelLoss(model, objective)
    if device != "cpu":
        graphed = GraphedWorldModelLoss(module, bfloat16=True)
        return lambda batch, seed: graphed(batch, seed, 0, batch.reward.shape[0])[1]

    def eager(batch, seed):
        loss, metrics = module(batch, seed, 0, batch.reward.shape[0])
        loss.backward()
        return metrics

    return eager


def train(settings: Settings) -> dict[str, Any]:
    """Train by the clock, or by updates if they are given; returns a record of plain JSON values."""
    device, seed, longest = settings.device, settings.seed, max(settings.lengths)
    start = time.monotonic()
    model = build(settings)
    data = episodes(settings.episodes, 3 * longest, seed + 10, settings.size, device)
    held_out = episodes(96, max(128, longest), seed + 11, settings.size, device)
    print(f"data {time.monotonic() - start:.0f} s", flush=True)
    everywhere = torch.ones_like(data.reward, dtype=torch.bool)
    model.fit_odometry(data.proprio.float(), data.actions.float(), everywhere)
    training = TrainingConfig(optimizer=settings.optimizer, learning_rate=settings.learning_rate)
    optimizers = build_optimizers(model, training, torch.device(device))
    objective = ObjectiveConfig(**({"proprio_dropout": 0.0} | overrides(settings.objective)))
    backward = gradient(model, objective, device)
    lengths = settings.lengths
    curriculum = tuple((index / len(lengths), length) for index, length in enumerate(lengths))
    start, update, frames, next_report, rows = time.monotonic(), 0, 0, 0.1, []
    while True:
        elapsed = time.monotonic() - start
        progress = update / settings.updates if settings.updates else elapsed / settings.seconds
        if progress >= 1.0:
            break
        length = curriculum_length(curriculum, progress)
        count = settings.frames // length
        batch = sample_windows(
            data,
            count,
            length,
            generator(device, seed, 1, update),
            memory_replay=settings.replay,
            replay_mode=settings.replay_mode,
        )
        metrics = backward(batch, fold_in(seed, 2, update))
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_([p for p in model.parameters() if p.grad is not None], 1.0, norm)
        rate = settings.learning_rate * min(1.0, (update + 1) / 50) * min(1.0, 4 * (1 - progress))
        set_learning_rate(optimizers, rate)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        update, frames = update + 1, frames + count * length
        if progress >= next_report:
            next_report += 0.1
            row = errors_by_age(model, held_out, longest)
            rows.append({"update": update, "frames": frames, "length": length, **row})
            shown = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
            print(f"{progress:4.0%} {update} {float(metrics['loss/denoising']):.3f} | {shown}", flush=True)
    seconds = time.monotonic() - start
    final = {str(length): errors_by_age(model, held_out, length) for length in (longest, 128)}
    print(
        f"{update} updates, {frames:,} frames, {frames / seconds:,.0f} frames/s; by age {final}", flush=True
    )
    return {
        "settings": asdict(settings),
        "backbone": BACKBONE | overrides(settings.backbone),
        "backbone_parameters": sum(p.numel() for p in model.backbone.parameters()),
        "updates": update,
        "frames": frames,
        "seconds": seconds,
        "seed": seed,
        "by_age": final,
        "history": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Settings()
    parser.add_argument("--seconds", type=float, default=default.seconds)
    parser.add_argument("--updates", type=int, default=0, help="instead of seconds")
    parser.add_argument("--size", type=int, default=default.size, help="of the maze")
    parser.add_argument(
        "--replay",
        type=float,
        default=default.replay,
        help="share of windows that walk over themselves again",
    )
    parser.add_argument(
        "--replay-mode",
        default=default.replay_mode,
        choices=["backwards", "forwards", "shuffled", "mixed"],
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=default.lengths, help="curriculum, equal parts"
    )
    parser.add_argument("--frames", type=int, default=default.frames, help="frames of an update")
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--optimizer", default=default.optimizer, choices=["muon", "adamw"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=default.episodes)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--prediction", default=default.prediction, choices=["teacher_forcing", "diffusion_forcing"]
    )
    parser.add_argument("--backbone", nargs="*", default=[], help="fields of BackboneConfig, name=value")
    parser.add_argument("--objective", nargs="*", default=[], help="fields of ObjectiveConfig, name=value")
    parser.add_argument("--json")
    values = vars(parser.parse_args())
    file = values.pop("json")
    tuples = {name: tuple(values[name]) for name in ("lengths", "backbone", "objective")}
    report = {"command": "python " + " ".join(sys.argv), **train(Settings(**(values | tuples)))}
    if file:
        write_json(file, report)


if __name__ == "__main__":
    main()
