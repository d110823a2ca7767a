"""The training loop that tokenizer and world model share.

One update: draw a batch, take the gradient, skip it if it is not finite, clip, step, average. Everything
random is named by (seed, update), so a resumed run goes on as if nothing had happened, and several processes
draw what one would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lssvwm_agents.trainers import checkpoint as checkpoints
from lssvwm_agents.trainers.config import OptimizationConfig
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.ema import Ema
from lssvwm_agents.trainers.logging import MetricMean, RunLog
from lssvwm_agents.trainers.nan_guard import NanGuard
from lssvwm_agents.trainers.optimizers import build_optimizers, set_learning_rate
from lssvwm_agents.trainers.schedules import decay_factor, ema_decay_at, warmup_factor


@dataclass(frozen=True)
class Share:
    """This process's share of one update's batch.

    Attributes:
        arguments: What the loss module's ``forward`` takes.
        rows: Its rows of the batch.
        global_rows: Rows of the whole batch, over all processes.
        global_frames: Frames of the whole batch.
        info: Numbers for the log, such as the window length.
    """

    arguments: tuple[Any, ...]
    rows: int
    global_rows: int
    global_frames: int
    info: dict[str, float]


@dataclass(frozen=True)
class LoopResult:
    """Where the loop ended.

    Attributes:
        update: Updates done.
        elapsed: Seconds of training, resumed runs counted in.
        finished: Whether the training is over, rather than stopped to be resumed.
    """

    update: int
    elapsed: float
    finished: bool


class TrainingLoop:
    """Trains a module whose ``forward`` returns (loss, metrics).

    Args:
        loss_module: Takes ``Share.arguments``; its trainable parameters are trained.
        config: Settings.
        process: This process among those that train together.
        directory: The run's folder.
        phase: Name in the log and of the checkpoint folder: ``tokenizer`` or ``world_model``.
        tensorboard: Whether to write TensorBoard files.
        graphed: Takes ``Share.arguments`` and leaves the gradients in the parameters, instead of the module.
    """

    def __init__(
        self,
        loss_module: nn.Module,
        config: OptimizationConfig,
        process: Process,
        directory: Path,
        phase: str,
        tensorboard: bool = True,
        graphed: Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]] | None = None,
    ) -> None:
        self.config = config
        self._graphed = graphed
        self.process = process
        self.directory = directory
        self.phase = phase
        self.module = loss_module
        self.optimizers = build_optimizers(loss_module, config, process.device)
        self.ema = Ema(loss_module) if config.ema_decay > 0 else None
        self.metrics = MetricMean()
        self.update = 0
        self.elapsed = 0.0
        self.guard = NanGuard(config.max_skipped_in_a_row)
        self._checkpoint_dir = directory / "checkpoints" / phase
        self._tensorboard = tensorboard
        self._resume()
        self._parameters = [p for p in loss_module.parameters() if p.requires_grad]
        self._parallel: nn.Module = loss_module
        if process.world_size > 1:
            self._parallel = nn.parallel.DistributedDataParallel(
                loss_module, broadcast_buffers=False, find_unused_parameters=True
            )

    # ------------------------------------------------------------------------------------------ checkpoints

    def averaged(self) -> AbstractContextManager[None]:
        """A context within which the module has the weights that are shipped: averaged, if they are."""
        from contextlib import nullcontext

        return self.ema.applied() if self.ema is not None else nullcontext()

    def _resume(self) -> None:
        saved = checkpoints.load_latest(self._checkpoint_dir, self.process.device)
        if saved is None:
            return
        with torch.no_grad():
            for name, tensor in self._trained_state().items():
                tensor.copy_(saved.tensors["model"][name])
        if self.ema is not None:
            self.ema.load(saved.tensors["ema"])
        for index, optimizer in enumerate(self.optimizers):
            checkpoints.restore_optimizer(optimizer, saved.tensors[f"optimizer_{index}"])
        progress = saved.progress
        self.update, self.elapsed = progress["update"], progress["elapsed"]
        self.guard = NanGuard(self.config.max_skipped_in_a_row, progress["skipped"])
        self.metrics.load(progress["metrics"], self.process.device)

    def _trained_state(self) -> dict[str, torch.Tensor]:
        """Parameters that are trained and buffers that are kept; frozen parameters come from elsewhere."""
        frozen = {name for name, p in self.module.named_parameters() if not p.requires_grad}
        return {name: tensor for name, tensor in self.module.state_dict().items() if name not in frozen}

    def save(self) -> None:
        """Write a checkpoint (the main process alone does)."""
        if not self.process.is_main:
            return
        tensors = {"model": self._trained_state()}
        if self.ema is not None:
            tensors["ema"] = self.ema.average
        for index, optimizer in enumerate(self.optimizers):
            tensors[f"optimizer_{index}"] = checkpoints.flatten_optimizer(optimizer)
        progress = {
            "update": self.update,
            "elapsed": self.elapsed,
            "skipped": self.guard.skipped,
            "metrics": self.metrics.state(),
        }
        checkpoints.save_checkpoint(
            self._checkpoint_dir, self.update, checkpoints.Checkpoint(tensors, progress)
        )

    # ------------------------------------------------------------------------------------------ the loop

    @property
    def progress(self) -> float:
        """Share of the training done, in [0, 1]: by updates, or by the time budget."""
        if self.config.schedule == "time":
            return min(1.0, self.elapsed / self.config.time_budget_seconds)
        return min(1.0, self.update / self.config.updates)

    @property
    def finished(self) -> bool:
        """Whether all updates are done or the time budget is used up."""
        budget = self.config.time_budget_seconds
        return self.update >= self.config.updates or (budget > 0 and self.elapsed >= budget)

    def run(
        self,
        make_share: Callable[[int, float], Share],
        validate: Callable[[], dict[str, float]] | None = None,
        deadline: float | None = None,
    ) -> LoopResult:
        """Train until the updates, the time budget or the deadline are used up; leaves a checkpoint.

        Args:
            make_share: (update, progress) to this process's share of the batch.
            validate: Scores the module; called with the averaged weights in place, on the main process.
            deadline: Value of `time.monotonic` at which to stop, to be resumed later.
        """
        main, config = self.process.is_main, self.config
        log = RunLog(self.directory, self.phase, self.update, self._tensorboard) if main else None
        bar = tqdm(
            total=config.updates,
            initial=self.update,
            desc=self.phase,
            unit="update",
            mininterval=10.0,
            disable=not main,
        )
        started = time.monotonic() - self.elapsed
        last_save, last_log, frames = time.monotonic(), time.monotonic(), 0
        validated_at = -1
        stopped = False
        try:
            while True:
                self.elapsed = self.process.agree(time.monotonic() - started)
                stopped = deadline is not None and self.process.agree(time.monotonic()) >= deadline
                if self.finished or stopped:
                    break
                share = make_share(self.update, self.progress)
                info = self._step(share)
                self.update += 1
                frames += share.global_frames
                bar.update()
                if self.update % config.log_every == 0:
                    values = {**self.metrics.take(), **info, "skipped": float(self.guard.skipped)}
                    now = time.monotonic()
                    values["frames_per_second"] = frames / max(now - last_log, 1e-9)
                    values["elapsed"] = now - started
                    last_log, frames = now, 0
                    bar.set_postfix(
                        loss=f"{values.get('loss', float('nan')):.4g}",
                        frames_per_s=f"{values['frames_per_second']:.3g}",
                        refresh=False,
                    )
                    if log is not None:
                        log.write(self.update, values)
                if (
                    validate is not None
                    and config.validate_every
                    and self.update % config.validate_every == 0
                ):
                    self._validate(validate, log)
                    validated_at = self.update
                    last_log, frames = time.monotonic(), 0
                due = config.checkpoint_every and self.update % config.checkpoint_every == 0
                waited = self.process.agree(time.monotonic() - last_save)
                if due or (config.checkpoint_every_seconds and waited >= config.checkpoint_every_seconds):
                    self.elapsed = self.process.agree(time.monotonic() - started)
                    self.save()
                    last_save = time.monotonic()
            if validate is not None and validated_at != self.update and self.update > 0:
                self._validate(validate, log)
            self.save()
        finally:
            bar.close()
            if log is not None:
                log.close()
        self.process.wait()
        return LoopResult(self.update, self.elapsed, self.finished)

    def _validate(self, validate: Callable[[], dict[str, float]], log: RunLog | None) -> None:
        if log is not None:
            was_training = self.module.training
            self.module.eval()
            with self.averaged():
                values = validate()
            self.module.train(was_training)
            log.write(self.update, values)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            tqdm.write(f"{self.phase} {self.update}: {shown}")
        self.process.wait()

    def _step(self, share: Share) -> dict[str, float]:
        """One update; returns what the log should know besides the metrics."""
        config, device = self.config, self.process.device
        rate = config.learning_rate * warmup_factor(self.update, config.warmup_updates)
        rate *= decay_factor(self.progress, config.decay, config.decay_start)
        set_learning_rate(self.optimizers, rate)
        autocast = config.bfloat16 and device.type == "cuda"
        if self._graphed is not None:
            loss, metrics = self._graphed(*share.arguments)
            return self._apply(share, rate, loss, metrics)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            loss, metrics = self._parallel(*share.arguments)
        # Gradients are averaged over the processes: weighted so that every row of the batch counts the same.
        (loss * (share.rows / share.global_rows * self.process.world_size)).backward()
        return self._apply(share, rate, loss, metrics)

    def _apply(
        self, share: Share, rate: float, loss: torch.Tensor, metrics: dict[str, torch.Tensor]
    ) -> dict[str, float]:
        """Step along the gradient that stands in the parameters, if it is finite."""
        config = self.config
        weight = share.rows / share.global_rows
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        reported = {"loss": loss, **metrics}
        values = self.process.sum(
            torch.stack([v.detach().to(torch.float64) * weight for v in reported.values()])
        )
        finite = bool(torch.isfinite(norm) & torch.isfinite(values[0]))
        if self.guard.accept(finite, self.update):
            if config.gradient_clip > 0:
                nn.utils.clip_grads_with_norm_(self._parameters, config.gradient_clip, norm)
            for optimizer in self.optimizers:
                optimizer.step()
            if self.ema is not None:
                self.ema.update(ema_decay_at(self.update, config.ema_decay))
            self.metrics.add({**dict(zip(reported, values, strict=True)), "gradient_norm": norm})
        for parameter in self._parameters:
            parameter.grad = None
        return {"learning_rate": rate, **share.info}
