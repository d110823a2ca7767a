"""Look at recorded episodes: a contact sheet, and a video."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.formats.source import Source
from lssvwm_agents.errors import UserError
from lssvwm_agents.files import atomic_path

TILE, GAP, LABEL, TITLE = 96, 4, 34, 20
_DARK, _GOOD, _PALE = (30, 30, 30), (0, 130, 60), (120, 120, 120)


def chosen_episodes(source: Source, count: int) -> list[tuple[int, Episode]]:
    """The first ``count`` episodes and their numbers.

    Raises:
        UserError: If there is none, or ``count`` is less than 1.
    """
    if count < 1:
        raise UserError(f"`episodes` must be at least 1, got {count}.")
    found = list(enumerate(islice(source.episodes(), count)))
    if not found:
        raise UserError("There is no episode to look at.")
    return found


def contact_sheet(episodes: list[tuple[int, Episode]], columns: int = 10) -> Image.Image:
    """One row for each episode: frames evenly spaced from the first to the last, with what came with them.

    Under a frame stand its number and the rewards since the frame before it on the sheet, and the action
    that led to it; the last one says how the episode ended.

    Raises:
        UserError: If ``columns`` is less than 2.
    """
    if columns < 2:
        raise UserError(f"`columns` must be at least 2, got {columns}.")
    row_height = TITLE + TILE + LABEL + GAP
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, len(episodes) * row_height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (number, episode) in enumerate(episodes):
        top = GAP + row * row_height
        title = (
            f"episode {number}, seed {episode.seed}, {len(episode)} frames, return {episode.rewards.sum():g}"
        )
        draw.text((GAP, top), title, fill=_DARK)
        places = np.unique(np.linspace(0, len(episode) - 1, columns).round().astype(int)).tolist()
        before = -1
        for column, place in enumerate(places):
            left = GAP + column * (TILE + GAP)
            sheet.paste(_tile(episode.frames[place]), (left, top + TITLE))
            earned = float(episode.rewards[before + 1 : place + 1].sum())
            text, below = f"{place}" + (f"  {earned:+g}" if earned else ""), top + TITLE + TILE + 2
            draw.text((left, below), text, fill=_GOOD if earned > 0 else _DARK)
            draw.text((left, below + 14), _caption(episode, place), fill=_PALE)
            before = place
    return sheet


def _tile(frame: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(frame)
    image.thumbnail((TILE, TILE), Image.Resampling.BOX)
    scale = min(TILE / image.width, TILE / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST)


def _caption(episode: Episode, place: int) -> str:
    if episode.terminated[place]:
        return "terminated"
    if episode.truncated[place]:
        return "truncated"
    if place == 0:
        return "reset"
    action = np.atleast_1d(episode.actions[place])
    if action.dtype.kind in "iu":
        return f"action {int(action[0])}"
    return " ".join(f"{value:+.1f}" for value in action[:3]) + (" .." if len(action) > 3 else "")


def film(episodes: list[tuple[int, Episode]], scale: int = 4) -> Iterator[NDArray[np.uint8]]:
    """Frames of all episodes, one after the other, enlarged, with a line of text below."""
    for number, episode in episodes:
        total = 0.0
        for place, frame in enumerate(episode.frames):
            total += float(episode.rewards[place])
            picture = np.repeat(np.repeat(frame, scale, axis=0), scale, axis=1)
            strip = Image.new("RGB", (picture.shape[1], 2 * TITLE), "white")
            draw = ImageDraw.Draw(strip)
            draw.text((GAP, 2), f"episode {number}, frame {place}", fill=_DARK)
            line = f"return {total:g}, {_caption(episode, place)}"
            draw.text((GAP, TITLE), line, fill=_GOOD if episode.rewards[place] > 0 else _PALE)
            yield np.concatenate([picture, np.asarray(strip)], axis=0)


def write_preview(source: Source, out: str | Path, episodes: int = 6, columns: int = 10) -> list[Path]:
    """Write ``sheet.png`` and ``film.mp4`` of the first episodes to the folder ``out``.

    Returns:
        The two files.

    Raises:
        UserError: If there is nothing to look at, or a number is too small.
    """
    from lssvwm_agents.report.video import write_mp4

    chosen = chosen_episodes(source, episodes)
    sheet, video = Path(out) / "sheet.png", Path(out) / "film.mp4"
    with atomic_path(sheet) as temporary:
        contact_sheet(chosen, columns).save(temporary, format="PNG")
    scale = max(1, round(256 / max(source.spec.frame_shape[:2])))
    write_mp4(video, film(chosen, scale))
    return [sheet, video]
