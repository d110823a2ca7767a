"""Frozen settings of the training loop; recipes fill them in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{rule}, got {value}.")


@dataclass(frozen=True)
class OptimizationConfig:
    """What every training loop needs.

    Attributes:
        updates: Optimiser steps in all; with ``schedule="time"`` at most so many.
        learning_rate: Peak, after the warm-up.
        warmup_updates: Updates over which the learning rate rises from 0.
        decay: Shape of the fall to 0 after ``decay_start``, or ``constant``.
        decay_start: Share of the training after which the learning rate falls.
        schedule: Whether ``updates`` or the share of ``time_budget_seconds`` used drives learning rate and
            curriculum; ``time`` is for machines lent by the minute.
        time_budget_seconds: Seconds of training, resumed runs counted in, after which it ends; 0: no limit.
        optimizer: ``adamw``, or ``muon`` for the matrices of the layers and AdamW for the rest.
        weight_decay: Decoupled decay of matrices; biases and norms have none.
        betas: AdamW's.
        gradient_clip: Largest norm of the gradient; 0 for no clipping.
        ema_decay: Decay per update of the averaged weights that are shipped; 0 for none.
        bfloat16: Autocast to bfloat16 on CUDA; the weights stay float32.
        compile: Run the model through `torch.compile` (on CUDA; a minute at the first update of each length).
        cuda_graph: Replay CUDA graphs (on CUDA, with one process): of the world model's forward and backward,
            of the rollouts that a policy learns from by the score function, or of its whole updates through
            the dynamics.
        seed: Of weights, data and noise.
        log_every: Updates between lines of the log.
        validate_every: Updates between validations; 0 for only one, at the end.
        checkpoint_every: Updates between checkpoints; 0 for none by count.
        checkpoint_every_seconds: Seconds between checkpoints; 0 for none by time.
        max_skipped_in_a_row: Updates with a non-finite loss or gradient, in a row, that end the training.
    """

    updates: int = 1000
    learning_rate: float = 1e-3
    warmup_updates: int = 100
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    decay_start: float = 0.0
    schedule: Literal["updates", "time"] = "updates"
    time_budget_seconds: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    bfloat16: bool = True
    compile: bool = False
    cuda_graph: bool = False
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 0
    checkpoint_every_seconds: float = 120.0
    max_skipped_in_a_row: int = 20

    def __post_init__(self) -> None:
        _require(self.updates >= 1, "`updates` must be at least 1", self.updates)
        _require(self.learning_rate > 0, "`learning_rate` must be positive", self.learning_rate)
        _require(0.0 <= self.decay_start < 1.0, "`decay_start` must be in [0, 1)", self.decay_start)
        _require(0.0 <= self.ema_decay < 1.0, "`ema_decay` must be in [0, 1)", self.ema_decay)
        _require(self.log_every >= 1, "`log_every` must be at least 1", self.log_every)
        _require(
            self.schedule == "updates" or self.time_budget_seconds > 0,
            '`schedule="time"` needs a positive `time_budget_seconds`',
            self.time_budget_seconds,
        )


@dataclass(frozen=True)
class TokenizerTrainingConfig(OptimizationConfig):
    """How the tokenizer is trained.

    Attributes:
        frames_per_batch: Frames of one update, over all processes.
        num_frames: Frames of the pool that batches are drawn from.
        num_validation_frames: Frames of other mazes or episodes that are scored.
    """

    frames_per_batch: int = 512
    num_frames: int = 65536
    num_validation_frames: int = 512


@dataclass(frozen=True)
class TrainingConfig(OptimizationConfig):
    """How the world model is trained.

    Attributes:
        frames_per_batch: Frames of one update, over all processes: ``frames_per_batch // length`` windows.
        curriculum: (share of the training, window length): that length from there on; the first is 0.
        memory_replay: Probability that a window's second half walks over its first again.
        replay_mode: ``backwards``, ``forwards``, in random order (``shuffled``), or each in a third of the
            cases (``mixed``).
        priority: Probability that a window is the most revisiting of a few.
        rollout_start: Share of the training after which the objective's rollouts begin: an update with them
            takes several times as long, and imagines nothing worth correcting before.
        compact_weights: Save the trained matrices in bfloat16, in half the space; checkpoints are exact.
        only: Train only the parameters whose names begin with one of these, and freeze the rest; empty for
            all.
        refit_odometry_heads: With weights to start from: begin the odometry heads anew, after measuring what
            actions alone say of the odometry; name them in ``only``, or train all.
        num_validation_episodes: Episodes of mazes never trained on that are scored.
        validation_context: Real frames given before imagining.
        validation_horizon: Frames imagined.
    """

    frames_per_batch: int = 16384
    curriculum: tuple[tuple[float, int], ...] = ((0.0, 16), (0.1, 32), (0.3, 64), (0.6, 128))
    memory_replay: float = 0.0
    replay_mode: Literal["backwards", "forwards", "shuffled", "mixed"] = "backwards"
    priority: float = 0.0
    rollout_start: float = 0.0
    compact_weights: bool = False
    only: tuple[str, ...] = ()
    refit_odometry_heads: bool = False
    num_validation_episodes: int = 64
    validation_context: int = 64
    validation_horizon: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        starts = [start for start, _ in self.curriculum]
        _require(
            bool(starts) and starts[0] == 0.0 and starts == sorted(starts) and starts[-1] < 1.0,
            "`curriculum` must be pairs (share of the training, length), shares rising from 0 and below 1",
            self.curriculum,
        )
        _require(0.0 <= self.rollout_start < 1.0, "`rollout_start` must be in [0, 1)", self.rollout_start)
        for _, length in self.curriculum:
            _require(
                2 <= length <= self.frames_per_batch,
                f"windows of the `curriculum` must have 2 to frames_per_batch={self.frames_per_batch} frames",
                length,
            )
