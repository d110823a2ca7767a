"""The world model as a planner's dynamics: its frames are counted, and a CPU's cores share the rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from lssvwm_agents.seeding import generator
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState

T = TypeVar("T")


@dataclass(frozen=True)
class SharedState:
    """Memory of imagined futures, cut into parts of consecutive rows: one for each thread."""

    parts: tuple[WorldState, ...]


@functools.cache
def _workers(num_threads: int) -> ThreadPoolExecutor:
    """Threads that compute every operation by themselves."""
    return ThreadPoolExecutor(num_threads, "imagine", initializer=lambda: torch.set_num_threads(1))


class Imagination:
    """A :class:`~lssvwm_agents.planners.Dynamics` that imagines with a world model and counts frames.

    With ``num_threads`` above 1 each thread carries its own part of the rows through every step. For the
    many small operations of a small model that is faster than sharing every operation among them, and it
    does not collapse when other programs want the cores. Only for one denoising step, which draws no noise.

    Args:
        model: The world model.
        num_denoising_steps: Of every imagined frame.
        generator: Noise of the imagined frames.
        num_threads: Threads that share the rows.
    """

    def __init__(
        self,
        model: WorldModel,
        num_denoising_steps: int = 1,
        generator: torch.Generator | None = None,
        num_threads: int = 1,
    ) -> None:
        self.model = model
        self.num_denoising_steps = num_denoising_steps
        self.generator = generator
        self.num_threads = num_threads if num_denoising_steps == 1 else 1
        self.imagined_frames = 0

    def future(self, seed: int) -> SampledFuture:
        """One sampled future: all its rows meet the same noise, every time that it is imagined.

        Raises:
            ValueError: If frames are means (one denoising step), so that all futures are one.
        """
        if self.num_denoising_steps < 2:
            raise ValueError(
                "futures differ only if frames are samples: `num_denoising_steps` must be at least 2, got "
                f"{self.num_denoising_steps}."
            )
        return SampledFuture(self, seed)

    def repeat(self, state: WorldState, n: int) -> WorldState | SharedState:
        """Fork every row n times, in the order of ``repeat_interleave``, and give each thread its part."""
        if self.num_threads == 1 or state.batch_size * n < self.num_threads:
            return self.model.repeat(state, n)
        if state.batch_size >= self.num_threads:  # whole episodes for each thread: its forks share their past
            episodes = torch.arange(state.batch_size, device=state.features.device)
            jobs = [
                lambda e=e: self.model.repeat(state.select(e), n) for e in episodes.chunk(self.num_threads)
            ]
            return SharedState(self._together(jobs))
        shares = [len(share) for share in torch.arange(n).chunk(-(-self.num_threads // state.batch_size))]
        jobs = [
            lambda e=e, share=share: self.model.repeat(state.select(e[None]), share)
            for e in torch.arange(state.batch_size, device=state.features.device)
            for share in shares
        ]
        return SharedState(self._together(jobs))

    def step(
        self, state: WorldState | SharedState, action: torch.Tensor
    ) -> tuple[WorldState | SharedState, Prediction]:
        """Imagine one frame for every row, given its action (R, A)."""
        self.imagined_frames += action.shape[0]
        if isinstance(state, WorldState):
            return self._step(state, action)
        actions = action.split([part.batch_size for part in state.parts])
        pairs = zip(state.parts, actions, strict=True)
        done = self._together([lambda s=s, a=a: self._step(s, a) for s, a in pairs])
        return SharedState(tuple(part for part, _ in done)), _join([prediction for _, prediction in done])

    def _step(self, state: WorldState, action: torch.Tensor) -> tuple[WorldState, Prediction]:
        return self.model.step(
            state, action, num_denoising_steps=self.num_denoising_steps, generator=self.generator
        )

    def _together(self, jobs: list[Callable[[], T]]) -> tuple[T, ...]:
        """Do the jobs in parallel, with gradients on or off as they are here."""
        gradients = torch.is_grad_enabled()

        def do(job: Callable[[], T]) -> T:
            with torch.set_grad_enabled(gradients):
                return job()

        return tuple(_workers(self.num_threads).map(do, jobs))


@dataclass(frozen=True)
class FutureState:
    """Memory of imagined futures, and how many frames ago they began."""

    world: WorldState
    frame: int


class SampledFuture:
    """Dynamics of one sampled future of an :class:`Imagination`: noise is named by seed and frame.

    Args:
        imagination: What imagines; its frames are counted there.
        seed: Names the future.
    """

    def __init__(self, imagination: Imagination, seed: int) -> None:
        self.imagination, self.seed = imagination, seed

    def repeat(self, state: WorldState | FutureState, n: int) -> FutureState:
        """Fork every row n times, in the order of ``repeat_interleave``; a real state begins the future."""
        begun = state if isinstance(state, FutureState) else FutureState(state, 0)
        return FutureState(self.imagination.model.repeat(begun.world, n), begun.frame)

    def step(self, state: FutureState, action: torch.Tensor) -> tuple[FutureState, Prediction]:
        """Imagine one frame for every row, given its action (R, A)."""
        self.imagination.imagined_frames += action.shape[0]
        world, prediction = self.imagination.model.step(
            state.world,
            action,
            num_denoising_steps=self.imagination.num_denoising_steps,
            noise=self.noise(state.frame, action).expand(action.shape[0], -1, -1, -1),
        )
        return FutureState(world, state.frame + 1), prediction

    def noise(self, frame: int, like: torch.Tensor) -> torch.Tensor:
        """(1, C, h, w) noise of one frame, on the device and of the dtype of ``like``."""
        return torch.randn(
            (1, *self.imagination.model.config.tokenizer.latent_shape),
            generator=generator(like.device, self.seed, frame),
            device=like.device,
            dtype=like.dtype,
        )


def _join(predictions: list[Prediction]) -> Prediction:
    """Predictions of consecutive rows as one."""
    names = ("latent", "features", "reward", "continuation", "proprio", "value")
    columns = [[getattr(p, name) for p in predictions] for name in names]
    return Prediction(*(None if c[0] is None else torch.cat(c) for c in columns))
