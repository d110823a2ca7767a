"""Every planner inside an agent, over a real world model: by name, in time, and across a restart."""

import time
import typing
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.agents import PlanningAgent, load_carry, save_carry
from lssvwm_agents.evaluate.planner_options import (
    PlannerName,
    PlannerOptions,
    make_planner,
    make_planning_agent,
)
from lssvwm_agents.planners import CEM, ICEM, ContinuousActions, DiscreteActions
from lssvwm_agents.worldmodel import BackboneConfig, WorldModel

from .conftest import make_model
from .test_planning_agent import at, random_frames

NAMES = typing.get_args(PlannerName)
SMALL = {"horizon": 2, "action_repeat": 2, "num_samples": 8, "num_elites": 2, "gradient_updates": 2}


@pytest.mark.parametrize("name", NAMES)
def test_every_planner_plays_a_world_model(model: WorldModel, name: str) -> None:
    options = PlannerOptions(name=name, replan_every=1, **SMALL)
    agent = make_planning_agent(model, options, gymnasium.spaces.Discrete(6), num_envs=2)
    frames, proprio = random_frames(2, 3)
    carry = agent.initial_carry(2, seed=1)
    for t in range(3):
        action, carry = agent.act(at(frames, proprio, t), carry)
        assert action.shape == (2,) and ((action >= 0) & (action < 6)).all()
    assert carry.plan is not None and not carry.plan.actions.requires_grad
    assert carry.plan.actions.shape == (2, 4, 6) and carry.plan.expected_return.isfinite().all()


def test_gradient_planning_raises_the_imagined_return_of_continuous_actions() -> None:
    model = make_model(action_dim=2, discrete_actions=False, proprio_dim=0, env_id="")
    options = PlannerOptions(name="gradient", horizon=3, action_repeat=1, gradient_updates=10)
    planner = make_planner(options, ContinuousActions((-1, -1), (1, 1)))
    agent = PlanningAgent(model, planner)
    frames, _ = random_frames(2, 1)
    _, carry = agent.act(frames[:, 0], agent.initial_carry(2))
    assert carry.plan is not None
    best = carry.plan.record.return_max
    assert (best.max(dim=0).values > best[0]).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_name_that_does_not_fit_the_actions_is_told() -> None:
    with pytest.raises(ValueError, match="must be DiscreteActions for CategoricalCEM"):
        make_planner(PlannerOptions(name="categorical_cem"), ContinuousActions((-1,), (1,)))


@pytest.mark.parametrize("name", ["icem", "mppi", "gradient"])
def test_imagined_rewards_may_count_less_than_the_value(name) -> None:
    options = PlannerOptions(name=name, reward_weight=0.25)  # type: ignore[arg-type]
    planner = make_planner(options, ContinuousActions((-1,), (1,)))
    reward = torch.tensor([4.0, -2.0])
    outcome = SimpleNamespace(reward=reward, continuation=torch.ones(2))
    assert planner.objective is not None
    torch.testing.assert_close(planner.objective(outcome, torch.zeros(2, 1)), reward / 4)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="`reward_weight` must be at least 0, got -1"):
        make_planner(PlannerOptions(reward_weight=-1.0), DiscreteActions(6))


def test_the_defaults_are_cem_over_twenty_moves() -> None:
    planner = make_planner(PlannerOptions(), DiscreteActions(6))
    assert planner == CEM(
        DiscreteActions(6),
        horizon=5,
        num_samples=48,
        num_elites=8,
        num_iterations=2,
        action_repeat=4,
        discount=0.99,
    )


def test_a_decision_keeps_to_its_time(model: WorldModel) -> None:
    planner = CEM(DiscreteActions(6), horizon=2, num_samples=8, num_elites=2, num_iterations=1000)
    frames, proprio = random_frames(1, 2)
    for seconds in (0.15, 1e-9):  # the second is over before planning begins
        agent = PlanningAgent(model, planner, seconds_per_decision=seconds)
        _, carry = agent.act(at(frames, proprio, 0), agent.initial_carry(1))
        before = time.perf_counter()
        _, carry = agent.act(at(frames, proprio, 1), carry)
        spent = time.perf_counter() - before
        assert carry.plan is not None
        made = carry.plan.record.num_iterations
        assert spent < 1.0 and (1 <= made < 1000 if seconds > 0.1 else made == 1)
    with pytest.raises(ValueError, match="`seconds_per_decision` must be positive and finite or None, got 0"):
        PlanningAgent(model, planner, seconds_per_decision=0)


@pytest.mark.parametrize("kind", [CEM, ICEM])
@pytest.mark.parametrize("memory_frames", [None, 2])
def test_a_restored_agent_goes_on_as_if_never_stopped(
    model: WorldModel, tmp_path: Path, kind: type, memory_frames: int | None
) -> None:
    planner = kind(DiscreteActions(6), horizon=3, num_samples=8, num_elites=2, num_iterations=2)
    agent = PlanningAgent(model, planner, replan_every=2, memory_frames=memory_frames)
    frames, proprio = random_frames(2, 7)
    carry = agent.initial_carry(2, seed=5)
    for t in range(4):
        _, carry = agent.act(at(frames, proprio, t), carry, np.array([t == 0, t == 3]))
    save_carry(carry, tmp_path / "carry.safetensors")
    restored = load_carry(tmp_path / "carry.safetensors")
    assert restored.stats == carry.stats and restored.frames_seen == carry.frames_seen
    for t in range(4, 7):
        action, carry = agent.act(at(frames, proprio, t), carry)
        again, restored = agent.act(at(frames, proprio, t), restored)
        assert np.array_equal(action, again)
    assert carry.plan is not None and restored.plan is not None
    assert torch.equal(carry.plan.candidates, restored.plan.candidates)
    for one, other in zip(pytree.tree_leaves(carry.world), pytree.tree_leaves(restored.world), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": BackboneConfig(width=32, block_sizes=(1,), head_dim=16, place_features=8)},
        {"backbone": BackboneConfig(width=32, block_sizes=(1,), head_dim=16, memory="full_attention")},
        {"odometry": "pose", "visual_odometry": True},
    ],
    ids=["places", "full_attention", "visual_odometry"],
)
def test_every_kind_of_memory_can_be_saved(tmp_path: Path, options: dict[str, object]) -> None:
    agent = PlanningAgent(
        make_model(**options), CEM(DiscreteActions(6), horizon=2, num_samples=4, num_elites=2)
    )
    frames, proprio = random_frames(2, 3)
    carry = agent.initial_carry(2)
    for t in range(3):
        _, carry = agent.act(at(frames, proprio, t), carry)
    save_carry(carry, tmp_path / "carry")
    restored = load_carry(tmp_path / "carry")
    assert pytree.tree_structure(restored.world) == pytree.tree_structure(carry.world)
    for one, other in zip(pytree.tree_leaves(carry.world), pytree.tree_leaves(restored.world), strict=True):
        assert torch.equal(one, other)


def test_a_carry_before_its_first_frame_can_be_saved(model: WorldModel, tmp_path: Path) -> None:
    agent = PlanningAgent(model, CEM(DiscreteActions(6), horizon=2, num_samples=8, num_elites=2))
    save_carry(agent.initial_carry(3, seed=2), tmp_path / "carry")
    restored = load_carry(tmp_path / "carry")
    assert restored.plan is None and restored.seed == 2 and restored.world.batch_size == 3


def test_files_that_are_no_carry(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_carry(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="must be a planning carry in a safetensors file"):
        load_carry(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="must have the format `lssvwm-agents planning carry 3`, got `None`"):
        load_carry(tmp_path / "other")
