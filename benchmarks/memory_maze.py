"""Does a world model of Memory Maze remember what it saw long ago? On held-out recorded episodes.

    python benchmarks/memory_maze.py --model runs/memory-maze --store runs/memory-maze-store --episodes 16 \
        --context 600 --horizon 200 --device cuda --json FILE --picture FILE.png

After a context of real frames with odometry, frames are imagined along the true actions, with odometry given
and with the model's own. A frame is `far` when a pose within half a cell and 25 degrees of its own was last
held more than 64 frames before, and `unseen` when never in the context; a move is up to a quarter of a cell,
a turn up to 19 degrees. PSNR is of the view inside the border, which shows the target's colour and nothing of
the place. Intervals are Student's t over episodes, 95 %; that of the share of the gap closed a bootstrap.
Held out are the last episodes of the store that the model was trained on, of another those of other seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from lssvwm_agents.data import EpisodeStore
from lssvwm_agents.data.latents import actions_to_float
from lssvwm_agents.evaluate.memory import controls
from lssvwm_agents.evaluate.memory.curves import gap_closed, interval, per_maze
from lssvwm_agents.evaluate.memory.episodes import NEVER, Episodes
from lssvwm_agents.evaluate.memory.scoring import FrameScores, join
from lssvwm_agents.evaluate.memory.world import ODOMETRY, far_frames
from lssvwm_agents.metrics import psnr
from lssvwm_agents.report import model_sha256, run_info, write_json
from lssvwm_agents.report.drawing import write_png
from lssvwm_agents.report.frame_grid import GridRow, frame_grid
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel

OURS, CUT, CEILING = controls.OURS, controls.CONTEXT_CUT, controls.CEILING
WAYS = GIVEN, OWN = "odometry_given", "own_odometry"
CELLS, DEGREES = 0.5, 25.0
STRIPS = {(GIVEN, OURS): "ours", (OWN, OURS): "ours, actions", (GIVEN, CUT): "context cut"}


@dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str  # a run of the recipe memory-maze-9x9
    store: str  # what it was trained on
    other_model: str | None = None  # a model without memory, trained on the same
    episodes: int = 16  # the store's last; no more than training held out, 16 in the recipe
    context: int = 600  # real frames before others are imagined
    horizon: int = 200  # frames imagined
    at_once: int = 16  # episodes on the device, at least 3: another one's actions are the wrong ones
    device: str = "cpu"  # cpu or cuda
    json: str | None = None  # file for the result
    picture: str | None = None  # PNG of real frames and imagined ones, of three episodes


def check(args: Args, models: list[WorldModel], store: EpisodeStore) -> list[int]:
    """The episodes to take; a ValueError where the numbers, the models and the store do not fit."""
    for name, least in (("episodes", 2), ("context", 1), ("horizon", 1), ("at_once", 3)):
        if getattr(args, name) < least:
            raise ValueError(f"`{name}` must be at least {least}, got {getattr(args, name)}.")
    spec, lengths, wanted = store.spec, store.lengths[-args.episodes :].tolist(), args.context + args.horizon
    for config in (model.config for model in models):
        for what, needed, got in (
            ("odometry of model and store", (ODOMETRY, ODOMETRY), (config.proprio_dim, spec.proprio_dim)),
            ("frames", (*[config.tokenizer.frame_size] * 2, 3), spec.frame_shape),
            ("discrete actions", config.action_dim * config.discrete_actions, spec.num_actions),
            ("width of the actions", config.action_dim, spec.action_dim),
        ):
            if needed != got:
                raise ValueError(f"{what} must be {needed}, got {got}.")
    if len(lengths) < args.episodes or min(lengths) < wanted:
        raise ValueError(f"{args.episodes} episodes must have {wanted} frames each, got {lengths}.")
    return list(range(store.num_episodes - args.episodes, store.num_episodes))


def read(store: EpisodeStore, chosen: list[int], length: int, device: str) -> tuple[Episodes, torch.Tensor]:
    """The first frames of some episodes, and their rewards (B, T)."""
    found = [store.episode(index) for index in chosen]
    actions = [actions_to_float(one.actions[:length], store.spec.num_actions or None) for one in found]
    none = torch.zeros(len(found), length, 0, dtype=torch.int64)  # known of our own mazes alone
    episodes = Episodes(
        frames=torch.from_numpy(np.stack([one.frames[:length] for one in found])).to(device),
        actions=torch.from_numpy(np.stack(actions)).to(device),
        action_known=(torch.arange(length, device=device) > 0).repeat(len(found), 1),
        proprio=torch.from_numpy(np.stack([one.proprio[:length] for one in found])).to(device),
        **dict.fromkeys(("pose", "color", "center", "seen"), none),
    )
    return episodes, torch.from_numpy(np.stack([one.rewards[:length] for one in found]))


def age_of_view(pose: torch.Tensor, context: int) -> torch.Tensor:
    """Frames since about the same pose (B, T, 4) in the context: (B, T - context), `NEVER` for never."""
    pose = pose.double()
    place, heading = pose[..., :2], torch.atan2(pose[..., 2], pose[..., 3])
    distance = (place[:, context:, None] - place[:, None, :context]).norm(dim=-1)
    turned = (heading[:, context:, None] - heading[:, None, :context] + math.pi) % math.tau - math.pi
    same = (distance <= CELLS) & (turned.abs() <= math.radians(DEGREES))
    last = context - 1 - same.flip(2).to(torch.uint8).argmax(2)
    return torch.where(same.any(2), torch.arange(context, pose.shape[1]) - last, NEVER)


def score(frames: torch.Tensor, truth: torch.Tensor) -> FrameScores:
    """PSNR of (B, H, 3, S, S), inside the border (as wide as the package draws it) and of whole frames."""
    edge = int(2 * math.sqrt(frames.shape[-1] // 64))
    view = slice(edge, frames.shape[-1] - edge)
    inside, whole = psnr(frames[..., view, view], truth[..., view, view]), psnr(frames, truth)
    return FrameScores(inside.cpu(), whole.cpu(), torch.zeros(0), torch.zeros(0))


def rewards(imagined: torch.Tensor, real: torch.Tensor) -> dict[str, Any]:
    """Sums of rewards (E,), and Pearson's correlation with the real ones, None where either does not vary."""
    varied = min(len(imagined.unique()), len(real.unique())) > 1
    both = torch.corrcoef(torch.stack([imagined, real]).double())
    return {"sums": imagined.tolist(), "correlation": float(both[0, 1]) if varied else None}


def summary(scores: dict[str, FrameScores], mask: torch.Tensor) -> dict[str, Any]:
    """PSNR on the frames in the mask (E, H), ours less each, and how far ours is on the way to the tokenizer.

    That way begins at the cut context, and at the other model, if there is one.
    """
    result = {
        name: {
            "psnr": interval(one.psnr, mask),
            "psnr_frame": interval(one.psnr_frame, mask),
            "ours_less_this": interval(scores[OURS].psnr - one.psnr, mask),
            "episodes": per_maze(one.psnr, mask).tolist(),
        }
        for name, one in scores.items()
    }
    gap = {OURS: scores[OURS], controls.WINDOW_ONLY: scores[CUT], CEILING: scores[CEILING]}
    counts = {"frames": int(mask.sum()), "episodes_without": int((~mask.any(1)).sum())}
    from_other = gap_closed(scores, mask) if controls.WINDOW_ONLY in scores else None
    shares = {"gap_closed": gap_closed(gap, mask), "gap_closed_from_other": from_other}
    return {**counts, **shares, "conditions": result}


def draw(path: str, strips: dict[str, torch.Tensor], ages: torch.Tensor, times: list[int]) -> None:
    """Real frames of some episodes, and what became of them: each (N, K, 3, S, S), at K times."""
    rows = []
    for episode in range(len(strips["real"])):
        notes = ["unseen" if age == NEVER else f"seen {age} ago" for age in ages[episode, times].tolist()]
        for name, frames in strips.items():
            shown = (frames[episode].clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
            rows.append(GridRow(name, shown, notes if name == "real" else (), name == "real"))
    write_png(path, frame_grid(rows, [f"+{t + 1}" for t in times], "Memory Maze: imagined after the context"))


@dataclass
class Imagined:
    """What was imagined of all episodes, by how odometry was known and by condition.

    Attributes:
        scores: PSNR of every frame, of the episodes in parts.
        sums: (E,) sums of imagined rewards, in parts.
        strips: Frames for the picture, of the first episodes.
        age: (E, H) frames since the view was last seen, in parts.
        real: (E,) sums of real rewards, in parts.
    """

    scores: dict[tuple[str, str], list[FrameScores]] = field(default_factory=lambda: defaultdict(list))
    sums: dict[tuple[str, str], list[torch.Tensor]] = field(default_factory=lambda: defaultdict(list))
    strips: dict[str, torch.Tensor] = field(default_factory=dict)
    age: list[torch.Tensor] = field(default_factory=list)
    real: list[torch.Tensor] = field(default_factory=list)


@torch.inference_mode()
def imagine_part(
    args: Args,
    model: WorldModel,
    other: WorldModel | None,
    store: EpisodeStore,
    part: list[int],
    kept: Imagined,
    shown: list[int],
) -> None:
    """Imagine what follows the context of some episodes, in every condition, and keep the scores."""
    episodes, reward = read(store, part, args.context + args.horizon, args.device)
    kept.age.append(age_of_view(episodes.proprio.cpu(), args.context))
    kept.real.append(reward[:, args.context :].sum(1))
    truth = controls.unit(episodes.frames[:, args.context :])
    kept.strips.setdefault("real", truth[:3, shown])
    trial, future = controls.make_trial(model, episodes, args.context), slice(args.context, None)
    for way in WAYS:
        runs = controls.run_conditions(model, other, episodes, args.context, 0, way == OWN)
        for name, frames in tqdm(runs, desc=f"{way}, from episode {part[0]}", leave=False):
            kept.scores[way, name].append(score(frames, truth))
            if (way, name) in STRIPS:
                kept.strips.setdefault(STRIPS[way, name], frames[:3, shown])
        told = episodes.proprio[:, future] if way == GIVEN else None
        for name, seen in ((OURS, None), (CUT, controls.window_reach(model))):
            state = controls.remember(model, trial, seen)
            _, imagined = model.imagine(state, episodes.actions[:, future], told)
            kept.sums[way, name].append(imagined.reward.sum(1).float().cpu())


def report(kept: Imagined, far: int) -> dict[str, Any]:
    """The record's figures; they are printed too."""
    age, real = torch.cat(kept.age), torch.cat(kept.real)
    result: dict[str, Any] = {"real_reward_sums": real.tolist()}
    for way in WAYS:
        joined = {name: join(found) for (its, name), found in kept.scores.items() if its == way}
        groups = {"far": summary(joined, age > far), "unseen": summary(joined, age == NEVER)}
        reward_of = {name: rewards(torch.cat(s), real) for (its, name), s in kept.sums.items() if its == way}
        result[way] = {**groups, "rewards": reward_of}
        for group, found in groups.items():
            print(f"{way}, {group}: {found['frames']} frames, share of gap closed {found['gap_closed']}")
            for name, one in found["conditions"].items():
                print(f"  {name:<18}", one["psnr"] and "{:.2f} dB ({:.2f} to {:.2f})".format(*one["psnr"]))
        print("  reward, imagined with real:", {name: one["correlation"] for name, one in reward_of.items()})
    return result


def main(args: Args) -> None:
    """Measure, print, and write the record and the picture."""
    model = load_model(args.model, args.device).eval()
    other = load_model(args.other_model, args.device).eval() if args.other_model else None
    store, shown = EpisodeStore.open(args.store), np.linspace(0, args.horizon - 1, 9).round().astype(int)
    chosen = check(args, [model] if other is None else [model, other], store)
    times, kept = np.unique(shown).tolist(), Imagined()
    for part in np.array_split(chosen, -(-args.episodes // args.at_once)):  # at_once >= 3: two or more each
        imagine_part(args, model, other, store, part.tolist(), kept, times)
    about = {"far_frames": far_frames(model), "cells": CELLS, "degrees": DEGREES}
    about |= {"chosen": chosen, "seeds": store.seeds[chosen].tolist(), **report(kept, far_frames(model))}
    if args.picture is not None:
        draw(args.picture, kept.strips, kept.age[0], times)
    if args.json is not None:
        hashes = {"model_sha256": model_sha256(args.model)}
        if args.other_model is not None:
            hashes["other_model_sha256"] = model_sha256(args.other_model)
        write_json(args.json, {**asdict(args), **hashes, **about, **run_info(args.device)})


if __name__ == "__main__":
    main(tyro.cli(Args))
