"""Forward and backward as CUDA graphs: kernel launches, not arithmetic, bound small models.

One graph is captured per shape of the batch, and replayed with new inputs. It computes what the eager loss
and ``backward`` compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from tqdm import tqdm

from lssvwm_agents.trainers.loss_modules import LossAndMetrics, WorldModelLoss
from lssvwm_agents.worldmodel import WindowBatch
from lssvwm_agents.worldmodel.objectives import world_model_loss

WARMUP_RUNS = 2
Result = TypeVar("Result")


@dataclass(frozen=True)
class GradientGraph(Generic[Result]):
    """A captured function that takes gradients.

    Attributes:
        graph: What is replayed.
        result: What the function returned; written anew by every replay.
        parameters: Whose gradients it takes.
        gradients: Their gradients, None where it takes none; written anew by every replay.
    """

    graph: torch.cuda.CUDAGraph
    result: Result
    parameters: Sequence[torch.nn.Parameter]
    gradients: list[torch.Tensor | None]

    def replay(self) -> Result:
        """Run it, and leave the gradients in the parameters.

        What it returns is written anew by the next replay. Graphs captured later from the same pool leave it
        as it is, since it was held when they were captured.
        """
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result


def capture_gradients(
    function: Callable[[], Result],
    parameters: Sequence[torch.nn.Parameter],
    pool: Any,
    generators: Sequence[torch.Generator] = (),
) -> GradientGraph[Result]:
    """Capture a function that leaves gradients in ``parameters``; it runs a few times before.

    Args:
        function: Waits for nothing, and reads what will have been written in place before every replay.
        parameters: Whose gradients it takes; they have none afterwards.
        pool: Memory of the graphs that belong together.
        generators: Of the function's random numbers.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP_RUNS):
            _forget(parameters)
            function()
    torch.cuda.current_stream().wait_stream(stream)
    _forget(parameters)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, pool=pool):
        result = function()
    gradients = [parameter.grad for parameter in parameters]
    _forget(parameters)
    return GradientGraph(graph, result, parameters, gradients)


def _forget(parameters: Sequence[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


@dataclass(frozen=True)
class _Captured:
    graph: GradientGraph[LossAndMetrics]
    generator: torch.Generator
    batch: WindowBatch


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
        return captured.graph.replay()

    def _capture(self, batch: WindowBatch, with_rollouts: bool) -> _Captured:
        static = batch.map(torch.clone)
        generator = torch.Generator(batch.latents.device)
        objective = self.module.objective(with_rollouts)

        def forward_backward() -> LossAndMetrics:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.bfloat16):
                loss, metrics = world_model_loss(self.module.model, static, generator, objective)
            loss.backward()
            return loss.detach(), metrics

        graph = capture_gradients(forward_backward, self.parameters, self._pool, [generator])
        return _Captured(graph, generator, static)
