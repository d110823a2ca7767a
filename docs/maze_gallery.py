"""Draw the picture of `docs/environments.md`: what the agent sees in each maze, and the map from above.

python docs/maze_gallery.py --out docs/media/mazes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from lssvwm_agents.envs import MazeConfig, make_policy, render, render_top_down, reset, step

MAZES = (
    ("7x7", MazeConfig(size=7), 30, 11),
    ("9x9", MazeConfig(size=9), 44, 5),
    ("15x15", MazeConfig(size=15), 60, 2),
    ("7x7, rich texture", MazeConfig(size=7, texture="rich"), 30, 11),
    ("cue corridor", MazeConfig(task="cue", cue_delay=32), 0, 3),
)
TILE, GAP, LABEL, FRAMES = 144, 6, 18, 3


def column(config: MazeConfig, moves: int, seed: int) -> list[Image.Image]:
    """Three frames on the explorer's way (the oracle's, in the cue corridor), and the map at the end."""
    policy = make_policy("oracle" if config.task == "cue" else "explorer", config)
    state = reset(config, [seed])
    carry = policy.initial_carry(torch.tensor([seed]))
    path, tiles = [state.position], []
    for move in range(moves + FRAMES * 12):
        if move >= moves and (move - moves) % 12 == 0:
            tiles.append(
                Image.fromarray(render(config, state)[0].numpy()).resize((TILE, TILE), Image.NEAREST)
            )
        action, carry = policy.act(state, carry)
        state, _, terminated = step(config, state, action)
        path.append(state.position)
        if bool(terminated):
            break
    while len(tiles) < FRAMES:
        tiles.append(Image.fromarray(render(config, state)[0].numpy()).resize((TILE, TILE), Image.NEAREST))
    map_ = render_top_down(config, state, size=TILE, path=torch.stack(path, dim=1))
    return [*tiles, Image.fromarray(map_[0].numpy())]


def main() -> None:
    """Draw the sheet and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/media/mazes.png"))
    args = parser.parse_args()
    width = len(MAZES) * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, LABEL + (FRAMES + 1) * (TILE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (label, config, moves, seed) in enumerate(MAZES):
        left = GAP + index * (TILE + GAP)
        draw.text((left, 4), label, fill="black")
        for row, tile in enumerate(column(config, moves, seed)):
            sheet.paste(tile, (left, LABEL + row * (TILE + GAP)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_suffix(".partial.png")
    sheet.quantize(192).save(partial, optimize=True)
    partial.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
