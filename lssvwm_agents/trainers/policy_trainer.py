"""Improve an actor-critic in the imagination of a world model that stays as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.policy_gradients import ActorCriticObjective, accumulate_gradients
from lssvwm_agents.policies.sure_rewards import sure_reward
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.loop import LoopResult, Share, TrainingLoop
from lssvwm_agents.trainers.policy_config import PolicyTrainingConfig
from lssvwm_agents.trainers.policy_starts import StartPool
from lssvwm_agents.trainers.real_streams import RealStreams
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState

PHASE = "policy"


class ImaginedDynamics:
    """A world model as a policy's dynamics: frozen, with noise of its own where frames are samples.

    Args:
        model: The world model.
        num_denoising_steps: Of every imagined frame.
        noise: Source of the frames' noise.
        doubt: See :func:`sure_reward`.
    """

    def __init__(
        self,
        model: WorldModel,
        num_denoising_steps: int = 1,
        noise: torch.Generator | None = None,
        doubt: float = 0.0,
    ) -> None:
        self.model, self.num_denoising_steps, self.noise = model, num_denoising_steps, noise
        self.doubt = doubt

    def step(self, state: WorldState, action: torch.Tensor) -> tuple[WorldState, Prediction]:
        """Imagine one frame."""
        state, prediction = self.model.step(state, action, self.num_denoising_steps, self.noise)
        if self.doubt > 0:
            heads = self.model.heads
            reward = sure_reward(heads.reward(prediction.features), heads.two_hot.bins, self.doubt)
            prediction = dataclasses.replace(prediction, reward=reward)
        return state, prediction


class ImaginedUpdate:
    """Takes the gradients of one update; what a `TrainingLoop` calls in place of a loss module.

    Args:
        model: Frozen.
        policy: What is improved.
        pool: Where rollouts start.
        objective: What is followed.
        training: How long and how many.
        streams: Episodes of the policy's own, where a share of the rollouts starts; None for none.
        stream_share: That share.
        stream_frames: Real frames that they move on by before an update.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        pool: StartPool,
        objective: ActorCriticObjective,
        training: PolicyTrainingConfig,
        streams: RealStreams | None = None,
        stream_share: float = 0.5,
        stream_frames: int = 4,
    ) -> None:
        self.model, self.policy, self.pool = model, policy, pool
        self.objective, self.training = objective, training
        self.streams, self.stream_frames = streams, stream_frames
        self.from_streams = 0 if streams is None else round(stream_share * training.starts)

    def __call__(self, update: int, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and metrics; gradients stay in the policy's parameters."""
        training = self.training
        real: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            if self.streams is not None:
                earned = self.streams.advance(self.stream_frames)
                real["real_reward"] = torch.tensor(earned, device=self.model.device)
            state = self.model.repeat(self._starts(update), training.forks)
        rows, width = state.batch_size, self.model.config.action_dim
        device = self.model.device
        noise = torch.randn(
            (training.horizon, rows, width), generator=generator(device, seed, 0), device=device
        )
        dynamics = ImaginedDynamics(
            self.model, training.num_denoising_steps, generator(device, seed, 1), training.doubt
        )
        loss, metrics = accumulate_gradients(dynamics, state, self.policy, noise, self.objective)
        return loss, {**metrics, **real}

    def _starts(self, update: int) -> WorldState:
        """Memories of the update's starts: of the pool, and of the policy's own episodes."""
        own = self.from_streams
        parts = []
        if self.training.starts > own:
            parts.append(self.pool.draw(update, self.training.starts - own))
        if own:
            assert self.streams is not None
            world = self.streams.world
            order = torch.randperm(
                world.batch_size, generator=generator("cpu", self.training.seed, 34, update)
            )
            rows = order.repeat(-(-own // len(order)))[:own]
            parts.append(world.select(rows.to(self.model.device)))
        joined: WorldState = pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)
        return joined


def improve_policy(
    model: WorldModel,
    policy: ActorCritic,
    pool: StartPool,
    objective: ActorCriticObjective,
    training: PolicyTrainingConfig,
    process: Process,
    directory: Path,
    deadline: float | None = None,
    tensorboard: bool = True,
    make_streams: Callable[[ActorCritic], RealStreams] | None = None,
    stream_share: float = 0.5,
    stream_frames: int = 4,
) -> LoopResult:
    """Improve ``policy`` until it has had ``training.updates`` updates in all; resumes where it was.

    Args:
        model: The world model; its parameters are frozen.
        policy: On the model's device; if the run has a checkpoint, it takes the place of these weights.
        pool: Where rollouts start.
        objective: What is followed.
        training: Settings.
        process: The one process.
        directory: The run's folder.
        deadline: Value of `time.monotonic` at which to stop with a checkpoint.
        tensorboard: Whether to write TensorBoard files.
        make_streams: Begins episodes of the policy's own; a resumed run begins others.
        stream_share: Share of the starts that are drawn from them.
        stream_frames: Real frames that they move on by before an update.
    """
    model.eval().requires_grad_(False)
    policy.log_entropy_weight.requires_grad_(objective.entropy_target > 0)
    streams = None if make_streams is None or stream_share == 0 else make_streams(policy)
    update = ImaginedUpdate(model, policy, pool, objective, training, streams, stream_share, stream_frames)
    loop = TrainingLoop(policy, training, process, directory, PHASE, tensorboard, update)
    if loop.update == 0:
        policy.fit_features(pool.features(0).float())
    rows, frames = training.starts * training.forks, training.starts * training.forks * training.horizon

    def make_share(number: int, progress: float) -> Share:
        arguments: tuple[Any, ...] = (number, fold_in(training.seed, 33, number))
        return Share(arguments, rows, rows, frames, {})

    try:
        return loop.run(make_share, None, deadline)
    finally:
        if streams is not None:
            streams.close()
