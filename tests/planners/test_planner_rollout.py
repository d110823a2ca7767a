"""Returns by hand: termination weights, terminal values, order of rows, chunks."""

import pytest
import torch
from planner_problems import CountingWorld, DoubleIntegrator, Outcome, TensorDynamics, seeded

from lssvwm_agents.planners import WeightedSum, discounted_return, imagine_candidates, predicted_value

NAN = float("nan")


def _count_state(batch_size=1):
    return {"count": torch.zeros(batch_size, dtype=torch.int64)}


def test_rewards_after_the_end_count_nothing():
    world = CountingWorld(end=3)  # rewards 1, 2, 3, then 100 for ever
    rollout = imagine_candidates(world, _count_state(), torch.zeros(1, 2, 6, 1))
    assert rollout.reward[0, 0].tolist() == [1, 2, 3, 100, 100, 100]
    assert rollout.returns().tolist() == [[6.0, 6.0]]
    assert rollout.returns(discount=0.5).tolist() == [[1 + 2 / 2 + 3 / 4] * 2]


def test_soft_end_weighs_what_follows():
    world = CountingWorld(end=2, continuation=0.25, after=8.0)
    rollout = imagine_candidates(
        world,
        _count_state(),
        torch.zeros(1, 1, 4, 1),
        terminal_value=lambda outcome: 16.0 + 0 * outcome.reward,
    )
    # weights 1, 1/2, 1/4 * 1/4, 1/8 * 1/4, and 1/16 * 1/4 for the value
    assert rollout.returns(discount=0.5).item() == 1 + 2 / 2 + 8 / 16 + 8 / 32 + 16 / 64


def test_all_ones_is_the_plain_discounted_sum():
    reward = torch.randn(5, 7, generator=seeded(), dtype=torch.float64)
    expected = sum(0.9**t * reward[:, t] for t in range(7))
    assert torch.allclose(discounted_return(reward, torch.ones_like(reward), None, 0.9), expected)


def test_what_is_not_finite_after_the_end_is_ignored_and_before_it_is_not():
    reward, continuation = torch.tensor([1.0, 2.0, NAN]), torch.tensor([1.0, 0.0, 1.0])
    assert discounted_return(reward, continuation, torch.tensor(NAN)).item() == 3.0
    assert discounted_return(reward, torch.ones(3)).isnan()


def test_return_is_differentiable():
    generator = seeded()
    inputs = [
        torch.rand(3, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    ]
    value = torch.rand(3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, c, v: discounted_return(r, c, v, 0.9), (*inputs, value))


def test_discount_zero_counts_the_first_frame_alone():
    assert discounted_return(torch.tensor([3.0, NAN]), torch.ones(2), discount=0.0).item() == 3.0


def test_rows_are_ordered_as_repeat_interleave():
    class Echo(TensorDynamics):
        def step(self, state, action):
            return state, Outcome(10 * state + action[:, 0], torch.ones_like(state))

    candidates = torch.arange(6.0).view(2, 3, 1, 1)
    returns = imagine_candidates(Echo(), torch.tensor([1.0, 2.0]), candidates).returns()
    assert returns.tolist() == [[10, 11, 12], [23, 24, 25]]


@pytest.mark.parametrize(("max_rows", "repeats"), [(None, [7]), (4, [2, 2, 2, 1]), (2, [1] * 7), (100, [7])])
def test_chunks_bound_the_rows_and_change_nothing(max_rows, repeats):
    candidates = torch.randn(2, 7, 5, 1, generator=seeded())
    world = CountingWorld(end=3)
    imagine_candidates(world, _count_state(2), candidates, max_rows=max_rows)
    assert world.repeats == repeats
    assert max(len(action) for action in world.actions) <= (max_rows or 14)
    dynamics, state = DoubleIntegrator(), torch.randn(2, 2, generator=seeded(1))
    value = dynamics.terminal_value
    whole = imagine_candidates(dynamics, state, candidates, terminal_value=value).returns(0.9)
    parts = imagine_candidates(dynamics, state, candidates, terminal_value=value, max_rows=max_rows).returns(
        0.9
    )
    assert torch.equal(whole, parts)


def test_the_given_state_is_left_alone():
    state = torch.randn(2, 2, generator=seeded())
    before = state.clone()
    imagine_candidates(DoubleIntegrator(), state, torch.ones(2, 3, 4, 1))
    assert torch.equal(state, before)


def test_half_precision_rewards_are_summed_in_the_actions_precision():
    class Half(TensorDynamics):
        def step(self, state, action):
            return state, Outcome(state.bfloat16(), torch.ones_like(state).bfloat16())

    returns = imagine_candidates(Half(), torch.ones(1), torch.zeros(1, 1, 300, 1)).returns()
    assert returns.dtype == torch.float32 and returns.item() == 300.0  # bfloat16 cannot count past 256


def test_objectives_add_up():
    outcome = Outcome(torch.tensor([1.0, 2.0]), torch.ones(2), torch.tensor([3.0, 4.0]))
    objective = WeightedSum((lambda o: o.reward, lambda o: -o.state), (1.0, 0.5))
    assert objective(outcome).tolist() == [-0.5, 0.0]
    with pytest.raises(ValueError, match="needs an outcome with a `value`"):
        predicted_value(outcome)
    with pytest.raises(
        ValueError, match=r"`weights` must have one number for each of the 1 objectives, got 2\."
    ):
        WeightedSum((predicted_value,), (1.0, 2.0))


def test_each_rule_has_its_sentence():
    dynamics, state = DoubleIntegrator(), torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"`candidates` must have shape \(B=2, N, T, A\)"):
        imagine_candidates(dynamics, state, torch.zeros(3, 4, 5, 1))
    with pytest.raises(ValueError, match=r"`max_rows` must be at least the batch size B=2, got 1\."):
        imagine_candidates(dynamics, state, torch.zeros(2, 4, 5, 1), max_rows=1)
    with pytest.raises(ValueError, match=r"must be a pytree that holds at least one tensor, got str"):
        imagine_candidates(dynamics, "state", torch.zeros(2, 4, 5, 1))
    with pytest.raises(
        ValueError, match=r"`reward`\) must have shape \(8,\), one number a row, got \(8, 1\)"
    ):
        imagine_candidates(dynamics, state, torch.zeros(2, 4, 5, 1), lambda outcome: outcome.reward[:, None])
    with pytest.raises(
        ValueError, match=r"the terminal value must have shape \(8,\), one number a row, got \(\)"
    ):
        imagine_candidates(
            dynamics, state, torch.zeros(2, 4, 5, 1), terminal_value=lambda outcome: torch.tensor(0.0)
        )
