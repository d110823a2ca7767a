import pytest
import torch

from lssvwm_agents.data.online import (
    FIRST_TRAINING_SEED,
    MazeShare,
    interleaved,
    maze_seeds,
    render_episodes,
    render_frames,
    rollout,
    split_evenly,
)
from lssvwm_agents.envs.raycast_maze import MazeConfig, odometry, reset, step
from lssvwm_agents.envs.raycast_render import render
from lssvwm_agents.recipes import DataConfig, Experiment
from lssvwm_agents.trainers.data_source import RefreshedData

MAZE = MazeConfig(size=7)
MIXED = Experiment("mixed", MAZE, DataConfig(cue_share=0.5, cue_delays=(16, 32), episode_length=60))


def thumbnail(frames):
    """(B, H, W, 3) uint8 to a latent (B, 3, 4, 4): each frame on its own."""
    return torch.nn.functional.avg_pool2d(frames.movedim(-1, 1).float() / 255, 16)


def test_episodes_are_what_the_maze_gives_when_their_actions_are_played():
    data = render_episodes(MAZE, 4, 10, "forager", 0, "cpu", thumbnail, value_discount=0.9)
    assert data.latents.shape == (4, 10, 3, 4, 4) and data.min_length == 10
    assert (data.actions[:, 0] == 0).all() and (data.actions[:, 1:].sum(-1) == 1).all()
    state = reset(MAZE, maze_seeds(0, 4, "cpu"), device="cpu")
    for t in range(10):
        reward = torch.zeros(4)
        if t > 0:
            state, reward, _ = step(MAZE, state, data.actions[:, t].argmax(-1))
        torch.testing.assert_close(data.latents[:, t], thumbnail(render(MAZE, state)))
        torch.testing.assert_close(data.proprio[:, t], odometry(MAZE, state))
        torch.testing.assert_close(data.reward[:, t], reward.float())


def test_batches_and_seeds_decide_nothing_else():
    whole = render_episodes(MAZE, 5, 6, "explorer", 3, "cpu", thumbnail)
    parts = render_episodes(MAZE, 5, 6, "explorer", 3, "cpu", thumbnail, envs_at_once=2)
    other = render_episodes(MAZE, 5, 6, "explorer", 4, "cpu", thumbnail)
    assert torch.equal(whole.latents, parts.latents) and torch.equal(whole.actions, parts.actions)
    assert not torch.equal(whole.latents, other.latents)


def test_sizes_and_policies_are_mixed():
    mazes = [MAZE, MazeConfig(size=9)]
    data = render_episodes(mazes, 6, 4, ["random", "oracle"], 0, "cpu", thumbnail)
    assert data.num_episodes == 6 and (data.latents.flatten(2).std(-1) > 0).all()
    assert split_evenly(6, 4) == [2, 2, 1, 1]
    with pytest.raises(ValueError, match="at least one maze"):
        render_episodes([], 6, 4, "random", 0, "cpu", thumbnail)


def test_continuous_actions_stay_what_they_are():
    data = render_episodes(MazeConfig(size=7, continuous=True), 2, 4, "explorer", 0, "cpu", thumbnail)
    assert data.actions.shape == (2, 4, 2) and (data.actions.abs() <= 1).all()


def test_an_episode_ends_at_its_termination():
    maze = MazeConfig(task="cue", cue_delay=16)
    data = render_episodes(maze, 4, 120, "oracle", 0, "cpu", thumbnail)
    assert (data.lengths < 120).any() and data.min_length == 120
    assert (data.latents.flatten(2).std(-1) > 0).all()  # what comes after the end can be seen
    for episode, length in enumerate(data.lengths.tolist()):
        if length < 120:
            assert data.continuation[episode, length - 1] == 0
            assert (data.continuation[episode, : length - 1] == 1).all()
            assert data.value_valid[episode, 0]


def test_shares_are_interleaved():
    rows = interleaved([8, 4, 4, 0])
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(16))
    for start in range(0, 16, 4):
        assert [int(((row >= start) & (row < start + 4)).sum()) for row in rows] == [2, 1, 1, 0]
    counts = [int(len(row)) for row in interleaved([3, 0, 2])]
    assert counts == [3, 0, 2] and sum(map(len, interleaved([0, 0]))) == 0


def test_corridors_have_the_share_and_the_delays_that_were_asked_for():
    data = render_episodes(MIXED.mazes, 24, 60, ("forager", "wanderer"), 0, "cpu", thumbnail)
    seeds, mazes = maze_seeds(0, 24, "cpu"), MIXED.mazes
    assert [part.share for part in mazes] == [0.5, 0.25, 0.25]
    assert [part.maze.task for part in mazes] == ["collect", "cue", "cue"]
    assert [part.maze.cue_delay for part in mazes[1:]] == [16, 32]
    rows = interleaved([6, 6, 6, 6])
    groups = [(MAZE, "forager"), (MAZE, "wanderer")] + [(part.maze, "guesser") for part in mazes[1:]]
    for (maze, policy), row in zip(groups, rows, strict=True):
        for t, now in enumerate(rollout(maze, seeds[row], 60, policy)):
            assert torch.equal(now.action, data.actions[row, t])
            assert torch.equal(thumbnail(now.frame), data.latents[row, t])
    ends = data.lengths < 60
    assert not ends[torch.cat(rows[:2])].any() and ends[torch.cat(rows[2:])].float().mean() > 0.8
    for delay, row in zip((16, 32), rows[2:], strict=True):
        assert (data.lengths[row] > delay + 5).all()
    paid = data.reward.gather(1, data.lengths[:, None] - 1)[:, 0][ends]
    assert 0.2 < paid.mean() < 0.8 and set(paid.tolist()) == {0.0, 1.0}
    again = render_episodes(MIXED.mazes, 24, 60, ("forager", "wanderer"), 0, "cpu", thumbnail, envs_at_once=5)
    assert torch.equal(data.latents, again.latents) and torch.equal(data.lengths, again.lengths)


def test_episodes_rendered_anew_keep_the_shares():
    def render_some(count, rendering):
        return render_episodes(MIXED.mazes, count, 60, "forager", rendering, "cpu", thumbnail)

    source = RefreshedData(render_some, 32, refresh_every=1, refresh_share=0.25)
    first = source.at(0).lengths.clone()
    for update in range(3):
        lengths = source.at(update).lengths
        assert 12 <= (lengths < 60).sum() <= 16
        changed = lengths != first
        assert changed[: 8 * update].any() == (update > 0) and not changed[8 * update :].any()


def test_the_tokenizer_sees_corridors_in_their_share():
    frames = render_frames(MIXED.mazes, 64, 0, "cpu", frames_per_maze=4, stride=4)
    assert frames.shape == (64, 64, 64, 3)
    dark = frames[:, 0].float().mean((1, 2)) < 60  # the border of a corridor tells nothing
    assert dark.sum() == 32


def test_shares_must_be_whole():
    for shares in ((0.5, 0.4), (1.5, -0.5)):
        with pytest.raises(ValueError, match="must be at least 0 and add up to 1"):
            render_episodes([MazeShare(MAZE, s) for s in shares], 6, 4, "random", 0, "cpu", thumbnail)
    with pytest.raises(ValueError, match="the shares of all mazes .* for 2 of them"):
        render_episodes([MAZE, MazeShare(MAZE, 1.0)], 6, 4, "random", 0, "cpu", thumbnail)


def test_frames_for_the_tokenizer_are_different():
    frames = render_frames([MAZE, MazeConfig(size=9)], 50, 0, "cpu", frames_per_maze=5, stride=4)
    assert frames.shape == (50, 64, 64, 3) and frames.dtype == torch.uint8
    assert len(torch.unique(frames.flatten(1), dim=0)) > 45


def test_training_mazes_have_seeds_of_their_own():
    seeds = torch.cat([maze_seeds(seed, 100, "cpu", salt) for seed in range(20) for salt in range(3)])
    assert (seeds >= FIRST_TRAINING_SEED).all() and len(seeds.unique()) == len(seeds)


def test_what_is_not_drawn_is_still_played():
    seeds = maze_seeds(0, 2, "cpu")
    drawn = list(rollout(MAZE, seeds, 4, "explorer"))
    blind = list(rollout(MAZE, seeds, 4, "explorer", draw=lambda t: t == 2))
    assert torch.equal(drawn[2].frame, blind[2].frame) and blind[1].frame.numel() == 0
    assert torch.equal(drawn[3].proprio, blind[3].proprio)
