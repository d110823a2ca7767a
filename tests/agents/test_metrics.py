import numpy as np
import pytest
import torch

from lssvwm_agents.metrics import mean_ci95, psnr, student_t_quantile_95


def test_psnr_of_a_known_error() -> None:
    target = torch.zeros(2, 3, 4, 4)
    prediction = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    torch.testing.assert_close(psnr(prediction, target), torch.tensor([20.0, 40.0]), rtol=1e-4, atol=1e-4)
    assert psnr(target, target).tolist() == pytest.approx([100.0, 100.0])
    with pytest.raises(ValueError, match="one shape"):
        psnr(target, target[:1])


@pytest.mark.parametrize(
    ("df", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (19, 2.0930), (120, 1.9799)],
)
def test_student_t_matches_the_printed_tables(df: int, expected: float) -> None:
    assert student_t_quantile_95(df) == pytest.approx(expected, abs=1e-4)


def test_mean_ci95_of_data_solved_by_hand() -> None:
    # Mean 3, standard deviation sqrt(2.5), standard error sqrt(0.5), t(4) = 2.77645.
    mean, low, high = mean_ci95([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert high - 3.0 == pytest.approx(2.77645 * np.sqrt(0.5), abs=1e-4)
    assert 3.0 - low == pytest.approx(high - 3.0)
    assert mean_ci95([2.0]) == (2.0, 2.0, 2.0)
    assert mean_ci95([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)


def test_t_interval_covers_the_mean_95_times_in_100() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 20))
    covered = [low <= 0.0 <= high for _, low, high in map(mean_ci95, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("values", [[], [float("nan"), 1.0]])
def test_bad_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        mean_ci95(values)
