"""Recipes: what to train, on what, for how long. A recipe is a function that returns an `Experiment`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lssvwm_agents.data.online import MazeShare
from lssvwm_agents.envs.maze_config import MAX_CUE_DELAY, MIN_CUE_DELAY
from lssvwm_agents.envs.raycast_maze import MazeConfig
from lssvwm_agents.trainers.config import TokenizerTrainingConfig, TrainingConfig
from lssvwm_agents.worldmodel.config import (
    BackboneConfig,
    Odometry,
    TokenizerConfig,
    WorldModelConfig,
    small,
    tiny,
)
from lssvwm_agents.worldmodel.objectives import ObjectiveConfig, TokenizerLossConfig

CUE_BRANCH_FRAMES = 12
"""Frames from a cue corridor's junction to either end, with a few to spare."""


@dataclass(frozen=True)
class DataConfig:
    """Episodes rendered for training; of a store only ``mirror`` and its number held out matter.

    In a cue corridor an episode ends in either branch, some 8 frames after its delay: windows of the
    curriculum must be longer than that to hold both the cue and what came of it.

    Attributes:
        num_envs: Episodes held, each in its own maze.
        episode_length: Frames of each.
        policies: Scripted policies, in equal shares; the corridors have the guesser.
        maze_sizes: Sizes mixed in equal shares; empty for the maze's own.
        cue_share: Share of the episodes, in [0, 1), that are played in cue corridors.
        cue_delays: Delays of the corridors in frames, in equal shares.
        refresh_every: Updates after which a share of the episodes is rendered anew; 0 for never.
        refresh_share: That share.
        envs_at_once: Mazes stepped together while rendering.
        compile_render: Draw through `torch.compile`.
        num_validation_store_episodes: The last episodes of a store, kept for validation.
        hold_out_every: Store: keep every so-many-th episode instead, from the first on; for one that grows
            by what a policy plays, whose newest episodes are of another kind. 0 for the last ones. At most
            ``num_validation_store_episodes`` of them are scored.
        mirror: Store: learn the mirror image of every episode too; for mazes in which left and right are
            alike.
    """

    num_envs: int = 4096
    episode_length: int = 512
    policies: tuple[str, ...] = ("forager",)
    maze_sizes: tuple[int, ...] = ()
    cue_share: float = 0.0
    cue_delays: tuple[int, ...] = (32, 64, 128, 256)
    refresh_every: int = 0
    refresh_share: float = 0.25
    envs_at_once: int = 4096
    compile_render: bool = False
    num_validation_store_episodes: int = 8
    hold_out_every: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.num_envs < 1 or self.episode_length < 2 or not self.policies:
            raise ValueError(
                "`num_envs` must be at least 1, `episode_length` at least 2 and `policies` not empty, got "
                f"{self.num_envs}, {self.episode_length} and {self.policies}."
            )
        if self.hold_out_every < 0 or self.hold_out_every == 1:
            raise ValueError(
                "`hold_out_every` must be 0 or at least 2, so that something is left to train on, got "
                f"{self.hold_out_every}."
            )
        if not 0.0 <= self.cue_share < 1.0:
            raise ValueError(f"`cue_share` must be in [0, 1), got {self.cue_share}.")
        if not self.cue_delays or not all(MIN_CUE_DELAY <= d <= MAX_CUE_DELAY for d in self.cue_delays):
            raise ValueError(
                f"`cue_delays` must be one or more in [{MIN_CUE_DELAY}, {MAX_CUE_DELAY}], "
                f"got {self.cue_delays}."
            )
        if self.cue_share > 0 and self.episode_length < max(self.cue_delays) + CUE_BRANCH_FRAMES:
            raise ValueError(
                f"`episode_length` must be at least {CUE_BRANCH_FRAMES} frames more than the longest of "
                f"`cue_delays`, so that corridors come to their end, got {self.episode_length} and "
                f"{self.cue_delays}."
            )


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a training run makes.

    Attributes:
        name: Of the recipe.
        maze: The environment rendered on the device.
        data: Its episodes.
        model: The world model with its tokenizer; environment and action fields are filled in from the data.
        tokenizer_loss: Weights of the tokenizer's loss.
        tokenizer_training: How the tokenizer is trained.
        objective: Noise and weights of the world model's loss.
        training: How the world model is trained.
    """

    name: str
    maze: MazeConfig
    data: DataConfig = field(default_factory=DataConfig)
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    tokenizer_loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    tokenizer_training: TokenizerTrainingConfig = field(default_factory=TokenizerTrainingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @property
    def mazes(self) -> list[MazeConfig] | list[MazeShare]:
        """The mazes whose episodes are mixed; with their shares if cue corridors are among them."""
        # As many targets as is usual for the size, unless the maze has an unusual number.
        usual = self.maze.num_targets == MazeConfig(size=self.maze.size, task=self.maze.task).num_targets
        targets = 0 if usual else self.maze.num_targets
        mazes = [replace(self.maze, size=size, num_targets=targets) for size in self.data.maze_sizes] or [
            self.maze
        ]
        share, delays = self.data.cue_share, self.data.cue_delays
        if share == 0:
            return mazes
        corridors = [
            replace(self.maze, task="cue", cue_delay=delay, num_targets=0, max_episode_steps=0)
            for delay in delays
        ]
        return [MazeShare(maze, (1 - share) / len(mazes)) for maze in mazes] + [
            MazeShare(corridor, share / len(delays), ("guesser",)) for corridor in corridors
        ]


def odometry_kind(env_id: str, asked: Odometry) -> Odometry:
    """What a model's odometry is: that of the mazes is a pose, whatever was asked for."""
    return "pose" if env_id.startswith("lssvwm/RaycastMaze") else asked


def with_maze(experiment: Experiment) -> Experiment:
    """The experiment with the model's environment, action and odometry fields filled in from its maze."""
    maze = experiment.maze
    if maze.task == "cue":
        ordinary = MazeConfig(task="cue")
        env_id = "lssvwm/RaycastMaze-Cue-v0"
    else:
        ordinary = MazeConfig(size=maze.size, continuous=maze.continuous)
        env_id = f"lssvwm/RaycastMaze-{maze.size}x{maze.size}{'-Continuous' if maze.continuous else ''}-v0"
    overrides = {
        f.name: getattr(maze, f.name)
        for f in dataclasses.fields(maze)
        if getattr(maze, f.name) != getattr(ordinary, f.name)
    }
    model = replace(
        experiment.model,
        env_id=env_id,
        env_kwargs_json=json.dumps(overrides, sort_keys=True),
        action_dim=maze.action_size,
        discrete_actions=not maze.continuous,
        odometry=odometry_kind(env_id, experiment.model.odometry),
    )
    return replace(experiment, model=model)


def maze_tiny() -> Experiment:
    """`tiny` on 7x7 mazes with odometry, minutes on one GPU: the weights that ship."""
    return Experiment(
        name="maze-tiny",
        maze=MazeConfig(size=7),
        data=DataConfig(num_envs=8192, policies=("forager", "wanderer")),
        model=tiny(visual_odometry=True),
        tokenizer_training=TokenizerTrainingConfig(
            updates=4000, learning_rate=1e-3, frames_per_batch=512, num_frames=65536, validate_every=1000
        ),
        objective=ObjectiveConfig(
            rollout_weight=1.0, rollout_horizon=16, rollout_rows=256, reward_weight=2.0
        ),
        training=TrainingConfig(
            updates=20000,
            learning_rate=2e-3,
            warmup_updates=200,
            optimizer="muon",
            frames_per_batch=16384,
            curriculum=((0.0, 64), (0.15, 128), (0.35, 256), (0.5, 128), (0.8, 256)),
            rollout_start=0.5,
            compact_weights=True,
            memory_replay=0.4,
            replay_mode="mixed",
            priority=0.25,
            cuda_graph=True,
            validate_every=2000,
        ),
    )


def memory_small() -> Experiment:
    """`small` on 7x7 mazes, counted in updates: what baselines are compared by, minutes each on one GPU."""
    base = maze_tiny()
    return replace(
        base,
        name="memory-small",
        data=replace(base.data, num_envs=2048),
        model=small(visual_odometry=True),
        objective=ObjectiveConfig(rollout_weight=0.0),
        training=replace(
            base.training,
            updates=2500,
            frames_per_batch=8192,
            curriculum=((0.0, 64), (0.4, 128), (0.7, 256)),
            memory_replay=0.5,
            rollout_start=0.0,
            validate_every=0,
        ),
    )


def maze_small() -> Experiment:
    """`small` as `maze-tiny` trains `tiny`, with rollouts: to plan with, minutes of a whole GPU."""
    base = maze_tiny()
    return replace(
        base,
        name="maze-small",
        data=replace(base.data, num_envs=4096),
        model=small(visual_odometry=True),
        objective=replace(base.objective, rollout_rows=128),
        training=replace(base.training, frames_per_batch=8192, memory_replay=0.5),
    )


def memory_cue() -> Experiment:
    """`maze-tiny` on mazes and cue corridors in equal shares, minutes on one GPU: the event memory figure."""
    base = maze_tiny()
    # Windows that end a few frames after the end of the corridors of one delay each: the last frames, which
    # rollouts imagine, are those of its branches.
    lengths = [delay + CUE_BRANCH_FRAMES for delay in base.data.cue_delays]
    starts = (0.0, 0.1, 0.2, 0.3, 0.5, 0.55, 0.6, 0.7)
    return replace(
        base,
        name="memory-cue",
        data=replace(base.data, num_envs=4096, cue_share=0.5),
        objective=replace(base.objective, rollout_rows=64),
        training=replace(
            base.training,
            updates=2500,
            frames_per_batch=8192,
            curriculum=tuple(zip(starts, lengths * 2, strict=True)),
            memory_replay=0.2,
            # Whoever waits at the gate revisits most: corridors would crowd out the mazes.
            priority=0.0,
        ),
    )


def maze_debug() -> Experiment:
    """A toy that goes through everything in less than a minute on a CPU; it learns little."""
    return Experiment(
        name="maze-debug",
        maze=MazeConfig(size=7),
        data=DataConfig(num_envs=16, episode_length=48),
        model=WorldModelConfig(
            tokenizer=TokenizerConfig(channels=(8, 8, 16), latent_channels=4, num_residual_blocks=0),
            backbone=BackboneConfig(
                width=32, conditioning_width=16, block_sizes=(2, 1), head_dim=16, state_dim=16, window=2
            ),
            visual_odometry=True,
        ),
        tokenizer_training=TokenizerTrainingConfig(
            updates=40,
            learning_rate=3e-3,
            warmup_updates=10,
            frames_per_batch=32,
            num_frames=256,
            num_validation_frames=32,
            ema_decay=0.9,
            log_every=10,
            validate_every=0,
        ),
        training=TrainingConfig(
            updates=40,
            learning_rate=3e-3,
            warmup_updates=10,
            ema_decay=0.9,
            frames_per_batch=128,
            curriculum=((0.0, 8), (0.5, 16)),
            memory_replay=0.25,
            priority=0.25,
            log_every=10,
            validate_every=0,
            num_validation_episodes=4,
            validation_context=12,
            validation_horizon=4,
        ),
    )


def point_maze() -> Experiment:
    """A small model of PointMaze, from a store of episodes long enough for its value (``docs/data.md``)."""
    return Experiment(
        name="point-maze",
        maze=MazeConfig(),  # not used: the episodes come from a store
        data=DataConfig(num_validation_store_episodes=64),
        model=WorldModelConfig(
            backbone=BackboneConfig(width=96, block_sizes=(1, 2, 1), window=4),
            proprio_dim=4,
            odometry_dynamics=True,
            value_discount=0.95,
            symlog_limit=5.0,  # at the goal an action of five steps pays nearly 5, twenty of them nearly 100
        ),
        # Ball and goal are a hundredth of a frame each: without this the tokenizer draws the empty maze.
        tokenizer_loss=TokenizerLossConfig(worst=1.0),
        tokenizer_training=TokenizerTrainingConfig(
            updates=2000, learning_rate=2e-3, frames_per_batch=256, num_frames=16384, validate_every=500
        ),
        objective=ObjectiveConfig(
            rollout_weight=0.5, rollout_horizon=8, rollout_rows=64, reward_weight=1.0, value_weight=1.0
        ),
        training=TrainingConfig(
            updates=3000,
            learning_rate=2e-3,
            optimizer="muon",
            frames_per_batch=2048,
            curriculum=((0.0, 16),),
            rollout_start=0.3,
            cuda_graph=True,
            validate_every=1000,
            num_validation_episodes=32,
            validation_context=4,
            validation_horizon=8,
        ),
    )


def memory_maze_9x9() -> Experiment:
    """`small` on recorded Memory Maze episodes, with odometry, minutes of a whole GPU."""
    base = maze_small()
    return replace(
        base,
        name="memory-maze-9x9",
        data=DataConfig(num_validation_store_episodes=16),
        model=small(visual_odometry=True, odometry="pose"),
        training=replace(base.training, updates=8000, priority=0.25),
    )


def minigrid_memory() -> Experiment:
    """`tiny` on recorded episodes of MiniGrid's memory task, minutes on one GPU: a cue decides the reward."""
    base = maze_tiny()
    return replace(
        base,
        name="minigrid-memory",
        data=DataConfig(num_validation_store_episodes=64),
        model=tiny(visual_odometry=True, odometry="pose"),
        # The objects are a hundredth of a frame, and everything depends on them.
        tokenizer_loss=replace(base.tokenizer_loss, worst=1.0),
        objective=replace(base.objective, rollout_horizon=8, rollout_rows=64),
        training=replace(
            base.training,
            updates=6000,
            frames_per_batch=8320,
            # Half an episode, then whole ones: those hold both the cue and what came of it.
            curriculum=((0.0, 26), (0.3, 52)),
            memory_replay=0.2,
            priority=0.0,
            validate_every=1000,
            validation_context=40,
            validation_horizon=12,
        ),
    )


RECIPES: dict[str, Callable[[], Experiment]] = {
    "maze-tiny": maze_tiny,
    "maze-small": maze_small,
    "memory-small": memory_small,
    "memory-cue": memory_cue,
    "point-maze": point_maze,
    "memory-maze-9x9": memory_maze_9x9,
    "minigrid-memory": minigrid_memory,
    "maze-debug": maze_debug,
}
"""Recipes by the name that ``lssvwm train --recipe`` takes."""

FROM_STORES = frozenset({"point-maze", "memory-maze-9x9", "minigrid-memory"})
"""Recipes whose environment cannot be rendered on the device: they need a store."""


def experiment_to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain JSON values, nested as the dataclasses are."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return values
