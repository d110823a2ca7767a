"""Write frames as an mp4 that every player opens, or as a small GIF."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from PIL import Image

from lssvwm_agents.files import atomic_path


def even_size(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where the height or width is odd: H.264's yuv420p needs even sizes."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def write_mp4(path: str | Path, frames: Iterable[np.ndarray], fps: float = 10.0) -> None:
    """Write frames (H, W, 3) uint8, all of one size, as H.264 in yuv420p, atomically."""
    if fps <= 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    count = 0
    with atomic_path(path) as temporary:
        writer = imageio.get_writer(
            temporary,
            format="FFMPEG",  # type: ignore[arg-type]
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
            output_params=["-crf", "18", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        with writer:
            for frame in frames:
                writer.append_data(even_size(np.asarray(frame, dtype=np.uint8)))
                count += 1
        if count == 0:
            raise ValueError("`frames` must hold at least one frame, got none.")


def write_gif(path: str | Path, frames: Sequence[np.ndarray], fps: float = 10.0, colors: int = 96) -> None:
    """Write frames (H, W, 3) uint8 as an endlessly repeating GIF with one palette for all, atomically."""
    if len(frames) == 0:
        raise ValueError("`frames` must hold at least one frame, got none.")
    if not 2 <= colors <= 256:
        raise ValueError(f"`colors` must be in [2, 256], got {colors}.")
    if fps <= 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    sample = frames[:: max(1, len(frames) // 8)]
    palette = Image.fromarray(np.concatenate(list(sample), axis=0)).quantize(colors, Image.Quantize.MEDIANCUT)
    pictures = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 / fps),
            loop=0,
            optimize=True,
        )
