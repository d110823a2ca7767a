"""Keep what a planning agent saw, imagined and did, to draw it later.

Shapes: B episodes side by side, T moves of a plan, K frames shown of its future.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lssvwm_agents.agents import PlanningAgent, PlanningCarry
from lssvwm_agents.worldmodel import WorldState


@dataclass(frozen=True)
class ImaginedPlan:
    """The best plan of every row, imagined and decoded.

    Attributes:
        frames: (B, T, H, W, 3) uint8.
        rewards: (B, T).
        proprio: (B, T, P) imagined odometry, or None.
        expected_return: (B,).
    """

    frames: np.ndarray
    rewards: np.ndarray
    proprio: np.ndarray | None
    expected_return: np.ndarray


@dataclass(frozen=True)
class Moment:
    """One move of B episodes.

    Attributes:
        frame: (B, H, W, 3) uint8, the real frame.
        score: (B,) sum of the rewards so far that count.
        view: Whatever is needed to draw the third panel, such as a maze's state.
        plan: The plan being played when the frame had been seen; None while another policy drives.
        moves_played: Moves of ``plan`` played before this frame.
        predicted: (B, H, W, 3) uint8, what the plan in play had imagined for this moment; None if nothing.
    """

    frame: np.ndarray
    score: np.ndarray
    view: Any
    plan: ImaginedPlan | None
    moves_played: int
    predicted: np.ndarray | None


@dataclass
class Snapshot:
    """A moment of planning worth a film strip: what the planner compared in one row.

    Attributes:
        move: When.
        spread: Best return less the median one: how much the choice mattered.
        frame: (H, W, 3) uint8 real frame.
        state: Memory of that row alone, from which all candidates were imagined.
        candidates: (N, T, A).
        returns: (N,).
    """

    move: int
    spread: float
    frame: np.ndarray
    state: WorldState
    candidates: torch.Tensor
    returns: torch.Tensor


@dataclass
class Recording:
    """All moments of a batch of episodes, and for each row its most telling plan.

    Attributes:
        moments: In order of time.
        snapshots: One per row; None before its first plan.
    """

    num_envs: int
    moments: list[Moment] = field(default_factory=list)
    snapshots: list[Snapshot | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snapshots = [None] * self.num_envs

    def watch(self, frame: np.ndarray, view: Any) -> None:
        """Record a moment at which another policy drives."""
        self.moments.append(Moment(np.array(frame), np.zeros(self.num_envs), view, None, 0, None))

    @torch.no_grad()
    def act(
        self, agent: PlanningAgent, carry: PlanningCarry, frame: np.ndarray, score: np.ndarray, view: Any
    ) -> None:
        """Record a moment at which the agent has just acted; ``carry`` is what ``agent.act`` returned."""
        assert carry.plan is not None
        last = self.moments[-1] if self.moments else None
        before = carry.moves_played - 1
        predicted = None
        if last is not None and last.plan is not None and last.moves_played < last.plan.frames.shape[1]:
            predicted = last.plan.frames[:, last.moves_played]
        if agent.just_planned(carry):
            plan = imagine_best(agent, carry)
            self._remember(agent, carry, frame)
        else:
            assert last is not None and last.plan is not None
            plan = last.plan
        self.moments.append(Moment(np.array(frame), score.copy(), view, plan, before, predicted))

    def _remember(self, agent: PlanningAgent, carry: PlanningCarry, frame: np.ndarray) -> None:
        plan = carry.plan
        assert plan is not None
        spreads = plan.candidate_returns.amax(dim=1) - plan.candidate_returns.median(dim=1).values
        state = None
        for row, spread in enumerate(spreads.tolist()):
            known = self.snapshots[row]
            if known is not None and spread <= known.spread:
                continue
            state = agent.planning_state(carry) if state is None else state
            self.snapshots[row] = Snapshot(
                move=len(self.moments),
                spread=spread,
                frame=np.array(frame[row]),
                state=state.select(torch.tensor([row])),
                candidates=plan.candidates[row].clone(),
                returns=plan.candidate_returns[row].clone(),
            )


@torch.no_grad()
def imagine_best(agent: PlanningAgent, carry: PlanningCarry) -> ImaginedPlan:
    """Imagine and decode the plan that ``carry`` has just begun to play."""
    assert carry.plan is not None
    prediction = agent.imagine(carry, carry.plan.actions)
    return ImaginedPlan(
        frames=to_uint8(agent.model.decode(prediction.latent)),
        rewards=prediction.reward.cpu().numpy(),
        proprio=None if prediction.proprio is None else prediction.proprio.cpu().numpy(),
        expected_return=carry.plan.expected_return.cpu().numpy(),
    )


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """Frames (..., 3, H, W) in [0, 1] as (..., H, W, 3) uint8 arrays."""
    pixels: np.ndarray = (frames.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).cpu().numpy()
    return pixels


def gathered(rewards: np.ndarray, times: list[int]) -> np.ndarray:
    """Sum rewards (T,) between the moves shown: entry k is the sum over moves (times[k-1], times[k]]."""
    edges = [0, *times]
    return np.array([rewards[a:b].sum() for a, b in zip(edges[:-1], edges[1:], strict=True)])
