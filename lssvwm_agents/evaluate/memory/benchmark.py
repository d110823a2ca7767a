"""The memory benchmark: every test of one model, with its controls, as one record and some pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lssvwm_agents.baselines import parameter_count
from lssvwm_agents.data.online import split_evenly
from lssvwm_agents.envs import MazeConfig, reset
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.memory import controls, pictures
from lssvwm_agents.evaluate.memory.curves import DISTANCES, curves
from lssvwm_agents.evaluate.memory.drift import drift
from lssvwm_agents.evaluate.memory.episodes import (
    Episodes,
    age_of_place,
    age_of_pose,
    play_explorer,
    play_moves,
    walked_back,
)
from lssvwm_agents.evaluate.memory.events import balanced_seeds, event_memory
from lssvwm_agents.evaluate.memory.options import TESTS, MemoryOptions
from lssvwm_agents.evaluate.memory.paths import MoveSizes, check_period, loop_moves, usable_seeds
from lssvwm_agents.evaluate.memory.scoring import FrameScores, join, score_frames
from lssvwm_agents.evaluate.memory.streaming import FRAME_COUNTS, streaming
from lssvwm_agents.evaluate.memory.strips import Strip
from lssvwm_agents.evaluate.memory.world import MAZE, check_model, far_frames
from lssvwm_agents.report.drawing import write_png
from lssvwm_agents.worldmodel import WorldModel

_MAZES_AT_ONCE = 64


def evaluate_memory(
    model: WorldModel,
    window_only: WorldModel | None = None,
    episodes: int = 64,
    seed: int = 0,
    *,
    tests: tuple[str, ...] = TESTS,
    options: MemoryOptions | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure what a model remembers.

    Args:
        model: The model in question.
        window_only: A model without memory, for the share of the gap closed; None for none.
        episodes: Mazes, at least 2 (another maze's actions are the wrong ones).
        seed: Names the mazes and all choices.
        tests: Some of `TESTS`.
        options: How large the benchmark is.
        out: Folder of the pictures; None for none.
        progress: Whether to show a progress bar.

    Returns:
        A record of plain JSON values; docs/memory.md says what is in it.

    Raises:
        UserError: If a model does not fit or there are too few episodes.
    """
    options = options or MemoryOptions()
    for judged in (model, window_only):
        if judged is not None:
            check_model(judged, "the model" if judged is model else "the window-only model", options.odometry)
    if episodes < 2:
        raise UserError(f"`episodes` must be at least 2, got {episodes}.")
    for period in options.periods:
        check_period(MoveSizes.of(MAZE), options.context, period)
    began = time.perf_counter()
    run = _Run(model, window_only, episodes, seed, options, out, progress, tests)
    result: dict[str, Any] = {
        "env_id": model.config.env_id,
        "with_odometry": run.odometry,
        "parameters": parameter_count(model.config),
        "layers": model.config.backbone.num_layers,
        "window": model.config.backbone.window,
        "reach_frames": controls.window_reach(model),
        "far_frames": far_frames(model),
        "distances": list(DISTANCES),
        "seed": seed,
        "seeds": run.seeds,
        "options": asdict(options),
    }
    with run.bar:
        for name in tests:
            result[name] = {
                "retrieval": run.retrieval,
                "reasoning": run.reasoning,
                "events": run.events,
                "drift": run.drift,
                "streaming": run.streaming,
            }[name]()
    result["wall_seconds"] = time.perf_counter() - began
    return result


class _Run:
    """One evaluation: what every test needs, and one method per test."""

    def __init__(
        self,
        model: WorldModel,
        window_only: WorldModel | None,
        episodes: int,
        seed: int,
        options: MemoryOptions,
        out: Path | None,
        progress: bool,
        tests: tuple[str, ...],
    ) -> None:
        self.model, self.window_only, self.options, self.out = model, window_only, options, out
        self.seed, self.device = seed, str(model.device)
        self.odometry = options.odometry and bool(model.config.proprio_dim)
        self.seeds = usable_seeds(MAZE, episode_seeds(seed, 2 * episodes + 16), episodes)
        parts = split_evenly(episodes, -(-episodes // _MAZES_AT_ONCE))
        self.parts = [list(part) for part in _cut(self.seeds, parts)]
        self.bar = tqdm(desc="memory", unit="condition", disable=not progress, total=self._total(tests))

    def _total(self, tests: tuple[str, ...]) -> int:
        """Conditions to be measured in all."""
        options = self.options
        each = len(self.parts) * (len(controls.CONDITIONS) - (self.window_only is None))
        loops = len(options.periods) * each
        counts = {
            "retrieval": 2 * loops + each if self.odometry else loops,
            "reasoning": each,
            "events": len(options.delays) * (3 + (self.window_only is not None)),
            "drift": 1,
            "streaming": 0,
        }
        return sum(counts[name] for name in tests)

    def retrieval(self) -> dict[str, Any]:
        """Loops walked twice, and with odometry the way back."""
        options = self.options
        results = {"loop": self._loops("loop", own_odometry=False)}
        if self.odometry:
            results["loop_own_odometry"] = self._loops("loop_own_odometry", own_odometry=True)
            results["backwards"] = self._path(
                "backwards",
                [
                    lambda seeds: walked_back(
                        play_explorer(MAZE, seeds, options.context, self.device), options.horizon
                    )
                ],
                age_of_pose,
                "The context walked backwards: odometry given, no actions",
            )
        return results

    def reasoning(self) -> dict[str, Any]:
        """The explorer goes on."""
        length = self.options.context + self.options.horizon
        path = self._path(
            "reasoning",
            [lambda seeds: play_explorer(MAZE, seeds, length, self.device)],
            age_of_place,
            "The explorer goes on" + (": odometry given" if self.odometry else ", from actions alone"),
        )
        return {"explorer": path}

    def events(self) -> dict[str, Any]:
        """The cue corridor, one delay after the other."""
        accuracy: dict[str, dict[str, list[float]]] = {}
        count = len(self.seeds)
        for delay in self.options.delays:
            config = MazeConfig(task="cue", cue_delay=delay)
            seeds = balanced_seeds(config, episode_seeds(self.seed, 4 * count + 32), count)
            found = event_memory(
                self.model, self.window_only, config, seeds, self.seed, self.options.odometry
            )
            found.pop("frames")
            for name, value in found.items():
                accuracy.setdefault(name, {})[str(delay)] = value
                self.bar.update()
        result = {"delays": list(self.options.delays), "episodes": count, "accuracy": accuracy}
        if self.out is not None:
            pictures.draw_events(self.out / "events.png", result)
        return result

    def drift(self) -> dict[str, Any]:
        """A long imagination along the explorer's way."""
        options, seeds = self.options, self.seeds[: self.options.drift_episodes]
        episodes = play_explorer(MAZE, seeds, options.context + options.drift_frames, self.device)
        result = drift(self.model, MAZE, episodes, options.context, options.odometry)
        self.bar.update()
        if self.out is not None:
            pictures.draw_drift(self.out / "drift.png", result)
        return {"episodes": len(seeds), **result}

    def streaming(self) -> dict[str, Any]:
        """Time and bytes by frames seen."""
        longest = self.options.longest_stream
        episodes = play_explorer(MAZE, self.seeds[:1], self.options.context, self.device)
        total = max((count for count in FRAME_COUNTS if count <= longest), default=0)
        result = {}
        for name, model in ((controls.OURS, self.model), (controls.WINDOW_ONLY, self.window_only)):
            if model is not None:
                with tqdm(total=total, desc=f"stream, {name}", disable=self.bar.disable, leave=False) as bar:
                    result[name] = streaming(model, episodes, longest, progress=bar.update)
        if self.out is not None:
            pictures.draw_streaming(self.out / "streaming.png", result)
        return result

    def _loops(self, name: str, own_odometry: bool) -> dict[str, Any]:
        options = self.options

        def maker(period: int) -> Callable[[list[int]], Episodes]:
            def make(seeds: list[int]) -> Episodes:
                state = reset(MAZE, seeds, device=self.device)
                moves = loop_moves(MAZE, state, seeds, options.context, period, options.horizon)
                return play_moves(MAZE, seeds, moves)

            return make

        told = "odometry given" if self.odometry and not own_odometry else "from actions alone"
        return self._path(
            name,
            [maker(period) for period in options.periods],
            age_of_pose,
            f"A loop walked twice, its second round imagined: {told}",
            own_odometry,
        )

    def _path(
        self,
        name: str,
        makers: list[Callable[[list[int]], Episodes]],
        age_of: Callable[[Episodes, int], torch.Tensor],
        title: str,
        own_odometry: bool = False,
    ) -> dict[str, Any]:
        """Score every condition on one kind of path; ``makers`` play its variants, in the same mazes."""
        context, far = self.options.context, far_frames(self.model)
        scores: dict[str, list[FrameScores]] = {}
        colors, ages = [], []
        for variant, make in enumerate(makers):
            parts: dict[str, list[FrameScores]] = {}
            part_ages, part_colors = [], []
            for first, seeds in zip(range(len(self.parts)), self.parts, strict=True):
                episodes = make(seeds)
                age = age_of(episodes, context)
                part_ages.append(age.cpu())
                part_colors.append(episodes.color[:, context:].cpu())
                wanted = self._strip_rows(len(seeds)) if first == 0 and variant == len(makers) - 1 else []
                strips = [Strip(episodes, context, age, row, title) for row in wanted]
                truth = controls.unit(episodes.frames[:, context:])
                conditions = controls.run_conditions(
                    self.model,
                    self.window_only,
                    episodes,
                    context,
                    self.seed,
                    own_odometry,
                    self.options.odometry,
                )
                for condition, frames in conditions:
                    parts.setdefault(condition, []).append(
                        score_frames(MAZE, frames, truth, self.options.ssim_stride)
                    )
                    for strip in strips:
                        strip.add(condition, frames)
                    self.bar.update()
                for number, strip in enumerate(strips):
                    assert self.out is not None
                    write_png(self.out / f"{name}_strip_{number}.png", strip.draw())
            for condition, found in parts.items():
                scores.setdefault(condition, []).append(join(found))
            ages.append(torch.cat(part_ages))
            colors.append(torch.cat(part_colors))
        joined = {condition: _beside(found) for condition, found in scores.items()}
        result = curves(joined, torch.cat(colors, 1), torch.cat(ages, 1), far)
        if self.out is not None:
            pictures.draw_curves(self.out / f"{name}.png", result, title, far)
        return result

    def _strip_rows(self, mazes: int) -> range:
        return range(min(mazes, self.options.strips) if self.out is not None else 0)


def _beside(parts: list[FrameScores]) -> FrameScores:
    """Variants of a path in the same mazes, as more frames of each maze."""
    return replace(
        parts[0],
        psnr=torch.cat([p.psnr for p in parts], 1),
        psnr_frame=torch.cat([p.psnr_frame for p in parts], 1),
        ssim=torch.cat([p.ssim for p in parts], 1),
        color=torch.cat([p.color for p in parts], 1),
    )


def _cut(seeds: list[int], sizes: list[int]) -> list[list[int]]:
    cut, start = [], 0
    for size in sizes:
        cut.append(seeds[start : start + size])
        start += size
    return cut
