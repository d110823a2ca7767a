"""Imagine candidates under dynamics, and sum what they bring.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``H`` decisions, ``T`` frames (T = H *
action_repeat), ``A`` action width, ``C`` constraints, ``R`` rows imagined at once (B times the candidates of
one chunk).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.objectives import predicted_reward, worth
from lssvwm_agents.planners.protocols import Dynamics, Objective, State


def batch_of(state: object) -> tuple[int, torch.device]:
    """The batch size and the device of a state: those of its first tensor leaf.

    Raises:
        ValueError: If the state holds no tensor, or its first one has no batch dimension.
    """
    for leaf in pytree.tree_leaves(state):
        if isinstance(leaf, torch.Tensor):
            require(
                leaf.ndim >= 1, "the state's tensors must have a leading batch dimension", "a scalar tensor"
            )
            require(leaf.shape[0] >= 1, "the state must hold at least one row", tuple(leaf.shape))
            return leaf.shape[0], leaf.device
    raise ValueError(
        f"the state must be a pytree that holds at least one tensor, got {type(state).__name__}; "
        "register a class of your own with torch.utils._pytree."
    )


def hold(decisions: torch.Tensor, action_repeat: int) -> torch.Tensor:
    """(..., H, A) decisions to (..., H * action_repeat, A) actions: each is held for some frames."""
    return decisions if action_repeat == 1 else decisions.repeat_interleave(action_repeat, dim=-2)


def discounted_return(
    reward: torch.Tensor,
    continuation: torch.Tensor,
    terminal_value: torch.Tensor | None = None,
    discount: float = 1.0,
) -> torch.Tensor:
    """Sum the rewards of a plan up to its imagined end, discounted.

    ``weight_0 = 1; weight_{t+1} = weight_t * discount * continuation_t``; the return is
    ``sum_t weight_t * reward_t + weight_T * terminal_value``. Rewards and values after a continuation of
    exactly 0 count nothing, even where they are not finite.

    >>> reward, continuation = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 1.0])
    >>> discounted_return(reward, continuation, torch.tensor(8.0), discount=0.5)  # 1 + 2/2 + 4/8 + 8/16
    tensor(3.)

    Args:
        reward: (..., T) reward that came with each frame.
        continuation: (..., T) probability of going on after each frame.
        terminal_value: (...) value of what comes after the last frame, or None for nothing.
        discount: Constant factor per frame.

    Returns:
        (...) the return of each plan.
    """
    weight = (continuation if discount == 1.0 else discount * continuation).cumprod(dim=-1)  # weight_{t+1}
    before, last = weight[..., :-1], weight[..., -1]
    total = reward[..., 0] + (before * torch.where(before != 0, reward[..., 1:], 0.0)).sum(dim=-1)
    if terminal_value is not None:
        total = total + last * torch.where(last != 0, terminal_value, 0.0)
    return total


@dataclass(frozen=True)
class Rollout:
    """What imagined candidates brought.

    Attributes:
        reward: (B, N, T) the objective at each frame.
        continuation: (B, N, T) the probability of going on after each frame.
        terminal_value: (B, N) the value after the last frame, or None.
        constraints: (B, N, T, C) the constraints at each frame, kept where at most 0; None without any.
    """

    reward: torch.Tensor
    continuation: torch.Tensor
    terminal_value: torch.Tensor | None
    constraints: torch.Tensor | None = None

    def returns(self, discount: float = 1.0) -> torch.Tensor:
        """(B, N) the return of each candidate."""
        return discounted_return(self.reward, self.continuation, self.terminal_value, discount)

    def counted_constraints(self) -> torch.Tensor | None:
        """(B, N, T, C) the constraints, minus infinity at frames after an imagined end; None without any."""
        if self.constraints is None:
            return None
        before = self.continuation[..., :-1].cumprod(dim=-1) != 0
        counted = torch.cat([torch.ones_like(before[..., :1]), before], dim=-1)
        return torch.where(counted.unsqueeze(-1), self.constraints, -torch.inf)


def imagine_candidates(
    dynamics: Dynamics[State],
    state: State,
    candidates: torch.Tensor,
    objective: Objective | None = None,
    terminal_value: Objective | None = None,
    max_rows: int | None = None,
    constraints: tuple[Objective, ...] = (),
) -> Rollout:
    """Imagine each candidate from its row's state, one frame an action.

    Args:
        dynamics: Steps the rows.
        state: Pytree of tensors with B rows; left as it is.
        candidates: (B, N, T, A) float actions.
        objective: What a frame is worth; by default its reward.
        terminal_value: What comes after the last frame, as a function of that frame's outcome; by default
            nothing.
        max_rows: At most this many rows are imagined at once, to bound memory: the candidates are taken in
            chunks. The chunks change no result of dynamics without randomness.
        constraints: Functions of a frame's outcome that are to be at most 0.

    Returns:
        The rewards, continuations, terminal values and constraints of all candidates.

    Raises:
        ValueError: If shapes do not fit, or ``max_rows`` is smaller than B.
    """
    batch_size, _ = batch_of(state)
    require(
        candidates.ndim == 4 and candidates.shape[0] == batch_size and candidates[0].numel() > 0,
        f"`candidates` must have shape (B={batch_size}, N, T, A) with N, T, A of at least 1",
        tuple(candidates.shape),
    )
    num_candidates = candidates.shape[1]
    chunk = num_candidates
    if max_rows is not None:
        require(
            max_rows >= batch_size, f"`max_rows` must be at least the batch size B={batch_size}", max_rows
        )
        chunk = min(num_candidates, max_rows // batch_size)
    if chunk == num_candidates:
        return _imagine_chunk(dynamics, state, candidates, objective, terminal_value, constraints)
    parts = [
        _imagine_chunk(dynamics, state, part, objective, terminal_value, constraints)
        for part in torch.split(candidates, chunk, dim=1)
    ]
    values = [part.terminal_value for part in parts if part.terminal_value is not None]
    kept = [part.constraints for part in parts if part.constraints is not None]
    return Rollout(
        reward=torch.cat([part.reward for part in parts], dim=1),
        continuation=torch.cat([part.continuation for part in parts], dim=1),
        terminal_value=torch.cat(values, dim=1) if values else None,
        constraints=torch.cat(kept, dim=1) if kept else None,
    )


def _imagine_chunk(
    dynamics: Dynamics[State],
    state: State,
    candidates: torch.Tensor,
    objective: Objective | None,
    terminal_value: Objective | None,
    constraints: tuple[Objective, ...],
) -> Rollout:
    batch_size, num_candidates, num_frames, action_dim = candidates.shape
    rows = batch_size * num_candidates
    objective = predicted_reward if objective is None else objective
    actions_RTA = candidates.reshape(rows, num_frames, action_dim)
    state = dynamics.repeat(state, num_candidates)
    rewards, continuations = [], []
    kept: list[list[torch.Tensor]] = []
    for action_RA in actions_RTA.unbind(dim=1):
        state, outcome = dynamics.step(state, action_RA)
        reward, continuation = worth(objective, outcome, action_RA), outcome.continuation
        if reward.shape != (rows,) or continuation.shape != (rows,):
            _check_rows("the objective (by default the outcome's `reward`)", reward, rows)
            _check_rows("the outcome's `continuation`", continuation, rows)
        rewards.append(reward)
        continuations.append(continuation)
        if constraints:
            kept.append([worth(constraint, outcome, action_RA) for constraint in constraints])
            for number, values in enumerate(kept[-1]):
                _check_rows(f"constraint {number}", values, rows)
    value = None
    if terminal_value is not None:
        value = worth(terminal_value, outcome, action_RA)
        _check_rows("the terminal value", value, rows)
        value = value.view(batch_size, num_candidates)
    # Sums are made in the actions' precision at least, whatever the dynamics compute in.
    shape = (batch_size, num_candidates, num_frames)
    dtype = torch.promote_types(candidates.dtype, rewards[0].dtype)
    return Rollout(
        reward=torch.stack(rewards, dim=-1).view(shape).to(dtype),
        continuation=torch.stack(continuations, dim=-1).view(shape).to(dtype),
        terminal_value=value,
        constraints=(
            torch.stack([torch.stack(frame, dim=-1) for frame in kept], dim=1).view(*shape, -1).to(dtype)
            if kept
            else None
        ),
    )


def _check_rows(name: str, values: torch.Tensor, rows: int) -> None:
    require(
        values.shape == (rows,), f"{name} must have shape ({rows},), one number a row", tuple(values.shape)
    )
