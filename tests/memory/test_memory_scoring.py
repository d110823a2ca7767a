"""Scores with known answers: colours, SSIM, chance correction, bins, the share of the gap."""

import numpy as np
import pytest
import torch

from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.memory.controls import unit
from lssvwm_agents.evaluate.memory.curves import (
    DISTANCES,
    bins_of,
    curves,
    gap_closed,
    interval,
    per_maze,
    place_content,
)
from lssvwm_agents.evaluate.memory.episodes import NEVER, play_explorer
from lssvwm_agents.evaluate.memory.events import wilson
from lssvwm_agents.evaluate.memory.scoring import FrameScores, read_center_color, score_frames

MAZE = MazeConfig(size=7)


@pytest.fixture(scope="module")
def real():
    return play_explorer(MAZE, episode_seeds(1, 6), 40, "cpu")


def flat_scores(psnr, color=None):
    psnr = torch.as_tensor(psnr, dtype=torch.float32)
    color = torch.zeros_like(psnr, dtype=torch.int64) if color is None else color
    return FrameScores(psnr, psnr, torch.full_like(psnr, float("nan")), color)


def test_colours_are_read_from_real_frames(real):
    read = read_center_color(MAZE, unit(real.frames))
    counted = real.color >= 0
    assert float((read == real.color)[counted].float().mean()) > 0.95
    assert len(real.color[counted].unique()) >= 6  # not one colour everywhere


def test_equal_frames_and_a_wrong_border(real):
    frames = unit(real.frames[:, :8])
    same = score_frames(MAZE, frames, frames, ssim_stride=3)
    assert bool((same.psnr == 100).all()) and bool((same.psnr_frame == 100).all())
    assert torch.isfinite(same.ssim[0]).tolist() == [True, False, False, True, False, False, True, False]
    assert torch.allclose(same.ssim[:, ::3], torch.ones(6, 3), atol=1e-3)
    bordered = frames.clone()
    bordered[..., :3, :] = 0.0
    other = score_frames(MAZE, bordered, frames)
    assert bool((other.psnr == 100).all()) and float(other.psnr_frame.max()) < 30
    darker = score_frames(MAZE, frames * 0.5, frames)
    view = frames[..., 3:-3, 3:-3]
    expected = -10 * torch.log10((view * 0.5).square().mean(dim=(-3, -2, -1)))
    assert torch.allclose(darker.psnr, expected, atol=1e-4)


def test_means_are_over_mazes_not_frames():
    values = torch.tensor([[1.0, 1.0, 1.0], [4.0, 9.0, 9.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert per_maze(values, mask).tolist() == [1.0, 4.0]
    assert interval(values, mask)[0] == 2.5
    assert interval(values, torch.zeros_like(mask)) is None


def test_bins():
    age = torch.tensor([[1, 4, 5, 64, 65, 256, 384, NEVER, 0]])
    found = [[int(a) for a in age[mask]] for mask in bins_of(age)]
    assert found[0] == [1, 4] and found[1] == [5] and found[DISTANCES.index(64)] == [64]
    assert found[DISTANCES.index(96)] == [65] and found[DISTANCES.index(256)] == [256]
    assert sum(map(len, found)) == 7


def test_place_content_is_zero_at_chance_and_one_when_right():
    draw = torch.Generator().manual_seed(0)
    real = torch.randint(4, (50, 40), generator=draw)
    everywhere = torch.ones_like(real, dtype=torch.bool)
    assert place_content(real, real, everywhere)[0] == pytest.approx(1.0)
    guessed = torch.randint(4, (50, 40), generator=draw)
    assert abs(place_content(guessed, real, everywhere)[0]) < 0.05
    constant = torch.zeros_like(real)
    assert place_content(constant, real, everywhere)[0] == pytest.approx(0.0, abs=1e-9)
    # by hand: 3 of 4 right, chance 1/2 -> (0.75 - 0.5) / 0.5
    said, truth = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 0]])
    by_hand = 0.5 * 0.75 + 0.5 * 0.25
    value = place_content(said, truth, torch.ones(1, 4, dtype=torch.bool))
    assert value[0] == pytest.approx((0.75 - by_hand) / (1 - by_hand))
    hidden = torch.full_like(real, -1)
    assert place_content(guessed, hidden, everywhere) is None
    assert place_content(constant, constant, everywhere) is None  # chance is certain


def gap_scores(ours):
    window, ceiling = torch.full((6, 5), 15.0), torch.full((6, 5), 35.0)
    scores = {
        "ours": flat_scores(ours), "window_only": flat_scores(window), "tokenizer": flat_scores(ceiling)
    }  # fmt: skip
    return {**scores, "wrong_actions": flat_scores(window + 1), "context_cut": flat_scores(window + 5)}


@pytest.mark.parametrize(("psnr", "share"), [(15.0, 0.0), (25.0, 0.5), (35.0, 1.0), (10.0, -0.25)])
def test_share_of_the_gap_closed(psnr, share):
    everywhere = torch.ones(6, 5, dtype=torch.bool)
    assert gap_closed(gap_scores(torch.full((6, 5), psnr)), everywhere) == pytest.approx([share] * 3)


def test_the_gaps_interval_comes_from_mazes():
    ours = 20 + 10 * torch.rand(6, 1, generator=torch.Generator().manual_seed(0)).expand(6, 5)
    value, low, high = gap_closed(gap_scores(ours), torch.ones(6, 5, dtype=torch.bool))
    assert value == pytest.approx(float((ours.mean() - 15) / 20), abs=1e-5) and low < value < high
    assert gap_closed(gap_scores(torch.full((6, 5), 35.0)), torch.zeros(6, 5, dtype=torch.bool)) is None


def test_curves_split_far_near_and_unseen():
    age = torch.tensor([[10, 64, 65, 200, NEVER]]).expand(6, -1)
    ours = torch.tensor([[30.0, 28.0, 26.0, 24.0, 12.0]]).expand(6, -1)
    result = curves(gap_scores(ours), torch.zeros(6, 5, dtype=torch.int64), age, far=64)
    assert [result[group]["frames"] for group in ("near", "far", "unseen")] == [12, 12, 6]
    far = result["far"]
    assert far["conditions"]["ours"]["psnr"] == pytest.approx([25.0] * 3)
    assert far["gap_closed"] == pytest.approx([0.5] * 3)
    assert far["gain_db"]["window_only"] == pytest.approx([10.0] * 3)
    assert far["gain_db"]["context_cut"] == pytest.approx([5.0] * 3)
    # the gain is 10 dB; wrong actions keep 1 of it and the cut context 5
    assert far["share_of_gain_lost"] == pytest.approx({"wrong_actions": 0.9, "context_cut": 0.5})
    at = {distance: value for distance, value in zip(DISTANCES, result["gap_closed"], strict=True) if value}
    assert set(at) == {16, 64, 96, 256} and at[96][0] == pytest.approx(0.55)
    assert result["unseen"]["conditions"]["ours"]["psnr"][0] == 12.0
    assert far["conditions"]["ours"]["ssim"] is None


def test_wilsons_interval():
    # R: binom::binom.confint(8, 10, methods = "wilson") gives 0.4901625 to 0.9433178
    assert wilson(8, 10) == pytest.approx([0.8, 0.4901625, 0.9433178], abs=1e-5)
    assert wilson(0, 20)[1] == pytest.approx(0.0, abs=1e-12) and np.isfinite(wilson(20, 20)).all()
