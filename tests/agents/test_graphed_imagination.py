"""Whole rollouts of the world model, captured as CUDA graphs; without a GPU, all but the capturing."""

import gc
import weakref

import numpy as np
import pytest
import torch

from lssvwm_agents.agents import PlanningAgent
from lssvwm_agents.agents.graphed_imagination import GraphedImagination, RolloutGraphs
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.planners import CEM, DiscreteActions, Gradient, Plan, Risk
from lssvwm_agents.worldmodel import BackboneConfig, WorldModel

from .conftest import make_model
from .test_planning_agent import at, random_frames

SEARCH = {"horizon": 3, "num_samples": 16, "num_elites": 4, "num_iterations": 2, "action_repeat": 2}
BACKBONE = BackboneConfig(
    width=32, conditioning_width=16, block_sizes=(2, 1), head_dim=16, state_dim=16, place_features=8
)


def noise(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plans(model: WorldModel, steps: int, risk: Risk | None, **graphs: object) -> tuple[Plan, Plan, int]:
    """A plan made step by step, one made by whole rollouts, and how many frames the second imagined."""
    planner = CEM(DiscreteActions(6), risk=risk, **SEARCH)
    with torch.no_grad():
        state = model.initial_state(2)
        latents = torch.randn(2, 5, *model.config.tokenizer.latent_shape, generator=noise())
        actions = torch.eye(6)[torch.randint(6, (2, 5), generator=noise())]
        proprio = torch.randn(2, 5, 4, generator=noise())
        on = model.device
        state, _ = model.observe_latents(state, latents.to(on), actions.to(on), proprio.to(on))
        eager = Imagination(model, steps, noise())
        whole = GraphedImagination(RolloutGraphs(model, steps, **graphs), noise())  # type: ignore[arg-type]
        one = planner.plan(eager, state, generator=noise(1))
        other = planner.plan(whole, state, generator=noise(1))
    assert whole.imagined_frames == eager.imagined_frames
    return one, other, whole.imagined_frames


CASES = [(1, None), (2, None), (2, Risk(num_futures=3, measure="worst"))]
IDS = ["means", "samples", "futures"]


@pytest.mark.parametrize(("steps", "risk"), CASES, ids=IDS)
def test_whole_rollouts_are_the_steps(steps: int, risk: Risk | None) -> None:
    model = make_model(backbone=BACKBONE, odometry="pose")
    one, other, frames = plans(model, steps, risk, capture=lambda function: function)
    for ours, theirs in zip(other.record.returns, one.record.returns, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(other.actions, one.actions)
    assert frames == 2 * 16 * 2 * 6 * (3 if risk else 1)  # rows, samples, iterations, frames, futures


def test_means_have_no_futures_as_graphs_either(model: WorldModel) -> None:
    with pytest.raises(ValueError, match="`num_denoising_steps` must be at least 2, got 1"):
        GraphedImagination(RolloutGraphs(model)).future(0)


def test_what_cannot_be_a_graph_is_refused(model: WorldModel) -> None:
    search = CEM(DiscreteActions(6), **SEARCH)
    with pytest.raises(ValueError, match="need the world model on a CUDA device, got it on cpu"):
        PlanningAgent(model, search, rollouts="cuda_graph")
    with pytest.raises(ValueError, match="CUDA graphs carry no gradients: .* got Gradient"):
        PlanningAgent(model, Gradient(DiscreteActions(6)), rollouts="compiled_cuda_graph")
    with pytest.raises(ValueError, match='`rollouts` must be "eager", "cuda_graph" or .* got \'magic\''):
        PlanningAgent(model, search, rollouts="magic")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize(("steps", "risk"), CASES, ids=IDS)
def test_graphs_imagine_the_same(steps: int, risk: Risk | None) -> None:
    model = make_model(backbone=BACKBONE, odometry="pose").cuda()
    one, other, _ = plans(model, steps, risk)
    for ours, theirs in zip(other.record.returns, one.record.returns, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(other.actions, one.actions)


@pytest.mark.gpu
def test_compiled_graphs_imagine_the_same_to_rounding() -> None:
    model = make_model(backbone=BACKBONE, odometry="pose").cuda()
    one, other, _ = plans(model, 1, None, compiled=True)
    torch.testing.assert_close(other.record.returns[0], one.record.returns[0], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("rollouts", ["cuda_graph", "compiled_cuda_graph"])
def test_autocast_weights_stay_valid(rollouts: str) -> None:
    model = make_model(backbone=BACKBONE, odometry="pose").cuda()
    state = model.initial_state(1)
    actions = torch.eye(6, device="cuda")[torch.randint(6, (4, 8), generator=noise()).cuda()]
    graphs = RolloutGraphs(model, compiled=rollouts == "compiled_cuda_graph")
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            found = [prediction.reward.clone() for prediction in graphs.imagine(state, 8, actions)]
            future, expected = model.repeat(state, 8), []
            for action in actions:
                future, prediction = model.step(future, action)
                expected.append(prediction.reward)
        torch.empty(1 << 24, device="cuda").fill_(float("nan"))  # what was freed is overwritten
        torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0.05, atol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("rollouts", ["cuda_graph", "compiled_cuda_graph"])
def test_an_agent_plays_by_graphs(rollouts: str) -> None:
    model = make_model(backbone=BACKBONE, odometry="pose").cuda()
    frames, proprio = random_frames(2, 4)
    taken = []
    for way in ("eager", rollouts):
        planner = CEM(DiscreteActions(6), **SEARCH)
        agent = PlanningAgent(model, planner, rollouts=way)  # type: ignore[arg-type]
        carry, played = agent.initial_carry(2, seed=3), []
        for t in range(4):
            action, carry = agent.act(at(frames, proprio, t), carry, np.array([t == 0, t == 2]))
            played.append(action)
        taken.append((played, carry.stats.imagined_frames))
        assert carry.plan is not None and carry.plan.expected_return.isfinite().all()
    assert taken[0][1] == taken[1][1]
    if rollouts == "cuda_graph":
        assert np.array_equal(taken[0][0], taken[1][0])


def test_graphs_go_with_their_last_user(model: WorldModel) -> None:
    """In a cycle they would stay until the garbage collector comes, and with them all memory of a rollout."""
    gc.collect()
    gc.disable()
    try:
        graphs = RolloutGraphs(model, capture=lambda function: function)
        state, actions = model.initial_state(1), torch.zeros(2, 3, model.config.action_dim)
        assert len(GraphedImagination(graphs).rollout(state, 3, actions)) == 2
        gone = weakref.ref(graphs)
        del graphs
        assert gone() is None
    finally:
        gc.enable()
