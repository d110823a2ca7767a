"""Plans that a policy proposes, as candidates beside the sampled ones (TD-MPC2, Hansen et al. 2024).

Legend: ``B`` rows of the batch, ``P`` proposals a row, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import torch

from lssvwm_agents.planners.action_spec import ActionSpec, nearest_permitted
from lssvwm_agents.planners.protocols import Dynamics, Policy, State
from lssvwm_agents.planners.rollout import batch_of


def propose(
    policy: Policy[State],
    dynamics: Dynamics[State],
    state: State,
    action_spec: ActionSpec,
    num_proposals: int,
    horizon: int,
    action_repeat: int = 1,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Let a policy act in imagination; it is asked once a decision, held for ``action_repeat`` frames.

    Returns:
        (B, P, H, A) permitted decisions.
    """
    batch_size, device = batch_of(state)
    source = device if generator is None else generator.device
    shape = (num_proposals, horizon, action_spec.action_dim)
    noise_PHA = torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device)
    noise = noise_PHA.repeat(batch_size, 1, 1)
    state = dynamics.repeat(state, num_proposals)
    decisions = []
    for decision in range(horizon):
        action = nearest_permitted(action_spec, policy(state, noise[:, decision]).to(dtype))
        decisions.append(action)
        if decision < horizon - 1:
            for _ in range(action_repeat):
                state, _ = dynamics.step(state, action)
    return torch.stack(decisions, dim=1).view(batch_size, *shape)
