"""The real half of the loop: collect episodes with the policy as it is, fit the world model to all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from lssvwm_agents.data.collect import CollectConfig, collect
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.envs.mirror import check_mirror
from lssvwm_agents.errors import UserError
from lssvwm_agents.json_options import json_object
from lssvwm_agents.recipes import RECIPES, Experiment
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers.pipeline import RunOptions, run_experiment
from lssvwm_agents.trainers.run_folder import training_progress

OUR_MAZES = "lssvwm/RaycastMaze"
"""How the ids of our own mazes begin."""
HELD_OUT = 20
"""One episode in so many is held out from a fit."""


@dataclass(frozen=True)
class RefreshConfig:
    """How much is collected, and how the world model is fitted to it.

    Attributes:
        recipe: Of the world model: a name that `lssvwm train --recipe` takes.
        episodes: Real episodes collected in each iteration.
        first_episodes: In the first iteration instead; 0 for as many as in the others.
        num_envs: Environments played side by side.
        env_kwargs: Keyword arguments of the environment, as JSON.
        processes: Each environment in a process of its own: for slow ones, such as those drawn by MuJoCo.
        first_policy: Who plays the first iteration: a name that ``lssvwm collect --policy`` takes.
        first_epsilon: Probability, at each of its moves, of a random action instead of its own.
        epsilon: The same of the trained policy, which plays the later iterations.
        first_updates: Updates of the first fit; 0 for the recipe's.
        updates: Updates of every later one, which begins at the weights before.
        mirror: Fit to the mirror image of every episode too; for mazes in which left and right are alike.
    """

    recipe: str = "maze-tiny"
    episodes: int = 64
    first_episodes: int = 0
    num_envs: int = 16
    env_kwargs: str = "{}"
    processes: bool = False
    first_policy: str = "random"
    first_epsilon: float = 0.0
    epsilon: float = 0.05
    first_updates: int = 0
    updates: int = 1000
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(f"`recipe` must be one of {', '.join(RECIPES)}, got {self.recipe!r}.")
        json_object(self.env_kwargs, "--refresh.env-kwargs")
        for name, least in (
            ("episodes", 2),
            ("first_episodes", 0),
            ("num_envs", 1),
            ("first_updates", 0),
            ("updates", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if self.first_episodes == 1:
            raise ValueError("`first_episodes` must be 0 or at least 2, one of them held out, got 1.")
        for name in ("first_epsilon", "epsilon"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")


def check_refresh(config: RefreshConfig, env_id: str) -> None:
    """Refuse, before anything is collected, what the environment does not allow.

    Raises:
        UserError: If the model is to be fitted to mirror images and the environment has none, or our mazes,
            which are stepped as one batch on the run's device, are to be played in processes.
    """
    if config.processes and env_id.startswith(OUR_MAZES):
        raise UserError(
            f"leave out --refresh.processes: `{env_id}` is stepped and drawn as one batch on the run's "
            "device."
        )
    if config.mirror:
        try:
            check_mirror(env_id, json_object(config.env_kwargs, "--refresh.env-kwargs"))
        except ValueError as error:
            raise UserError(f"leave out --refresh.mirror: {error}") from error


def collect_episodes(
    folder: Path,
    env_id: str,
    config: RefreshConfig,
    iteration: int,
    policy: str | None,
    device: str = "cpu",
    seed: int = 0,
) -> EpisodeStore:
    """Collect what an iteration needs, and add it to the store of all iterations.

    Args:
        folder: Holds a store for each iteration, and ``all``.
        env_id: Gymnasium id.
        config: How many episodes.
        iteration: From 0.
        policy: Folder of a trained policy; None for ``config.first_policy``.
        device: Of our mazes and the policy's world model; other environments are played on the CPU.
        seed: Of the run: names the episodes.

    Returns:
        The store of all iterations so far.

    Raises:
        UserError: If the environment does not allow what is asked for (:func:`check_refresh`).
    """
    kwargs = json_object(config.env_kwargs, "--refresh.env-kwargs")
    check_refresh(config, env_id)
    ours = env_id.startswith(OUR_MAZES)
    if ours:
        kwargs["observation"] = "dict"  # a trained policy's memory needs the odometry
    first = config.first_episodes or config.episodes
    episodes = config.episodes if iteration > 0 else first
    before = first + (iteration - 1) * config.episodes if iteration > 0 else 0
    part = collect(
        CollectConfig(
            env=env_id,
            policy=policy or config.first_policy,
            episodes=episodes,
            num_envs=min(config.num_envs, episodes),
            seed=fold_in(seed, 36) % 2**30 + before,
            env_kwargs=kwargs,
            epsilon=config.first_epsilon if policy is None else config.epsilon,
            processes=config.processes,
            device=device if ours else "cpu",
        ),
        folder / f"{iteration:03d}",
    )
    path = folder / "all"
    if path.is_dir() and any(path.iterdir()):
        whole = EpisodeStore.open(path)
    else:
        spec = dataclasses.replace(part.spec, policy="train-policy", seed=0, extra={})
        whole = EpisodeStore.create(path, spec)
    have = set(whole.seeds.tolist())
    with whole:
        for episode in part:
            if episode.seed not in have:
                whole.append(episode)
    return EpisodeStore.open(path)


def fit_model(
    store: Path,
    out: Path,
    init: str | None,
    config: RefreshConfig,
    device: str,
    stop_after: float,
    tensorboard: bool,
    seed: int = 0,
) -> bool:
    """Fit the world model to all episodes, or go on; gives whether it is finished.

    Args:
        store: Of all episodes.
        out: The run's folder of this fit.
        init: World model to begin with; None for a fresh one, with a tokenizer of its own.
        config: How long.
        device: ``auto``, ``cpu`` or ``cuda``.
        stop_after: Seconds after which to stop; 0 for no limit.
        tensorboard: Whether to write TensorBoard files.
        seed: Of weights, batches and noise.
    """
    experiment = fitted_to(RECIPES[config.recipe](), EpisodeStore.open(store))
    updates = config.updates if init is not None else config.first_updates
    training = dataclasses.replace(experiment.training, seed=seed)
    if updates:
        training = dataclasses.replace(training, updates=updates)
    tokenizer = dataclasses.replace(experiment.tokenizer_training, seed=seed)
    data = dataclasses.replace(experiment.data, mirror=config.mirror)
    experiment = dataclasses.replace(experiment, training=training, tokenizer_training=tokenizer, data=data)
    options = RunOptions(out, store, init=init, device=device, stop_after=stop_after, tensorboard=tensorboard)
    if run_experiment(experiment, options) is None:
        return False
    progress = training_progress(out)
    return progress is not None and int(progress["update"]) >= experiment.training.updates


def fitted_to(experiment: Experiment, store: EpisodeStore) -> Experiment:
    """The recipe with windows no longer than the episodes, and without what their odometry does not allow.

    One episode in 20 is held out, the same ones in all iterations, and not the newest, which show where the
    model was wrong.

    Raises:
        UserError: If the episodes are too short for any window.
    """
    shortest, width = int(store.lengths.min()), store.spec.proprio_dim
    if shortest < 4:
        raise UserError(f"episodes must have at least 4 frames to fit a world model, got one of {shortest}.")
    training = experiment.training
    curriculum = tuple((start, min(length, shortest)) for start, length in training.curriculum)
    context = min(training.validation_context, shortest - 2)
    training = dataclasses.replace(
        training,
        curriculum=curriculum,
        memory_replay=training.memory_replay if width >= 1 else 0.0,
        priority=training.priority if width >= 4 else 0.0,
        validation_context=context,
        validation_horizon=min(training.validation_horizon, shortest - context),
    )
    objective = experiment.objective
    longest = min(length for _, length in curriculum) - 1
    if objective.rollout_weight > 0 and objective.rollout_horizon > longest:
        objective = dataclasses.replace(objective, rollout_horizon=longest)
    data = dataclasses.replace(experiment.data, hold_out_every=HELD_OUT)
    return dataclasses.replace(experiment, training=training, objective=objective, data=data)
