import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from lssvwm_agents import cli
from lssvwm_agents.envs import MazeConfig, make_policy, odometry, reset, step
from lssvwm_agents.envs.raycast_maze import heading_vectors
from lssvwm_agents.evaluate.maze_map import odometry_to_maze
from lssvwm_agents.evaluate.pages import shown_times
from lssvwm_agents.evaluate.recording import gathered
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

FLAGS = "--planner.horizon 4 --planner.action-repeat 2 --planner.num-samples 6 --planner.num-elites 2".split()
FLAGS += "--planner.num-iterations 1 --planner.replan-every 3".split()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(channels=(8, 8, 8), latent_channels=4, num_residual_blocks=0),
        backbone=BackboneConfig(
            width=32, conditioning_width=16, block_sizes=(2, 1), head_dim=16, state_dim=16
        ),
        env_id="lssvwm/RaycastMaze-7x7-v0",
    )
    folder = tmp_path_factory.mktemp("model")
    WorldModel(config).save_pretrained(folder)
    return folder


def test_demo_writes_everything_and_it_opens(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    words = f"demo --model {saved} --out {out} --seconds 1 --look-around 6 --min-moves 8 --max-moves 8"
    assert cli.main([*words.split(), *FLAGS]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["episode.gif", "episode.mp4", "plan.png", "report.json"]
    video = imageio.mimread(out / "episode.mp4")
    assert len(video) == 2 + 8  # every third move of looking around, then every planned move
    assert video[0].shape[0] % 2 == 0 and video[0].shape[1] > 700
    with Image.open(out / "episode.gif") as gif:
        assert gif.n_frames == 8
    assert (out / "episode.gif").stat().st_size < 3_000_000
    with Image.open(out / "plan.png") as picture:
        assert picture.width > 600 and np.asarray(picture).std() > 5
    report = json.loads((out / "report.json").read_text())
    assert len(report["episodes"]) == 4
    assert {"planner", "random", "oracle", "maze_seed", "moves"} <= set(report["episodes"][0])
    assert report["imagined_frames"] == 3 * 4 * 6 * 8  # plans, mazes, samples, moves
    assert {"imagined_frames_per_second", "wall_seconds", "seed", "model_sha256", "commit"} <= set(report)
    printed = capsys.readouterr()
    assert "plan.png" in printed.out and "Next:" in printed.out
    assert "planning, move 8" in printed.err  # the progress bar


def test_plan_writes_a_video_per_episode(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan"
    words = f"plan --model {saved} --env lssvwm/RaycastMaze-7x7-v0 --episodes 2 --max-moves 4 --out {out}"
    words += f" --json {tmp_path / 'result.json'}"
    assert cli.main([*words.split(), *FLAGS]) == 0
    report = json.loads((tmp_path / "result.json").read_text())
    assert not (out / "report.json").exists()
    assert [one["moves"] for one in report["episodes"]] == [4, 4]
    for one in report["episodes"]:
        assert len(imageio.mimread(out / one["video"])) == 4


def test_too_few_mazes_get_one_sentence(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--model", str(saved), "--mazes", "2"]) == 2
    assert "`mazes` must be at least 4, got 2" in capsys.readouterr().err


def test_odometry_is_drawn_where_the_agent_is() -> None:
    config = MazeConfig(size=7)
    state = reset(config, torch.arange(4))
    policy = make_policy("explorer", config)
    carry = policy.initial_carry(torch.arange(4))
    for _ in range(60):
        action, carry = policy.act(state, carry)
        state, _, _ = step(config, state, action)
    poses = odometry(config, state).numpy()
    forward = heading_vectors(state.start_heading).numpy()
    for row in range(4):
        drawn = odometry_to_maze(poses[row : row + 1, :2], state.start_position[row].numpy(), forward[row])
        np.testing.assert_allclose(drawn[0], state.position[row].numpy(), atol=1e-4)


def test_shown_times_and_gathered_rewards() -> None:
    assert shown_times(32, 8) == [4, 8, 12, 16, 20, 24, 28, 32]
    assert shown_times(3, 8) == [1, 2, 3]
    assert gathered(np.array([1.0, 2.0, 4.0, 8.0]), [1, 3, 4]).tolist() == [1, 6, 8]
