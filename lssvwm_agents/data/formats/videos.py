"""Reading and writing the frames of one episode as a video file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

from lssvwm_agents.errors import StoreError
from lssvwm_agents.files import atomic_path

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")


def read_video(path: Path, first: int = 0, count: int | None = None) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) of a video, ``count`` of them from ``first`` on.

    Raises:
        StoreError: If it cannot be read, or is too short.
    """
    frames = []
    try:
        with imageio.get_reader(path, format="FFMPEG") as reader:  # type: ignore[arg-type]
            for index, frame in enumerate(reader):  # type: ignore[arg-type]
                if index >= first:
                    frames.append(np.asarray(frame, np.uint8)[..., :3])
                if count is not None and len(frames) == count:
                    break
    except Exception as error:
        raise StoreError(f"The video `{path}` cannot be read: {error}.") from error
    if not frames or (count is not None and len(frames) < count):
        raise StoreError(f"The video `{path}` should have {first + (count or 1)} frames, got {len(frames)}.")
    return np.stack(frames)


def write_lossless(path: Path, frames: NDArray[np.uint8], fps: float = 10.0) -> None:
    """Write frames (T, H, W, 3) as H.264 in RGB without any loss, atomically; ffmpeg and VLC play it."""
    with atomic_path(path) as temporary:
        writer: Any = imageio.get_writer(
            temporary,
            format="FFMPEG",  # type: ignore[arg-type]
            fps=fps,
            codec="libx264rgb",
            pixelformat="rgb24",
            macro_block_size=1,
            output_params=["-crf", "0", "-preset", "veryfast"],
            ffmpeg_log_level="error",
        )
        with writer:
            for frame in frames:
                writer.append_data(frame)
