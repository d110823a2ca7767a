"""Planning where only memory tells the way: the cases are what they claim, and the scores are right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_evaluate_planning import ENV_ID, FLAGS, QUICK, model, saved  # noqa: F401

from lssvwm_agents import cli
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.palette import TARGET_COLORS
from lssvwm_agents.envs.raycast_maze import reset
from lssvwm_agents.envs.raycast_render import render
from lssvwm_agents.evaluate.finished import Finished
from lssvwm_agents.evaluate.mazes import episode_seeds, look_around, make_mazes, maze_of
from lssvwm_agents.evaluate.planner_options import PlannerOptions
from lssvwm_agents.evaluate.recall import evaluate_recall, first_touches, score
from lssvwm_agents.evaluate.recall_cases import (
    RecallCases,
    find_recall_cases,
    oracle_moves,
    visible_columns,
    walk,
)

MAZE = MazeConfig(size=7)


@pytest.fixture(scope="module")
def cases() -> RecallCases:
    torch.set_num_threads(1)
    return find_recall_cases(MAZE, 3, 0, look_around_moves=60, least_frames_ago=40, least_moves=20)


def test_the_walk_is_the_one_that_agents_watch() -> None:
    seeds = episode_seeds(3, 4)
    env = make_mazes(ENV_ID, 4, 30, {})
    look_around(env, seeds, 25)
    state, ago = walk(MAZE, seeds, 25)
    assert torch.equal(state.position, maze_of(env)[1].position)
    assert torch.equal(state.heading, maze_of(env)[1].heading)
    assert ago.shape == (4, 3) and int(ago.max()) <= 25


def test_visible_columns_are_those_of_the_picture() -> None:
    state = reset(MAZE, torch.arange(64))
    shown = visible_columns(MAZE, state)
    frames = render(MAZE, state)[:, 3:-3, 3:-3].long()
    palette = torch.as_tensor(TARGET_COLORS).long()
    for row in range(64):
        for target in range(3):
            colour = palette[int(state.target_color[row, target])]
            painted = bool((frames[row] - colour).abs().sum(-1).eq(0).any())
            if painted:
                assert int(shown[row, target]) > 0
            if int(shown[row, target]) == 0:
                assert not painted
    assert bool((shown > 0).any()) and bool((shown == 0).any())


def test_cases_are_old_far_and_out_of_sight(cases: RecallCases) -> None:
    assert len(cases.seeds) == 3 == len(set(cases.seeds))
    assert min(cases.frames_ago) > 40 and min(cases.shortest) >= 20
    state, ago = walk(MAZE, cases.seeds, 60)
    targets = torch.tensor(cases.targets)
    assert ago.gather(1, targets[:, None])[:, 0].tolist() == cases.frames_ago
    assert visible_columns(MAZE, state).gather(1, targets[:, None]).eq(0).all()
    assert oracle_moves(MAZE, replace(state, current_target=targets)).tolist() == cases.shortest
    again = find_recall_cases(MAZE, 2, 0, look_around_moves=60, least_frames_ago=40, least_moves=20)
    assert again.seeds == cases.seeds[:2]


def test_scores_by_hand() -> None:
    result = score([40, 0, 60, 30], [40, 35, 30, 30])
    assert result["success_rate"] == 0.75
    assert result["spl"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert result["moves_over_shortest"] == pytest.approx((1 + 2 + 1) / 3)
    assert score([0, 0], [30, 30])["moves_over_shortest"] is None
    assert first_touches(np.array([[0, 0, 1], [0, 2, 1], [0, 0, 0]])) == [0, 2, 1]


def test_the_oracle_needs_the_shortest_and_controls_are_paired(model, tmp_path) -> None:  # noqa: F811
    kept = tmp_path / "recall.partial.json"
    run = dict(
        look_around_moves=60,
        steps=60,
        options=PlannerOptions(horizon=2, num_samples=4, num_elites=2, num_iterations=1, exploration=0.0),
        planners=("cem",),
        memory_cut=4,
        other_model=model,
        least_frames_ago=40,
        least_moves=20,
        progress=False,
    )
    result = evaluate_recall(model, None, 2, 0, **run, finished=Finished(kept))
    assert (
        evaluate_recall(model, None, 2, 0, **run, finished=Finished(kept)) == result
    )  # and nothing is played
    found = result["contenders"]
    labels = ["cem", "cem/last 4", "cem/other model", "random", "random_repeat", "explorer", "oracle"]
    assert list(found) == labels
    assert found["oracle"]["first_touch"] == result["cases"]["shortest"]
    assert found["oracle"]["success_rate"] == 1.0 and found["oracle"]["spl"] == 1.0
    assert found["cem"]["first_touch"] == found["cem/other model"]["first_touch"]  # it is the same model
    assert result["memory_minus_control"]["cem - cem/other model: spl"]["mean"] == 0.0
    assert found["cem"]["planning_seconds"] > 0


def test_the_command_writes_the_result_of_record(
    saved: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "recall.json"
    words = f"evaluate planning --task recall --model {saved} --episodes 1 --steps 2 --look-around 230"
    assert cli.main([*words.split(), "--json", str(out), *FLAGS]) == 0
    result = json.loads(out.read_text())
    assert result["task"] == "recall" and result["cases"]["frames_ago"][0] > 200
    assert result["cases"]["shortest"][0] >= 30 and result["model_sha256"] and result["command"]
    printed = capsys.readouterr().out
    assert "cem/last 12" in printed and "moves/least" in printed
    assert cli.main([*words.split(), "--memory-cut", "0", *FLAGS]) == 0
    assert "cem/last" not in capsys.readouterr().out
    assert cli.main([*words.replace("230", "100").split(), *FLAGS]) == 2
    assert "`look_around` must be more than the 200 frames" in capsys.readouterr().err


def test_what_is_too_rare_is_told() -> None:
    with pytest.raises(ValueError, match="mazes of the task 'collect', got 'cue'"):
        find_recall_cases(MazeConfig(task="cue"), 1, 0)
    with pytest.raises(ValueError, match=r"1 recall episodes were asked for, and \d+ mazes have 0"):
        find_recall_cases(MAZE, 1, 0, look_around_moves=2, least_frames_ago=1, least_moves=250)
    assert QUICK.horizon == 2


def test_an_environment_can_be_asked_for_another_target() -> None:
    env = make_mazes(ENV_ID, 3, 10, {})
    before, _ = env.reset(seed=0)
    config, state = maze_of(env)
    other = (state.current_target + 1) % config.num_targets
    after, info = env.unwrapped.ask_for(other.numpy())
    assert torch.equal(maze_of(env)[1].current_target, other) and info["proprio"].shape == (3, 4)
    assert (before[:, 0] != after[:, 0]).any()  # the border has another colour
    assert np.array_equal(before[:, 8:-8, 8:-8], after[:, 8:-8, 8:-8])
    with pytest.raises(ValueError, match=r"`targets` must be \(3,\) numbers in \[0, 2\], got \[0, 1, 3\]"):
        env.unwrapped.ask_for(np.array([0, 1, 3]))
