"""Recipes: what to train, on what, for how long. A recipe is a function that returns an `Experiment`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

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


@dataclass(frozen=True)
class DataConfig:
    """Episodes rendered for training; what comes from a store needs only ``num_validation_store_episodes``.

    Attributes:
        num_envs: Episodes held, each in its own maze.
        episode_length: Frames of each.
        policies: Scripted policies, in equal shares.
        maze_sizes: Sizes mixed in equal shares; empty for the maze's own.
        refresh_every: Updates after which a share of the episodes is rendered anew; 0 for never.
        refresh_share: That share.
        envs_at_once: Mazes stepped together while rendering.
        compile_render: Draw through `torch.compile`.
        num_validation_store_episodes: The last episodes of a store, kept for validation.
    """

    num_envs: int = 4096
    episode_length: int = 512
    policies: tuple[str, ...] = ("forager",)
    maze_sizes: tuple[int, ...] = ()
    refresh_every: int = 0
    refresh_share: float = 0.25
    envs_at_once: int = 4096
    compile_render: bool = False
    num_validation_store_episodes: int = 8

    def __post_init__(self) -> None:
        if self.num_envs < 1 or self.episode_length < 2 or not self.policies:
            raise ValueError(
                "`num_envs` must be at least 1, `episode_length` at least 2 and `policies` not empty, got "
                f"{self.num_envs}, {self.episode_length} and {self.policies}."
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
    def mazes(self) -> list[MazeConfig]:
        """The mazes whose episodes are mixed."""
        # As many targets as is usual for the size, unless the maze has an unusual number.
        usual = self.maze.num_targets == MazeConfig(size=self.maze.size, task=self.maze.task).num_targets
        targets = 0 if usual else self.maze.num_targets
        return [replace(self.maze, size=size, num_targets=targets) for size in self.data.maze_sizes] or [
            self.maze
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
        model=tiny(),
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


def maze_small() -> Experiment:
    """`small` on 9x9 mazes: memory results and GPU figures."""
    return Experiment(
        name="maze-small",
        maze=MazeConfig(size=9),
        model=small(),
        tokenizer_training=TokenizerTrainingConfig(updates=20000, learning_rate=5e-4, num_frames=131072),
        objective=ObjectiveConfig(rollout_weight=0.5),
        training=TrainingConfig(
            updates=50000,
            learning_rate=1e-3,
            warmup_updates=500,
            optimizer="muon",
            frames_per_batch=8192,
            curriculum=((0.0, 16), (0.1, 32), (0.2, 64), (0.35, 128), (0.6, 256)),
            memory_replay=0.5,
            replay_mode="shuffled",
            cuda_graph=True,
            priority=0.25,
            validate_every=2000,
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


RECIPES: dict[str, Callable[[], Experiment]] = {
    "maze-tiny": maze_tiny,
    "maze-small": maze_small,
    "maze-debug": maze_debug,
}
"""Recipes by the name that ``lssvwm train --recipe`` takes."""


def experiment_to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain JSON values, nested as the dataclasses are."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return values
