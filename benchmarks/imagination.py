"""How far ahead a world model's imagination holds, in mazes of its own kind: latents, odometry, rewards.

python benchmarks/imagination.py --model tiny --json FILE

Held-out mazes are played by the forager (`--policy` for another). After a real context the model imagines
the rest under the true actions. Squared latent error is per latent number (variance 1: knowing nothing);
odometry is in cells. `odometry_step` is the error of one move after real frames, for moves that went freely
and for those that a wall stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from lssvwm_agents.data.online import render_episodes, tokenizer_encoder
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.files import write_json
from lssvwm_agents.weights import load_model

DEPTHS = (1, 4, 8, 16, 32)
MOVING = (1, 4, 5)  # forward, forward-left, forward-right


def correlation(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """None where one of them does not vary: no reward fell into those frames."""
    if float(a.std()) == 0 or float(b.std()) == 0:
        return None
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@torch.inference_mode()
def measure(name: str, policy: str, episodes: int, context: int, seed: int, device: str) -> dict[str, Any]:
    model = load_model(name, device)
    config = MazeConfig(size=int(model.config.env_id.split("-")[1].split("x")[0]))
    encode = tokenizer_encoder(model.tokenizer, device)
    data = render_episodes(config, episodes, context + max(DEPTHS), policy, seed, device, encode)
    assert data.proprio is not None
    latents, actions, pose = data.latents.float(), data.actions, data.proprio
    start = model.initial_state(episodes)
    _, features = model.observe_latents(start, latents, actions, pose)
    ahead, _ = model.next_odometry(features[:, :-1], pose[:, :-1], actions[:, 1:])
    error = (ahead - pose[:, 1:])[..., :2].norm(dim=-1)
    travelled = (pose[:, 1:] - pose[:, :-1])[..., :2].norm(dim=-1)
    moving = torch.isin(actions[:, 1:].argmax(-1), torch.tensor(MOVING, device=device))
    free, stopped = moving & (travelled > 0.4), moving & (travelled < 0.1)

    state, _ = model.observe_latents(start, latents[:, :context], actions[:, :context], pose[:, :context])
    _, imagined = model.imagine(state, actions[:, context:])
    latent_error = (imagined.latent - latents[:, context:]).square().mean(dim=(0, 2, 3, 4))
    assert imagined.proprio is not None
    drift = (imagined.proprio - pose[:, context:])[..., :2].norm(dim=-1).mean(0)
    reward = data.reward[:, context:]
    return {
        "model": name,
        "env_id": model.config.env_id,
        "policy": policy,
        "episodes": episodes,
        "context": context,
        "seed": seed,
        "latent_error": {str(depth): float(latent_error[depth - 1]) for depth in DEPTHS},
        "odometry_drift": {str(depth): float(drift[depth - 1]) for depth in DEPTHS},
        "odometry_step": {"free": float(error[free].mean()), "stopped": float(error[stopped].mean())},
        "moves": {"free": int(free.sum()), "stopped": int(stopped.sum())},
        "reward_correlation": {
            f"{first + 1}-{last}": correlation(
                imagined.reward[:, first:last].sum(1), reward[:, first:last].sum(1)
            )
            for first, last in zip((0, *DEPTHS[1:-1]), DEPTHS[1:], strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="a shipped name or a run's folder")
    parser.add_argument("--policy", default="forager", help="a scripted policy")
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--context", type=int, default=96, help="real frames before imagining")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json")
    args = parser.parse_args()
    report = measure(args.model, args.policy, args.episodes, args.context, args.seed, args.device)
    report["command"] = "python " + " ".join(sys.argv)
    print(json.dumps(report, indent=1))
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
