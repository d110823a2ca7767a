"""Where the milliseconds of one training update go: forward and backward as CUDA graphs, and the rest.

    python benchmarks/training_profile.py --recipe maze-tiny --json FILE

Random latents of the recipe's shapes; nothing is rendered. Graph time is the replay alone; kernels are named
and counted by `torch.profiler`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import torch
from world_model_speed import random_batch

from lssvwm_agents.files import write_json
from lssvwm_agents.recipes import RECIPES, with_maze
from lssvwm_agents.trainers.cuda_graph import GraphedWorldModelLoss
from lssvwm_agents.trainers.ema import Ema
from lssvwm_agents.trainers.loss_modules import WorldModelLoss
from lssvwm_agents.trainers.optimizers import build_optimizers
from lssvwm_agents.worldmodel import WorldModel


def milliseconds(function, repeats: int = 10) -> float:
    function()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats


def kernels(function, top: int) -> dict:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    rows = [row for row in profile.key_averages() if row.device_time_total > 0]
    rows.sort(key=lambda row: -row.self_device_time_total)
    return {
        "count": sum(row.count for row in rows),
        "busy_ms": sum(row.self_device_time_total for row in rows) / 1e3,
        "top": [[row.key[:110], row.count, round(row.self_device_time_total / 1e3, 3)] for row in rows[:top]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="maze-tiny")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--frames", type=int, help="frames of an update; default: the recipe's")
    parser.add_argument("--rollout-weights", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--json")
    args = parser.parse_args()
    experiment = with_maze(RECIPES[args.recipe]())
    frames = args.frames or experiment.training.frames_per_batch
    report = {
        "command": "python " + " ".join(sys.argv),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "frames": frames,
        "length": args.length,
        "updates": [],
    }
    for weight in args.rollout_weights:
        torch.manual_seed(0)
        model = WorldModel(experiment.model).to("cuda")
        module = WorldModelLoss(model, replace(experiment.objective, rollout_weight=weight))
        graphed = GraphedWorldModelLoss(module, bfloat16=True)
        optimizers = build_optimizers(module, experiment.training, torch.device("cuda"))
        ema = Ema(module)
        rows = frames // args.length
        batch = random_batch(experiment.model, rows, args.length, "cuda")
        start = time.perf_counter()
        graphed(batch, 0, 0, rows)
        torch.cuda.synchronize()
        capture = time.perf_counter() - start

        def replay(graphed=graphed, batch=batch, rows=rows):
            graphed(batch, 0, 0, rows)

        def step(optimizers=optimizers, ema=ema):
            for optimizer in optimizers:
                optimizer.step()
            ema.update(0.999)

        row = {
            "rollout_weight": weight,
            "parameters": sum(p.numel() for p in model.parameters()),
            "capture_s": capture,
            "graph_ms": milliseconds(replay),
            "optimizers_ms": milliseconds(step),
            "graph_kernels": kernels(replay, args.top),
            "memory_gb": torch.cuda.max_memory_allocated() / 1e9,
        }
        report["updates"].append(row)
        print({k: v for k, v in row.items() if k != "graph_kernels"}, flush=True)
        print({k: v for k, v in row["graph_kernels"].items() if k != "top"}, flush=True)
        for name, count, ms in row["graph_kernels"]["top"]:
            print(f"{ms:9.3f} ms {count:6d}  {name}", flush=True)
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
