"""Draw a recording: the pages of a video and the film strip of candidate futures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lssvwm_agents.agents import PlanningAgent
from lssvwm_agents.evaluate.maze_map import MapDrawer
from lssvwm_agents.evaluate.recording import ImaginedPlan, Moment, Recording, Snapshot, gathered, to_uint8
from lssvwm_agents.report.drawing import IMAGINED
from lssvwm_agents.report.episode_page import Future, Panel, episode_page
from lssvwm_agents.report.film_strip import FilmStripRow, film_strip

FUTURE_FRAMES = 8


def shown_times(num_moves: int, count: int) -> list[int]:
    """At most ``count`` moves, evenly spaced, of a plan of ``num_moves``; the last one always."""
    count = min(count, num_moves)
    return [round((k + 1) * num_moves / count) for k in range(count)]


def future_of(moment: Moment, row: int) -> Future | None:
    """What is still to come of the plan being played: its frames stay, their distance counts down."""
    plan = moment.plan
    if plan is None:
        return None
    times = shown_times(plan.frames.shape[1], FUTURE_FRAMES)
    rewards = gathered(plan.rewards[row], times)
    kept = [k for k, time in enumerate(times) if time > moment.moves_played]
    frames = plan.frames[row, [times[k] - 1 for k in kept]]
    return Future(frames, [times[k] - moment.moves_played for k in kept], rewards[kept])


class EpisodeDrawer:
    """Draws the moments of one episode as pages of a video, with a map if it is a maze.

    Args:
        recording: Of a batch of episodes.
        row: Which of them.
        name: For the header.
        size: Edge of a panel in pixels.
        future: Whether frames of the plan's future are shown in a row below.
    """

    def __init__(
        self, recording: Recording, row: int, name: str, size: int = 256, future: bool = True
    ) -> None:
        self.recording = recording
        self.row = row
        self.name = name
        self.size = size
        self.future = future
        self._map = MapDrawer(row, size)
        planned = (i for i, m in enumerate(recording.moments) if m.plan is not None)
        self._first_planned = next(planned, len(recording.moments))

    def page(self, index: int) -> np.ndarray:
        """Draw moment ``index``: (height, width, 3) uint8."""
        recording, row, size = self.recording, self.row, self.size
        moment = recording.moments[index]
        planning = moment.plan is not None
        panels = [
            Panel("real frame", moment.frame[row]),
            Panel(
                "imagined for this moment",
                None if moment.predicted is None else moment.predicted[row],
                "first plan:\nnothing imagined yet" if planning else "watching and\nremembering",
                IMAGINED,
            ),
        ]
        if moment.view is not None:
            past = [m.view for m in recording.moments[: index + 1]]
            title = "map: path, plan, targets" if size < 200 else "map: path so far, planned path, targets"
            panels.append(Panel(title, self._map.draw(past, _planned_path(moment.plan, row))))
        phase = (
            f"planning, move {index - self._first_planned + 1}"
            if planning
            else f"looking around, move {index + 1}"
        )
        score = float(moment.score[row])
        status = f"targets found: {score:.0f}" if moment.view is not None else f"return: {score:.2f}"
        return episode_page(
            panels,
            f"{self.name} · {phase}",
            status if planning else "",
            future_of(moment, row) if self.future else None,
            FUTURE_FRAMES if self.future else 0,
            size,
        )


def _planned_path(plan: ImaginedPlan | None, row: int) -> np.ndarray | None:
    return None if plan is None or plan.proprio is None else plan.proprio[row, :, :2]


def episode_pages(
    recording: Recording, row: int, name: str, num_moves: int | None = None, watch_stride: int = 3
) -> Iterator[np.ndarray]:
    """All pages of one episode's video.

    Args:
        recording: Of a batch of episodes.
        row: Which of them.
        name: For the header.
        num_moves: Moments shown; all by default.
        watch_stride: Of the moments at which another policy drove, every so-manyth is shown.
    """
    drawer = EpisodeDrawer(recording, row, name)
    for index, moment in enumerate(recording.moments[:num_moves]):
        if moment.plan is not None or index % watch_stride == 0:
            yield drawer.page(index)


def best_window(recording: Recording, row: int, length: int) -> range:
    """The ``length`` planned moments in which maze ``row`` scored most; the earliest of equals."""
    planned = [i for i, m in enumerate(recording.moments) if m.plan is not None]
    if len(planned) <= length:
        return range(planned[0], planned[-1] + 1)
    scores = np.array([recording.moments[i].score[row] for i in planned])
    gains = scores[length:] - scores[:-length]
    start = planned[int(gains.argmax())]
    return range(start, start + length)


@torch.no_grad()
def draw_candidates(
    agent: PlanningAgent, snapshot: Snapshot, title: str, num_rows: int = 5, num_frames: int = 8
) -> np.ndarray:
    """Draw candidate futures of one moment, from the best to the worst, as a film strip.

    The candidates are imagined again from the memory that the planner used: the frames are what it compared.
    """
    order = snapshot.returns.argsort(descending=True)
    distinct: list[int] = []
    for index in order.tolist():
        if not any(bool((snapshot.candidates[index] == snapshot.candidates[i]).all()) for i in distinct):
            distinct.append(index)
    count = min(num_rows, len(distinct))
    ranks = [round(k * (len(distinct) - 1) / max(1, count - 1)) for k in range(count)]
    chosen = torch.tensor([distinct[rank] for rank in ranks], device=snapshot.candidates.device)
    prediction = agent.model.imagine(snapshot.state.repeat(count), snapshot.candidates[chosen])[1]
    frames, rewards = to_uint8(agent.model.decode(prediction.latent)), prediction.reward.cpu().numpy()
    num_moves = frames.shape[1]
    times = shown_times(num_moves, num_frames)
    rows = [
        FilmStripRow(
            label="best" if rank == 0 else f"rank {rank + 1} of {len(distinct)}",
            expected_return=float(snapshot.returns[chosen[k]]),
            frames=frames[k, [t - 1 for t in times]],
            rewards=gathered(rewards[k], times),
        )
        for k, rank in enumerate(ranks)
    ]
    note = (
        f"Return: imagined rewards over {num_moves} moves, discounted"
        + (
            ", and the model's value of what follows"
            if getattr(agent.planner, "terminal_value", None)
            else ""
        )
        + ". Marked frames: a target is imagined to be found since the frame before."
    )
    return film_strip(snapshot.frame, rows, times, title, note)
