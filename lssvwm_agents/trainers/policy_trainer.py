"""Improve an actor-critic in the imagination of a world model that stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.policy_gradients import ActorCriticObjective, accumulate_gradients
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.loop import LoopResult, Share, TrainingLoop
from lssvwm_agents.trainers.policy_config import PolicyTrainingConfig
from lssvwm_agents.trainers.policy_starts import StartPool
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState

PHASE = "policy"


class ImaginedDynamics:
    """A world model as a policy's dynamics: frozen, with noise of its own where frames are samples.

    Args:
        model: The world model.
        num_denoising_steps: Of every imagined frame.
        noise: Source of the frames' noise.
    """

    def __init__(self, model: WorldModel, num_denoising_steps: int, noise: torch.Generator) -> None:
        self.model, self.num_denoising_steps, self.noise = model, num_denoising_steps, noise

    def step(self, state: WorldState, action: torch.Tensor) -> tuple[WorldState, Prediction]:
        """Imagine one frame."""
        return self.model.step(state, action, self.num_denoising_steps, self.noise)


class ImaginedUpdate:
    """Takes the gradients of one update; what a `TrainingLoop` calls in place of a loss module.

    Args:
        model: Frozen.
        policy: What is improved.
        pool: Where rollouts start.
        objective: What is followed.
        training: How long and how many.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ActorCritic,
        pool: StartPool,
        objective: ActorCriticObjective,
        training: PolicyTrainingConfig,
    ) -> None:
        self.model, self.policy, self.pool = model, policy, pool
        self.objective, self.training = objective, training

    def __call__(self, update: int, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and metrics; gradients stay in the policy's parameters."""
        training = self.training
        with torch.no_grad():
            starts = self.pool.draw(update, training.starts)
            state = self.model.repeat(starts, training.forks)
        rows, width = state.batch_size, self.model.config.action_dim
        device = self.model.device
        noise = torch.randn(
            (training.horizon, rows, width), generator=generator(device, seed, 0), device=device
        )
        dynamics = ImaginedDynamics(
            self.model, training.num_denoising_steps, generator(device, seed, 1)
        )
        return accumulate_gradients(dynamics, state, self.policy, noise, self.objective)


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
    """
    model.eval().requires_grad_(False)
    policy.log_entropy_weight.requires_grad_(objective.entropy_target > 0)
    update = ImaginedUpdate(model, policy, pool, objective, training)
    loop = TrainingLoop(policy, training, process, directory, PHASE, tensorboard, update)
    if loop.update == 0:
        policy.fit_features(pool.features(0).float())
    rows, frames = training.starts * training.forks, training.starts * training.forks * training.horizon

    def make_share(number: int, progress: float) -> Share:
        arguments: tuple[Any, ...] = (number, fold_in(training.seed, 33, number))
        return Share(arguments, rows, rows, frames, {})

    return loop.run(make_share, None, deadline)
