"""`lssvwm evaluate planning`: score planners beside random, explorer and oracle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lssvwm_agents.evaluate.planner_options import PlannerName, PlannerOptions, claim_threads

if TYPE_CHECKING:
    from lssvwm_agents.evaluate.finished import Finished
    from lssvwm_agents.worldmodel import WorldModel


@dataclass(frozen=True)
class EvaluatePlanningArgs:
    """Score planners beside random moves, the explorer and the oracle, in mazes never seen in training.

    Task score: rewards in a number of moves. Task recall: the target asked for was last in sight more than
    200 frames ago, is out of sight and at least 30 moves away; planners are scored with all their memory and
    with a cut one.
    """

    model: str = "tiny"
    """A shipped model's name, a run's folder, or a Hugging Face id."""
    task: Literal["score", "recall"] = "score"
    """What is measured."""
    planners: tuple[PlannerName, ...] = ()
    """Planners to score, all with the numbers below; by default planner.name alone."""
    other_model: str | None = None
    """Control: the same planners in another model too, such as one without long memory."""
    env: str | None = None
    """Environment; by default the one that the model was trained for."""
    episodes: int = 20
    """Mazes that every policy plays."""
    seed: int = 0
    """Names the mazes and all choices."""
    json: Path | None = None
    """File for the result; FILE.partial.json keeps finished contenders, and the same command goes on."""
    look_around: int | None = None
    """Moves of the explorer before anything counts, watched by the planner's world model; 96, or 300 for
    recall."""
    steps: int | None = None
    """Moves that count; 250, or 150 for recall."""
    memory_cut: int | None = None
    """Control: each plan starts from a memory of only the last so many frames. Recall has it beside the whole
    memory, with 12 frames by default; there 0 is for no such control, as with a model without memory."""
    envs_at_once: int = 32
    """Mazes played side by side."""
    allow_other_env: bool = False
    """Also take an environment that the model was not trained for."""
    device: str = "cpu"
    """cpu or cuda."""
    planner: PlannerOptions = field(default_factory=PlannerOptions)
    """The planners' numbers."""


def run(args: EvaluatePlanningArgs) -> None:
    """Measure, print a table, and write the JSON."""
    from lssvwm_agents.weights import load_model

    # Before slower imports: a wrong name is told at once.
    model = load_model(args.model, args.device)
    other = None if args.other_model is None else load_model(args.other_model, args.device)
    from lssvwm_agents.report import model_sha256, run_info, write_json

    about = {"model": args.model, "model_sha256": model_sha256(args.model), **run_info(args.device)}
    if args.other_model is not None:
        about |= {"other_model": args.other_model, "other_model_sha256": model_sha256(args.other_model)}
    finished = _finished(args, about)
    result = (_recall if args.task == "recall" else _score)(args, model, other, finished) | about
    if args.json is not None:
        write_json(args.json, result)
        finished.remove()
        print(f"Written to {args.json}.")
        print(f"Next: `lssvwm report {args.json}` draws it.")
    else:
        print("Next: --json FILE keeps the result; --memory-cut 12 shows what memory is worth.")


def _finished(args: EvaluatePlanningArgs, about: dict[str, Any]) -> Finished:
    """What an earlier call of this command finished; more planners may be asked for than then."""
    from lssvwm_agents.evaluate.finished import Finished

    if args.json is None:
        return Finished()
    settings = {name: value for name, value in asdict(args).items() if name not in ("json", "planners")}
    settings |= {name: value for name, value in about.items() if name != "command"}
    if args.planners:
        settings["planner"].pop("name")
    return Finished(args.json.with_suffix(".partial.json"), settings)


def _shared(args: EvaluatePlanningArgs, other: WorldModel | None, finished: Finished) -> dict[str, Any]:
    """Arguments of both tasks."""
    return {
        "options": args.planner,
        "planners": args.planners,
        "other_model": other,
        "envs_at_once": args.envs_at_once,
        "allow_other_env": args.allow_other_env,
        "num_threads": claim_threads(),
        "finished": finished,
    }


def _score(
    args: EvaluatePlanningArgs, model: WorldModel, other: WorldModel | None, finished: Finished
) -> dict[str, Any]:
    from lssvwm_agents.evaluate.contenders import SCRIPTED
    from lssvwm_agents.evaluate.planning import evaluate_planning

    result = evaluate_planning(
        model,
        args.env,
        args.episodes,
        args.seed,
        look_around_moves=96 if args.look_around is None else args.look_around,
        steps=250 if args.steps is None else args.steps,
        memory_frames=args.memory_cut,
        **_shared(args, other, finished),
    )
    print(f"{'policy':<28}{'mean':>8}   95 % interval")
    for name, entry in [*result["planners"].items(), *((name, result[name]) for name in SCRIPTED)]:
        low, high = entry["ci95"]
        print(f"{name:<28}{entry['mean']:>8.2f}   {low:.2f} to {high:.2f}")
    for name, entry in result["planners"].items():
        if entry["fraction_of_oracle"] is not None:
            share, speed = 100 * entry["fraction_of_oracle"], entry["imagined_frames_per_second"]
            print(f"{name} reaches {share:.0f} % of the oracle's score; {speed:.0f} imagined frames/s.")
    print(f"{result['wall_seconds']:.0f} s in all.")
    return result


def _recall(
    args: EvaluatePlanningArgs, model: WorldModel, other: WorldModel | None, finished: Finished
) -> dict[str, Any]:
    from lssvwm_agents.evaluate.recall import evaluate_recall

    result = evaluate_recall(
        model,
        args.env,
        args.episodes,
        args.seed,
        look_around_moves=300 if args.look_around is None else args.look_around,
        steps=150 if args.steps is None else args.steps,
        memory_cut=12 if args.memory_cut is None else args.memory_cut or None,
        **_shared(args, other, finished),
    )
    ago, moves = result["cases"]["frames_ago"], result["cases"]["shortest"]
    print(f"{args.episodes} targets, last in sight {min(ago)} to {max(ago)} frames ago,")
    print(f"{min(moves)} to {max(moves)} moves away; {result['steps']} moves to touch them.")
    interval = f"   {'95 % interval':<15}"
    print(f"{'policy':<28}{'found':>7}{interval}{'SPL':>6}{interval}{'moves/least':>12}")
    for name, entry in result["contenders"].items():
        row = f"{name:<28}"
        for what, width in (("success_rate", 7), ("spl", 6)):
            low, high = entry["success_ci95" if what == "success_rate" else "spl_ci95"]
            row += f"{entry[what]:>{width}.2f}   {f'{low:.2f} to {high:.2f}':<15}"
        longer = entry["moves_over_shortest"]
        print(row + f"{'-' if longer is None else f'{longer:.2f}':>12}")
    for name, entry in result["memory_minus_control"].items():
        print(f"{name} {entry['mean']:+.2f} ({entry['ci95'][0]:+.2f} to {entry['ci95'][1]:+.2f})")
    print(f"{result['wall_seconds']:.0f} s in all.")
    return result
