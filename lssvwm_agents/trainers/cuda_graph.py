"""The world model's forward and backward as CUDA graphs: kernel launches, not arithmetic, bound small models.

One graph is captured per shape of the batch, and replayed with new inputs and a new seed. It computes what
the eager loss and ``backward`` compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tqdm import tqdm

from lssvwm_agents.trainers.loss_modules import LossAndMetrics, WorldModelLoss
from lssvwm_agents.worldmodel import WindowBatch
from lssvwm_agents.worldmodel.objectives import world_model_loss

WARMUP_RUNS = 2


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    generator: torch.Generator
    batch: WindowBatch
    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]
    gradients: list[torch.Tensor | None]


class GraphedWorldModelLoss:
    """Loss and gradients of a :class:`WorldModelLoss` by graph replay; gradients stay in ``parameter.grad``.

    Args:
        module: On a CUDA device, trained by one process.
        bfloat16: Whether to autocast.
    """

    def __init__(self, module: WorldModelLoss, bfloat16: bool) -> None:
        self.module, self.bfloat16 = module, bfloat16
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._captured: dict[tuple[int, int, bool], _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(
        self,
        batch: WindowBatch,
        seed: int,
        row_offset: int,
        global_rows: int,
        with_rollouts: bool = True,
    ) -> LossAndMetrics:
        """Take the gradient of one batch; the result is valid until the next call."""
        rows, time = batch.reward.shape
        if (row_offset, global_rows) != (0, rows):
            raise ValueError(
                f"a CUDA graph takes the whole batch of {global_rows} rows, got {rows} from {row_offset}."
            )
        key = (rows, time, with_rollouts)
        if key not in self._captured:
            tqdm.write(f"capturing a CUDA graph for {rows} windows of {time} frames")
            self._captured[key] = self._capture(batch, with_rollouts)
        captured = self._captured[key]
        for name, tensor in vars(captured.batch).items():
            if tensor is not None:
                tensor.copy_(getattr(batch, name))
        captured.generator.manual_seed(seed)
        captured.graph.replay()
        for parameter, gradient in zip(self.parameters, captured.gradients, strict=True):
            parameter.grad = gradient
        return captured.loss, captured.metrics

    def _capture(self, batch: WindowBatch, with_rollouts: bool) -> _Captured:
        static = batch.map(torch.clone)
        generator = torch.Generator(batch.latents.device)
        objective = self.module.objective(with_rollouts)

        def forward_backward() -> LossAndMetrics:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.bfloat16):
                loss, metrics = world_model_loss(self.module.model, static, generator, objective)
            loss.backward()
            return loss.detach(), metrics

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_RUNS):
                self._forget()
                forward_backward()
        torch.cuda.current_stream().wait_stream(stream)
        self._forget()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self._pool):
            loss, metrics = forward_backward()
        gradients = [p.grad for p in self.parameters]
        self._forget()
        return _Captured(graph, generator, static, loss, metrics, gradients)

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
