"""The world model as a planner's dynamics on a GPU: whole rollouts as CUDA graphs.

A small model's imagined frame is about a thousand small kernels, and launching them from Python takes longer
than running them. Captured once, they are launched together; compiled before, most of them become one.

Shapes: B rows, n forks of each, T frames, R = B * n, A action width, (C, h, w) latent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch

from lssvwm_agents.agents.imagination import FutureState, Imagination, SampledFuture
from lssvwm_agents.planners import CudaGraphs, Gradient, Planner, Refined
from lssvwm_agents.planners.search import traced_whole
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState

Rollouts: TypeAlias = Literal["eager", "cuda_graph", "compiled_cuda_graph"]
"""How imagined futures are computed; see :class:`~lssvwm_agents.agents.PlanningAgent`."""


class RolloutGraphs:
    """Rollouts of one world model, captured for each number of rows, forks and frames: keep it between plans.

    Args:
        model: On a CUDA device. Weights may be changed in place, not replaced.
        num_denoising_steps: Of every imagined frame.
        compiled: Whether the model's step is compiled by ``torch.compile`` first: fewer and larger kernels,
            the same numbers to rounding; the first plan takes minutes.
        capture: What makes graphs of a function.
    """

    def __init__(
        self,
        model: WorldModel,
        num_denoising_steps: int = 1,
        compiled: bool = False,
        capture: Callable[[Callable[..., Any]], Callable[..., Any]] = CudaGraphs,
    ) -> None:
        self.model, self.num_denoising_steps = model, num_denoising_steps
        step = compiled_step(model) if compiled else model.step
        # Not a method of this object: in a cycle, graphs and their memory would outlive their last user.
        self._frames = capture(functools.partial(_imagine, model, step, num_denoising_steps))

    def imagine(
        self, state: WorldState, n: int, actions: torch.Tensor, noise: torch.Tensor | None = None
    ) -> list[Prediction]:
        """Fork each row n times and imagine T frames, valid until the next call.

        Args:
            state: B rows.
            n: Forks of each.
            actions: (T, R, A).
            noise: (T, R or 1, C, h, w) with more than one denoising step, else None.
        """
        predictions: list[Prediction] = self._frames(state, n, actions, noise)
        return predictions


def _imagine(
    model: WorldModel,
    step: Callable[..., Any],
    num_denoising_steps: int,
    state: WorldState,
    n: int,
    actions: torch.Tensor,
    noise: torch.Tensor | None,
) -> list[Prediction]:
    """See :meth:`RolloutGraphs.imagine`."""
    future, predictions = model.repeat(state, n), []
    for t, action in enumerate(actions.unbind()):
        own = None if noise is None else noise[t].expand(len(action), -1, -1, -1)
        future, prediction = step(future, action, num_denoising_steps=num_denoising_steps, noise=own)
        predictions.append(prediction)
    return predictions


class GraphedImagination(Imagination):
    """An :class:`Imagination` whose rollouts are CUDA graphs; single steps are made as ever.

    Args:
        graphs: The model's graphs.
        generator: Noise of the imagined frames.
    """

    def __init__(self, graphs: RolloutGraphs, generator: torch.Generator | None = None) -> None:
        super().__init__(graphs.model, graphs.num_denoising_steps, generator)
        self.graphs = graphs

    def rollout(self, state: WorldState, n: int, actions: torch.Tensor) -> list[Prediction]:
        """See :class:`~lssvwm_agents.planners.RolloutDynamics`."""
        frames, rows = actions.shape[:2]
        self.imagined_frames += frames * rows
        return self.graphs.imagine(state, n, actions, self._draw(frames, rows, actions))

    def future(self, seed: int) -> GraphedFuture:
        """One sampled future; see :meth:`Imagination.future`."""
        super().future(seed)
        return GraphedFuture(self, seed)

    def _draw(self, frames: int, rows: int, like: torch.Tensor) -> torch.Tensor | None:
        """(T, R, C, h, w) noise, drawn in the order in which single steps would."""
        if self.num_denoising_steps == 1:
            return None
        source = like.device if self.generator is None else self.generator.device
        shape = (rows, 1, *self.model.config.tokenizer.latent_shape)
        drawn = [
            torch.randn(
                shape, generator=self.generator, device=source, dtype=self.model.backbone.position.dtype
            )
            for _ in range(frames)
        ]
        return torch.stack(drawn).squeeze(2).to(like.device)


class GraphedFuture(SampledFuture):
    """A :class:`SampledFuture` whose rollouts are CUDA graphs."""

    imagination: GraphedImagination

    def rollout(self, state: WorldState | FutureState, n: int, actions: torch.Tensor) -> list[Prediction]:
        """See :class:`~lssvwm_agents.planners.RolloutDynamics`."""
        begun = state if isinstance(state, FutureState) else FutureState(state, 0)
        frames, rows = actions.shape[:2]
        self.imagination.imagined_frames += frames * rows
        noise = torch.stack([self.noise(begun.frame + t, actions) for t in range(frames)])
        return self.imagination.graphs.imagine(begun.world, n, actions, noise)


def compiled_step(model: WorldModel) -> Callable[..., Any]:
    """The model's ``step``, traced whole by ``torch.compile``; one trace serves forks of any age."""
    return traced_whole(model.step)


def make_graphs(
    model: WorldModel, planner: Planner, rollouts: Rollouts, num_denoising_steps: int
) -> RolloutGraphs | None:
    """What keeps the graphs of imagined futures, if they are wanted.

    Raises:
        ValueError: If there are none for such a planner, or where the model is.
    """
    if rollouts == "eager":
        return None
    if rollouts not in ("cuda_graph", "compiled_cuda_graph"):
        raise ValueError(
            f'`rollouts` must be "eager", "cuda_graph" or "compiled_cuda_graph", got {rollouts!r}.'
        )
    if isinstance(planner, Gradient | Refined):
        raise ValueError(
            f"CUDA graphs carry no gradients: with rollouts={rollouts!r} plan by a search such as CEM, got "
            f"{type(planner).__name__}."
        )
    if model.device.type != "cuda":
        raise ValueError(
            f"CUDA graphs need the world model on a CUDA device, got it on {model.device}: "
            "plan with rollouts='eager' there."
        )
    return RolloutGraphs(model, num_denoising_steps, compiled=rollouts == "compiled_cuda_graph")
