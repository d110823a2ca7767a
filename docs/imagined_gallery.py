"""Write the pictures of docs/imagined_environments.md: `python docs/imagined_gallery.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lssvwm_agents.envs import ImaginedVectorEnv, MazeConfig, MazeContexts, RaycastMazeVectorEnv
from lssvwm_agents.weights import load_model

SHOWN = (0, 1, 2, 4, 8, 16, 32, 64)
SEEDS = (3, 5, 8)
CONTEXT_FRAMES = 64


def frames_of(env: ImaginedVectorEnv | RaycastMazeVectorEnv, first: np.ndarray) -> list[np.ndarray]:
    """(B, H, W, 3) frames at the moves of SHOWN: ahead for three moves, then two turns to the left."""
    shown = [first]
    for move in range(1, SHOWN[-1] + 1):
        action = 1 if move % 5 in (1, 2, 3) else 2
        frames = env.step(np.full(len(SEEDS), action))[0]
        if move in SHOWN:
            shown.append(frames)
    return shown


def main() -> None:
    """Real above, imagined below: the mean of what may come, then samples; then from a cold state."""
    model, count = load_model("tiny"), len(SEEDS)
    contexts = MazeContexts(MazeConfig(size=7), num_frames=CONTEXT_FRAMES)
    drawn = contexts.draw(torch.tensor(SEEDS))
    real = RaycastMazeVectorEnv(num_envs=count, size=7)
    first = real.reset(seed=list(SEEDS))[0]
    for action in drawn.actions[:, 1:].argmax(-1).unbind(1):
        first = real.step(action.numpy())[0]
    strips = [frames_of(real, first)]
    for source, steps in ((contexts, 1), (contexts, 8), (None, 8)):
        env = ImaginedVectorEnv(model, count, source, num_denoising_steps=steps, termination="never")
        strips.append(frames_of(env, env.reset(seed=list(SEEDS))[0]))
    gap = np.full((2, 64 * len(SHOWN), 3), 255, np.uint8)
    rows = []
    for row in range(count):
        for strip in strips:
            rows.append(np.concatenate([frames[row] for frames in strip], axis=1))
        rows.append(gap.repeat(4, axis=0))
    picture = Image.fromarray(np.concatenate(rows[:-1]))
    picture.save(Path(__file__).parent / "media" / "imagined.png", optimize=True)


if __name__ == "__main__":
    main()
