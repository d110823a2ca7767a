"""The ways of improving a policy in imagination, behind one small interface."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import gymnasium

from lssvwm_agents.agents import environment_kwargs
from lssvwm_agents.agents.action_codec import action_spec_from_space
from lssvwm_agents.data.latents import module_hash
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.envs.contexts import ContextSource, MazeContexts
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.environments import choose_env_id, make_envs
from lssvwm_agents.imagined import make_contexts
from lssvwm_agents.policies.actor_critic import WEIGHTS, ActorCritic, PolicyConfig, load_policy
from lssvwm_agents.policies.actors import Actor
from lssvwm_agents.policies.behaviour import behaviour_prior
from lssvwm_agents.policies.inputs import input_width
from lssvwm_agents.report.run_info import file_sha256
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.going_on import GoingOn
from lssvwm_agents.trainers.policy_config import Algorithm, PolicyRecipe
from lssvwm_agents.trainers.policy_starts import StartPool
from lssvwm_agents.trainers.policy_trainer import improve_policy
from lssvwm_agents.trainers.real_streams import RealStreams
from lssvwm_agents.trainers.run_folder import training_progress
from lssvwm_agents.worldmodel import WorldModel, WorldModelConfig


class Improver(Protocol):
    """Improves one policy in the imagination of one world model."""

    model: WorldModel
    env_id: str

    @property
    def is_maze(self) -> bool:
        """Whether the environment is one of our mazes."""

    @property
    def updates(self) -> int:
        """Updates done, over all iterations."""

    def improve(self, iteration: int, deadline: float | None) -> bool:
        """Bring the policy to the end of an iteration; False if the deadline came first."""

    def policy(self) -> Any:
        """The policy as it is, for evaluation."""

    def sha256(self) -> str:
        """SHA-256 of the policy's file."""


class World:
    """A world model with the real environment it stands for.

    Args:
        model: The world model.
        env_id: The environment; empty for the one that it was trained for.
        store: Recorded episodes that contexts are taken from; None to play them live.
        recipe: Says how contexts are played.
        allow_other_env: Also take an environment that the model was not trained for by name.
    """

    def __init__(
        self,
        model: WorldModel,
        env_id: str,
        store: Path | None,
        recipe: PolicyRecipe,
        allow_other_env: bool = False,
    ) -> None:
        self.model, self.store, self.recipe = model, store, recipe
        self.env_id = choose_env_id(model.config, env_id or None, allow_other_env)
        self.kwargs = environment_kwargs(model.config)
        env = make_envs(self.env_id, 1, self.kwargs)
        self.action_space, self.maze = env.single_action_space, getattr(env.unwrapped, "maze_config", None)
        env.close()

    def contexts(self) -> list[ContextSource]:
        """Sources of real contexts, of every length and, in mazes, policy."""
        starts, device = self.recipe.starts, str(self.model.device)
        if self.store is None and self.maze is not None:
            return [
                MazeContexts(self.maze, policy, frames, device)
                for frames in starts.context_frames
                for policy in starts.policies
            ]
        source, lengths = "live" if self.store is None else self.store, starts.context_frames
        if self.store is not None:
            longest = int(EpisodeStore.open(self.store).lengths.max())
            lengths = tuple(frames for frames in lengths if frames < longest)
            if not lengths:
                raise UserError(
                    f"`starts.context_frames` must hold a number below the {longest} frames of the longest "
                    f"episode collected, got {starts.context_frames}."
                )
        made = [make_contexts(self.model.config, source, n, None, device)[0] for n in lengths]
        return [one for one in made if one is not None]

    def streams(self, policy: ActorCritic, seed: int) -> RealStreams:
        """Episodes that the policy plays itself."""
        starts = self.recipe.starts
        kwargs = dict(self.kwargs)
        if starts.stream_steps:
            kwargs["max_episode_steps"] = starts.stream_steps
        if self.maze is not None:
            kwargs["device"] = str(self.model.device)
        return RealStreams(make_envs(self.env_id, starts.streams, kwargs), self.model, policy, seed)


def check_recorded(recipe: PolicyRecipe, store: Path | None) -> None:
    """Refuse a behaviour prior where there are no recorded actions to clone.

    Raises:
        UserError: If ``training.clone_updates`` asks for one and there is no store.
    """
    if recipe.training.clone_updates > 0 and store is None:
        raise UserError(
            "`training.clone_updates` clones recorded actions: give episodes by --store, or leave it at 0, "
            f"got {recipe.training.clone_updates} and no store."
        )


def check_value(recipe: PolicyRecipe, config: WorldModelConfig) -> None:
    """Refuse to bootstrap from recorded values that the model has not, or of another discount.

    Raises:
        UserError: If ``objective.bootstrap`` is ``recorded`` and the model's value head does not fit.
    """
    objective = recipe.objective
    if objective.bootstrap == "critic":
        return
    if not config.value_head:
        raise UserError(
            "`objective.bootstrap` recorded needs a world model with a value head, got `value_head`=False."
        )
    if objective.discount != config.value_discount:
        raise UserError(
            f"`objective.discount` must be that of the recorded values, {config.value_discount}, for "
            f"`objective.bootstrap` recorded, got {objective.discount}."
        )


def check_going_on(recipe: PolicyRecipe, config: WorldModelConfig) -> None:
    """Refuse rollouts that go on beside others in a memory that grows with every frame.

    Raises:
        UserError: If rollouts are to go on, and the model has full attention.
    """
    if recipe.starts.go_on_share > 0 and config.backbone.memory == "full_attention":
        raise UserError(
            "`starts.go_on_share` needs a memory of constant size, got memory='full_attention': leave it "
            "at 0."
        )


def check_readable(recipe: PolicyRecipe, config: WorldModelConfig) -> None:
    """Refuse inputs that the world model has not.

    Raises:
        UserError: If odometry is to be read, and there is none.
    """
    try:
        input_width(recipe.inputs, 0, config)
    except ValueError as error:
        raise UserError(str(error)) from error


class ActorCriticImprover:
    """Our own actor-critic; see `lssvwm_agents.policies.policy_gradients`.

    Args:
        world: Model and environment.
        name: Of the model.
        recipe: Settings.
        out: The run's folder.
        tensorboard: Whether to write TensorBoard files.

    Raises:
        UserError: If there is a behaviour prior to be cloned, and no store to clone it from, or recorded
            values or inputs are asked for that the model has not, or rollouts are to go on whose memory
            grows.
    """

    def __init__(self, world: World, name: str, recipe: PolicyRecipe, out: Path, tensorboard: bool) -> None:
        check_recorded(recipe, world.store)
        check_value(recipe, world.model.config)
        check_readable(recipe, world.model.config)
        check_going_on(recipe, world.model.config)
        self.world, self.model, self.env_id = world, world.model, world.env_id
        self.recipe, self.out, self.tensorboard = recipe, out, tensorboard
        self.config = PolicyConfig.for_actions(
            action_spec_from_space(world.action_space),
            input_width(recipe.inputs, world.model.feature_dim, world.model.config),
            inputs=recipe.inputs,
            hidden=recipe.hidden,
            num_layers=recipe.num_layers,
            symlog_limit=recipe.symlog_limit,
            features_of=module_hash(world.model),
            world_model=name,
            env_id=world.env_id,
        )

    @property
    def is_maze(self) -> bool:
        """Whether the environment is one of our mazes."""
        return self.world.maze is not None

    @property
    def updates(self) -> int:
        """Updates done, over all iterations."""
        progress = training_progress(self.out, "policy")
        return 0 if progress is None else int(progress["update"])

    def improve(self, iteration: int, deadline: float | None) -> bool:
        """Go on from the checkpoint to the end of the iteration, and save the policy."""
        import torch

        recipe, device = self.recipe, self.model.device
        total = recipe.training.updates * (iteration + 1)
        training = dataclasses.replace(recipe.training, updates=total)
        starts, prior = recipe.starts, self._prior(iteration)
        torch.manual_seed(fold_in(training.seed, 30))
        policy = ActorCritic(self.config).to(device)
        pool = StartPool(
            self.model,
            self.world.contexts(),
            starts.pool,
            starts.block,
            starts.refresh_every,
            fold_in(training.seed, iteration if self.world.store is not None else 0),
        )
        done = self.updates
        result = improve_policy(
            self.model,
            policy,
            pool,
            recipe.objective,
            training,
            Process(0, 1, device),
            self.out,
            deadline,
            self.tensorboard,
            (lambda actor: self.world.streams(actor, fold_in(training.seed, 35, done)))
            if starts.streams
            else None,
            starts.stream_share,
            starts.stream_frames,
            prior,
            GoingOn(starts.go_on_share, starts.go_on_frames, training.horizon, training.seed),
        )
        policy.save(self.out / "policy")
        return result.finished

    def _prior(self, iteration: int) -> Actor | None:
        """The behaviour prior of an iteration, of its world model and of all that was recorded so far."""
        training, store = self.recipe.training, self.world.store
        if training.clone_updates == 0 or store is None:
            return None
        return behaviour_prior(
            self.out / "behaviour",
            iteration,
            self.config,
            self.model,
            EpisodeStore.open(store),
            training.clone_frames,
            training.clone_updates,
            fold_in(training.seed, 37),
        )

    def policy(self) -> ActorCritic:
        """The policy as it was saved."""
        return load_policy(self.out / "policy", self.model.device)

    def sha256(self) -> str:
        """SHA-256 of the policy's weights."""
        return file_sha256(self.out / "policy" / WEIGHTS)


def make_improver(
    algo: Algorithm,
    model: WorldModel,
    name: str,
    recipe: PolicyRecipe,
    out: Path,
    env_id: str,
    store: Path | None,
    tensorboard: bool,
    allow_other_env: bool = False,
) -> Improver:
    """The improver of an algorithm.

    Args:
        algo: ``actor-critic``, ``ppo`` or ``sac``.
        model: The world model.
        name: Its name or path.
        recipe: Settings.
        out: The run's folder.
        env_id: The environment; empty for the one that the model was trained for.
        store: Recorded episodes that contexts are taken from; None to play them live.
        tensorboard: Whether to write TensorBoard files.
        allow_other_env: Also take an environment that the model was not trained for by name.

    Raises:
        UserError: If the algorithm does not act in such an environment.
    """
    world = World(model, env_id, store, recipe, allow_other_env)
    if algo == "actor-critic":
        return ActorCriticImprover(world, name, recipe, out, tensorboard)
    discrete = isinstance(world.action_space, gymnasium.spaces.Discrete)
    if discrete != (algo == "ppo"):
        raise UserError(
            f"--algo {algo} is for {'discrete' if algo == 'ppo' else 'continuous'} actions here, and "
            f"{world.env_id} has {world.action_space}: choose {'ppo' if discrete else 'sac'} or actor-critic."
        )
    from lssvwm_agents.trainers.sb3_trainer import SB3Improver

    return SB3Improver(algo, world, name, recipe, out, tensorboard)
