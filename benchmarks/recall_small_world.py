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

import torch
import torch.nn.functional as F

from lssvwm_agents.data.online import render_episodes
from lssvwm_agents.data.windows import WindowIndex, gather_windows, sample_windows
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.files import write_json
from lssvwm_agents.seeding import generator
from lssvwm_agents.trainers.config import TrainingConfig
from lssvwm_agents.trainers.optimizers import build_optimizers, set_learning_rate
from lssvwm_agents.trainers.schedules import curriculum_length
from lssvwm_agents.trainers.validation import one_step_latents
from lssvwm_agents.worldmodel import (
    BackboneConfig,
    ObjectiveConfig,
    TokenizerConfig,
    WorldModel,
    WorldModelConfig,
    world_model_loss,
)

PIXELS = 8
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


def overrides(words: list[str]) -> dict[str, object]:
    """["state_dim=128", "memory=none"] as keyword arguments."""
    pairs = [word.split("=", 1) for word in words]
    if any(len(pair) < 2 or not pair[1] for pair in pairs):
        raise SystemExit(f"--backbone takes words of the form name=value, got {' '.join(words)}")
    return {name: ast.literal_eval(value) if value[0] in "0123456789(TF" else value for name, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--size", type=int, default=7, help="of the maze")
    parser.add_argument(
        "--replay", type=float, default=0.5, help="share of windows that walk over themselves again"
    )
    parser.add_argument(
        "--replay-mode", default="backwards", choices=["backwards", "forwards", "shuffled", "mixed"]
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[16, 32, 64], help="curriculum, equal parts"
    )
    parser.add_argument("--frames", type=int, default=2048, help="frames of an update")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--optimizer", default="muon", choices=["muon", "adamw"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", nargs="*", default=[], help="fields of BackboneConfig, name=value")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    backbone = {
        "width": 64,
        "conditioning_width": 64,
        "block_sizes": (1, 1, 1),
        "head_dim": 16,
        "state_dim": 64,
        "half_life_frames": (8.0, 1024.0),
        **overrides(args.backbone),
    }
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(frame_size=2, channels=(8,), latent_channels=3 * PIXELS**2),
        patch_size=1,
        backbone=BackboneConfig(**backbone),
        odometry="pose",
        value_head=False,
    )
    model = WorldModel(config).to(args.device)
    model.tokenizer.requires_grad_(False)
    start = time.monotonic()
    longest = max(args.lengths)
    data = episodes(args.episodes, 3 * longest, args.seed + 10, args.size, args.device)
    held_out = episodes(96, max(128, longest), args.seed + 11, args.size, args.device)
    print(f"data {time.monotonic() - start:.0f} s", flush=True)
    model.fit_odometry(data.proprio.float(), torch.ones_like(data.reward, dtype=torch.bool))
    training = TrainingConfig(optimizer=args.optimizer, learning_rate=args.learning_rate)
    optimizers = build_optimizers(model, training, torch.device(args.device))
    objective = ObjectiveConfig(proprio_dropout=0.0)
    curriculum = tuple((index / len(args.lengths), length) for index, length in enumerate(args.lengths))
    parameters = sum(p.numel() for p in model.backbone.parameters())
    start, update, frames, next_report, rows = time.monotonic(), 0, 0, 0.1, []
    while (progress := (time.monotonic() - start) / args.seconds) < 1.0:
        length = curriculum_length(curriculum, progress)
        count = args.frames // length
        batch = sample_windows(
            data,
            count,
            length,
            generator(args.device, args.seed, 1, update),
            memory_replay=args.replay,
            replay_mode=args.replay_mode,
        )
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device != "cpu"):
            noise = generator(args.device, args.seed, 2, update)
            loss, metrics = world_model_loss(model, batch, noise, objective)
        loss.backward()
        torch.nn.utils.clip_grads_with_norm_(
            [p for p in model.parameters() if p.grad is not None],
            1.0,
            torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]),
        )
        set_learning_rate(
            optimizers, args.learning_rate * min(1.0, (update + 1) / 50) * min(1.0, 4 * (1 - progress))
        )
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
    final = {str(length): errors_by_age(model, held_out, length) for length in (longest, 128)}
    report = {
        "command": "python " + " ".join(sys.argv),
        "backbone": backbone,
        "backbone_parameters": parameters,
        "updates": update,
        "frames": frames,
        "seconds": args.seconds,
        "seed": args.seed,
        "by_age": final,
        "history": rows,
    }
    print(f"{update} updates, {frames:,} frames, {frames / args.seconds:,.0f} frames/s; by age {final}")
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
