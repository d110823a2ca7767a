"""Imagine candidates under dynamics, and sum what they bring.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``H`` decisions, ``T`` frames (T = H *
action_repeat), ``A`` action width, ``C`` constraints, ``R`` rows imagined at once (B times the candidates of
one chunk).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.objectives import caller
from lssvwm_agents.planners.protocols import Dynamics, Objective, Outcome, State


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
    continuation: torch.Tensor | None = None,
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
        continuation: (..., T) probability of going on after each frame; None for ones.
        terminal_value: (...) value of what comes after the last frame, or None for nothing.
        discount: Constant factor per frame.

    Returns:
        (...) the return of each plan.
    """
    if continuation is None:
        return _endless_return(reward, terminal_value, discount)
    reward, continuation = reward.movedim(-1, 0), continuation.movedim(-1, 0)
    weight = (continuation if discount == 1.0 else discount * continuation).cumprod(dim=0)  # weight_{t+1}
    before = weight[:-1]
    total = (before * torch.where(before != 0, reward[1:], 0.0)).sum(dim=0) + reward[0]
    if terminal_value is not None:
        last = weight[-1]
        total = total + last * torch.where(last != 0, terminal_value, 0.0)
    return total


def _endless_return(
    reward: torch.Tensor, terminal_value: torch.Tensor | None, discount: float
) -> torch.Tensor:
    """:func:`discounted_return` where nothing ever ends."""
    num_frames = reward.shape[-1]
    if discount != 1.0:
        powers = torch.arange(num_frames, device=reward.device, dtype=reward.dtype)
        counted = discount**powers
        # As everywhere, what counts nothing may be anything.
        reward = counted * torch.where(counted != 0, reward, 0.0)
    total = reward.sum(dim=-1)
    if terminal_value is None or discount**num_frames == 0.0:
        return total
    return total + discount**num_frames * terminal_value


@dataclass(frozen=True)
class Rollout:
    """What imagined candidates brought.

    Attributes:
        reward: (B, N, T) the objective at each frame.
        continuation: (B, N, T) the probability of going on after each frame; None if nothing ever ends.
        terminal_value: (B, N) the value after the last frame, or None.
        constraints: (B, N, T, C) the constraints at each frame, kept where at most 0; None without any.
    """

    reward: torch.Tensor
    continuation: torch.Tensor | None
    terminal_value: torch.Tensor | None
    constraints: torch.Tensor | None = None

    def returns(self, discount: float = 1.0) -> torch.Tensor:
        """(B, N) the return of each candidate."""
        return discounted_return(self.reward, self.continuation, self.terminal_value, discount)

    def counted_constraints(self) -> torch.Tensor | None:
        """(B, N, T, C) the constraints, minus infinity at frames after an imagined end; None without any."""
        if self.constraints is None or self.continuation is None:
            return self.constraints
        before = self.continuation[..., :-1].cumprod(dim=-1) != 0
        first = torch.ones_like(self.continuation[..., :1], dtype=torch.bool)
        counted = torch.cat([first, before], dim=-1)
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
    parts = [
        imagine_frames(dynamics, state, part, objective, terminal_value, constraints).stacked()
        for part in in_chunks(candidates, max_rows)
    ]
    if len(parts) == 1:
        return parts[0]
    values = [part.terminal_value for part in parts if part.terminal_value is not None]
    kept = [part.constraints for part in parts if part.constraints is not None]
    going_on = [part.continuation for part in parts if part.continuation is not None]
    return Rollout(
        reward=torch.cat([part.reward for part in parts], dim=1),
        continuation=torch.cat(going_on, dim=1) if going_on else None,
        terminal_value=torch.cat(values, dim=1) if values else None,
        constraints=torch.cat(kept, dim=1) if kept else None,
    )


def in_chunks(candidates: torch.Tensor, max_rows: int | None) -> tuple[torch.Tensor, ...]:
    """Cut (B, N, T, A) candidates along N, so that no part has more than ``max_rows`` rows.

    Raises:
        ValueError: If ``max_rows`` is smaller than B.
    """
    if max_rows is None:
        return (candidates,)
    batch_size = candidates.shape[0]
    require(max_rows >= batch_size, f"`max_rows` must be at least the batch size B={batch_size}", max_rows)
    return torch.split(candidates, max_rows // batch_size, dim=1)


@dataclass(frozen=True)
class Frames:
    """What the frames of some candidates brought, one (R,) tensor each, in the order of time.

    Attributes:
        batch_size: Rows ``B`` of the batch; R = B * N.
        dtype: In which they are summed.
        rewards: T of them.
        continuations: T of them, or none if nothing ever ends.
        constraints: T of each constraint, those of one frame together.
        terminal_value: (R,), or None.
    """

    batch_size: int
    dtype: torch.dtype
    rewards: list[torch.Tensor]
    continuations: list[torch.Tensor]
    constraints: list[torch.Tensor]
    terminal_value: torch.Tensor | None

    def stacked(self) -> Rollout:
        """The same as one tensor each; time is outermost in memory."""
        value, kept = self.terminal_value, None
        if self.constraints:
            kept = self._over_time(self.constraints)
            kept = kept.reshape(*kept.shape[:2], len(self.rewards), -1)
        return Rollout(
            reward=self._over_time(self.rewards),
            continuation=self._over_time(self.continuations) if self.continuations else None,
            # A copy: what a graph brought is overwritten by its next rollout.
            terminal_value=None if value is None else value.clone().view(self.batch_size, -1),
            constraints=kept,
        )

    def returns(self, discount: float) -> torch.Tensor:
        """(B, N) the return of each candidate; see :func:`discounted_return`."""
        if not torch.compiler.is_compiling():
            if self.continuations or discount != 1.0:
                return self.stacked().returns(discount)
            plain = torch.stack(self.rewards).sum(dim=0, dtype=self.dtype)
            plain = plain if self.terminal_value is None else plain + self.terminal_value
            return plain.view(self.batch_size, -1)
        # Traced, a chain of sums becomes one with the steps; stacked frames would all go through memory.
        total, weight, power = self.rewards[0].to(self.dtype), None, 1.0
        later: list[torch.Tensor] = [*self.rewards[1:]]
        if self.terminal_value is not None:
            later.append(self.terminal_value)
        for frame, amount in enumerate(later):
            power *= discount
            if self.continuations:
                going_on = self.continuations[frame].to(self.dtype)
                weight = going_on if weight is None else weight * going_on
                counted = power * weight
                total = total + counted * torch.where(counted != 0, amount, 0.0)
            elif power != 0.0:
                total = total + power * amount
        return total.view(self.batch_size, -1)

    def _over_time(self, frames: list[torch.Tensor]) -> torch.Tensor:
        """(R,) numbers of each frame, one or more, to (B, N, their count)."""
        stacked = torch.stack(frames).view(len(frames), self.batch_size, -1)
        return stacked.permute(1, 2, 0).to(self.dtype)


def step_through(
    dynamics: Dynamics[State], state: State, n: int, actions: Iterable[torch.Tensor]
) -> Iterator[Outcome]:
    """Repeat each row ``n`` times, and take one step after the other, by (R, A) actions."""
    state = dynamics.repeat(state, n)
    for action_RA in actions:
        state, outcome = dynamics.step(state, action_RA)
        yield outcome


def imagine_frames(
    dynamics: Dynamics[State],
    state: State,
    candidates: torch.Tensor,
    objective: Objective | None,
    terminal_value: Objective | None,
    constraints: tuple[Objective, ...],
) -> Frames:
    """Imagine (B, N, T, A) candidates whose shape is known to fit the state."""
    batch_size, num_candidates, num_frames, action_dim = candidates.shape
    rows = batch_size * num_candidates
    pay = None if objective is None else caller(objective)
    kept_by = [caller(constraint) for constraint in constraints]
    # Time goes first, so that every frame's actions, rewards and continuations lie together in memory.
    actions_TRA = candidates.movedim(2, 0).reshape(num_frames, rows, action_dim).contiguous()
    actions = actions_TRA.unbind()
    # Dynamics that know how (RolloutDynamics) imagine all frames in one go.
    rollout = getattr(dynamics, "rollout", None)
    outcomes: Iterable[Outcome]
    if rollout is None:
        outcomes = step_through(dynamics, state, num_candidates, actions)
    else:
        outcomes = rollout(state, num_candidates, actions_TRA)
    rewards: list[torch.Tensor] = []
    continuations: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    for action_RA, outcome in zip(actions, outcomes, strict=True):
        rewards.append(outcome.reward if pay is None else pay(outcome, action_RA))
        if outcome.continuation is not None:
            continuations.append(outcome.continuation)
        if kept_by:
            kept += [constraint(outcome, action_RA) for constraint in kept_by]
        if len(rewards) == 1:
            _check_rows("the objective (by default the outcome's `reward`)", rewards[0], rows)
            if continuations:
                _check_rows("the outcome's `continuation`", continuations[0], rows)
            for number, values in enumerate(kept):
                _check_rows(f"constraint {number}", values, rows)
    require(
        len(continuations) in (0, num_frames),
        f"the outcome's `continuation` must be None at every frame or at none of {num_frames}",
        f"None at {num_frames - len(continuations)}",
    )
    value = None
    if terminal_value is not None:
        value = caller(terminal_value)(outcome, action_RA)
        _check_rows("the terminal value", value, rows)
    # Sums are made in the actions' precision at least, whatever the dynamics compute in.
    dtype = torch.promote_types(candidates.dtype, rewards[0].dtype)
    return Frames(batch_size, dtype, rewards, continuations, kept, value)


def _check_rows(name: str, values: torch.Tensor, rows: int) -> None:
    require(
        values.shape == (rows,), f"{name} must have shape ({rows},), one number a row", tuple(values.shape)
    )
