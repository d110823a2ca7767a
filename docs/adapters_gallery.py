"""Draw the picture of `docs/other_mazes.md`: what agents see in environments of other packages.

python docs/adapters_gallery.py --out docs/media/adapters.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image, ImageDraw

import lssvwm_agents.envs  # noqa: F401

ENVS = (
    ("MemoryMaze-9x9", 0, (2, 2, 1, 2)),
    ("MemoryMaze-15x15", 2, (3, 3, 1, 3)),
    ("PointMaze-UMaze", 5, (0,)),
    ("PointMaze-Medium", 0, (0,)),
    ("AntMaze-UMaze", 5, (0,)),
    ("MiniWorld-Maze", 1, (1, 1, 2, 2, 1, 2)),
    ("MiniWorld-FourRooms", 2, (0, 0, 2, 2)),
    ("MiniGrid-MemoryS13", 0, (2, 1, 2, 0)),
)
TILE, GAP, LABEL, FRAMES = 144, 6, 18, 3


def column(name: str, seed: int, moves: tuple[int, ...]) -> list[Image.Image]:
    """Three frames, some moves apart, and the picture that `render` gives."""
    view = {"view": "top"} if name.startswith("MiniWorld") else {}
    env = gymnasium.make(f"lssvwm/{name}-v0", observation="dict", render_mode="rgb_array", **view)
    env.action_space.seed(seed)
    frame = env.reset(seed=seed)[0]["frame"]
    shown = []
    push = env.action_space.sample()
    for row in range(FRAMES):
        shown.append(frame)
        if row < FRAMES - 1:
            for move in range(15 if isinstance(push, np.ndarray) else 6):
                action = push if isinstance(push, np.ndarray) else moves[(move + 6 * row) % len(moves)]
                seen, _, *ended, _ = env.step(action)
                frame = seen["frame"]
                if any(ended):
                    env.reset()
    picture = env.render()
    shown.append(picture[:, -picture.shape[0] :])  # of two beside each other, the map
    env.close()
    return [Image.fromarray(each).resize((TILE, TILE), Image.Resampling.BOX) for each in shown]


def main() -> None:
    """Draw the sheet and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/media/adapters.png"))
    args = parser.parse_args()
    width = len(ENVS) * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, LABEL + (FRAMES + 1) * (TILE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, seed, moves) in enumerate(ENVS):
        left = GAP + index * (TILE + GAP)
        draw.text((left, 4), name, fill="black")
        for row, tile in enumerate(column(name, seed, moves)):
            sheet.paste(tile, (left, LABEL + row * (TILE + GAP)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_suffix(".partial.png")
    sheet.save(partial, optimize=True)
    partial.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
