"""Write the README's first picture: `python docs/memory_gallery.py --window-only RUN`.

A loop of 256 moves is walked once, in a maze never seen in training, and its second round is imagined from
the moves alone: every frame shows what was last seen 108 to 256 frames ago. Below, the same model with its
context cut to what its attention windows see, and a model trained without memory, by the same recipe:
`lssvwm train --recipe maze-small --tokenizer tiny --model.backbone.memory none
--model.backbone.place-features 0
--model.backbone.mlp-ratio 7.857` makes one: wider MLPs in place of memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lssvwm_agents.envs import reset
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.memory.controls import CONTEXT_CUT, OURS, WINDOW_ONLY, run_conditions
from lssvwm_agents.evaluate.memory.episodes import age_of_pose, play_moves
from lssvwm_agents.evaluate.memory.paths import loop_moves, usable_seeds
from lssvwm_agents.evaluate.memory.strips import Strip
from lssvwm_agents.evaluate.memory.world import MAZE
from lssvwm_agents.report.drawing import write_png
from lssvwm_agents.weights import load_model

CONTEXT, PERIOD, HORIZON = 256, 256, 128
TITLE = "Imagined from the moves alone: a loop of 256 moves, walked once before"


@torch.no_grad()
def main() -> None:
    """One film strip: real, remembered, and with the memory cut to the window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--window-only", help="a run without memory; left out without")
    parser.add_argument("--seed", type=int, default=1, help="of the maze")
    args = parser.parse_args()
    model = load_model(args.model)
    rival = None if args.window_only is None else load_model(args.window_only)
    seeds = usable_seeds(MAZE, episode_seeds(args.seed, 16), 1)
    moves = loop_moves(MAZE, reset(MAZE, seeds), seeds, CONTEXT, PERIOD, HORIZON)
    episodes = play_moves(MAZE, seeds, moves)
    strip = Strip(episodes, CONTEXT, age_of_pose(episodes, CONTEXT), 0, TITLE)
    for condition, frames in run_conditions(model, rival, episodes, CONTEXT, 0, own_odometry=True):
        if condition in (OURS, CONTEXT_CUT, WINDOW_ONLY):
            strip.add(condition, frames)
    write_png(Path(__file__).parent / "media" / "memory.png", strip.draw())


if __name__ == "__main__":
    main()
