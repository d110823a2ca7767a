"""Improve an actor-critic in the imagination of a world model that stays as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils import _pytree as pytree
from tqdm import tqdm

from lssvwm_agents.planners import CudaGraphs, coloured_normal
from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective, check_guides
from lssvwm_agents.policies.actors import Actor
from lssvwm_agents.policies.imagined_rollouts import FeatureState, ImaginedRollouts, imagine_policy
from lssvwm_agents.policies.policy_gradients import ScoredBatch, score_batch, score_gradients
from lssvwm_agents.policies.returns import reach
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.dynamics_update import DynamicsUpdate
from lssvwm_agents.trainers.going_on import GoingOn
from lssvwm_agents.trainers.imagined_dynamics import ImaginedDynamics, frame_noise, recorded_value
from lssvwm_agents.trainers.loop import LoopResult, Share, TrainingLoop
from lssvwm_agents.trainers.policy_config import PolicyTrainingConfig
from lssvwm_agents.trainers.policy_starts import StartPool
from lssvwm_agents.trainers.real_streams import RealStreams
from lssvwm_agents.worldmodel import WorldModel, WorldState

PHASE = "policy"
BEYOND_BINS = 0.01
"""A larger share of returns beyond the critic's bins is warned of."""


def _imagine(
    model: WorldModel,
    policy: ActorCritic,
    training: PolicyTrainingConfig,
    state: WorldState,
    noise: torch.Tensor,
    of_frames: torch.Tensor | None,
) -> tuple[FeatureState, ImaginedRollouts]:
    """Rollouts from forks of ``state``; one function, so that it can be captured as a CUDA graph."""
    dynamics = ImaginedDynamics(model, training.num_denoising_steps, of_frames, training.doubt)
    return imagine_policy(dynamics, model.repeat(state, training.forks), policy.actor, noise, policy.read)


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
        stream_frames: Real frames that they move on by before a batch of rollouts.
        prior: What the policy is held near; frozen. None for nothing.
        go_on: Rollouts that go on where those of the last batch ended; None for none.
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
        prior: Actor | None = None,
        go_on: GoingOn | None = None,
    ) -> None:
        self.model, self.policy, self.pool = model, policy, pool
        self.objective, self.training = objective, training
        self.streams, self.stream_frames, self.prior = streams, stream_frames, prior
        self.from_streams = 0 if streams is None else round(stream_share * training.starts)
        self.go_on = GoingOn(0.0, 0, training.horizon, training.seed) if go_on is None else go_on
        self._ages = torch.zeros(0, dtype=torch.int64)
        imagine: Callable[..., tuple[FeatureState, ImaginedRollouts]] = functools.partial(
            _imagine, model, policy, training
        )
        self._bootstrap = None if objective.bootstrap == "critic" else recorded_value(model)
        check_guides(objective, prior, self._bootstrap)
        self._imagine = CudaGraphs(imagine) if training.cuda_graph else imagine
        self._scored: tuple[int, ScoredBatch, dict[str, torch.Tensor]] | None = None
        self._dynamics = DynamicsUpdate(model, policy, objective, training, prior, self._bootstrap)
        self._begun: int | None = None
        self.beyond_bins = torch.zeros(())
        """() share of the returns of the last batch that lie beyond the critic's bins."""

    def __call__(self, update: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and metrics; gradients stay in the policy's parameters."""
        number = update // self.training.reuse
        through = self.objective.gradient == "dynamics"
        return self._through_dynamics(number) if through else self._by_score(number)

    def _through_dynamics(self, number: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Actor and critic learn from a new batch, the critic alone from one that is held."""
        if self._begun == number:
            return self._dynamics.later()
        state, noise, of_frames, real = self._begin(number)
        loss, metrics = self._dynamics.first(state, noise, of_frames)
        self.go_on.keep(self._dynamics.ended, self._ages)
        self._begun, self.beyond_bins = number, metrics["beyond_bins"].clone()
        return loss, {**metrics, **real}

    def _by_score(self, number: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Actor and critic learn from a batch, new or held."""
        self.policy.slow_critic.update(self.objective.slow_decay)
        if self._scored is None or self._scored[0] != number:
            state, noise, of_frames, real = self._begin(number)
            with torch.no_grad():
                end, rollouts = self._imagine(state.detach(), noise, of_frames)
            assert isinstance(end, WorldState)
            self.go_on.keep((end, reach(rollouts.continuation)[:, -1]), self._ages)
            batch = score_batch(self.policy, rollouts, self.objective, self.prior, self._bootstrap)
            self._scored = (number, batch, real)
        _, batch, real = self._scored
        loss, metrics = score_gradients(self.policy, batch, self.objective)
        self.beyond_bins = metrics["beyond_bins"]
        return loss, {**metrics, **real}

    @torch.no_grad()
    def _begin(
        self, batch: int
    ) -> tuple[WorldState, torch.Tensor, torch.Tensor | None, dict[str, torch.Tensor]]:
        """Starts of a batch of rollouts, not yet forked; noise of actions and frames; real rewards."""
        training, device = self.training, self.model.device
        real: dict[str, torch.Tensor] = {}
        if self.streams is not None:
            earned = self.streams.advance(self.stream_frames)
            real["real_reward"] = torch.tensor(earned, device=device)
        state, seed = self._starts(batch), fold_in(training.seed, 33, batch)
        rows, horizon = state.batch_size * training.forks, training.horizon
        noise = coloured_normal(
            1,
            rows,
            horizon,
            self.model.config.action_dim,
            training.noise_colour,
            generator(device, seed, 0),
            device,
        )[0].transpose(0, 1)
        of_frames = frame_noise(
            self.model, training.num_denoising_steps, horizon, rows, generator(device, seed, 1)
        )
        return state, noise, of_frames, real

    def _starts(self, batch: int) -> WorldState:
        """Memories that a batch starts from: of the pool, of the policy's own episodes, and imagined ones."""
        own = self.from_streams
        resumed, ages = self.go_on.draw(batch, self.training.starts - own)
        recorded = self.training.starts - own - len(ages)
        self._ages = torch.cat([torch.zeros(recorded + own, dtype=torch.int64), ages])
        parts = []
        if recorded:
            parts.append(self.pool.draw(batch, recorded))
        if own:
            assert self.streams is not None
            world = self.streams.world
            order = torch.randperm(
                world.batch_size, generator=generator("cpu", self.training.seed, 34, batch)
            )
            rows = order.repeat(-(-own // len(order)))[:own]
            parts.append(world.select(rows.to(self.model.device)))
        if resumed is not None:
            parts.append(resumed)
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
    prior: Actor | None = None,
    go_on: GoingOn | None = None,
) -> LoopResult:
    """Improve ``policy`` until it has had ``training.updates`` updates in all; resumes where it was.

    A run that was stopped between two updates from one batch imagines that batch anew, with the policy as it
    then is; through the dynamics the actor then moves once more than it would have.

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
        stream_frames: Real frames that they move on by before a batch of rollouts.
        prior: A frozen actor of the policy's shape, on the model's device: the policy begins as a copy of it,
            and is held near it by ``objective.prior_weight``. None to begin without.
        go_on: Rollouts that go on where those of the last batch ended; a resumed run begins without any. None
            for none.
    """
    model.eval().requires_grad_(False)
    if prior is not None:
        policy.actor.load_state_dict(prior.state_dict())  # before the loop, which may have a checkpoint
    policy.log_entropy_weight.requires_grad_(objective.entropy_target > 0)
    streams = None if make_streams is None or stream_share == 0 else make_streams(policy)
    update = ImaginedUpdate(
        model, policy, pool, objective, training, streams, stream_share, stream_frames, prior, go_on
    )
    loop = TrainingLoop(policy, training, process, directory, PHASE, tensorboard, update)
    if loop.update == 0:
        policy.fit_features(pool.features(0, policy.read).float(), critic_alone=prior is not None)
    rows, frames = training.starts * training.forks, training.starts * training.forks * training.horizon

    def make_share(number: int, progress: float) -> Share:
        imagined = frames if number % training.reuse == 0 else 0
        return Share((number,), rows, rows, imagined, {})

    try:
        result = loop.run(make_share, None, deadline)
    finally:
        if streams is not None:
            streams.close()
    _warn_of_bins(policy, float(update.beyond_bins))
    return result


def _warn_of_bins(policy: ActorCritic, share: float) -> None:
    """Say so if the critic cannot tell the returns that it is to learn."""
    if share > BEYOND_BINS:
        last, limit = float(policy.critic.two_hot.bins[-1]), policy.config.symlog_limit
        tqdm.write(
            f"warning: {share:.0%} of the returns of the last batch lie beyond {last:.0f}, the last of the "
            f"critic's bins, and count as that: begin anew with a larger --symlog-limit than {limit:g}, or a "
            "smaller --objective.discount."
        )
