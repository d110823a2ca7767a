"""Returns against numbers worked out by hand: alignment, discount, ends."""

import itertools

import pytest
import torch

from lssvwm_agents.policies.return_scale import ReturnScale
from lssvwm_agents.policies.returns import imagined_return, lambda_return, reach


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_reward_is_credited_to_the_frame_before_the_one_it_came_with():
    reward = rows([9.0, 0.0, 1.0, 0.0])  # the 9 came before the rollout
    target = lambda_return(reward, torch.ones_like(reward), torch.zeros_like(reward), 0.5, 1.0)
    assert target.tolist() == [[0.5, 1.0, 0.0, 0.0]]


def test_the_last_value_is_the_bootstrap_and_is_discounted_once_a_frame():
    zero = rows([0.0, 0.0, 0.0])
    target = lambda_return(zero, torch.ones_like(zero), rows([7.0, 7.0, 8.0]), 0.5, 1.0)
    assert target.tolist() == [[2.0, 4.0, 8.0]]


def test_lambda_zero_looks_one_frame_ahead():
    target = lambda_return(rows([0, 1, 2.0]), rows([1, 1, 1.0]), rows([3.0, 4.0, 5.0]), 0.9, 0.0)
    assert target[0].tolist() == pytest.approx([1 + 0.9 * 4, 2 + 0.9 * 5, 5.0])


def test_the_reward_of_the_last_frame_counts_and_nothing_after_it():
    # The episode ends with frame 2, whose reward is 1; a mask one frame early would zero it.
    reward, going_on = rows([0.0, 0.0, 1.0, 5.0]), rows([1.0, 1.0, 0.0, 1.0])
    target = lambda_return(reward, going_on, rows([2.0, 2.0, 99.0, 99.0]), 0.5, 1.0)
    assert target[0, :2].tolist() == [0.5, 1.0]


def test_where_a_rollout_starts_nothing_of_the_past_counts():
    reward, going_on = rows([5.0, 1.0]), rows([0.0, 1.0])
    assert lambda_return(reward, going_on, rows([0.0, 4.0]), 0.5, 0.95)[0, 0] == 3.0
    assert reach(going_on).tolist() == [[1.0, 1.0]]


def test_a_middle_lambda_by_hand():
    # target[1] = 2 + .5*.8*(.25*10 + .75*10) = 6;  target[0] = 1 + .5*(.25*4 + .75*6) = 3.75
    target = lambda_return(rows([0, 1, 2.0]), rows([1, 1, 0.8]), rows([0.0, 4.0, 10.0]), 0.5, 0.75)
    assert target[0].tolist() == pytest.approx([3.75, 6.0, 10.0])


def test_an_unsure_end_is_the_mean_over_all_episodes_that_may_happen():
    """Slow twin: play out every combination of ends, weigh each by its probability."""
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    going_on = torch.rand(1, 5, generator=generator, dtype=torch.float64)
    value = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    expected = 0.0
    for ends in itertools.product([True, False], repeat=4):
        probability, total, factor, over = 1.0, 0.0, 1.0, False
        for t, end in enumerate(ends, start=1):
            probability *= float(1 - going_on[0, t]) if end else float(going_on[0, t])
            if not over:
                total += factor * float(reward[0, t])
                factor *= 0.9
            over = over or end
        expected += probability * (total + (0.0 if over else factor * float(value[0, -1])))
    assert float(lambda_return(reward, going_on, value, 0.9, 1.0)[0, 0]) == pytest.approx(expected)
    without = float(imagined_return(reward, going_on, 0.9)[0])
    bootstrap = 0.9**4 * float(going_on[0, 1:].prod()) * float(value[0, -1])
    assert without + bootstrap == pytest.approx(expected)


def test_values_that_are_right_stay_right_whatever_lambda():
    """A chain of three rooms with rewards 1, 2, 3 and an end: the values are known."""
    discount, reward = 0.9, rows([0.0, 1.0, 2.0, 3.0])
    value = rows([1 + 0.9 * 2 + 0.81 * 3, 2 + 0.9 * 3, 3.0, 0.0])
    for lam in (0.0, 0.3, 0.95, 1.0):
        target = lambda_return(reward, rows([1.0, 1.0, 1.0, 0.0]), value, discount, lam)
        assert torch.allclose(target, value, atol=1e-12)


def test_reach_is_one_before_an_end_and_zero_from_it_on():
    assert reach(rows([0.0, 1.0, 0.0, 1.0])).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert reach(rows([1.0, 0.5, 0.5, 1.0])).tolist() == [[1.0, 0.5, 0.25, 0.25]]


def test_targets_are_differentiable_in_rewards_continuations_and_values():
    arguments = [torch.rand(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda r, c, v: lambda_return(r, c, v, 0.9, 0.7), arguments)


def test_bad_arguments_are_named():
    one = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        lambda_return(one, one, torch.ones(2, 4), 0.9, 0.9)
    with pytest.raises(ValueError, match="`discount`"):
        lambda_return(one, one, one, 1.1, 0.9)


def test_the_scale_is_the_range_of_percentiles_from_the_first_update_on():
    scale = ReturnScale(0.0, 1.0, decay=0.9, floor=0.5)
    assert float(scale()) == 0.5
    scale.update(torch.tensor([1.0, 5.0]))
    assert float(scale()) == pytest.approx(4.0)
    scale.update(torch.tensor([0.0, 8.0]))
    assert float(scale()) == pytest.approx((0.9 * 0.1 * 4 + 0.1 * 8) / (0.9 * 0.1 + 0.1))
    before = float(scale())
    scale.update(torch.tensor([float("nan"), 1.0]))
    assert float(scale()) == pytest.approx(before)


def test_an_outlier_does_not_set_the_scale():
    scale = ReturnScale(0.05, 0.95)
    scale.update(torch.cat([torch.linspace(0, 2, 99), torch.tensor([1000.0])]))
    assert 1.5 < float(scale()) < 2.0
