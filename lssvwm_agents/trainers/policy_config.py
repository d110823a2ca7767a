"""Frozen settings of a policy's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lssvwm_agents.json_options import json_object
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.inputs import FEATURES, Input, check_inputs
from lssvwm_agents.trainers.config import OptimizationConfig

Algorithm = Literal["actor-critic", "ppo", "sac"]


@dataclass(frozen=True)
class StartsConfig:
    """What imagination starts from.

    Attributes:
        policies: Mazes rendered on the device: scripted policies that walk there, in turns.
        context_frames: Real frames of a context; several lengths take turns.
        pool: Starts held at once; each is a memory of a few megabytes.
        block: So many of them are made anew at a time.
        refresh_every: Batches of rollouts after which the oldest block is made anew; 0 for never.
        streams: Real episodes that the policy itself plays beside its training; 0 for none.
        stream_share: Share of the starts that are drawn from them.
        stream_frames: Real frames that each moves on by between two batches of rollouts.
        stream_steps: Moves after which such an episode is cut off; 0 for the environment's own number.
        go_on_share: Share of the starts beside the streams' that go on where rollouts of the last batch
            ended, so that rollouts get where the policy comes to rest; every rollout's memory is then kept.
            At least one start is a real one.
        go_on_frames: How many imagined frames long a rollout may be in the end; at least two horizons.
    """

    policies: tuple[str, ...] = ("explorer", "forager", "held_random")
    context_frames: tuple[int, ...] = (32, 96, 192)
    pool: int = 96
    block: int = 16
    refresh_every: int = 4
    streams: int = 24
    stream_share: float = 0.5
    stream_frames: int = 4
    stream_steps: int = 0
    go_on_share: float = 0.0
    go_on_frames: int = 48

    def __post_init__(self) -> None:
        if not 0.0 <= self.go_on_share < 1.0 or self.go_on_frames < 1:
            raise ValueError(
                "`go_on_share` must be in [0, 1), some starts are real, and `go_on_frames` at least 1, got "
                f"{self.go_on_share} and {self.go_on_frames}."
            )
        if not 0.0 <= self.stream_share <= 1.0 or min(self.streams, self.stream_steps) < 0:
            raise ValueError(
                "`stream_share` must be in [0, 1], `streams` and `stream_steps` at least 0, got "
                f"{self.stream_share}, {self.streams} and {self.stream_steps}."
            )
        if self.stream_frames < 1:
            raise ValueError(f"`stream_frames` must be at least 1, got {self.stream_frames}.")
        if not self.policies or not self.context_frames or min(self.context_frames) < 1:
            raise ValueError(
                "`policies` and `context_frames` must not be empty, and contexts have at least 1 frame, got "
                f"{self.policies} and {self.context_frames}."
            )
        if not 1 <= self.block <= self.pool or self.refresh_every < 0:
            raise ValueError(
                "`block` must be in [1, pool] and `refresh_every` at least 0, got "
                f"{self.block}, {self.pool} and {self.refresh_every}."
            )


@dataclass(frozen=True)
class PolicyTrainingConfig(OptimizationConfig):
    """How an actor-critic is trained in imagination.

    Attributes:
        updates: Optimiser steps of one iteration; then the policy is evaluated.
        horizon: Frames of each imagined rollout.
        starts: Of a batch of rollouts; with the mean future, forks of a start differ by their actions alone.
        forks: Rollouts from each start; they share the memory of the past.
        num_denoising_steps: Of every imagined frame: 1 is the mean of what may come, 8 or more are samples.
        reuse: Updates in a row that learn from one batch of rollouts: imagining is what takes the time. By
            the score function actor and critic learn in each; through the dynamics the actor learns in the
            first, the critic in all. It divides ``updates``.
        noise_colour: Of the noise that actions are drawn with, over the frames of a rollout: 0 white, 1 pink,
            2 red. What is pushed the same way for a while gets further (Eberhard et al. 2023, "Pink noise is
            all you need"; Hollenstein et al. 2024, arXiv 2312.11091, for policies that learn from it).
        doubt: Rewards count as far as the model is sure of them: shrunk towards 0 by so many standard
            deviations of their predicted distribution; 0 for the plain mean.
        clone_updates: Updates by which the behaviour prior is cloned from the recorded actions, before every
            iteration; the policy begins as the first. 0 for no prior.
        clone_frames: Recorded frames, about, that it is cloned from.
    """

    updates: int = 200
    learning_rate: float = 5e-4
    warmup_updates: int = 20
    decay: Literal["cosine", "linear", "constant"] = "constant"
    weight_decay: float = 0.0
    gradient_clip: float = 10.0
    ema_decay: float = 0.0
    bfloat16: bool = False
    log_every: int = 10
    checkpoint_every_seconds: float = 60.0
    horizon: int = 15
    starts: int = 12
    forks: int = 16
    num_denoising_steps: int = 1
    reuse: int = 1
    noise_colour: float = 0.0
    doubt: float = 0.0
    clone_updates: int = 0
    clone_frames: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clone_updates < 0 or self.clone_frames < 1:
            raise ValueError(
                "`clone_updates` must be at least 0 and `clone_frames` at least 1, got "
                f"{self.clone_updates} and {self.clone_frames}."
            )
        if self.noise_colour < 0:
            raise ValueError(f"`noise_colour` must be at least 0, got {self.noise_colour}.")
        if self.doubt < 0:
            raise ValueError(f"`doubt` must be at least 0, got {self.doubt}.")
        for name in ("horizon", "starts", "forks", "num_denoising_steps", "reuse"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.updates % self.reuse:
            raise ValueError(f"`reuse` must divide `updates`={self.updates}, got {self.reuse}.")


@dataclass(frozen=True)
class PolicyEvaluationConfig:
    """How a policy is judged in the real environment.

    Attributes:
        episodes: Real episodes, of mazes or seeds that no training sees.
        look_around: Mazes: moves of the guide before anything counts, watched by the world model.
        guide: The scripted policy that makes them; `guesser` leads through the cue corridor.
        steps: Moves that count at most.
        horizon: Moves that are imagined and then really played, to compare the two returns.
        futures: Sampled futures of each such comparison; their spread is the model's own uncertainty.
            0 for the mean future alone.
        envs_at_once: Environments played side by side.
        doubt: The imagined return is also told as it would count with this `training.doubt`.
        deterministic: Play the likeliest action instead of sampling.
        film: Write a film of real and imagined episodes.
        env_kwargs: Keyword arguments of the environment, as JSON, over those of the model's training data,
            such as ``{"continuing_task": false}``.
    """

    episodes: int = 20
    look_around: int = 96
    guide: str = "explorer"
    steps: int = 250
    horizon: int = 16
    futures: int = 4
    envs_at_once: int = 32
    doubt: float = 0.5
    deterministic: bool = False
    film: bool = True
    env_kwargs: str = "{}"

    def __post_init__(self) -> None:
        json_object(self.env_kwargs, "evaluation.env_kwargs")
        for name, least in (
            ("episodes", 1),
            ("look_around", 0),
            ("steps", 1),
            ("horizon", 1),
            ("futures", 0),
            ("envs_at_once", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")


@dataclass(frozen=True)
class SB3Config:
    """How an agent of stable-baselines3 is trained; discount, lambda and horizon are those of the recipe.

    Attributes:
        steps: Imagined steps of one iteration.
        num_envs: Imagined environments side by side.
        learning_rate: Of Adam.
        batch_size: Steps of one gradient.
        n_steps: PPO: steps of each environment between updates.
        n_epochs: PPO: passes over them.
        entropy_weight: PPO: worth of a nat of entropy.
        buffer_size: SAC: steps remembered.
        learning_starts: SAC: steps before the first update.
        checkpoint_every: Steps after which the agent is kept, rounded up to whole rollouts by PPO.
    """

    steps: int = 20000
    num_envs: int = 32
    learning_rate: float = 3e-4
    batch_size: int = 256
    n_steps: int = 64
    n_epochs: int = 5
    entropy_weight: float = 0.01
    buffer_size: int = 100_000
    learning_starts: int = 1000
    checkpoint_every: int = 4096

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "batch_size", "n_steps", "n_epochs", "buffer_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.checkpoint_every < 1:
            raise ValueError(f"`checkpoint_every` must be at least 1, got {self.checkpoint_every}.")


@dataclass(frozen=True)
class PolicyRecipe:
    """Everything that decides what ``train-policy`` makes of a world model.

    Attributes:
        hidden: Width of the layers of actor and critic.
        num_layers: How many.
        inputs: What actor and critic read: ``features``, and after them, if wanted, ``odometry`` and the
            ``latent`` of the last frame.
        symlog_limit: How far the critic's bins reach, in symlog: 5 is about 147, 6.5 about 664. It should lie
            above any return: the largest reward of a frame divided by 1 - discount.
        objective: What an update follows.
        training: How many updates, and of what.
        starts: Where imagination starts.
        evaluation: How the policy is judged.
        sb3: Of stable-baselines3's algorithms alone.
    """

    hidden: int = 256
    num_layers: int = 2
    inputs: tuple[Input, ...] = FEATURES
    symlog_limit: float = 5.0
    objective: ActorCriticObjective = field(default_factory=ActorCriticObjective)
    training: PolicyTrainingConfig = field(default_factory=PolicyTrainingConfig)
    starts: StartsConfig = field(default_factory=StartsConfig)
    evaluation: PolicyEvaluationConfig = field(default_factory=PolicyEvaluationConfig)
    sb3: SB3Config = field(default_factory=SB3Config)

    def __post_init__(self) -> None:
        check_inputs(self.inputs)
        if not 0.0 < self.symlog_limit <= 15.0:
            raise ValueError(f"`symlog_limit` must be in (0, 15], got {self.symlog_limit}.")
        horizon = self.training.horizon
        if self.starts.go_on_share > 0 and self.starts.go_on_frames < 2 * horizon:
            raise ValueError(
                f"`go_on_frames` must be at least two horizons of {horizon} for a rollout to go on, got "
                f"{self.starts.go_on_frames}."
            )
        if self.objective.prior_weight > 0 and self.training.clone_updates == 0:
            raise ValueError(
                "`prior_weight` holds the policy near a behaviour prior: set `clone_updates` above 0 to "
                f"clone one, got prior_weight={self.objective.prior_weight} and clone_updates=0."
            )
