"""Sampled futures of a world model: named by their seed, common to all rows, and planned over."""

import pytest
import torch

from lssvwm_agents.agents import PlanningAgent
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.planners import CEM, DiscreteActions, Risk
from lssvwm_agents.worldmodel import WorldModel

from .test_planning_agent import at, random_frames


def imagined(imagination: Imagination, seed: int, rows: int, actions: torch.Tensor) -> torch.Tensor:
    """Latents (rows, T, ...) of one future, all rows taking the same actions (T, A)."""
    model = imagination.model
    future = imagination.future(seed)
    state, latents = future.repeat(model.initial_state(1), rows), []
    for action in actions:
        state, prediction = future.step(state, action.expand(rows, -1))
        latents.append(prediction.latent)
    return torch.stack(latents, 1)


@torch.no_grad()
def test_a_future_is_named_by_its_seed_and_common_to_all_rows(model: WorldModel) -> None:
    imagination = Imagination(model, num_denoising_steps=3, generator=torch.Generator().manual_seed(0))
    actions = torch.eye(6)[[1, 2, 1, 3]]
    once = imagined(imagination, 5, 4, actions)
    assert torch.equal(once, imagined(imagination, 5, 4, actions))
    torch.testing.assert_close(once[0], once[3])
    torch.testing.assert_close(once[:1], imagined(imagination, 5, 1, actions))
    assert (once - imagined(imagination, 6, 4, actions)).abs().max() > 1e-2
    assert (once[:, 0] - once[:, 1]).abs().max() > 1e-2
    assert imagination.imagined_frames == 4 * (4 + 4 + 1 + 4)


def test_means_have_no_futures(model: WorldModel) -> None:
    with pytest.raises(ValueError, match="`num_denoising_steps` must be at least 2, got 1"):
        Imagination(model).future(0)


def test_an_agent_plans_over_futures(model: WorldModel) -> None:
    planner = CEM(
        DiscreteActions(6),
        horizon=2,
        num_samples=6,
        num_elites=2,
        num_iterations=2,
        risk=Risk(num_futures=3, measure="worst"),
    )
    agent = PlanningAgent(model, planner, num_denoising_steps=2)
    frames, proprio = random_frames(2, 1)
    action, carry = agent.act(at(frames, proprio, 0), agent.initial_carry(2, seed=3))
    again, _ = agent.act(at(frames, proprio, 0), agent.initial_carry(2, seed=3))
    assert (action == again).all() and action.shape == (2,)
    assert carry.plan is not None and carry.plan.expected_return.isfinite().all()
    assert carry.stats.imagined_frames >= 2 * 6 * 2 * 2 * 3  # rows x samples x frames x iterations x futures
