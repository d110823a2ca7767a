"""Rollouts as CUDA graphs: the same plans as step by step. What needs no GPU is tested without."""

import pytest
import torch
from planner_problems import CountingWorld, DoubleIntegrator, Outcome, TensorDynamics, seeded

from lssvwm_agents.planners import (
    CEM,
    ICEM,
    MPPI,
    ContinuousActions,
    CudaGraphs,
    Gradient,
    GraphedDynamics,
    imagine_candidates,
)
from lssvwm_agents.planners.rollout import step_through

BOX = ContinuousActions((-1.0,), (1.0,))
STATES = torch.tensor([[1.0, 0.0], [0.5, -0.5]])


class AtOnce(DoubleIntegrator):
    """Knows how to imagine whole rollouts; its outcomes lie in memory that the next rollout overwrites."""

    def __init__(self):
        self.rollouts, self.memory = 0, None

    def rollout(self, state, n, actions):
        self.rollouts += 1
        outcomes = list(step_through(super(), state, n, actions))
        if self.memory is None or self.memory[0].reward.shape != outcomes[0].reward.shape:
            self.memory = outcomes
        for old, new in zip(self.memory, outcomes, strict=True):
            for place, value in zip(old, new, strict=True):
                place.copy_(value)
        return self.memory

    def step(self, state, action):
        raise AssertionError("stepped")


@pytest.mark.parametrize("max_rows", [None, 8])
def test_dynamics_that_imagine_whole_rollouts_are_not_stepped(max_rows):
    search = {"horizon": 4, "num_samples": 32, "num_elites": 4, "max_rows": max_rows}
    search["terminal_value"] = DoubleIntegrator().terminal_value
    dynamics = AtOnce()
    plan = CEM(BOX, num_iterations=3, **search).plan(dynamics, STATES, generator=seeded())
    expected = CEM(BOX, num_iterations=3, **search).plan(DoubleIntegrator(), STATES, generator=seeded())
    torch.testing.assert_close(plan.actions, expected.actions)
    torch.testing.assert_close(plan.expected_return, expected.expected_return)
    assert dynamics.rollouts == (3 if max_rows is None else 24)


def test_chunks_outlive_the_rollout_that_overwrites_them():
    candidates = torch.randn(2, 6, 3, 1, generator=seeded())
    options = {"terminal_value": DoubleIntegrator().terminal_value, "max_rows": 4}
    options["constraints"] = (lambda outcome: outcome.state[:, 0],)
    ours = imagine_candidates(AtOnce(), STATES, candidates, **options)
    theirs = imagine_candidates(DoubleIntegrator(), STATES, candidates, **options)
    for name in ("reward", "terminal_value", "constraints"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_compiling_what_imagines_whole_rollouts_is_refused():
    with pytest.raises(ValueError, match="`compile_rollout` must be False for dynamics that imagine whole"):
        CEM(BOX, compile_rollout=True).plan(AtOnce(), STATES)


def test_a_cpu_has_no_graphs():
    graphed = GraphedDynamics(DoubleIntegrator())
    with pytest.raises(ValueError, match="need all tensors on a CUDA device, got one on cpu"):
        CEM(BOX, horizon=2).plan(graphed, STATES)
    with pytest.raises(ValueError, match="at least one tensor among its arguments, got none"):
        CudaGraphs(lambda: None)()


@pytest.mark.gpu
@pytest.mark.parametrize("planner", [CEM, ICEM, MPPI])
def test_graphs_give_the_same_plans(planner):
    dynamics, state = DoubleIntegrator(), STATES.cuda()
    graphed = GraphedDynamics(dynamics)
    search = planner(BOX, horizon=5, num_samples=128, num_iterations=3)
    warm = warm_graphed = None
    for seed in range(3):
        with torch.no_grad():
            plan = search.plan(dynamics, state, warm, seeded(seed))
            again = search.plan(graphed, state, warm_graphed, seeded(seed))
        torch.testing.assert_close(again.actions, plan.actions, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(again.expected_return, plan.expected_return, rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(again.record.returns, plan.record.returns, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        warm, warm_graphed, state = plan.shift(1), again.shift(1), state * 0.9
    assert graphed._rollout.num_captured == (3 if planner is ICEM else 1)


@pytest.mark.gpu
def test_other_arguments_get_other_graphs_and_old_ones_stay():
    world = CountingWorld(end=3)
    graphed = GraphedDynamics(world)
    for frames in (2, 5, 2):
        for batch in (1, 2, 1):
            state = {"count": torch.arange(batch, device="cuda")}
            candidates = torch.randn(batch, 7, frames, 1, device="cuda")
            ours = imagine_candidates(graphed, state, candidates).returns()
            assert torch.equal(ours, imagine_candidates(world, state, candidates).returns())
    assert graphed._rollout.num_captured == 4


@pytest.mark.gpu
def test_weights_changed_in_place_are_seen():
    weight = torch.ones(2, device="cuda")
    double = CudaGraphs(lambda x: x * weight)
    x = torch.tensor([1.0, 2.0], device="cuda")
    assert double(x).tolist() == [1.0, 2.0]
    weight.fill_(3.0)
    with torch.inference_mode():
        assert double(x + 1).tolist() == [6.0, 9.0]
    assert double(x).tolist() == [3.0, 6.0] and double.num_captured == 1


@pytest.mark.gpu
def test_what_waits_for_the_device_cannot_be_captured():
    class Waits(TensorDynamics):
        def step(self, state, action):
            return state, Outcome(state[:, 0] * float(action.sum()), torch.ones_like(state[:, 0]))

    with pytest.raises(ValueError, match="cannot be captured as a CUDA graph, since it waits for the device"):
        CEM(BOX, horizon=2).plan(GraphedDynamics(Waits()), STATES.cuda())
    assert torch.ones(1, device="cuda").item() == 1.0  # the device works on, and so does its generator
    assert torch.randn(8, device="cuda").isfinite().all()


@pytest.mark.gpu
def test_graphs_carry_no_gradient():
    with pytest.raises(ValueError, match="CUDA graphs carry no gradients"):
        Gradient(BOX, horizon=2).plan(GraphedDynamics(DoubleIntegrator()), STATES.cuda())
