"""``lssvwm compare``: train baselines by one recipe, and measure what each remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from lssvwm_agents.commands.train import recipe_name
from lssvwm_agents.evaluate.memory.options import TESTS, MemoryOptions, parse_tests
from lssvwm_agents.recipes import RECIPES, Experiment, maze_tiny, with_maze


@dataclass(frozen=True)
class CompareArgs:
    """Train baselines with the same recipe, data, updates and parameter count, and evaluate their memory.

    Stopped at any moment, the same command goes on; finished runs are skipped. Every field of the recipe is a
    flag.
    """

    out: Path
    """Folder of the comparison: runs, evaluations with pictures, and memory.json."""
    recipe: str = "maze-tiny"
    """As for `lssvwm train`; the other flags' defaults are those of the recipe."""
    baselines: str = (
        "ours,ours_rotary,scan_only,window_only,frame_scan,frame_scan_large_state,blocks_1x1,full_attention"
    )
    """What to train, separated by commas; further ones are scan_place_keys and places_only. After the prefix
    actions_ the same run is evaluated without odometry, by the motion that the model sees itself."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    ours: str = "ours"
    """The baseline that memory.json calls ours; another than ours only where that is not compared."""
    tokenizer: str | None = None
    """A run or model whose tokenizer all take over; else the first run trains it for all."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Path | None = None
    """File for the result: each run's training, far PSNR and gap closed; memory.json holds all the rest."""
    episodes: int = 64
    """Mazes of the evaluation."""
    evaluation_seed: int = 0
    """Names those mazes and all choices."""
    tests: str = ",".join(TESTS)
    """Tests of the evaluation, separated by commas."""
    train_only: bool = False
    """Stop after the training: commands with one --out train side by side, a last one evaluates all."""
    tensorboard: bool = True
    """Write TensorBoard files while training."""
    event_records: tuple[Path, ...] = ()
    """Records of `lssvwm evaluate memory --tests events`, one per training seed of another recipe, such as
    memory-cue: what memory.json says of events."""
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    """How large the evaluation is."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = maze_tiny()
    """The recipe's fields."""


def parse(arguments: list[str], prog: str) -> CompareArgs:
    """Read the flags; their defaults are those of the recipe named among them."""
    name = recipe_name(arguments)
    default = CompareArgs(out=tyro.MISSING, recipe=name, experiment=RECIPES[name]())
    return tyro.cli(CompareArgs, prog=prog, args=arguments, default=default)


def result_of(out: Path, combined: dict[str, Any] | None) -> dict[str, Any]:
    """The comparison in short.

    Args:
        out: Its folder.
        combined: What ``memory.json`` holds; None where runs were trained and not evaluated.
    """
    from lssvwm_agents.evaluate.compare import training_figures

    if combined is None:
        return {"out": str(out), "record": None, "training": dict(training_figures(out))}
    kept = ("far_frames", "training", "training_seeds", "psnr_far", "ceiling_db", "gap_closed_far")
    return {
        "out": str(out),
        "record": str(out / "memory.json"),
        **{key: combined[key] for key in kept if key in combined},
    }


def _write(args: CompareArgs, result: dict[str, Any]) -> None:
    """The result, and what made it, in the file that was asked for."""
    if args.json is None:
        return
    from lssvwm_agents.report import run_info, write_json
    from lssvwm_agents.trainers.distributed import choose_device

    about = {"recipe": args.recipe, "baselines": args.baselines, "seeds": list(args.seeds)}
    about |= {"episodes": args.episodes, "evaluation_seed": args.evaluation_seed, "ours": args.ours}
    write_json(args.json, {**result, **about, **run_info(choose_device(args.device))})
    print(f"Written to {args.json}.")


def run(args: CompareArgs) -> None:
    """Train, evaluate, and print the far PSNR of every baseline."""
    tests = parse_tests(args.tests)
    from lssvwm_agents.evaluate.compare import CompareOptions, compare, train_baselines

    options = CompareOptions(
        out=args.out,
        baselines=tuple(name.strip() for name in args.baselines.split(",") if name.strip()),
        seeds=args.seeds,
        ours=args.ours,
        tokenizer=args.tokenizer,
        device=args.device,
        episodes=args.episodes,
        evaluation_seed=args.evaluation_seed,
        tests=tests,
        memory=args.memory,
        tensorboard=args.tensorboard,
        event_records=args.event_records,
    )
    experiment = with_maze(args.experiment)
    if args.train_only:
        train_baselines(experiment, options)
        print(f"Trained in {args.out / 'runs'}.")
        _write(args, result_of(args.out, None))
        print("Next: the same command without --train-only evaluates.")
        return
    combined = compare(experiment, options)
    print(f"PSNR in dB of places last seen more than {combined['far_frames']} frames ago, per training seed")
    for name, values in combined["psnr_far"].items():
        shown = ", ".join("-" if value is None else f"{value:.1f}" for value in values)
        print(f"  {name:<24}{shown}")
    print(f"Written to {args.out / 'memory.json'}.")
    _write(args, result_of(args.out, combined))
    print(f"Next: `lssvwm report {args.out} {args.out / 'runs'}/*` shows recall and training side by side.")
