"""Which training fits recorded episodes: the command that `lssvwm collect` names as the next."""

from __future__ import annotations

import shlex
from pathlib import Path

from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.recipes import RECIPES, Experiment
from lssvwm_agents.trainers.store_fit import split_episodes

_POSES = ("lssvwm/MemoryMaze", "lssvwm/MiniWorld", "lssvwm/MiniGrid")
"""Beginnings of the ids whose odometry is a pose."""
_MADE_FOR = {
    "lssvwm/PointMaze": "point-maze",
    "lssvwm/RaycastMaze-Cue": "memory-cue",
    "lssvwm/MemoryMaze": "memory-maze-9x9",
    "lssvwm/MiniGrid-Memory": "minigrid-memory",
}
"""Beginnings of ids to the recipe made for them."""
_SHORTEST_WINDOW = 8


def suggest_next(store: EpisodeStore) -> str:
    """What to do with a store: the command of a training that takes it, or what is missing for one."""
    path = str(store.path)
    recipe = fitting_recipe(store.spec.env_id)
    size = RECIPES[recipe]().model.tokenizer.frame_size
    if tuple(store.spec.frame_shape) != (size, size, 3):
        return f"collect with --frame-size {size}, the frames that recipe {recipe} takes, into another folder"
    if store.num_episodes < 2:
        return f"collect more episodes: a training needs 2 at least, and {path} holds {store.num_episodes}"
    if int(store.lengths.min()) < _SHORTEST_WINDOW:
        return (
            f"collect longer episodes: a training needs {_SHORTEST_WINDOW} frames, "
            f"and the shortest in {path} has {store.lengths.min()}"
        )
    out = Path(path).parent / "train"
    flags = training_flags(store, recipe)
    return shlex.join(["lssvwm", "train", "--recipe", recipe, "--store", path, "--out", str(out), *flags])


def fitting_recipe(env_id: str) -> str:
    """The recipe made for an environment; `maze-tiny`, the most general, where there is none."""
    return next((recipe for start, recipe in _MADE_FOR.items() if env_id.startswith(start)), "maze-tiny")


def training_flags(store: EpisodeStore, recipe: str) -> list[str]:
    """Flags of `lssvwm train` with which a recipe takes a store: those of its odometry and its lengths."""
    experiment = RECIPES[recipe]()
    return [*_of_odometry(store.spec, experiment), *_of_lengths(store, experiment)]


def _of_odometry(spec: StoreSpec, experiment: Experiment) -> list[str]:
    """Flags of the odometry: a pose, any other vector, or none; replay and priority look for places."""
    if spec.env_id.startswith("lssvwm/RaycastMaze"):
        return []  # known to the training
    if spec.env_id.startswith(_POSES) and spec.proprio_dim >= 4:
        return ["--model.odometry", "pose"]
    flags = []
    if spec.proprio_dim == 0:
        flags += ["--model.proprio-dim", "0", "--model.backbone.place-features", "0"]
    if experiment.training.memory_replay:
        flags += ["--training.memory-replay", "0"]
    if experiment.training.priority:
        flags += ["--training.priority", "0"]
    return flags


def _of_lengths(store: EpisodeStore, experiment: Experiment) -> list[str]:
    """Windows and validation no longer than the shortest episode."""
    training, flags = experiment.training, list[str]()
    played, held_out = split_episodes(store, experiment.data)
    shortest = int(store.lengths[list(played)].min())
    if shortest < max(length for _, length in training.curriculum):
        flags.append("--training.curriculum")
        last = 0
        for start, length in training.curriculum:
            window = min(length, shortest - shortest % _SHORTEST_WINDOW)
            if window != last:
                flags += [f"{start:g}", str(window)]
            last = window
    shortest = int(store.lengths[list(held_out)].min())
    validated = training.validation_context + training.validation_horizon
    if training.num_validation_episodes and shortest < validated:
        horizon = min(training.validation_horizon, shortest // 2)
        flags += ["--training.validation-context", str(shortest - horizon)]
        if horizon != training.validation_horizon:
            flags += ["--training.validation-horizon", str(horizon)]
    return flags
