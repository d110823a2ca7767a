"""How large a trained model's memory is along one long episode, and how slowly its heads forget.

python benchmarks/state_norms.py --model tiny --frames 100000 --json FILE

The explorer walks through held-out mazes and never stops. `norms` is the root mean square of each layer's
scan state, mean over the mazes; `half_lives` are frames, per layer and head, from the first 512 frames.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import torch
from tqdm import tqdm

from lssvwm_agents.data.latents import encode_frames
from lssvwm_agents.data.online import rollout
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.files import write_json
from lssvwm_agents.report.run_info import model_sha256, run_info
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel
from lssvwm_agents.worldmodel.state_norms import Piece, half_lives, stream_norms

MARKS = (128, 256, 512, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
LONGEST_PIECE = 512


def episode(model: WorldModel, seeds: torch.Tensor, frames: int) -> Iterator[Piece]:
    """Pieces of one long episode in each maze; one ends at every mark."""
    size = int(model.config.env_id.split("-")[1].split("x")[0])
    played = rollout(MazeConfig(size=size), seeds, frames, "explorer")
    seen, ends = 0, sorted({*range(LONGEST_PIECE, frames, LONGEST_PIECE), *MARKS, frames})
    for end in [end for end in ends if end <= frames]:
        now = [next(played) for _ in range(end - seen)]
        pixels = torch.stack([frame.frame for frame in now], dim=1)
        flat = encode_frames(model.tokenizer, pixels.flatten(0, 1), model.device, dtype=torch.float32)
        actions, proprio = (torch.stack([getattr(f, name) for f in now], 1) for name in ("action", "proprio"))
        yield flat.unflatten(0, pixels.shape[:2]), actions, proprio if model.config.proprio_dim else None
        seen = end


def measure(name: str, mazes: int, frames: int, seed: int, device: str) -> dict[str, Any]:
    model = load_model(name, device)
    seeds = seed + torch.arange(mazes, device=device)
    with torch.no_grad():
        pieces = tqdm(episode(model, seeds, frames), unit="piece", mininterval=10.0)
        report = stream_norms(model, pieces)
        first = half_lives(model, next(episode(model, seeds, LONGEST_PIECE)))
    at = {frame: norms.mean(0).tolist() for frame, norms in zip(*report, strict=True)}
    return {
        "model": name,
        "model_sha256": model_sha256(name),
        "mazes": mazes,
        "seed": seed,
        "policy": "explorer",
        "norms": {str(frame): norms for frame, norms in at.items() if frame in (*MARKS, frames)},
        "half_lives": first.tolist(),
        "recurrence": model.config.backbone.recurrence,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="a shipped name or a run's folder")
    parser.add_argument("--mazes", type=int, default=2)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json")
    args = parser.parse_args()
    report = measure(args.model, args.mazes, args.frames, args.seed, args.device)
    report |= run_info(args.device)
    print(json.dumps(report, indent=2))
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    sys.exit(main())
