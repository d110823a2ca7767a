"""``lssvwm train``: train a tokenizer and a world model by a recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import FROM_STORES, RECIPES, Experiment, maze_tiny, with_maze


@dataclass(frozen=True)
class TrainArgs:
    """Train a tokenizer, then a world model.

    Killed at any moment, the same command goes on at the last checkpoint. Every field of the recipe is a
    flag. Under torchrun the processes share each batch.
    """

    out: Path
    """Folder of the run: tokenizer, checkpoints, log, and in the end the weights."""
    recipe: str = "maze-tiny"
    """maze-tiny, maze-small, memory-small, memory-cue or maze-debug; from a store point-maze, memory-maze-9x9
    or minigrid-memory. Other flags' defaults are those of the recipe."""
    store: Path | None = None
    """Episodes made by `lssvwm collect`; without it mazes are rendered on the device."""
    online: bool = False
    """Say that mazes are to be rendered on the device, which is the default without --store."""
    device: str = "auto"
    """auto, cpu or cuda."""
    seed: int | None = None
    """Names weights, data and noise of tokenizer and world model; by default the recipe's seeds."""
    json: Path | None = None
    """File for the result: the last validation, seconds, versions."""
    tokenizer: str | None = None
    """A run or model whose tokenizer is taken over instead of training one."""
    init: str | None = None
    """A model whose weights are the start (a folder, a shipped name or a hub id)."""
    stop_after: float = 0.0
    """Seconds after which to stop with a checkpoint, to be resumed by the same command; 0 for no limit."""
    tensorboard: bool = True
    """Write TensorBoard files beside log.jsonl."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = maze_tiny()
    """The recipe's fields."""


def recipe_name(arguments: Sequence[str]) -> str:
    """The recipe that the arguments name; it decides the other flags' defaults.

    Raises:
        UserError: If there is no such recipe.
    """
    name = "maze-tiny"
    for index, word in enumerate(arguments):
        if word == "--recipe" and index + 1 < len(arguments):
            name = arguments[index + 1]
        elif word.startswith("--recipe="):
            name = word.removeprefix("--recipe=")
    if name not in RECIPES:
        raise UserError(f"There is no recipe `{name}`: choose one of {', '.join(RECIPES)}.")
    return name


def parse(arguments: list[str], prog: str) -> TrainArgs:
    """Read the flags; their defaults are those of the recipe named among them."""
    name = recipe_name(arguments)
    default = TrainArgs(out=tyro.MISSING, recipe=name, experiment=RECIPES[name]())
    return tyro.cli(TrainArgs, prog=prog, args=arguments, default=default)


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    """The experiment with one seed for everything that is random in it."""
    return replace(
        experiment,
        tokenizer_training=replace(experiment.tokenizer_training, seed=seed),
        training=replace(experiment.training, seed=seed),
    )


def result_of(out: Path) -> dict[str, Any]:
    """What a run's folder says in the end: recipe, seed, and the world model's last validation."""
    from lssvwm_agents.trainers.run_folder import read_log

    settings = json.loads((out / "experiment.json").read_text())["experiment"]
    lines = reversed(read_log(out / "log.jsonl"))
    validated = (line for line in lines if "val/loss" in line and line["phase"] == "world_model")
    last: dict[str, Any] = next(validated, {})
    seed = settings["training"]["seed"]
    return {"out": str(out), "recipe": settings["name"], "seed": seed, "last_validation": last}


def run(args: TrainArgs) -> None:
    """Train, and say where the weights are."""
    if args.online and args.store is not None:
        raise UserError(f"Say either --online or --store, got both (--store {args.store}).")
    if args.store is None and args.recipe in FROM_STORES:
        raise UserError(f"Recipe `{args.recipe}` needs --store: episodes made by `lssvwm collect`.")
    from lssvwm_agents.trainers.pipeline import RunOptions, run_experiment

    experiment = args.experiment if args.store is not None else with_maze(args.experiment)
    if args.seed is not None:
        experiment = with_seed(experiment, args.seed)
    options = RunOptions(
        out=args.out,
        store=args.store,
        tokenizer=args.tokenizer,
        init=args.init,
        device=args.device,
        stop_after=args.stop_after,
        tensorboard=args.tensorboard,
    )
    weights = run_experiment(experiment, options)
    if weights is not None and os.environ.get("RANK", "0") == "0":
        if args.json is not None:
            from lssvwm_agents.report import run_info, write_json
            from lssvwm_agents.trainers.distributed import choose_device

            write_json(args.json, {**result_of(args.out), **run_info(choose_device(args.device))})
            print(f"Written to {args.json}.")
        print(f"Next: `lssvwm report {args.out}` draws the curves; `lssvwm plan --model {args.out}` plays.")
