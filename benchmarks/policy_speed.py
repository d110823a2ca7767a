"""Speed of training a policy in imagination: updates, and imagined policy steps, a second.

    python benchmarks/policy_speed.py                                          # two CPU cores: minutes
    python benchmarks/policy_speed.py --device cuda --rows 1024 4096 --json FILE

One update: rows forked from real contexts, imagined for the horizon, lambda-returns, gradients of actor and
critic. Real streams and renewed contexts are left out. Eager PyTorch.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch

from lssvwm_agents.agents.action_codec import action_spec_from_space
from lssvwm_agents.data.latents import module_hash
from lssvwm_agents.policies.actor_critic import ActorCritic, PolicyConfig
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.report import run_info, write_json
from lssvwm_agents.trainers.policy_algorithms import World
from lssvwm_agents.trainers.policy_config import PolicyRecipe, PolicyTrainingConfig, StartsConfig
from lssvwm_agents.trainers.policy_starts import StartPool
from lssvwm_agents.trainers.policy_trainer import ImaginedUpdate
from lssvwm_agents.weights import load_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[192])
    parser.add_argument("--forks", type=int, default=16)
    parser.add_argument("--horizons", type=int, nargs="+", default=[15, 64])
    parser.add_argument("--gradients", nargs="+", default=["score_function", "dynamics"])
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    model = load_model(args.model, args.device).requires_grad_(False)
    most = max(args.rows) // args.forks
    world = World(model, "", None, PolicyRecipe(starts=StartsConfig(("explorer",), (64,))))
    pool = StartPool(model, world.contexts(), most, most, 0, 0)
    spec = action_spec_from_space(world.action_space)
    results = []
    for rows, horizon, gradient in itertools.product(args.rows, args.horizons, args.gradients):
        policy = ActorCritic(PolicyConfig.for_actions(spec, model.feature_dim)).to(args.device)
        training = PolicyTrainingConfig(horizon=horizon, starts=rows // args.forks, forks=args.forks)
        update = ImaginedUpdate(model, policy, pool, ActorCriticObjective(gradient), training)
        update(0, 0)  # warms up, and makes the contexts
        began = now(args.device)
        for number in range(args.updates):
            update(number, number)
        seconds = (now(args.device) - began) / args.updates
        steps = training.starts * args.forks * horizon
        entry = {"rows": rows, "horizon": horizon, "gradient": gradient, "seconds_per_update": seconds}
        entry["steps_per_second"] = steps / seconds
        if args.device.startswith("cuda"):
            entry["peak_bytes"] = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        results.append(entry)
        print(f"{rows:>6} rows x {horizon:>3} frames, {gradient:<15}{steps / seconds:>10,.0f} steps/s")
    if args.json is not None:
        report = {"model": args.model, "model_hash": module_hash(model), "results": results}
        write_json(args.json, report | run_info(args.device))


def now(device: str) -> float:
    """Seconds, after the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
