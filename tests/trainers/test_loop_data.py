"""What the loop collects, and which of its episodes its world models are fitted to."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import DataConfig, maze_debug
from lssvwm_agents.trainers import model_refresh, pipeline
from lssvwm_agents.trainers.model_refresh import (
    RefreshConfig,
    check_refresh,
    collect_episodes,
    fit_model,
    fitted_to,
)
from lssvwm_agents.trainers.pipeline import SETTING_DEFAULTS, RunOptions, run_experiment, run_settings
from lssvwm_agents.trainers.policy_config import PolicyRecipe
from lssvwm_agents.trainers.policy_run import PolicyRun, PolicyRunOptions
from lssvwm_agents.trainers.run_folder import claim
from lssvwm_agents.trainers.store_fit import check_store, split_episodes

MAZE = "lssvwm/RaycastMaze-7x7-v0"


def episode(number, length=20, size=4):
    """Every pixel and every reward is the number."""
    return Episode(
        frames=np.full((length, size, size, 3), number, np.uint8),
        actions=np.zeros(length, np.int64),
        rewards=np.full(length, number, np.float32),
        terminated=np.zeros(length, bool),
        truncated=np.arange(length) == length - 1,
        proprio=np.zeros((length, 4), np.float32),
        seed=number,
    )


def store_of(path, episodes):
    spec = StoreSpec(MAZE, frame_shape=episodes[0].frames.shape[1:], num_actions=6, proprio_dim=4)
    with EpisodeStore.create(path, spec) as store:
        for one in episodes:
            store.append(one)
    return store


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """By number of episodes, 1 to 45, what was one store when it had so many."""
    path = tmp_path_factory.mktemp("stores") / "store"
    found = {1: store_of(path, [episode(0)])}
    with EpisodeStore.open(path) as store:
        for number in range(1, 45):
            store.append(episode(number))
            found[number + 1] = EpisodeStore.open(path)
    return found


def every(number):
    return DataConfig(hold_out_every=number)


def test_held_out_episodes_are_the_last_ones_if_nothing_else_is_said(stores):
    for total in range(2, 46):
        for asked in (1, 2, 8, 64):
            held_out = min(asked, total // 2)
            split = split_episodes(stores[total], DataConfig(num_validation_store_episodes=asked))
            assert split == (range(total - held_out), range(total - held_out, total))


def test_every_so_many_th_is_held_out_and_all_others_are_trained_on(stores):
    for number in (2, 3, 20):
        for total in range(2, 46):
            played, kept = split_episodes(stores[total], every(number))
            assert list(kept) == [index for index in range(total) if index % number == 0]
            assert sorted([*played, *kept]) == list(range(total)) and list(played) == sorted(played)


def test_what_is_held_out_stays_so_while_the_store_grows(stores):
    """A later fit begins at the weights of an earlier one, which must not have seen what it is scored on."""
    for earlier, later in pairwise(range(2, 46)):
        played, kept = (set(part) for part in split_episodes(stores[earlier], every(20)))
        played_later, kept_later = (set(part) for part in split_episodes(stores[later], every(20)))
        assert played <= played_later and kept <= kept_later


def test_something_is_left_to_train_on():
    for number in (-1, 1):
        with pytest.raises(ValueError, match=f"`hold_out_every` must be 0 or at least 2, .*, got {number}"):
            DataConfig(hold_out_every=number)
    with pytest.raises(ValueError, match="`first_episodes` must be 0 or at least 2, .*, got 1"):
        RefreshConfig(first_episodes=1)


def test_one_episode_cannot_be_split(stores):
    for data in (DataConfig(), every(20)):
        with pytest.raises(UserError, match="must hold at least 2 episodes, one of them .*, got 1"):
            split_episodes(stores[1], data)


@pytest.mark.parametrize("init", [None, "tiny"], ids=["first", "later"])
def test_the_loop_trains_on_the_newest_episodes(stores, tmp_path, monkeypatch, init):
    store, fitted = stores[45], []
    monkeypatch.setattr(model_refresh, "run_experiment", lambda *given: fitted.append(given))
    config = RefreshConfig("maze-debug", episodes=10)
    assert not fit_model(store.path, tmp_path / "fit", init, config, "cpu", 0.0, False)
    ((experiment, options),) = fitted
    assert (options.store, options.init) == (store.path, init)
    played, kept = split_episodes(store, experiment.data)
    assert set(range(35, 45)) - {40} <= set(played) and list(kept) == [0, 20, 40]


def test_the_loop_holds_out_one_episode_in_twenty(stores):
    recipe = maze_debug()
    for total, held_out in ((2, 1), (20, 1), (21, 2), (45, 3)):
        data = fitted_to(recipe, stores[total]).data
        assert data == replace(recipe.data, hold_out_every=20)
        assert len(split_episodes(stores[total], data)[1]) == held_out


def test_a_run_trains_on_the_others_and_is_scored_on_those_held_out(tmp_path, monkeypatch, capsys):
    seen = {}
    train_tokenizer, train_world_model = pipeline.train_tokenizer, pipeline.train_world_model

    def tokenizer(config, training, loss, frames, held_out, *rest):
        seen.update(frames=frames, held_out_frames=held_out)
        return train_tokenizer(config, training, loss, frames, held_out, *rest)

    def world_model(model, training, objective, source, process, out, validation, **rest):
        seen.update(episodes=source.at(0), validation=validation)
        return train_world_model(model, training, objective, source, process, out, validation, **rest)

    monkeypatch.setattr(pipeline, "train_tokenizer", tokenizer)
    monkeypatch.setattr(pipeline, "train_world_model", world_model)
    recipe = maze_debug()
    experiment = replace(
        recipe,
        data=every(3),
        tokenizer_training=replace(
            recipe.tokenizer_training, updates=1, num_frames=12, num_validation_frames=4
        ),
        training=replace(recipe.training, updates=1),
    )
    store = store_of(tmp_path / "store", [episode(number, size=64) for number in range(5)])
    played, kept = split_episodes(store, experiment.data)
    assert list(kept) == [0, 3]
    options = RunOptions(tmp_path / "run", store.path, device="cpu", tensorboard=False)
    assert run_experiment(experiment, options) is not None
    assert "store: 3 episodes to train on, 2 held out" in capsys.readouterr().out
    assert seen["frames"].unique().tolist() == played
    assert seen["held_out_frames"].unique().tolist() == list(kept)
    assert seen["episodes"].reward[:, 0].tolist() == played
    assert seen["validation"].dataset.reward[:, 0].tolist() == list(kept)
    assert seen["validation"].frames[:, 0, 0, 0, 0].tolist() == list(kept)


def test_lengths_are_asked_of_the_episodes_that_need_them(tmp_path):
    recipe = replace(maze_debug(), data=every(5))
    unscored = replace(recipe, training=replace(recipe.training, num_validation_episodes=0))

    def store(short):
        episodes = [episode(number, length=12 if number == short else 20) for number in range(5)]
        return store_of(tmp_path / f"store{short}", episodes)

    assert list(split_episodes(store(0), recipe.data)[1]) == [0]
    check_store(EpisodeStore.open(tmp_path / "store0"), unscored)
    with pytest.raises(UserError, match="every held-out episode .* the validation's 16 frames, got .* 12"):
        check_store(EpisodeStore.open(tmp_path / "store0"), recipe)
    for short in (1, 4):
        with pytest.raises(UserError, match="every episode .* at least the 16 frames .* got one of 12"):
            check_store(store(short), unscored)


def test_the_first_policy_and_the_trained_one_each_have_their_own_noise(tmp_path):
    short = json.dumps({"max_episode_steps": 6})
    for first_epsilon, epsilon in ((0.5, 0.0), (0.0, 0.25)):
        folder = tmp_path / str(epsilon)
        config = RefreshConfig(
            episodes=2, num_envs=2, env_kwargs=short, first_epsilon=first_epsilon, epsilon=epsilon
        )
        # Any name of a player stands for the trained policy's folder.
        for iteration, policy in enumerate((None, "explorer")):
            collect_episodes(folder, MAZE, config, iteration, policy)
        parts = [EpisodeStore.open(folder / f"00{iteration}").spec for iteration in range(2)]
        assert [part.policy for part in parts] == ["random", "explorer"]
        assert [part.extra["epsilon"] for part in parts] == [first_epsilon, epsilon]
    default = RefreshConfig()
    assert (default.first_epsilon, default.epsilon) == (0.0, 0.05)


@pytest.mark.parametrize("processes", [False, True])
def test_processes_are_asked_of_the_collector(stores, tmp_path, monkeypatch, processes):
    asked = []
    # Real ones take seconds to start; that they record the same is tested beside the collector.
    monkeypatch.setattr(model_refresh, "collect", lambda config, path: asked.append(config) or stores[2])
    config = RefreshConfig(episodes=2, processes=processes)
    for iteration, policy in enumerate((None, "random")):
        collect_episodes(tmp_path / "real", "lssvwm/MemoryMaze-9x9-v0", config, iteration, policy)
    assert [one.processes for one in asked] == [processes, processes]


def test_our_own_mazes_are_not_played_in_processes(tmp_path):
    config = RefreshConfig("maze-debug", processes=True)
    for env_id in (MAZE, "lssvwm/RaycastMaze-9x9-Continuous-v0", "lssvwm/RaycastMaze-Cue-v0"):
        refusal = f"leave out --refresh.processes: `{env_id}` is stepped and drawn as one batch"
        with pytest.raises(UserError, match=refusal):
            collect_episodes(tmp_path / "real", env_id, config, 0, None)
        with pytest.raises(UserError, match=refusal):
            PolicyRun(PolicyRecipe(), PolicyRunOptions(tmp_path / "run", env=env_id, refresh=config))
        check_refresh(replace(config, processes=False), env_id)
    check_refresh(config, "lssvwm/PointMaze-UMaze-v0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["first_epsilon", "epsilon"])
def test_noise_is_a_probability(name):
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\], got {value}\."):
            RefreshConfig(**{name: value})
    for value in (0.0, 1.0):
        assert getattr(RefreshConfig(**{name: value}), name) == value


def test_a_loop_of_before_these_settings_goes_on(tmp_path):
    def begin(**settings):
        refresh = RefreshConfig("maze-debug", **settings)
        PolicyRun(
            PolicyRecipe(),
            PolicyRunOptions(
                tmp_path / "run", env="lssvwm/PointMaze-UMaze-v0", device="cpu", refresh=refresh
            ),
        )

    begin()
    path = tmp_path / "run" / "experiment.json"
    settings = json.loads(path.read_text())
    assert (settings["refresh"].pop("processes"), settings["refresh"].pop("first_epsilon")) == (False, 0.0)
    assert (settings["recipe"].pop("inputs"), settings["recipe"].pop("symlog_limit")) == (["features"], 5.0)
    path.write_text(json.dumps(settings))
    begin()
    for change, words in (
        ({"first_epsilon": 0.5}, "refresh.first_epsilon was 0.0 and is now 0.5"),
        ({"processes": True}, "refresh.processes was False and is now True"),
    ):
        with pytest.raises(UserError, match=words):
            begin(**change)


def test_a_training_of_before_goes_on_with_the_last_ones_held_out(tmp_path):
    def begin(data):
        options = RunOptions(tmp_path / "run")
        claim(options.out, run_settings(replace(maze_debug(), data=data), options), SETTING_DEFAULTS)

    begin(DataConfig())
    path = tmp_path / "run" / "experiment.json"
    settings = json.loads(path.read_text())
    assert settings["experiment"]["data"].pop("hold_out_every") == 0
    path.write_text(json.dumps(settings))
    begin(DataConfig())
    with pytest.raises(UserError, match="data.hold_out_every was 0 and is now 20"):
        begin(every(20))


def test_of_many_held_out_ones_no_more_are_scored_than_the_recipe_says(tmp_path, monkeypatch):
    seen = {}
    train_world_model = pipeline.train_world_model

    def world_model(model, training, objective, source, process, out, validation, **rest):
        seen.update(episodes=source.at(0), validation=validation)
        return train_world_model(model, training, objective, source, process, out, validation, **rest)

    monkeypatch.setattr(pipeline, "train_world_model", world_model)
    recipe = maze_debug()
    experiment = replace(
        recipe,
        data=replace(every(2), num_validation_store_episodes=2),
        tokenizer_training=replace(
            recipe.tokenizer_training, updates=1, num_frames=12, num_validation_frames=4
        ),
        training=replace(recipe.training, updates=1),
    )
    store = store_of(tmp_path / "store", [episode(number, size=64) for number in range(10)])
    options = RunOptions(tmp_path / "run", store.path, device="cpu", tensorboard=False)
    assert run_experiment(experiment, options) is not None
    assert seen["episodes"].reward[:, 0].tolist() == [1, 3, 5, 7, 9]
    assert seen["validation"].dataset.reward[:, 0].tolist() == [0, 6]
    assert seen["validation"].frames[:, 0, 0, 0, 0].tolist() == [0, 6]
