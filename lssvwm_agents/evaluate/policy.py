"""Judge a policy in the real environment, and what the world model believed of it.

Imagined return above the real one means that the policy lives on the model's mistakes. So at every evaluation
the policy's next moves are imagined from real memory, then really played, and both returns are compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from lssvwm_agents.agents import PlanningAgent, check_spaces, environment_kwargs
from lssvwm_agents.data.latents import module_hash
from lssvwm_agents.evaluate.contenders import play_scripted
from lssvwm_agents.evaluate.environments import choose_env_id, make_envs
from lssvwm_agents.evaluate.mazes import episode_seeds, make_mazes
from lssvwm_agents.evaluate.memory.events import wilson
from lssvwm_agents.evaluate.planner_options import PlannerOptions, make_planning_agent
from lssvwm_agents.evaluate.planning import CI95_METHOD, summary
from lssvwm_agents.evaluate.policy_film import write_film
from lssvwm_agents.evaluate.policy_play import Comparison, Played, play
from lssvwm_agents.json_options import json_object
from lssvwm_agents.planners import ContinuousActions
from lssvwm_agents.planners.sampling import SamplingPlanner
from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.policy_planner import PolicyPlanner, with_policy
from lssvwm_agents.policies.sb3_policy import SB3Policy
from lssvwm_agents.trainers.policy_config import PolicyEvaluationConfig
from lssvwm_agents.worldmodel import WorldModel

CONTROLS = ("random", "explorer", "oracle")
FILMED = 3


def is_maze(env_id: str, kwargs: dict[str, Any]) -> bool:
    """Whether an environment is one of our mazes, whose true state scripted policies can read."""
    env = make_envs(env_id, 1, kwargs)
    try:
        return hasattr(env.unwrapped, "maze_config")
    finally:
        env.close()


def evaluate_policy(
    model: WorldModel,
    policy: ActorCritic | SB3Policy,
    config: PolicyEvaluationConfig,
    env_id: str | None = None,
    seed: int = 0,
    *,
    agents: dict[str, PlanningAgent] | None = None,
    controls: Sequence[str] = (),
    film: Path | None = None,
    allow_other_env: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Play episodes that no training sees.

    Args:
        model: The world model whose features the policy reads.
        policy: Actor and critic.
        config: How many episodes, and how they are compared with imagination.
        env_id: Environment; by default the one that the model was trained for.
        seed: Names episodes and choices; `lssvwm evaluate planning` plays the same mazes for the same seed.
        agents: Other agents to play the same episodes, by name.
        controls: Scripted policies that play the same mazes: random, random_repeat, explorer, oracle.
        film: Where to write a film of real and imagined episodes.
        allow_other_env: Also take an environment that the model was not trained for.
        progress: Whether to show a progress bar.

    Returns:
        For ``policy``, each of ``agents`` and each of ``controls`` a summary with ``mean``, ``ci95``,
        ``episodes``, for the policy and the agents also ``success_rate``, the share of episodes that ended by
        themselves, with Wilson's ``success_ci95``; ``imagined_against_real`` (see `compare`); the policy's
        ``success_rate``; and all arguments.

    Raises:
        ValueError: If policy, model and environment do not fit.
    """
    policy.check_features(module_hash(model))
    env_id = choose_env_id(model.config, env_id, allow_other_env)
    kwargs = environment_kwargs(model.config) | json_object(config.env_kwargs, "evaluation.env_kwargs")
    others = agents or {}
    maze, began = is_maze(env_id, kwargs), time.perf_counter()
    if controls and not maze:
        raise ValueError(f"scripted policies play our mazes only, got {env_id}.")
    seeds = episode_seeds(seed, config.episodes)
    scores: dict[str, list[float]] = {name: [] for name in ("policy", *others, *controls)}
    parts: list[Played] = []
    ended: dict[str, list[bool]] = {name: [] for name in ("policy", *others)}
    around = config.look_around if maze else None
    chunks = [seeds[i : i + config.envs_at_once] for i in range(0, len(seeds), config.envs_at_once)]
    total = len(chunks) * config.steps * len(scores)
    with tqdm(total=total, unit="move", desc="evaluate", disable=not progress, leave=False) as bar:
        for number, chunk in enumerate(chunks):
            moves = config.look_around + config.steps
            env = (
                make_mazes(env_id, len(chunk), moves, kwargs)
                if maze
                else make_envs(env_id, len(chunk), kwargs)
            )
            check_spaces(model.config, env.single_observation_space, env.single_action_space)
            policy.check_actions(env.single_action_space)
            space = env.single_action_space
            agent = PlanningAgent(model, PolicyPlanner(policy, config.deterministic), action_space=space)
            filmed = min(FILMED, len(chunk)) if film is not None and number == 0 else 0
            comparison = Comparison(
                policy, config.horizon, config.futures, config.doubt, config.deterministic, filmed
            )
            parts.append(play(env, agent, chunk, config.steps, comparison, around, bar, config.guide))
            scores["policy"] += parts[-1].scores.tolist()
            ended["policy"] += parts[-1].terminated.tolist()
            for name, other in others.items():
                others_played = play(env, other, chunk, config.steps, None, around, bar, config.guide)
                scores[name] += others_played.scores.tolist()
                ended[name] += others_played.terminated.tolist()
            for name in controls:
                rewards = play_scripted(
                    env,
                    chunk,
                    name,
                    config.look_around,
                    config.steps,
                    action_repeat=4,
                    moved=lambda _: bar.update(),
                )
                scores[name] += rewards.sum(0).tolist()
            env.close()
    if film is not None and parts[0].film:
        write_film(film, parts[0].film)
    result: dict[str, Any] = {name: summary(values) for name, values in scores.items()}
    for name, ends in ended.items():
        rate = wilson(float(sum(ends)), len(ends))
        result[name] |= {"success_rate": rate[0], "success_ci95": rate[1:]}
    if "oracle" in result and result["oracle"]["mean"] > 0:
        result["fraction_of_oracle"] = result["policy"]["mean"] / result["oracle"]["mean"]
    return {
        **result,
        "imagined_against_real": compare(parts, config.horizon),
        "success_rate": result["policy"]["success_rate"],
        "ci95_method": CI95_METHOD,
        "seed": seed,
        "seeds": seeds,
        "env_id": env_id,
        "look_around": around,
        "guide": config.guide if maze else None,
        "steps": config.steps,
        "deterministic": config.deterministic,
        "env_kwargs": kwargs,
        "wall_seconds": time.perf_counter() - began,
    }


def planning_agents(
    model: WorldModel,
    policy: ActorCritic,
    options: PlannerOptions,
    num_proposals: int,
    num_envs: int,
    num_threads: int = 1,
) -> dict[str, PlanningAgent]:
    """The planner by itself, and with the policy's proposals and its critic's value: for `evaluate_policy`.

    A proposal is held for ``action_repeat`` moves, as all candidates are.

    Args:
        model: The world model.
        policy: Actor and critic.
        options: The planner's numbers; a sampling planner.
        num_proposals: Candidates that the policy makes.
        num_envs: Environments side by side.
        num_threads: Threads that share the imagined futures, on a CPU.

    Raises:
        ValueError: If the planner takes no proposals.
    """
    space: gymnasium.Space[Any]
    spec = policy.actor.action_spec
    if isinstance(spec, ContinuousActions):
        space = gymnasium.spaces.Box(np.float32(spec.low), np.float32(spec.high))
    else:
        space = gymnasium.spaces.Discrete(spec.action_dim)
    alone = make_planning_agent(model, options, space, num_envs, num_threads=num_threads)
    if not isinstance(alone.planner, SamplingPlanner):
        raise ValueError(f"a planner that takes proposals is cem, icem or mppi, got {options.name}.")
    joined = make_planning_agent(model, options, space, num_envs, num_threads=num_threads)
    joined.planner = with_policy(alone.planner, policy, num_proposals)
    return {"planner": alone, "planner_with_policy": joined}


def compare(parts: Sequence[Played], horizon: int) -> dict[str, Any] | None:
    """Imagined against real return of the same moves; None if no window was played to its end.

    Returns:
        ``imagined``, ``imagined_sure``, ``real``: mean sums of rewards over ``horizon`` moves, the second
        of those that the model is sure of; ``gap``: summary of imagined less
        real, one number an episode; ``correlation`` of the two over all windows; ``spread``: mean standard
        deviation over sampled futures, the model's own uncertainty.
    """
    pairs = [
        (np.stack(part.imagined, axis=1), np.stack(part.real, axis=1)) for part in parts if part.imagined
    ]
    if not pairs:
        return None
    imagined = [row[~np.isnan(row)] for part, _ in pairs for row in part]
    real = [row[~np.isnan(row)] for _, part in pairs for row in part]
    gaps = [float((a - b).mean()) for a, b in zip(imagined, real, strict=True) if len(a)]
    all_imagined, all_real = np.concatenate(imagined), np.concatenate(real)
    varied = len(all_real) > 2 and all_real.std() > 0 and all_imagined.std() > 0
    spreads = np.concatenate([np.concatenate(part.spread) for part in parts if part.spread] or [np.zeros(0)])
    spreads = spreads[~np.isnan(spreads)]
    return {
        "horizon": horizon,
        "imagined": float(all_imagined.mean()),
        "imagined_sure": float(np.nanmean(np.concatenate([one for part in parts for one in part.sure]))),
        "real": float(all_real.mean()),
        "gap": summary(gaps),
        "correlation": float(np.corrcoef(all_imagined, all_real)[0, 1]) if varied else None,
        "spread": float(spreads.mean()) if len(spreads) else None,
        "num_windows": len(all_real),
    }


def growing_gap(history: Sequence[dict[str, Any]]) -> str | None:
    """A sentence, if the policy has come to live on the model's mistakes; else None.

    That is where imagined less real return is surely positive now, and surely larger than it was at its
    smallest: the 95 % intervals do not overlap.

    Args:
        history: What `compare` gave at each evaluation, the last one now.
    """
    if len(history) < 2:
        return None
    now = history[-1]["gap"]
    best = min((one["gap"] for one in history[:-1]), key=lambda gap: float(gap["mean"]))
    if now["ci95"][0] <= 0 or now["ci95"][0] <= best["ci95"][1]:
        return None
    horizon = history[-1]["horizon"]
    return (
        f"imagined return exceeds the real one by {now['mean']:.2f} in {horizon} moves, and by "
        f"{best['mean']:.2f} at its smallest: the policy exploits the model. Refresh the model with its "
        "episodes, shorten the horizon, or take an earlier policy."
    )
