"""The run's log: one JSON object a line, and TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch

from lssvwm_agents.files import write_bytes


class MetricMean:
    """Means of metrics over the updates since the last line of the log, summed on the device.

    A metric may be absent from some updates; its mean is over those that had it.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Add one update's scalars."""
        names = tuple(metrics)
        values = torch.stack([value.detach().to(torch.float64) for value in metrics.values()])
        self._sums[names] = self._sums[names] + values if names in self._sums else values
        self._counts[names] = self._counts.get(names, 0) + 1

    def take(self) -> dict[str, float]:
        """The means so far; starts anew. The one place where the host waits for the metrics."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, vector in self._sums.items():
            for name, value in zip(names, vector.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[names]
        self._sums, self._counts = {}, {}
        return {name: total / counts[name] for name, total in sums.items()}

    def state(self) -> list[Any]:
        """The sums as JSON values, for a checkpoint between two lines of the log."""
        return [[list(names), vector.tolist(), self._counts[names]] for names, vector in self._sums.items()]

    def load(self, state: list[Any], device: torch.device) -> None:
        """Restore what `state` gave."""
        for names, values, count in state:
            self._sums[tuple(names)] = torch.tensor(values, dtype=torch.float64, device=device)
            self._counts[tuple(names)] = count


class RunLog:
    """Appends to ``log.jsonl`` and TensorBoard; a resumed run drops the lines its checkpoint does not know.

    Args:
        directory: The run's folder.
        phase: ``tokenizer`` or ``world_model``.
        resume_update: Updates done by the checkpoint; later lines of this phase are dropped.
        tensorboard: Whether to write event files too.

    Raises:
        ModuleNotFoundError: If TensorBoard is wanted and not installed.
    """

    def __init__(self, directory: Path, phase: str, resume_update: int = 0, tensorboard: bool = True) -> None:
        self.phase = phase
        self._path = directory / "log.jsonl"
        directory.mkdir(parents=True, exist_ok=True)
        self._drop_lines_after(resume_update)
        self._file: TextIO = self._path.open("a")
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ModuleNotFoundError(
                    "TensorBoard files need the package `tensorboard`: install it, or pass --no-tensorboard."
                ) from error
            self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=resume_update + 1)

    def _drop_lines_after(self, update: int) -> None:
        if not self._path.is_file():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # A line cut short by a kill.
            if record.get("phase") != self.phase or record.get("update", 0) <= update:
                kept.append(line)
        write_bytes(self._path, "".join(line + "\n" for line in kept).encode())

    def write(self, update: int, values: dict[str, float]) -> None:
        """Write one line; numbers that are not finite become null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"phase": self.phase, "update": update, **finite}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{self.phase}/{name}", value, update)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
