"""``lssvwm evaluate policy``: judge a trained policy in the real environment, alone and inside a planner."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lssvwm_agents.evaluate.planner_options import PlannerOptions, claim_threads
from lssvwm_agents.trainers.policy_config import PolicyEvaluationConfig


@dataclass(frozen=True)
class EvaluatePolicyArgs:
    """Judge a policy of `lssvwm train-policy` in episodes that no training saw.

    Its next moves are imagined from real memory and then really played, and both returns are compared. For
    the same --seed the mazes are those of `lssvwm evaluate planning`.
    """

    policy: Path
    """A run of `lssvwm train-policy` (actor-critic), or its `policy` folder."""
    model: str | None = None
    """World model whose features it reads; by default the one that it names."""
    env: str | None = None
    """Environment; by default the one that the model was trained for."""
    seed: int = 0
    """Names the episodes and all choices."""
    json: Path | None = None
    """File for the result."""
    film: Path | None = None
    """File for a film (.mp4) of real and imagined episodes."""
    allow_other_env: bool = False
    """Also take an environment that the model was not trained for by name."""
    controls: bool = True
    """Mazes: score random moves, the explorer and the oracle too."""
    with_planner: bool = False
    """Score the planner too, without the policy and with its proposals and its critic's terminal value."""
    num_proposals: int = 12
    """Candidates that the policy proposes, of the planner's --planner.num-samples."""
    device: str = "cpu"
    """cpu or cuda."""
    evaluation: PolicyEvaluationConfig = field(default_factory=PolicyEvaluationConfig)
    """How many episodes, and how long; its `film` is not looked at."""
    planner: PlannerOptions = field(default_factory=PlannerOptions)
    """The planner's numbers."""


def run(args: EvaluatePolicyArgs) -> None:
    """Measure, print a table, and write the JSON."""
    from lssvwm_agents.policies.actor_critic import load_policy

    policy = load_policy(args.policy, args.device)  # before slower imports: a wrong name is told at once
    from lssvwm_agents.evaluate.policy import CONTROLS, evaluate_policy, is_maze, planning_agents
    from lssvwm_agents.report import model_sha256, run_info, write_json
    from lssvwm_agents.weights import load_model

    name = args.model or policy.config.world_model
    model = load_model(name, args.device)
    env_id = args.env or model.config.env_id
    agents = {}
    if args.with_planner:
        agents = planning_agents(
            model,
            policy,
            args.planner,
            args.num_proposals,
            min(args.evaluation.episodes, args.evaluation.envs_at_once),
            claim_threads(),
        )
    maze = is_maze(env_id, {})
    result = evaluate_policy(
        model,
        policy,
        args.evaluation,
        env_id,
        args.seed,
        agents=agents,
        controls=CONTROLS if args.controls and maze else (),
        film=args.film,
        allow_other_env=args.allow_other_env,
    )
    result |= {"model": name, "model_sha256": model_sha256(name), **run_info(args.device)}
    goals = any(result[who]["success_rate"] > 0 for who in ("policy", *agents))
    print(f"{'who':<22}{'mean':>8}   {'95 % interval':<18}{'ended by itself' if goals else ''}".rstrip())
    for who in ("policy", *agents, *(CONTROLS if args.controls and maze else ())):
        low, high = result[who]["ci95"]
        line = f"{who:<22}{result[who]['mean']:>8.2f}   {f'{low:.2f} to {high:.2f}':<18}"
        if goals and "success_rate" in result[who]:
            least, most = result[who]["success_ci95"]
            line += f"{result[who]['success_rate']:.2f}, {least:.2f} to {most:.2f}"
        print(line.rstrip())
    compared = result["imagined_against_real"]
    if compared is not None:
        gap = compared["gap"]
        print(
            f"In {compared['horizon']} moves: imagined {compared['imagined']:.3f}, real "
            f"{compared['real']:.3f}; gap {gap['mean']:.3f} ({gap['ci95'][0]:.3f} to {gap['ci95'][1]:.3f})."
        )
    if args.json is not None:
        write_json(args.json, result)
        print(f"Written to {args.json}.")
    if args.film is not None:
        print(f"Written to {args.film}.")
    more = [
        text
        for text, done in (
            ("--with-planner scores it inside the planner too", args.with_planner),
            ("--film FILE.mp4 shows it", args.film is not None),
            ("--json FILE keeps the result", args.json is not None),
        )
        if not done
    ]
    print(f"Next: {'; '.join(more) or '`lssvwm evaluate planning` scores planners in the same mazes'}.")
