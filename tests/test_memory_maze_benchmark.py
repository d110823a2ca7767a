"""The benchmark of memory on recorded Memory Maze episodes, on a store made by hand."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.recipes import maze_debug, with_maze
from lssvwm_agents.worldmodel import WorldModel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CONTEXT, HORIZON = 90, 8
SMALL = {"context": CONTEXT, "horizon": HORIZON, "episodes": 4, "at_once": 3}  # in two parts


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("memory_maze")


def poses(places, degrees) -> torch.Tensor:
    """One episode (1, T, 4): so many cells ahead, and a heading."""
    turn = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    ahead = torch.tensor(places, dtype=torch.float64)
    return torch.stack([ahead, torch.zeros_like(ahead), turn.sin(), turn.cos()], -1)[None].float()


def walk(seed: int, length: int) -> Episode:
    """Ahead, far away, back where it began from context's end on, and then where it never was."""
    draws = np.random.default_rng(seed)
    back = CONTEXT + HORIZON // 2
    places = [*range(10), *[50] * (CONTEXT - 10), *range(back - CONTEXT), *[90] * (length - back)][:length]
    actions = draws.integers(0, 6, length)
    actions[0] = 0
    rewards = (draws.random(length) < 0.3).astype(np.float32)
    rewards[0] = 0
    ends = np.arange(length) == length - 1
    return Episode(
        frames=draws.integers(0, 256, (length, 64, 64, 3), np.uint8),
        actions=actions,
        rewards=rewards,
        terminated=np.zeros(length, bool),
        truncated=ends,
        proprio=poses(places, [0.0] * length)[0].numpy(),
        seed=seed,
    )


def make_store(path: Path, length: int = CONTEXT + HORIZON, **known) -> str:
    spec = StoreSpec(env_id="lssvwm/MemoryMaze-9x9-v0", num_actions=6, **{"proprio_dim": 4, **known})
    with EpisodeStore.create(path, spec) as store:
        for seed in range(5):
            store.append(walk(seed, length))
    return str(path)


def make_model(path: Path, **changes) -> str:
    torch.manual_seed(0)
    model = WorldModel(replace(with_maze(maze_debug()).model, **{"odometry": "pose", **changes}))
    with torch.no_grad():  # what begins at zero would hide the actions and the rewards
        for name, parameter in model.named_parameters():
            if not parameter.any() and "null" not in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(path)
    return str(path)


def test_age_of_a_view_on_a_walk_forth_and_back(bench):
    forth, back = [0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]
    assert bench.age_of_view(poses(forth + back, [0.0] * 8), 4).tolist() == [[1, 3, 5, 7]]
    # Facing the other way it is another view; half a cell off and across 180 degrees it is the same.
    assert bench.age_of_view(poses(forth + back, [0.0] * 4 + [180.0] * 4), 4).tolist() == [[-1] * 4]
    assert bench.age_of_view(poses([0.0, 5.0, 0.4], [170.0, 170.0, -170.0]), 2).tolist() == [[2]]
    assert bench.age_of_view(poses([0.0, 5.0, 0.6], [0.0] * 3), 2).tolist() == [[-1]]
    assert bench.age_of_view(poses([0.0, 5.0, 0.0], [0.0, 0.0, 26.0]), 2).tolist() == [[-1]]
    # The latest counts, and nothing after the context does.
    assert bench.age_of_view(poses([0.0, 0.0, 5.0, 0.0, 0.0], [0.0] * 5), 3).tolist() == [[2, 3]]


def test_record_and_picture(bench, tmp_path, capsys):
    store, model = make_store(tmp_path / "store"), make_model(tmp_path / "model")
    record, picture = tmp_path / "record.json", tmp_path / "strip.png"
    bench.main(bench.Args(model, store, model, **SMALL, json=str(record), picture=str(picture)))
    found = json.loads(record.read_text())
    assert {"model_sha256", "store", "context", "horizon", "cells", "degrees", "command"} <= found.keys()
    assert found["chosen"] == [1, 2, 3, 4] and found["far_frames"] == 64 and picture.stat().st_size > 0
    real = [float(walk(seed, CONTEXT + HORIZON).rewards[CONTEXT:].sum()) for seed in (1, 2, 3, 4)]
    assert found["real_reward_sums"] == real
    for way in bench.WAYS:
        for group in ("far", "unseen"):
            one = found[way][group]
            assert one["frames"] == 4 * HORIZON // 2 and one["episodes_without"] == 0
            assert set(one["conditions"]) == set(bench.controls.CONDITIONS)
            scores = {name: of["psnr"][0] for name, of in one["conditions"].items()}
            assert all(math.isfinite(score) for score in scores.values())
            assert scores["ours"] == scores["window_only"]  # the same model under another name
        assert set(found[way]["rewards"]) == {"ours", "context_cut"}
        assert len(found[way]["rewards"]["ours"]["sums"]) == 4
    assert "own_odometry, far: 16 frames" in capsys.readouterr().out


def test_rewards_that_do_not_vary_have_no_correlation(bench):
    varied, same = torch.tensor([1.0, 2.0, 3.0]), torch.ones(3)
    assert bench.rewards(2 * varied, varied)["correlation"] == pytest.approx(1.0)
    assert bench.rewards(same, varied)["correlation"] is None
    assert bench.rewards(varied, same)["correlation"] is None


def test_what_does_not_fit_is_refused(bench, tmp_path):
    store, model = make_store(tmp_path / "store"), make_model(tmp_path / "model")

    def refused(words, model=model, store=store, **numbers):
        with pytest.raises(ValueError, match=words):
            bench.main(bench.Args(model, store, **{**SMALL, **numbers}))

    refused(r"4 episodes must have 99 frames each, got \[98, 98, 98, 98\]", horizon=HORIZON + 1)
    refused("6 episodes must have 98 frames each", episodes=6)
    refused("`at_once` must be at least 3, got 2", at_once=2)
    blind = make_model(tmp_path / "blind", proprio_dim=3, visual_odometry=False, odometry="vector")
    refused(r"odometry of model and store must be \(4, 4\), got \(3, 4\)", blind)
    refused("discrete actions must be 5, got 6", make_model(tmp_path / "five", action_dim=5))
    config = with_maze(maze_debug()).model
    small = replace(config.tokenizer, frame_size=32, channels=(8, 16))
    refused(r"frames must be \(32, 32, 3\)", make_model(tmp_path / "small", tokenizer=small))
