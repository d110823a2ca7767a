"""Train baselines by one recipe and evaluate what each remembers; goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from lssvwm_agents.baselines import BASELINES
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.memory.benchmark import evaluate_memory
from lssvwm_agents.evaluate.memory.combine import ACTIONS, combine, event_accuracy
from lssvwm_agents.evaluate.memory.controls import OURS
from lssvwm_agents.evaluate.memory.options import TESTS, MemoryOptions
from lssvwm_agents.recipes import Experiment
from lssvwm_agents.report import model_sha256, run_info, write_json
from lssvwm_agents.trainers.distributed import choose_device
from lssvwm_agents.trainers.pipeline import (
    SETTING_DEFAULTS,
    RunOptions,
    run_experiment,
    run_settings,
)
from lssvwm_agents.trainers.run_folder import claim, read_log, training_progress
from lssvwm_agents.weights import load_model


@dataclass(frozen=True)
class CompareOptions:
    """What a comparison takes from outside its recipe.

    Attributes:
        out: Its folder: ``runs/``, ``evaluations/`` and ``memory.json``.
        baselines: Names of `BASELINES`; with the prefix ``actions_`` they are evaluated without odometry.
        seeds: Training seeds.
        ours: The baseline that the combined record calls ``ours``.
        tokenizer: A run or model whose tokenizer all take over; else the first run trains it for all.
        device: ``auto``, ``cpu`` or ``cuda``.
        episodes: Mazes of the evaluation.
        evaluation_seed: Names those mazes.
        tests: Tests of the evaluation.
        memory: Its numbers.
        tensorboard: Whether training writes TensorBoard files.
        event_records: Records of ``lssvwm evaluate memory --tests events``, one per training seed of another
            recipe: their accuracy stands in ``memory.json`` where this recipe knows no cue corridors.
    """

    out: Path
    baselines: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    ours: str = "ours"
    tokenizer: str | None = None
    device: str = "auto"
    episodes: int = 64
    evaluation_seed: int = 0
    tests: tuple[str, ...] = TESTS
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    tensorboard: bool = True
    event_records: tuple[Path, ...] = ()


def compare(experiment: Experiment, options: CompareOptions) -> dict[str, Any]:
    """Train and evaluate every baseline with every seed, and write ``memory.json``.

    What is finished is not done again. The combined record holds every evaluation in the folder, so that
    several calls with parts of the baselines fill one comparison.

    Raises:
        UserError: If a baseline is unknown, does not fit the recipe, would take the name ``ours`` from runs
            of the baseline so called, the recipe is driven by the clock, the folder holds a run by other
            settings or evaluations of other mazes, or one of the event records holds no events.
    """
    events = _load_events(options.event_records)
    for pair in train_baselines(experiment, options):
        _evaluate(options, *pair)
    evaluations = _load_evaluations(options.out)
    _check_mazes(evaluations)
    combined = combine(evaluations, options.ours)
    parameters = {
        f"{name.removeprefix(ACTIONS)}-seed{seed}": record["parameters"]
        for name, by_seed in evaluations.items()
        for seed, record in by_seed.items()
    }
    combined["training"] = {
        name: {"parameters": parameters.get(name), **found} for name, found in training_figures(options.out)
    }
    if events:
        combined["event_accuracy"] = event_accuracy(events)
        combined["event_models"] = [_provenance(record) for record in events]
    combined["evaluations"] = {
        name: [_provenance(record) for record in by_seed.values()] for name, by_seed in evaluations.items()
    }
    combined |= {"recipe": experiment.name, **run_info(choose_device(options.device))}
    write_json(options.out / "memory.json", combined)
    return combined


def train_baselines(experiment: Experiment, options: CompareOptions) -> list[tuple[str, int]]:
    """Train every baseline with every seed that is not finished yet, and return all those pairs.

    Several processes may train parts of one comparison side by side, in one folder.

    Raises:
        UserError: As :func:`compare`.
    """
    _check(experiment, options)
    planned = [(name, seed) for seed in options.seeds for name in options.baselines]
    experiments = {pair: experiment_for(experiment, *pair) for pair in planned}
    for pair in planned:
        _train(experiments[pair], options, *pair)
    return planned


def experiment_for(experiment: Experiment, name: str, seed: int) -> Experiment:
    """The recipe with a baseline's model and a training seed.

    After the prefix ``actions_`` it is the very model that is also evaluated with odometry.

    Raises:
        UserError: If the parameter count cannot be matched, or a model to be asked without odometry could not
            see its own motion.
    """
    if name.startswith(ACTIONS) and not experiment.model.sees_motion:
        raise UserError(
            f"the baseline `{name}` is evaluated without odometry, which needs a recipe with "
            f"`--model.visual-odometry`, got `{experiment.name}` without."
        )
    try:
        model = BASELINES[name.removeprefix(ACTIONS)](experiment.model)
        return replace(experiment, model=model, training=replace(experiment.training, seed=seed))
    except ValueError as error:
        raise UserError(
            f"The baseline `{name}` does not fit the recipe `{experiment.name}`: {error}"
        ) from error


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Where a baseline's run is: one for both settings, with odometry and without."""
    return out / "runs" / f"{name.removeprefix(ACTIONS)}-seed{seed}"


def _check(experiment: Experiment, options: CompareOptions) -> None:
    known = [*BASELINES, *(ACTIONS + name for name in BASELINES)]
    unknown = [name for name in (*options.baselines, options.ours) if name not in known]
    if unknown or not options.baselines or not options.seeds:
        given = ", ".join(options.baselines) or "none"
        raise UserError(
            f"`baselines` must be some of {', '.join(BASELINES)}, alone or after `{ACTIONS}`, and `seeds` at "
            f"least one number, got {given} and {options.seeds}."
        )
    there = {*options.baselines, *_load_evaluations(options.out)}
    if options.ours != OURS and there & {OURS, ACTIONS + OURS}:
        raise UserError(
            f"`ours` must be `{OURS}` where the baseline of that name is compared or was evaluated in the "
            f"same folder, got {options.ours}."
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(
            f"a comparison runs in one process, got {processes}: give each GPU some of the baselines, with "
            "one --tokenizer and one --out."
        )
    if experiment.training.schedule != "updates":
        raise UserError(
            "a comparison gives every baseline the same updates: pass --training.schedule updates, got "
            f"{experiment.training.schedule}."
        )


def _train(experiment: Experiment, options: CompareOptions, name: str, seed: int) -> None:
    folder = run_folder(options.out, name, seed)
    run = RunOptions(
        out=folder,
        tokenizer=options.tokenizer or _shared_tokenizer(options.out, folder),
        device=options.device,
        tensorboard=options.tensorboard,
    )
    progress = training_progress(folder)
    whole = (folder / "model" / "config.json").is_file()
    if whole and progress is not None and progress["update"] >= experiment.training.updates:
        claim(folder, run_settings(experiment, run), SETTING_DEFAULTS)
        print(f"{folder.name}: trained before")
        return
    print(f"{folder.name}: training", flush=True)
    run_experiment(experiment, run)


def _shared_tokenizer(out: Path, folder: Path) -> str | None:
    """The run that trained the tokenizer for all; None for that run itself, or where there is none yet."""
    for settings in sorted((out / "runs").glob("*/experiment.json")):
        if json.loads(settings.read_text())["tokenizer"] is None:
            return None if settings.parent == folder else str(settings.parent)
    return None


def _evaluate(options: CompareOptions, name: str, seed: int) -> None:
    folder, place = run_folder(options.out, name, seed), options.out / "evaluations" / f"{name}-seed{seed}"
    rival = _window_only(options.out, name, seed)
    memory = replace(options.memory, odometry=options.memory.odometry and not name.startswith(ACTIONS))
    asked = {
        "baseline": name,
        "training_seed": seed,
        "model_sha256": model_sha256(folder),
        "window_only_sha256": None if rival is None else model_sha256(rival),
        "episodes": options.episodes,
        "evaluation_seed": options.evaluation_seed,
        "tests": list(options.tests),
        "options": json.loads(json.dumps(asdict(memory))),
    }
    path = place.with_suffix(".json")
    if path.is_file():
        before = json.loads(path.read_text())
        if all(before.get(key) == value for key, value in asked.items()):
            print(f"{place.name}: evaluated before")
            return
    print(f"{place.name}: evaluating", flush=True)
    device = choose_device(options.device)
    result = evaluate_memory(
        load_model(folder, device),
        None if rival is None else load_model(rival, device),
        options.episodes,
        options.evaluation_seed,
        tests=options.tests,
        options=memory,
        out=place,
    )
    write_json(path, {**result, **asked, **run_info(device)})


def _window_only(out: Path, name: str, seed: int) -> Path | None:
    """The window-only run, if there is one with the same seed; None for itself."""
    rival = "window_only"
    if name.removeprefix(ACTIONS) == rival:
        return None
    folders = [run_folder(out, rival, seed), *sorted((out / "runs").glob(f"{rival}-seed*"))]
    return next((folder for folder in folders if (folder / "model" / "config.json").is_file()), None)


def _load_evaluations(out: Path) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted((out / "evaluations").glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["baseline"], {})[record["training_seed"]] = record
    return {name: dict(sorted(by_seed.items())) for name, by_seed in found.items()}


def _check_mazes(evaluations: dict[str, dict[int, dict[str, Any]]]) -> None:
    mazes: dict[tuple[int, int], str] = {}
    for name, by_seed in evaluations.items():
        for seed, record in by_seed.items():
            mazes.setdefault((record["episodes"], record["evaluation_seed"]), f"{name}-seed{seed}")
    if len(mazes) > 1:
        told = ", ".join(f"{name} has {n} of seed {seed}" for (n, seed), name in mazes.items())
        raise UserError(
            f"evaluations of one comparison must be of the same mazes, but {told}: evaluate all alike, or "
            "move the others out of `evaluations`."
        )


def _load_events(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in paths]
    for path, record in zip(paths, records, strict=True):
        if "events" not in record:
            raise UserError(
                "`event_records` must be files that `lssvwm evaluate memory --tests events` wrote, got "
                f"{path}, which has no events."
            )
    if len({tuple(record["events"]["accuracy"][OURS]) for record in records}) > 1:
        raise UserError(f"`event_records` must all have the same delays, got {list(map(str, paths))}.")
    return records


def _provenance(record: dict[str, Any]) -> dict[str, Any]:
    keys = ("model_sha256", "episodes", "evaluation_seed", "command", "commit", "device")
    return {key: record.get(key) for key in keys}


def training_figures(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per run: updates, median frames/s, and minutes."""
    for folder in sorted((out / "runs").glob("*-seed*")):
        progress = training_progress(folder)
        log = folder / "log.jsonl"
        if progress is None or not log.is_file():
            continue
        lines = read_log(log)
        speeds = [
            line["frames_per_second"]
            for line in lines
            if line["phase"] == "world_model" and line.get("frames_per_second")
        ]
        yield (
            folder.name,
            {
                "updates": progress["update"],
                "frames_per_second": median(speeds) if speeds else None,
                "minutes": progress["elapsed"] / 60,
            },
        )
