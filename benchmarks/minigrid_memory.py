"""Does a world model of MiniGrid's memory task know at the fork which side will be rewarded?

    python benchmarks/minigrid_memory.py --model runs/minigrid --json runs/minigrid/memory.json

In held-out episodes the agent looks at an object, wanders, and comes to a fork with two objects; the side of
the same object is rewarded. The model observes all of that and imagines both sides: it is right where the
predicted reward is larger on the rewarded side. The control observes only the last frames before the fork,
which show both objects but not the one to remember: 50 % is chance. Beside this, frames are imagined along
the real actions, and scored where the object is seen again. Seeds are from 2**31 on: no store has such.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as iio
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import trange

import lssvwm_agents.envs  # noqa: F401
from lssvwm_agents.envs.adapters.walkers import FORWARD, LEFT, RIGHT, MemoryGuesser
from lssvwm_agents.files import write_json
from lssvwm_agents.metrics import psnr
from lssvwm_agents.report import model_sha256, run_info
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel

FIRST_SEED = 2**31


@dataclass
class Played:
    """An episode; action t led to frame t.

    Attributes:
        frames: Each (H, W, 3) uint8.
        actions: Each an integer; 0 for the first frame.
        proprio: Each (P,).
        cue_seen: Whether the object to remember was in view.
        at_fork: Frame at which the agent stands at the fork, looking between the two objects.
        rewarded: The turn that leads to the reward.
    """

    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    proprio: list[NDArray[np.float32]] = field(default_factory=list)
    cue_seen: list[bool] = field(default_factory=list)
    at_fork: int = -1
    rewarded: int = LEFT

    @property
    def cue_age(self) -> int:
        """Frames from the last sight of the object to the fork."""
        return self.at_fork - max(t for t in range(self.at_fork + 1) if self.cue_seen[t])


def play(env: gymnasium.Env[Any, Any], seed: int) -> Played:
    """One episode of the guesser."""
    played, walker = Played(), MemoryGuesser(np.random.default_rng(seed))
    inner = env.unwrapped.inner  # type: ignore[attr-defined]
    seen, _ = env.reset(seed=seed)
    action, over = 0, False
    while True:
        played.frames.append(seen["frame"])
        played.proprio.append(seen["proprio"])
        played.actions.append(action)
        played.cue_seen.append(bool(inner.agent_sees(1, inner.height // 2 - 1)))
        now = env.unwrapped.situation()  # type: ignore[attr-defined]
        (column, row), middle = now.ends[0], inner.height // 2
        if now.pose == (column, middle, 0):
            played.at_fork = len(played.frames) - 1
            played.rewarded = LEFT if row < middle else RIGHT
        if over:
            return played
        action = walker.act(now)
        seen, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated


class Stack:
    """Episodes cut to one common end, as tensors."""

    def __init__(self, model: WorldModel, episodes: list[Played], starts: list[int], stops: list[int]):
        length = {stop - start for start, stop in zip(starts, stops, strict=True)}
        assert len(length) == 1
        cut = [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]
        pairs = list(zip(episodes, cut, strict=True))
        frames = torch.from_numpy(np.stack([np.stack(e.frames[c]) for e, c in pairs]))
        self.frames = frames.permute(0, 1, 4, 2, 3).float() / 255.0
        actions = torch.tensor([e.actions[c] for e, c in pairs])
        self.actions = torch.nn.functional.one_hot(actions, model.config.action_dim).float()
        for row, start in enumerate(starts):
            if start == 0:
                self.actions[row, 0] = 0.0  # no action led to it
        self.proprio = torch.from_numpy(np.stack([np.stack(e.proprio[c]) for e, c in pairs]))


@torch.no_grad()
def side_rewards(model: WorldModel, played: Played, context: int) -> tuple[float, float]:
    """Predicted reward to the left and to the right, from the last ``context`` frames (0 for all)."""
    stop = played.at_fork + 1
    seen = Stack(model, [played], [max(0, stop - context) if context else 0], [stop])
    state, _ = model.observe(model.initial_state(1), seen.frames, seen.actions, seen.proprio)
    ways = torch.tensor([[LEFT, FORWARD], [RIGHT, FORWARD]])
    ways = torch.nn.functional.one_hot(ways, model.config.action_dim).float()
    _, imagined = model.imagine(state.repeat(2), ways)
    left, right = imagined.reward[:, -1].tolist()
    return left, right


@torch.no_grad()
def imagined_frames(model: WorldModel, played: Played, start: int, at: int, stop: int) -> torch.Tensor:
    """(T, 3, H, W) frames ``at`` to ``stop``, imagined from the real ones of ``start`` to ``at``."""
    seen = Stack(model, [played], [start], [at])
    state, _ = model.observe(model.initial_state(1), seen.frames, seen.actions, seen.proprio)
    rest = Stack(model, [played], [at], [stop])
    _, imagined = model.imagine(state, rest.actions)
    return model.decode(imagined.latent)[0].clamp(0, 1)


def share(right: list[bool]) -> dict[str, float]:
    """Share of True with half the width of its 95 % interval (normal)."""
    p = float(np.mean(right))
    return {"share": p, "half_width": 1.96 * math.sqrt(p * (1 - p) / len(right)), "episodes": len(right)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="minigrid-memory, or a run of that recipe")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--cut", type=int, default=6, help="frames that the control observes")
    parser.add_argument("--context", type=int, default=30, help="real frames before others are imagined")
    parser.add_argument("--horizon", type=int, default=16, help="frames imagined along the real actions")
    parser.add_argument("--picture", type=Path, help="PNG of real frames and imagined ones")
    parser.add_argument("--json", type=Path, help="file for the result")
    args = parser.parse_args()
    model = load_model(args.model).eval()
    kwargs = json.loads(model.config.env_kwargs_json)
    env = gymnasium.make(model.config.env_id, **{**kwargs, "observation": "dict"})
    rows: list[dict[str, Any]] = []
    again: dict[str, list[float]] = {"whole": [], "cut": [], "tokenizer": []}
    strips: list[NDArray[np.uint8]] = []
    for number in trange(args.episodes, desc="episodes", mininterval=5.0):
        played = play(env, FIRST_SEED + number)
        row: dict[str, Any] = {"rewarded": "left" if played.rewarded == LEFT else "right"}
        row["cue_age"] = played.cue_age
        for name, context in (("whole", 0), ("cut", args.cut)):
            left, right = side_rewards(model, played, context)
            row[name] = {"left": left, "right": right}
            row[f"{name}_right"] = (left > right) == (played.rewarded == LEFT)
        rows.append(row)
        at, stop = args.context, min(args.context + args.horizon, played.at_fork)
        if stop <= at or not any(played.cue_seen[: at - args.cut]):
            continue
        real = torch.from_numpy(np.stack(played.frames[at:stop])).permute(0, 3, 1, 2).float() / 255.0
        whole = imagined_frames(model, played, 0, at, stop)
        cut = imagined_frames(model, played, at - args.cut, at, stop)
        with torch.no_grad():
            kept = model.decode(model.tokenizer.encode(real[None]))[0]
        where = [t for t in range(stop - at) if played.cue_seen[at + t]]
        # Only where it was out of sight for the whole of the control's context.
        if where and not any(played.cue_seen[at - args.cut : at]):
            for name, frames in (("whole", whole), ("cut", cut), ("tokenizer", kept)):
                again[name].append(float(psnr(frames[None, where], real[None, where]).mean()))
            if len(strips) < 18 and stop - at == args.horizon:
                strips += [as_strip(frames) for frames in (real, whole, cut)]
    result = {
        "correct_side": {name: share([row[f"{name}_right"] for row in rows]) for name in ("whole", "cut")},
        "correct_side_by_cue_age": by_age(rows),
        "mean_reward_rewarded_side": {n: side_mean(rows, n, True) for n in ("whole", "cut")},
        "mean_reward_other_side": {n: side_mean(rows, n, False) for n in ("whole", "cut")},
        "psnr_object_seen_again": {name: float(np.mean(v)) for name, v in again.items() if v},
        "episodes_object_seen_again": len(again["whole"]),
        "model": model_sha256(args.model),
        **run_info("cpu"),
    }
    print(json.dumps(result, indent=2))
    if args.picture is not None and strips:
        iio.imwrite(args.picture, np.concatenate(strips, axis=0))
    if args.json is not None:
        write_json(args.json, {**result, "rows": rows})


def by_age(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The share by frames since the object was last seen, in three groups."""
    groups = {"up to 14": (0, 14), "15 to 24": (15, 24), "25 and more": (25, 10**6)}
    chosen = {
        name: [row["whole_right"] for row in rows if low <= row["cue_age"] <= high]
        for name, (low, high) in groups.items()
    }
    return {name: share(right) for name, right in chosen.items() if right}


def side_mean(rows: list[dict[str, Any]], name: str, rewarded: bool) -> float:
    sides = ("left", "right")
    return float(
        np.mean([row[name][side] for row in rows for side in sides if (row["rewarded"] == side) == rewarded])
    )


def as_strip(frames: torch.Tensor) -> NDArray[np.uint8]:
    """(T, 3, H, W) in [0, 1] -> (2 H, 2 T W, 3) uint8, every second frame, doubled."""
    array = (frames[::2].permute(2, 0, 3, 1) * 255).round().to(torch.uint8)
    flat = array.reshape(array.shape[0], -1, 3).numpy()
    return flat.repeat(2, axis=0).repeat(2, axis=1)


if __name__ == "__main__":
    main()
