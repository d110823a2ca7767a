"""Whether memory stays what it is while an imagined environment goes through 100,000 steps.

    python benchmarks/imagined_steps.py --json benchmarks/results/imagined_steps.json

Plays at random in `lssvwm/Imagined-v0`, with episodes that end and begin anew, and notes the memory of the
process along the way. Ends with status 1 if it grew by more than --limit-megabytes after the first tenth.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="a world model's name or folder")
    parser.add_argument("--steps", type=int, default=100_000, help="imagined steps of all environments")
    parser.add_argument("--num-envs", type=int, default=1)
    parser.add_argument("--max-episode-steps", type=int, default=5000)
    parser.add_argument("--observation", default="features")
    parser.add_argument("--limit-megabytes", type=float, default=20.0)
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
            gc.collect()
            found.append({"steps": call * args.num_envs, "resident_megabytes": resident_megabytes()})
    seconds = time.perf_counter() - began
    grown = found[-1]["resident_megabytes"] - found[0]["resident_megabytes"]
    result = {
        "steps": calls * args.num_envs,
        "num_envs": args.num_envs,
        "episodes_ended": episodes,
        "steps_per_second": calls * args.num_envs / seconds,
        "megabytes_grown_after_the_first_tenth": grown,
        "memory": found,
        "model": model_sha256(args.model),
        **run_info("cpu"),
    }
    print(json.dumps(result, indent=2))
    if args.json is not None:
        write_json(args.json, result)
    if grown > args.limit_megabytes:
        sys.exit(f"Memory grew by {grown:.1f} MiB, more than {args.limit_megabytes}.")


if __name__ == "__main__":
    main()
