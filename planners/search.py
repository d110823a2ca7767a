"""How candidates get their scores: everything that a search needs to know of its problem.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``T`` frames, ``C`` constraints, ``H`` decisions,
``A`` action width, ``I`` iterations.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import torch

from lssvwm_agents.planners.protocols import Dynamics, Objective, State
from lssvwm_agents.planners.risk import Risk
from lssvwm_agents.planners.rollout import Rollout, hold, imagine_candidates, imagine_frames, in_chunks
from lssvwm_agents.planners.scores import Scores

# Kinds of rounds (dynamics, shapes, objectives) that one process may compile. Torch's own limit is 8, and a
# planner has up to three kinds: the first, middle and last iteration.
COMPILED_KINDS = 64


@dataclass(frozen=True)
class CandidateEvaluator(Generic[State]):
    """Gives candidates their returns and constraints.

    Attributes:
        dynamics: Steps the rows; one for each sampled future.
        state: Pytree of tensors with B rows, where every candidate starts.
        action_repeat: Frames for which each decision is held.
        discount: Constant factor per frame.
        objective: What a frame is worth; None for its reward.
        terminal_value: What comes after the last frame; None for nothing.
        max_rows: At most this many rows are imagined at once; None for all.
        constraints: Functions of a frame's outcome that are to be at most 0.
        risk: How the returns in several futures become one; None for one future.
        tolerance: A constraint up to this much above 0 counts as kept.
        penalty: See :class:`Scores`.
        compile_rollout: Whether rollouts are compiled.
    """

    dynamics: tuple[Dynamics[State], ...]
    state: State
    action_repeat: int = 1
    discount: float = 1.0
    objective: Objective | None = None
    terminal_value: Objective | None = None
    max_rows: int | None = None
    constraints: tuple[Objective, ...] = ()
    risk: Risk | None = None
    tolerance: float = 0.0
    penalty: float | None = None
    compile_rollout: bool = False

    def rollout(self, decisions: torch.Tensor, future: int = 0) -> Rollout:
        """Imagine (B, N, H, A) decisions in one of the futures."""
        return imagine_candidates(
            self.dynamics[future],
            self.state,
            hold(decisions, self.action_repeat),
            self.objective,
            self.terminal_value,
            self.max_rows,
            self.constraints,
        )

    def __call__(self, decisions: torch.Tensor) -> Scores:
        """The scores of (B, N, H, A) decisions."""
        traced = self.compile_rollout and not torch.compiler.is_compiling()
        imagine = compiled(_evaluate) if traced else _evaluate
        found = [
            imagine(
                dynamics,
                self.state,
                decisions,
                self.action_repeat,
                self.discount,
                self.objective,
                self.terminal_value,
                self.max_rows,
                self.constraints,
            )
            for dynamics in self.dynamics
        ]
        if self.risk is None:
            returns, constraints = found[0]
        else:
            returns = self.risk.reduce(torch.stack([one for one, _ in found], dim=-1))
            each = [one for _, one in found if one is not None]
            constraints = torch.cat(each, dim=2) if each else None
        return Scores(returns, constraints, self.tolerance, self.penalty)

    def check(self, returns: torch.Tensor, violation: torch.Tensor | None, suspects: torch.Tensor) -> None:
        """Raise if a search met a return or constraint that is NaN, and name the cause; waits for the device.

        Args:
            returns: (I, B) the return that each iteration ranked first, NaN where any candidate's was.
            violation: (I, B) its violation; None without constraints.
            suspects: (I, B, H, A) the decisions that had it; imagined again to find the cause.

        Raises:
            ValueError: If any is NaN.
        """
        bad = returns.isnan() if violation is None else returns.isnan() | violation.isnan()
        if not bool(bad.any()):
            return
        iteration = int(bad.any(dim=1).nonzero()[0, 0])
        rows = bad[iteration].nonzero()[:, 0]
        row = int(rows[0])
        again = suspects[iteration].unsqueeze(1)
        causes = (_nan_cause(self.rollout(again, future), row) for future in range(len(self.dynamics)))
        cause = next(
            (cause for cause in causes if cause is not None),
            f"imagined again, row {row} has no NaN reward, continuation, terminal value or constraint, "
            "so infinite ones met, or the dynamics are random",
        )
        what = "return" if bool(returns.isnan().any()) else "constraint"
        raise ValueError(
            f"an imagined {what} is NaN in batch rows {rows.tolist()} at iteration {iteration}: {cause}; "
            "check the dynamics, the objective, and the state that the plan starts from."
        )


def _evaluate(
    dynamics: Dynamics[State],
    state: State,
    decisions: torch.Tensor,
    action_repeat: int,
    discount: float,
    objective: Objective | None,
    terminal_value: Objective | None,
    max_rows: int | None,
    constraints: tuple[Objective, ...],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B, N) returns and (B, N, T, C) counted constraints of (B, N, H, A) decisions in one future."""
    returns, kept = [], []
    for part in in_chunks(hold(decisions, action_repeat), max_rows):
        frames = imagine_frames(dynamics, state, part, objective, terminal_value, constraints)
        returns.append(frames.returns(discount))
        if constraints:
            counted = frames.stacked().counted_constraints()
            assert counted is not None
            kept.append(counted)
    if len(returns) == 1:
        return returns[0], kept[0] if kept else None
    return torch.cat(returns, dim=1), torch.cat(kept, dim=1) if kept else None


def traced_whole(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
    """``function``, traced whole by ``torch.compile``: what cannot be traced is an error, not slowness.

    ``dynamic`` is torch's: False makes a trace for each shape, None for the first few and then one for all.
    """
    # Older versions of torch know no limit for one function; theirs is a global setting, which is not ours.
    known = inspect.signature(torch.compile).parameters
    limit: dict[str, Any] = {"recompile_limit": COMPILED_KINDS} if "recompile_limit" in known else {}
    traced: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=dynamic, **limit)

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return traced(*arguments, **named)
        except torch._dynamo.exc.Unsupported as error:
            raise ValueError(
                "compiled rollouts need dynamics and objectives that torch.compile can trace whole, "
                f"got: {str(error).splitlines()[0]}"
            ) from error

    return call


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, traced whole for each shape, once for everybody."""
    return traced_whole(function, dynamic=False)


def _nan_cause(rollout: Rollout, row: int) -> str | None:
    """Where the only candidate of a row first has a NaN that counts; None where nowhere."""
    reward = rollout.reward[row, 0]
    continuation = None if rollout.continuation is None else rollout.continuation[row, 0]
    for frame in range(reward.shape[0]):
        found = [("reward", reward[frame])]
        if continuation is not None:
            found.append(("continuation", continuation[frame]))
        if rollout.constraints is not None:
            found += [
                (f"value of constraint {number}", value)
                for number, value in enumerate(rollout.constraints[row, 0, frame])
            ]
        for name, value in found:
            if bool(value.isnan()):
                return f"the {name} of imagined frame {frame} is NaN in row {row}"
        if continuation is not None and float(continuation[frame]) == 0.0:
            break
    if rollout.terminal_value is not None and bool(rollout.terminal_value[row, 0].isnan()):
        return f"the terminal value is NaN in row {row}"
    return None
