"""Returns of imagined rollouts: pure functions of rewards, continuations and values.

Time is that of the whole project: frame 0 is where a rollout starts; ``reward[t]`` and ``continuation[t]``
came with frame t, so that those of frame 0 belong to the past and are never looked at; ``value[t]`` is worth
of what comes after frame t.

Legend: ``B`` rollouts, ``T`` frames, the first one included.
"""

from __future__ import annotations

import torch


def lambda_return(
    reward_BT: torch.Tensor,
    continuation_BT: torch.Tensor,
    value_BT: torch.Tensor,
    discount: float,
    lam: float,
) -> torch.Tensor:
    """What each frame turned out to be worth: rewards that followed, with values where one stops counting.

    TD(lambda) (Sutton and Barto 2018, section 12.1), with the last value as bootstrap::

        target[T-1] = value[T-1]
        target[t] = reward[t+1] + discount * continuation[t+1] * ((1 - lam) * value[t+1] + lam * target[t+1])

    The reward of the frame in which an episode ends counts in full; what would follow counts nothing.

    Args:
        reward_BT: (B, T); column 0 is ignored.
        continuation_BT: (B, T) probability, in [0, 1], of going on after the frame; column 0 is ignored.
        value_BT: (B, T).
        discount: Constant factor per frame, in [0, 1].
        lam: 0 trusts the next value alone, 1 the rewards and the last value alone.

    Returns:
        (B, T) targets of the values. Differentiable in all three.

    Raises:
        ValueError: If shapes differ, or a factor is out of range.
    """
    if reward_BT.ndim != 2 or not reward_BT.shape == continuation_BT.shape == value_BT.shape:
        shapes = tuple(tuple(x.shape) for x in (reward_BT, continuation_BT, value_BT))
        raise ValueError(f"rewards, continuations and values must all be (B, T), got {shapes}.")
    for name, factor in (("discount", discount), ("lam", lam)):
        if not 0.0 <= factor <= 1.0:
            raise ValueError(f"`{name}` must be in [0, 1], got {factor}.")
    target_B = value_BT[:, -1]
    targets = [target_B]
    for t in range(reward_BT.shape[1] - 2, -1, -1):
        after_B = (1.0 - lam) * value_BT[:, t + 1] + lam * target_B
        target_B = reward_BT[:, t + 1] + discount * continuation_BT[:, t + 1] * after_B
        targets.append(target_B)
    return torch.stack(targets[::-1], dim=1)


def reach(continuation_BT: torch.Tensor) -> torch.Tensor:
    """How likely each frame is to be acted in: 1 at the start, then the product of the continuations so far.

    ``reach[0] = 1; reach[t] = reach[t-1] * continuation[t]``: the frame in which an episode ends is no
    longer acted in, the frame before it is, and its reward is credited to the action that led there.

    Args:
        continuation_BT: (B, T); column 0 is ignored: a rollout starts where an episode goes on.
    """
    first_B1 = torch.ones_like(continuation_BT[:, :1])
    return torch.cat([first_B1, continuation_BT[:, 1:]], dim=1).cumprod(dim=1)


def imagined_return(
    reward_BT: torch.Tensor, continuation_BT: torch.Tensor, discount: float = 1.0
) -> torch.Tensor:
    """Sum of the rewards after frame 0, each weighted by how likely its frame is: (B,).

    The return of a plan: ``weight_1 = 1; weight_{t+1} = weight_t * discount * continuation_t``.
    """
    steps = torch.arange(reward_BT.shape[1] - 1, device=reward_BT.device)
    factor_H = reward_BT.new_full((), discount) ** steps
    return (reach(continuation_BT)[:, :-1] * factor_H * reward_BT[:, 1:]).sum(dim=1)
