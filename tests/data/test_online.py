import pytest
import torch

from lssvwm_agents.data.online import (
    FIRST_TRAINING_SEED,
    maze_seeds,
    render_episodes,
    render_frames,
    rollout,
    split_evenly,
)
from lssvwm_agents.envs.raycast_maze import MazeConfig, odometry, reset, step
from lssvwm_agents.envs.raycast_render import render

MAZE = MazeConfig(size=7)


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
    assert (data.lengths < 120).any()
    for episode, length in enumerate(data.lengths.tolist()):
        if length < 120:
            assert data.continuation[episode, length - 1] == 0
            assert (data.continuation[episode, : length - 1] == 1).all()
            assert data.value_valid[episode, 0]


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
