"""What every search over candidates shares: its checks, and how candidates get their returns.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` picked ones, ``H`` decisions,
``A`` action width, ``I`` iterations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import torch

from lssvwm_agents.planners._validation import require, require_fraction, require_integer
from lssvwm_agents.planners.action_spec import ContinuousActions, DiscreteActions
from lssvwm_agents.planners.protocols import Dynamics, Objective, State
from lssvwm_agents.planners.rollout import Rollout, hold, imagine_candidates


@dataclass(frozen=True)
class CandidateEvaluator(Generic[State]):
    """Gives candidates their returns: everything a search needs to know of its problem.

    Attributes:
        dynamics: Steps the rows.
        state: Pytree of tensors with B rows, where every candidate starts.
        action_repeat: Frames for which each decision is held.
        discount: Constant factor per frame.
        objective: What a frame is worth; None for its reward.
        terminal_value: What comes after the last frame; None for nothing.
        max_rows: At most this many rows are imagined at once; None for all.
    """

    dynamics: Dynamics[State]
    state: State
    action_repeat: int = 1
    discount: float = 1.0
    objective: Objective | None = None
    terminal_value: Objective | None = None
    max_rows: int | None = None

    def rollout(self, decisions: torch.Tensor) -> Rollout:
        """Imagine (B, N, H, A) decisions."""
        candidates = hold(decisions, self.action_repeat)
        return imagine_candidates(
            self.dynamics, self.state, candidates, self.objective, self.terminal_value, self.max_rows
        )

    def __call__(self, decisions: torch.Tensor) -> torch.Tensor:
        """(B, N) returns of (B, N, H, A) decisions."""
        return self.rollout(decisions).returns(self.discount)

    def check_returns(self, returns: torch.Tensor, suspects: torch.Tensor) -> None:
        """Raise if a search met a return that is NaN, and name the cause; this waits for the device.

        Args:
            returns: (I, B) the largest return of each iteration, NaN where any candidate's was.
            suspects: (I, B, H, A) the decisions that had it; imagined again to find the cause.

        Raises:
            ValueError: If any return is NaN.
        """
        bad = returns.isnan()
        if not bool(bad.any()):
            return
        iteration = int(bad.any(dim=1).nonzero()[0, 0])
        rows = bad[iteration].nonzero()[:, 0]
        cause = _nan_cause(self.rollout(suspects[iteration].unsqueeze(1)), int(rows[0]))
        raise ValueError(
            f"an imagined return is NaN in batch rows {rows.tolist()} at iteration {iteration}: {cause}; "
            "check the dynamics, the objective, and the state that the plan starts from."
        )


def take_candidates(candidates: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick (B, K, H, A) of (B, N, H, A) candidates by (B, K) index."""
    rows = torch.arange(candidates.shape[0], device=candidates.device)
    return candidates[rows.unsqueeze(1), index]


def require_search(
    *,
    action_spec: object,
    horizon: int,
    num_samples: int,
    action_repeat: int,
    discount: float,
    objective: Objective | None,
    terminal_value: Objective | None,
    max_rows: int | None,
    dtype: torch.dtype,
) -> None:
    """Check the fields that every sampling planner has.

    Raises:
        ValueError: If one of them breaks its rule.
    """
    require(
        isinstance(action_spec, DiscreteActions | ContinuousActions),
        "`action_spec` must be DiscreteActions or ContinuousActions",
        type(action_spec).__name__,
    )
    require_integer("horizon", horizon, 1)
    require_integer("num_samples", num_samples, 1)
    require_integer("action_repeat", action_repeat, 1)
    require_fraction("discount", discount)
    require(
        objective is None or callable(objective), "`objective` must be a function of an Outcome", objective
    )
    require(
        terminal_value is None or callable(terminal_value),
        "`terminal_value` must be a function of an Outcome",
        terminal_value,
    )
    if max_rows is not None:
        require_integer("max_rows", max_rows, 1)
    require(dtype in (torch.float32, torch.float64), "`dtype` must be torch.float32 or torch.float64", dtype)


def _nan_cause(rollout: Rollout, row: int) -> str:
    reward, continuation = rollout.reward[row, 0], rollout.continuation[row, 0]
    for frame in range(reward.shape[0]):
        for name, value in (("reward", reward[frame]), ("continuation", continuation[frame])):
            if bool(value.isnan()):
                return f"the {name} of imagined frame {frame} is NaN in row {row}"
        if float(continuation[frame]) == 0.0:
            break
    if rollout.terminal_value is not None and bool(rollout.terminal_value[row, 0].isnan()):
        return f"the terminal value is NaN in row {row}"
    return (
        f"imagined again, row {row} has no NaN reward, continuation or terminal value, "
        "so infinite ones met, or the dynamics are random"
    )
