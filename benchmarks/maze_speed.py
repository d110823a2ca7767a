"""Measure RaycastMaze: frames per second of rules, renderer and policy together.

python benchmarks/maze_speed.py --num-envs 64 --steps 300 --device cpu --policy explorer --json speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.raycast_maze import odometry, reset, step
from lssvwm_agents.envs.raycast_render import border_colors, border_pixels, render, render_frames
from lssvwm_agents.envs.render_tables import render_tables
from lssvwm_agents.envs.scripted_policies import POLICY_NAMES, make_policy


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Mean seconds of one call."""
    function()
    synchronise(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronise(device)
    return (time.perf_counter() - begin) / repeats


def measure(args: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(args.device)
    config = MazeConfig(size=args.size, texture=args.texture)
    seeds = torch.arange(args.num_envs, device=device)
    begin = time.perf_counter()
    state = reset(config, seeds, device)
    synchronise(device)
    reset_seconds = time.perf_counter() - begin
    policy = make_policy(args.policy, config)
    carry = policy.initial_carry(seeds + 1, device)
    draw = render
    if args.compile:
        tables, border = render_tables(config, state.device), border_pixels(config)
        compiled = torch.compile(render_frames, dynamic=False)
        draw = lambda config, state: compiled(tables, border, border_colors(config, state), state)  # noqa: E731

    def advance() -> None:
        nonlocal state, carry
        action, carry = policy.act(state, carry)
        state, _, _ = step(config, state, action)
        draw(config, state)
        odometry(config, state)

    for _ in range(args.warmup):
        advance()
    seconds = clock(advance, device, args.steps)
    repeats = max(5, args.steps // 5)
    action, _ = policy.act(state, carry)
    parts = {
        "policy": clock(lambda: policy.act(state, carry), device, repeats),
        "rules": clock(lambda: step(config, state, action), device, repeats),
        "render": clock(lambda: draw(config, state), device, repeats),
    }
    on_gpu = device.type == "cuda"
    return {
        "frames_per_second": args.num_envs / seconds,
        "microseconds_per_frame": {name: value / args.num_envs * 1e6 for name, value in parts.items()},
        "reset_seconds": reset_seconds,
        "num_envs": args.num_envs,
        "steps": args.steps,
        "size": args.size,
        "texture": args.texture,
        "image_size": config.image_size,
        "policy": args.policy,
        "compiled_render": args.compile,
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--policy", default="explorer", choices=POLICY_NAMES)
    parser.add_argument("--size", type=int, default=9)
    parser.add_argument("--texture", default="calm", choices=("calm", "rich"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--compile", action="store_true", help="compile the renderer (needs a compiler)")
    parser.add_argument("--json", type=Path, default=None, help="also write the result here")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.no_grad():
        result = measure(args)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=args.json.parent, delete=False) as file:
            file.write(text + "\n")
        os.replace(file.name, args.json)


if __name__ == "__main__":
    main()
