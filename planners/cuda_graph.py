"""CUDA graphs: thousands of small kernels launched as one, where launching them is what takes the time.

Shape legend: ``B`` rows of the batch, ``n`` candidates a row, ``T`` frames, ``R = B * n``, ``A`` action
width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.planners.protocols import Dynamics, Outcome, State
from lssvwm_agents.planners.rollout import step_through

WARMUP_RUNS = 3
MAX_GRAPHS = 32
"""Graphs kept of one function; the oldest goes first."""


@dataclass(frozen=True)
class _Captured:
    kind: tuple[object, ...]
    graph: torch.cuda.CUDAGraph
    inputs: list[torch.Tensor]
    result: Any


class CudaGraphs:
    """A function of tensors, captured as a CUDA graph for each kind of arguments and then replayed.

    It computes what the function computes. Arguments are pytrees: tensors in them are copied into place
    before every replay, all else is fixed by the capture and compared with ``==``. What the function reads
    beside its arguments, such as a module's weights, is read anew at every replay, from where it lay.

    Results lie in memory that all graphs of the function share: they are valid until the next call, of
    whatever kind, and are not to be changed. There are no gradients. The first call of a kind runs the
    function a few times before it captures it.

    Args:
        function: Waits for nothing: no ``item``, no copies between host and device, no random numbers of a
            generator's own.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._captured: list[_Captured] = []
        self._memory: Any = None  # one pool for all graphs: only the last result is ever read

    @property
    def num_captured(self) -> int:
        """Graphs held."""
        return len(self._captured)

    def __call__(self, *arguments: Any) -> Any:
        """The function's result.

        Raises:
            ValueError: If an argument is not on a CUDA device or wants a gradient, or the function cannot be
                captured.
        """
        leaves, structure = pytree.tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        _check(tensors)
        kind = (structure, *map(_kind, leaves), *_settings())
        captured = next((one for one in self._captured if one.kind == kind), None)
        if captured is None:
            captured = self._capture(kind, leaves, structure, tensors[0].device)
            self._captured = [*self._captured[1 - MAX_GRAPHS :], captured]
        with torch.no_grad():
            for place, tensor in zip(captured.inputs, tensors, strict=True):
                place.copy_(tensor)
        captured.graph.replay()
        return captured.result

    def _capture(
        self, kind: tuple[object, ...], leaves: list[Any], structure: pytree.TreeSpec, device: torch.device
    ) -> _Captured:
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
            own = [leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            arguments = pytree.tree_unflatten(own, structure)
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            graph = torch.cuda.CUDAGraph()
            if not self._captured:  # a pool lives as long as its graphs
                self._memory = torch.cuda.graph_pool_handle()
            try:
                with torch.cuda.stream(aside):
                    for _ in range(WARMUP_RUNS):
                        # Autocast keeps weights that it has cast: those of another run stay out of the graph.
                        torch.clear_autocast_cache()
                        self.function(*arguments)
                    torch.cuda.synchronize(device)
                    torch.clear_autocast_cache()
                    with _explained(), torch.cuda.graph(graph, pool=self._memory, stream=aside):
                        result = self.function(*arguments)
            finally:
                torch.clear_autocast_cache()
            torch.cuda.current_stream(device).wait_stream(aside)
        return _Captured(kind, graph, [leaf for leaf in own if isinstance(leaf, torch.Tensor)], result)


@contextmanager
def _explained() -> Iterator[None]:
    """Say in a sentence why a capture failed.

    Raises:
        ValueError: If it did.
    """
    try:
        yield
    except RuntimeError as error:
        # Torch leaves its own generator waiting for the end of the capture; a copy of it waits for nothing.
        own = torch.cuda.default_generators[torch.cuda.current_device()]
        own.graphsafe_set_state(own.clone_state())
        raise ValueError(
            "this function cannot be captured as a CUDA graph, since it waits for the device, copies from "
            "the host or draws random numbers: compute without graphs, or mend it; got "
            f"{str(error.__context__ or error).splitlines()[0]}"
        ) from error


class GraphedDynamics(Generic[State]):
    """Any dynamics on a CUDA device, their rollouts replayed as CUDA graphs: the same plans, sooner.

    Keep it from plan to plan: the first rollout of each shape is slow, and the later ones are fast.

    Args:
        dynamics: What it imagines with. Its ``step`` may be compiled.
    """

    def __init__(self, dynamics: Dynamics[State]) -> None:
        self.dynamics = dynamics
        self._rollout = CudaGraphs(lambda *arguments: list(step_through(dynamics, *arguments)))

    def repeat(self, state: State, n: int) -> State:
        """Repeat each row ``n`` times."""
        return self.dynamics.repeat(state, n)

    def step(self, state: State, action: torch.Tensor) -> tuple[State, Outcome]:
        """Imagine one frame, without a graph."""
        return self.dynamics.step(state, action)

    def rollout(self, state: State, n: int, actions: torch.Tensor) -> Sequence[Outcome]:
        """See :class:`~lssvwm_agents.planners.RolloutDynamics`."""
        outcomes: list[Outcome] = self._rollout(state, n, actions)
        return outcomes


def _check(tensors: list[torch.Tensor]) -> None:
    if not tensors:
        raise ValueError("a CUDA graph needs at least one tensor among its arguments, got none.")
    for tensor in tensors:
        if tensor.device.type != "cuda":
            raise ValueError(
                f"CUDA graphs need all tensors on a CUDA device, got one on {tensor.device}: move model and "
                "state there, or plan without graphs."
            )
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "CUDA graphs carry no gradients, got a tensor that requires one: plan by a search such as "
                "CEM, or without graphs."
            )


def _kind(leaf: object) -> object:
    """What a captured graph takes for granted of a leaf."""
    if isinstance(leaf, torch.Tensor):
        return (tuple(leaf.shape), leaf.dtype, leaf.device)
    return leaf


def _settings() -> tuple[object, ...]:
    """Global settings that decide which kernels run."""
    return (
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
        torch.get_float32_matmul_precision(),
    )
