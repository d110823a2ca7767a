"""Whether memory stays what it is while an imagined environment goes through 100,000 steps.

    python benchmarks/imagined_steps.py --json benchmarks/results/imagined_steps.json

Plays at random in `lssvwm/Imagined-v0`, with episodes that end and begin anew, and counts live tensors, their
bytes, and the memory of the process along the way. Ends with status 1 if live tensors grew after the first
tenth. What the process holds goes up and down by itself: see whether it has a trend.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

import lssvwm_agents.envs  # noqa: F401
from lssvwm_agents.files import write_json
from lssvwm_agents.report import model_sha256, run_info


def resident_megabytes() -> float:
    """Memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def live_tensors() -> tuple[int, float]:
    """How many tensors are reachable, and their mebibytes."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="a world model's name or folder")
    parser.add_argument("--steps", type=int, default=100_000, help="imagined steps of all environments")
    parser.add_argument("--num-envs", type=int, default=1)
    parser.add_argument("--max-episode-steps", type=int, default=5000)
    parser.add_argument("--observation", default="features")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    env = gymnasium.make_vec(
        "lssvwm/Imagined-v0",
        num_envs=args.num_envs,
        model=args.model,
        contexts="cold",
        observation=args.observation,
        max_episode_steps=args.max_episode_steps,
    )
    env.reset(seed=0)
    draws = np.random.default_rng(0)
    calls = args.steps // args.num_envs
    marks = {round(calls * share / 10) for share in range(1, 11)}
    found, episodes, began = [], 0, time.perf_counter()
    for call in tqdm(range(1, calls + 1), desc="imagine", mininterval=5.0):
        _, _, ended, cut, _ = env.step(draws.integers(env.single_action_space.n, size=args.num_envs))
        episodes += int((ended | cut).sum())
        if call in marks:
            count, size = live_tensors()
            found.append(
                {
                    "steps": call * args.num_envs,
                    "live_tensors": count,
                    "live_tensor_megabytes": size,
                    "resident_megabytes": resident_megabytes(),
                }
            )
    seconds = time.perf_counter() - began
    result = {
        "steps": calls * args.num_envs,
        "num_envs": args.num_envs,
        "episodes_ended": episodes,
        "steps_per_second": calls * args.num_envs / seconds,
        "memory": found,
        "model": model_sha256(args.model),
        **run_info("cpu"),
    }
    print(json.dumps(result, indent=2))
    if args.json is not None:
        write_json(args.json, result)
    first, last = found[0], found[-1]
    if last["live_tensors"] > first["live_tensors"]:
        sys.exit(f"Live tensors grew from {first['live_tensors']} to {last['live_tensors']}.")


if __name__ == "__main__":
    main()
