"""What recipes render, and settings that they refuse."""

import pytest

from lssvwm_agents.cli import main
from lssvwm_agents.envs.raycast_maze import MazeConfig
from lssvwm_agents.evaluate.memory.events import cue_paths
from lssvwm_agents.recipes import CUE_BRANCH_FRAMES, RECIPES, DataConfig, Experiment, memory_cue


def test_without_cue_share_there_are_mazes_alone():
    plain = Experiment("plain", MazeConfig(size=7), DataConfig(maze_sizes=(7, 9)))
    assert [(maze.size, maze.task) for maze in plain.mazes] == [(7, "collect"), (9, "collect")]


def test_corridors_look_and_move_like_the_mazes_they_are_mixed_with():
    maze = MazeConfig(size=9, texture="rich", continuous=True, turn_degrees=10.0, num_targets=4)
    mixed = Experiment("m", maze, DataConfig(maze_sizes=(7, 9), cue_share=0.3, cue_delays=(20, 40, 60))).mazes
    assert [part.share for part in mixed] == pytest.approx([0.35, 0.35, 0.1, 0.1, 0.1])
    assert [part.policies for part in mixed] == [()] * 2 + [("guesser",)] * 3
    for part, delay in zip(mixed[2:], (20, 40, 60), strict=True):
        wanted = MazeConfig(
            9, texture="rich", continuous=True, turn_degrees=10.0, task="cue", cue_delay=delay
        )
        assert part.maze == wanted


def test_memory_cue_has_windows_for_each_delay_with_and_without_rollouts():
    recipe = RECIPES["memory-cue"]()
    assert recipe == memory_cue() and recipe.name == "memory-cue"
    assert sum(part.share for part in recipe.mazes if part.maze.task == "cue") == 0.5
    before = {length for start, length in recipe.training.curriculum if start < recipe.training.rollout_start}
    after = {length for start, length in recipe.training.curriculum if start >= recipe.training.rollout_start}
    for delay in recipe.data.cue_delays:
        paths = cue_paths(MazeConfig(task="cue", cue_delay=delay))
        frames = len(paths.approach) + paths.branches.shape[1]
        assert frames <= delay + CUE_BRANCH_FRAMES
        assert delay + CUE_BRANCH_FRAMES in before and delay + CUE_BRANCH_FRAMES in after
        assert recipe.objective.rollout_horizon >= CUE_BRANCH_FRAMES  # the whole branch is imagined


def test_errors_name_the_rule_and_the_value():
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"`cue_share` must be in \[0, 1\), got {share}"):
            DataConfig(cue_share=share)
    for delays in ((), (8,), (32, 600)):
        with pytest.raises(ValueError, match=r"`cue_delays` must be one or more in \[16, 512\], got"):
            DataConfig(cue_delays=delays)
    with pytest.raises(ValueError, match="`episode_length` must be at least 12 frames more .* got 256"):
        DataConfig(cue_share=0.5, episode_length=256)
    assert DataConfig(episode_length=256).cue_share == 0.0


def test_a_recipe_whose_environment_is_not_ours_needs_a_store(tmp_path, capsys):
    assert main(["train", "--recipe", "point-maze", "--out", str(tmp_path / "run")]) == 2
    assert "`point-maze` needs --store" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
