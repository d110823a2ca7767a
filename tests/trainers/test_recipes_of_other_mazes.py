"""The recipes of other people's mazes, from real episodes that their walkers played to weights."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import lssvwm_agents.envs  # noqa: F401  (registers the ids)
from lssvwm_agents.cli import main
from lssvwm_agents.data import EpisodeStore
from lssvwm_agents.data.collect import CollectConfig, collect
from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import FROM_STORES, RECIPES
from lssvwm_agents.weights import load_model

GRID = CollectConfig(
    "lssvwm/MiniGrid-MemoryS7-v0", policy="waypoints", episodes=12, num_envs=5, env_kwargs={"image_size": 32}
)
MAZE = CollectConfig(
    "lssvwm/MemoryMaze-9x9-v0",
    policy="waypoints",
    episodes=2,
    num_envs=1,
    env_kwargs={"max_episode_steps": 30},
)


def collected(config: CollectConfig, path: Path) -> EpisodeStore:
    """The store; skips with the reason where the environment cannot be made."""
    try:
        return collect(config, path, progress=False)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as missing:
        pytest.skip(str(missing))
    except UserError as refused:
        if isinstance(refused.__cause__, gymnasium.error.DependencyNotInstalled):
            pytest.skip(str(refused))
        raise


@pytest.fixture(scope="module")
def grids(tmp_path_factory) -> EpisodeStore:
    return collected(GRID, tmp_path_factory.mktemp("stores") / "grids")


@pytest.fixture(scope="module")
def mazes(tmp_path_factory) -> EpisodeStore:
    return collected(MAZE, tmp_path_factory.mktemp("stores") / "mazes")


def test_guessers_look_first_and_are_right_half_of_the_time(grids: EpisodeStore, tmp_path: Path) -> None:
    assert set(grids.lengths.tolist()) == {4 * 7}
    assert all(episode.terminated[-1] and not episode.terminated[:-1].any() for episode in grids)
    earned = [episode.rewards.sum() > 0 for episode in grids]
    assert 2 <= sum(earned) <= 10
    env = gymnasium.make(GRID.env).unwrapped
    for episode in grids:
        env.reset(seed=episode.seed)
        seen = False
        for action in episode.actions[1:10]:
            env.step(int(action))
            seen |= bool(env.inner.agent_sees(1, env.inner.height // 2 - 1))
        assert seen, episode.seed
    again = collect(replace(GRID, episodes=3, num_envs=1), tmp_path / "again", progress=False)
    first = {episode.seed: episode.checksum() for episode in grids}
    assert all(first[episode.seed] == episode.checksum() for episode in again)


@pytest.mark.slow  # making the mazes takes long, not walking in them
def test_walkers_get_about_in_memory_mazes(mazes: EpisodeStore) -> None:
    for episode in mazes:
        moves = np.linalg.norm(np.diff(episode.proprio[:, :2], axis=0), axis=1)
        assert 1.0 < moves.sum() < 12.0  # cells in 30 steps
        assert len(set(episode.actions.tolist())) >= 3


SMALL = [
    *("--device", "cpu", "--no-tensorboard", "--data.num-validation-store-episodes", "2"),
    *("--tokenizer-training.updates", "2", "--tokenizer-training.frames-per-batch", "4"),
    *("--tokenizer-training.num-frames", "16", "--tokenizer-training.num-validation-frames", "4"),
    *("--model.tokenizer.channels", "8", "8", "8", "--model.backbone.width", "16"),
    *("--model.backbone.head-dim", "16", "--model.backbone.num-groups", "1"),
    *("--model.backbone.place-features", "8", "--model.backbone.place-values", "8"),
    *("--training.updates", "2", "--training.frames-per-batch", "48", "--training.curriculum", "0", "24"),
    *("--training.log-every", "1", "--training.validate-every", "0", "--training.rollout-start", "0.5"),
    *("--training.validation-context", "16", "--training.validation-horizon", "4"),
    *("--objective.rollout-rows", "2", "--objective.rollout-horizon", "2"),
]


@pytest.mark.parametrize(
    ("recipe", "episodes", "more"),
    [
        ("minigrid-memory", "grids", ["--model.tokenizer.frame-size", "32", "--model.patch-size", "2"]),
        pytest.param("memory-maze-9x9", "mazes", [], marks=pytest.mark.slow),
    ],
)
def test_recipes_train_from_real_episodes(
    recipe: str, episodes: str, more: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = request.getfixturevalue(episodes)
    assert recipe in FROM_STORES and RECIPES[recipe]().name == recipe
    out = tmp_path / "run"
    words = ["train", "--recipe", recipe, "--store", str(store.path), "--out", str(out)]
    assert main([*words, *SMALL, *more]) == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [line for line in log if line["phase"] == "world_model" and "loss" in line]
    assert [line["update"] for line in losses] == [1, 2]
    assert all(np.isfinite(line["loss"]) and line["skipped"] == 0 for line in losses)
    assert "loss/visual_odometry" in losses[0] and "loss/rollout_reward" in losses[-1]
    assert all(np.isfinite(log[-1][name]) for name in ("val/imagined_psnr", "val/recall_mse", "val/reward"))
    config = load_model(out).config
    assert (config.env_id, config.odometry, config.sees_motion) == (store.spec.env_id, "pose", True)
    assert config.action_dim == store.spec.num_actions
