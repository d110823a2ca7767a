"""Plan to a point of the map, in imagination, and let somebody watch the candidates.

Shapes: N candidates, T frames of a plan, A width of a float action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lssvwm_agents.agents import action_spec_from_space
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.envs.imagined_spaces import imagined_action_space
from lssvwm_agents.planners import CEM, Distribution, IterationView, Plan, WeightedSum, goal_odometry
from lssvwm_agents.serve.dream import Dream, Moment
from lssvwm_agents.worldmodel import Prediction

ARRIVED_CELLS = 0.5
"""Distance from the goal at which a walk to it ends."""

KNOWN_CELLS = 0.6
"""So far from where somebody really walked the ground counts as known."""


@dataclass(frozen=True)
class SearchView:
    """What one iteration of a search looked at.

    Attributes:
        iteration: From 0.
        proprio: (N, T, P) imagined odometry of the candidates.
        returns: (N,) what they are worth; larger is nearer the goal.
    """

    iteration: int
    proprio: np.ndarray
    returns: np.ndarray


@dataclass(frozen=True, eq=False)
class OffKnownGround:
    """A constraint: how far an imagined frame lies from known ground, in cells; at most 0 on it.

    What a model never saw it imagines vaguely, walls included, and a search would find the gaps.

    Attributes:
        walked: (M, 2) positions of real frames, as odometry.
    """

    walked: torch.Tensor

    def __call__(self, outcome: Any) -> torch.Tensor:
        """(R,) cells."""
        here: torch.Tensor = outcome.proprio[:, :2]
        return torch.cdist(here, self.walked.to(here)).amin(dim=1) - KNOWN_CELLS


class Watched(Imagination):
    """Dynamics that keep the odometry of the candidates imagined last."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.proprio: list[torch.Tensor] = []

    def repeat(self, state: Any, n: int) -> Any:
        """Fork every row n times: other candidates begin."""
        self.proprio = []
        return super().repeat(state, n)

    def step(self, state: Any, action: torch.Tensor) -> tuple[Any, Prediction]:
        """Imagine one frame for every row."""
        state, prediction = super().step(state, action)
        assert prediction.proprio is not None
        self.proprio.append(prediction.proprio)
        return state, prediction


class PlanTo:
    """Searches for moves that lead to a point, as the world model imagines them.

    Args:
        dream: Where to walk.
        horizon: Decisions in a plan.
        action_repeat: Moves for which a decision is held.
        num_samples: Candidates an iteration.
        num_iterations: Of a search.
        num_threads: Threads that share the candidates.
    """

    def __init__(
        self,
        dream: Dream,
        horizon: int = 8,
        action_repeat: int = 3,
        num_samples: int = 32,
        num_iterations: int = 3,
        num_threads: int = 1,
    ) -> None:
        self.dream, self.num_threads = dream, num_threads
        space = imagined_action_space(dream.model.config, None)
        self._search: dict[str, Any] = {
            "action_spec": action_spec_from_space(space),
            "horizon": horizon,
            "action_repeat": action_repeat,
            "num_samples": num_samples,
            "num_elites": max(2, num_samples // 8),
            "num_iterations": num_iterations,
        }

    @torch.no_grad()
    def plan(
        self,
        moment: Moment,
        goal: tuple[float, float],
        walked: np.ndarray,
        seed: int,
        warm_start: Distribution | None = None,
        watch: Callable[[SearchView], None] | None = None,
    ) -> Plan:
        """Search once.

        Args:
            moment: Where the plan begins.
            goal: x, y in the maze's cells.
            walked: (M, 2) positions of the real frames as odometry. A plan to known ground keeps to it.
            seed: Of the search's noise.
            warm_start: Where the search begins: the last plan's ``shift``.
            watch: Shown every iteration; an exception that it raises ends the search.
        """
        pose = torch.zeros(moment.proprio.shape[0])
        pose[:2] = torch.tensor(self.dream.odometry_of(moment.real, *goal))
        weights = torch.zeros_like(pose)
        weights[:2] = 1.0
        near = goal_odometry(pose, weights)
        end = WeightedSum((near,), (float(self._search["horizon"]),))  # most of all, where it ends
        known = OffKnownGround(torch.from_numpy(np.unique(walked, axis=0)).float())
        near_known = float(torch.cdist(pose[None, :2], known.walked).min()) <= KNOWN_CELLS
        constraints = (known,) if near_known else ()
        planner = CEM(**self._search, objective=near, terminal_value=end, constraints=constraints)
        dynamics = Watched(self.dream.model, num_threads=self.num_threads)

        def show(view: IterationView) -> None:
            if watch is not None:
                proprio = torch.stack(dynamics.proprio, dim=1)
                watch(
                    SearchView(
                        view.iteration, proprio.numpy(force=True), view.scores.returns[0].numpy(force=True)
                    )
                )

        noise = torch.Generator().manual_seed(seed)
        return planner.plan(dynamics, moment.world, warm_start, noise, callback=show)
