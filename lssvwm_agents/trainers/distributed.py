"""One process or several: the same code under plain Python and under torchrun."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Process:
    """This process among those that train together.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        device: What it computes on.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def rows(self, total: int) -> tuple[int, int]:
        """(start, stop) of this process's share of ``total`` rows.

        Raises:
            ValueError: If there are fewer rows than processes.
        """
        if total < self.world_size:
            raise ValueError(f"a batch must have a row for each of {self.world_size} processes, got {total}.")
        return total * self.rank // self.world_size, total * (self.rank + 1) // self.world_size

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over the processes."""
        if self.world_size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def agree(self, value: float) -> float:
        """The main process's value, on all processes."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, src=0)
        return float(tensor.item())

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            dist.barrier()


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; ``cpu`` and ``cuda`` are themselves.

    Raises:
        ValueError: If the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"`--device` {name} needs a CUDA device and this machine has none: say --device cpu."
        )
    return device


def start(device_name: str = "auto") -> Process:
    """Join the processes that torchrun started, or be the only one."""
    device = choose_device(device_name)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Process(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Process(dist.get_rank(), dist.get_world_size(), device)


def stop(process: Process) -> None:
    """Leave the group of processes."""
    if process.world_size > 1 and dist.is_initialized():
        dist.destroy_process_group()
