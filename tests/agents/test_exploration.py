"""The exploration bonus: by hand, over rows, and through the agent."""

from typing import NamedTuple

import pytest
import torch

from lssvwm_agents.agents import Exploration, Novelty, PlanningAgent
from lssvwm_agents.worldmodel import WorldModel

from .conftest import make_model
from .test_planning_agent import PLANNER, at, random_frames

NOWHERE = [torch.inf, torch.inf]


class Place(NamedTuple):
    proprio: torch.Tensor | None
    reward: torch.Tensor = torch.zeros(1)
    continuation: torch.Tensor = torch.ones(1)


def test_a_place_is_as_new_as_it_is_far_and_long_ago() -> None:
    config = Exploration(weight=0.5, radius=2.0, fade_frames=10.0, memory_frames=3)
    visited = torch.tensor([[NOWHERE, [0.0, 0.0], [1.0, 0.0]], [NOWHERE, NOWHERE, [5.0, 5.0]]])
    novelty = Novelty(config, visited)
    # two futures of each of two episodes: row b*n + i
    positions = torch.tensor([[1.0, 0.0, 9.0], [0.0, 0.0, 9.0], [5.0, 6.0, 9.0], [0.0, 0.0, 9.0]])
    # here now; one frame ago (0.1) against one cell away (0.5); one cell away; far away
    torch.testing.assert_close(novelty(Place(positions)), torch.tensor([0.0, 0.05, 0.25, 0.5]))


def test_without_a_past_everything_is_new() -> None:
    novelty = Novelty(Exploration(weight=0.1), torch.full((1, 4, 2), torch.inf))
    torch.testing.assert_close(novelty(Place(torch.zeros(3, 4))), torch.full((3,), 0.1))


def test_the_agent_remembers_where_it_was_row_by_row(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER, exploration=Exploration(weight=0.1, memory_frames=3))
    frames, proprio = random_frames(2, 4)
    carry = agent.initial_carry(2)
    for t in range(3):
        _, carry = agent.act(at(frames, proprio, t), carry, [False, t == 2])
    torch.testing.assert_close(carry.visited[0], torch.from_numpy(proprio[0, :3, :2]))
    assert torch.isinf(carry.visited[1, :2]).all()
    torch.testing.assert_close(carry.visited[1, 2], torch.from_numpy(proprio[1, 2, :2]))


def test_the_bonus_counts_in_the_plan(model: WorldModel) -> None:
    frames, proprio = random_frames(1, 1)
    returns = []
    for weight in (0.0, 1.0):
        agent = PlanningAgent(model, PLANNER, exploration=Exploration(weight=weight))
        _, carry = agent.act(at(frames, proprio, 0), agent.initial_carry(1))
        assert carry.plan is not None
        returns.append(carry.plan.candidate_returns.max().item())
    assert returns[1] > returns[0]


def test_exploring_needs_odometry_and_sound_numbers() -> None:
    with pytest.raises(ValueError, match="`radius` must be positive, got 0"):
        Exploration(radius=0)
    with pytest.raises(ValueError, match="`weight` must be at least 0, got -1"):
        Exploration(weight=-1)
    with pytest.raises(ValueError, match="exploring needs a world model with odometry"):
        PlanningAgent(make_model(proprio_dim=0), PLANNER, exploration=Exploration(weight=0.1))
    novelty = Novelty(Exploration(weight=0.1), torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="got one without"):
        novelty(Place(None))
