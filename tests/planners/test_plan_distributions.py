"""Distributions over plans: sampling, refitting by hand, shifting by frames, resetting rows."""

import math

import pytest
import torch
from planner_problems import seeded

from lssvwm_agents.planners import ContinuousActions, DiscreteActions, initial_distribution

BOX = ContinuousActions((-1.0, 0.0), (1.0, 4.0))


def _gaussian(batch_size=1, horizon=3, **options):
    return initial_distribution(BOX, batch_size, horizon, dtype=torch.float64, **options)


def _categorical(probabilities):
    probabilities = torch.tensor(probabilities, dtype=torch.float64)
    spec = DiscreteActions(probabilities.shape[-1])
    start = initial_distribution(spec, *probabilities.shape[:2], smoothing=0.0, dtype=torch.float64)
    return type(start)(probabilities, 0.0)


def test_gaussian_begins_in_the_middle_of_the_box():
    start = _gaussian(initial_std=0.5, min_std=0.1)
    assert start.shape == (1, 3, 2)
    assert start.mode()[0, 0].tolist() == [0.0, 2.0]
    assert start.std[0, 0].tolist() == [0.5, 1.0]
    assert start.min_std.tolist() == pytest.approx([0.1, 0.2])
    assert start.spread().tolist() == [0.75]


def test_gaussian_samples_have_the_mean_and_std_and_reach_the_faces():
    start = _gaussian(initial_std=0.5)
    samples = start.sample(start.draw_noise(1, 20000, seeded())[0])
    assert samples.shape == (1, 20000, 3, 2)
    assert BOX.contains(samples).all()
    assert samples.mean(dim=1)[0, 0].tolist() == pytest.approx([0.0, 2.0], abs=0.03)
    on_face = (samples[..., 0] == 1.0).double().mean().item()
    assert on_face == pytest.approx(0.5 * math.erfc(2 / math.sqrt(2)), abs=0.003)  # P(z > 2)


def test_gaussian_refit_by_hand():
    start = _gaussian(horizon=1, initial_std=1.0, min_std=0.0)
    elites = torch.tensor([[[[0.0, 1.0]], [[1.0, 3.0]]]], dtype=torch.float64)
    fitted = start.refit(elites, momentum=0.0)
    assert fitted.mean[0, 0].tolist() == [0.5, 2.0] and fitted.std[0, 0].tolist() == [0.5, 1.0]
    kept = start.refit(elites, momentum=0.25)
    assert kept.mean[0, 0].tolist() == [0.375, 2.0] and kept.std[0, 0].tolist() == [0.625, 1.25]
    weighted = start.refit(elites, 0.0, weights=torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    assert weighted.mean[0, 0].tolist() == [0.75, 2.5]
    assert weighted.std[0, 0].tolist() == pytest.approx([math.sqrt(3) / 4, math.sqrt(3) / 2])
    equal = start.refit(elites, 0.0, weights=torch.full((1, 2), 0.5, dtype=torch.float64))
    assert torch.allclose(equal.mean, fitted.mean) and torch.allclose(equal.std, fitted.std)


def test_gaussian_keeps_its_smallest_std_and_its_mean_inside():
    start = _gaussian(horizon=1, min_std=0.1)
    elites = torch.tensor([1.0, 4.0], dtype=torch.float64).expand(1, 3, 1, 2)
    fitted = start.refit(elites, momentum=0.0)
    assert fitted.std[0, 0].tolist() == pytest.approx([0.1, 0.2])
    assert BOX.contains(fitted.mode()).all()


def test_categorical_samples_follow_the_probabilities_and_are_one_hot():
    distribution = _categorical([[[0.0, 0.7, 0.3], [1.0, 0.0, 0.0]]])
    samples = distribution.sample(distribution.draw_noise(1, 20000, seeded())[0])
    assert samples.shape == (1, 20000, 2, 3)
    assert DiscreteActions(3).contains(samples).all()
    assert samples.mean(dim=1)[0, 0].tolist() == pytest.approx([0.0, 0.7, 0.3], abs=0.01)
    assert samples.mean(dim=1)[0, 1].tolist() == [1.0, 0.0, 0.0]
    assert distribution.mode().argmax(dim=-1).tolist() == [[1, 0]]


def test_categorical_refit_by_hand():
    start = initial_distribution(DiscreteActions(2), 1, 1, smoothing=0.0, dtype=torch.float64)
    elites = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    assert start.refit(elites, 0.0).probabilities[0, 0].tolist() == [0.75, 0.25]
    assert start.refit(elites, 0.5).probabilities[0, 0].tolist() == [0.625, 0.375]
    weights = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    assert start.refit(elites, 0.0, weights).probabilities[0, 0].tolist() == [0.0, 1.0]
    smooth = initial_distribution(DiscreteActions(2), 1, 1, smoothing=0.1, dtype=torch.float64)
    fitted = smooth.refit(elites[:, :1], 0.0).probabilities[0, 0]
    assert fitted.tolist() == pytest.approx([0.95, 0.05])


def test_entropy():
    assert _categorical([[[0.5, 0.5], [1.0, 0.0]]]).spread().item() == pytest.approx(math.log(2) / 2)


def test_shift_by_whole_decisions_and_a_new_tail():
    distribution = _categorical([[[1.0, 0.0], [0.0, 1.0], [0.2, 0.8]]])
    assert distribution.shift(0).probabilities.equal(distribution.probabilities)
    assert distribution.shift(1).probabilities[0].tolist() == [[0.0, 1.0], [0.2, 0.8], [0.5, 0.5]]
    assert distribution.shift(4, 2).probabilities[0].tolist() == [[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]]
    assert distribution.shift(99).probabilities[0].tolist() == [[0.5, 0.5]] * 3


def test_shift_inside_a_decision_mixes_by_frames():
    distribution = _categorical([[[1.0, 0.0], [0.0, 1.0]]])
    assert distribution.shift(1, 4).probabilities[0].tolist() == [[0.75, 0.25], [0.125, 0.875]]
    assert distribution.shift(5, 4).probabilities[0].tolist() == [[0.125, 0.875], [0.5, 0.5]]


def test_gaussian_shift_takes_mean_and_variance_of_the_mixture():
    start = initial_distribution(
        ContinuousActions((-1.0,), (1.0,)), 1, 2, initial_std=1.0, dtype=torch.float64
    )
    start = type(start)(
        mean=torch.tensor([[[0.0], [1.0]]], dtype=torch.float64),
        std=torch.tensor([[[0.2], [0.4]]], dtype=torch.float64),
        low=start.low,
        high=start.high,
        initial_std=start.initial_std,
        min_std=start.min_std,
    )
    whole = start.shift(2, 2)
    assert whole.mean[0, :, 0].tolist() == [1.0, 0.0] and whole.std[0, :, 0].tolist() == [0.4, 1.0]
    half = start.shift(1, 2)
    assert half.mean[0, :, 0].tolist() == [0.5, 0.5]
    expected = [math.sqrt(0.5 * 0.04 + 0.5 * 0.16 + 0.25), math.sqrt(0.5 * 0.16 + 0.5 * 1.0 + 0.25)]
    assert half.std[0, :, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("spec", [BOX, DiscreteActions(3)])
def test_reset_select_soften(spec):
    start = initial_distribution(spec, 3, 2, dtype=torch.float64)
    noise = start.draw_noise(1, 5, seeded())[0]
    moved = start.refit(start.sample(noise)[:, :2], momentum=0.0)
    mixed = moved.reset(torch.tensor([True, False, False]))
    assert torch.equal(
        mixed.select(torch.tensor([0])).sample(noise), start.select(torch.tensor([0])).sample(noise)
    )
    assert torch.equal(mixed.select(torch.tensor([1, 2])).sample(noise), moved.sample(noise)[1:])
    assert torch.allclose(moved.soften(1.0).spread(), start.spread())
    assert torch.equal(moved.soften(0.0).spread(), moved.spread())
    assert (moved.soften(0.5).spread() > moved.spread()).all()
    with pytest.raises(
        ValueError, match=r"`mask` must be bool of shape \(3,\), got torch.int64 of shape \(3,\)\."
    ):
        moved.reset(torch.tensor([1, 0, 0]))
    with pytest.raises(ValueError, match="`num_frames` must be an integer of at least 0, got -1"):
        moved.shift(-1)
