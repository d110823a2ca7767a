"""Action specs: conversions, membership, and one clear sentence for each broken rule."""

import numpy as np
import pytest
import torch

from lssvwm_agents.planners import ContinuousActions, DiscreteActions


def test_one_hot_and_back():
    spec = DiscreteActions(6)
    indices = torch.randint(6, (3, 4), generator=torch.Generator().manual_seed(0))
    actions = spec.to_one_hot(indices)
    assert actions.shape == (3, 4, 6) and actions.dtype == torch.float32
    assert spec.contains(actions).all()
    assert torch.equal(spec.to_index(actions), indices)
    assert spec.action_dim == 6


def test_membership():
    spec = DiscreteActions(2)
    actions = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
    assert spec.contains(actions).tolist() == [True, False, False, False]


def test_bounds_come_from_any_sequence():
    expected = ContinuousActions((-1.0, 0.0), (1.0, 2.0))
    assert ContinuousActions(np.array([-1, 0], np.float32), np.array([1, 2], np.float32)) == expected
    assert ContinuousActions(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0])) == expected
    assert hash(expected) == hash(ContinuousActions([-1, 0], [1, 2]))
    low, high = expected.bounds(dtype=torch.float64)
    assert low.tolist() == [-1.0, 0.0] and high.tolist() == [1.0, 2.0] and low.dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DiscreteActions(0), "`num_actions` must be an integer of at least 1, got 0."),
        (lambda: DiscreteActions(2.0), "`num_actions` must be an integer of at least 1, got 2.0."),
        (lambda: ContinuousActions((), ()), "`low` must have at least one entry, got ()."),
        (lambda: ContinuousActions((0,), (1, 2)), "`high` must have as many entries as `low`, 1, got 2."),
        (lambda: ContinuousActions((0,), (np.inf,)), "every entry of `high` must be finite, got (inf,)."),
        (
            lambda: ContinuousActions((0, 1), (1, 1)),
            "every entry of `low` must be below its `high`, got low=(0.0, 1.0), high=(1.0, 1.0).",
        ),
        (
            lambda: ContinuousActions(-1.0, 1.0),
            "`low` must be a one-dimensional sequence of numbers, got -1.0.",
        ),
        (
            lambda: DiscreteActions(3).to_one_hot(torch.tensor([3])),
            "`indices` must be in [0, num_actions - 1 = 2], got 3.",
        ),
        (
            lambda: DiscreteActions(3).to_one_hot(torch.tensor([1.0])),
            "`indices` must be of an integer dtype, got torch.float32.",
        ),
        (
            lambda: DiscreteActions(3).to_index(torch.zeros(2, 4)),
            "actions must have shape (..., 3), got (2, 4).",
        ),
    ],
)
def test_each_rule_has_its_sentence(make, sentence):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == sentence
