"""Mirror images of a store's episodes on their way into a training, and where they are refused."""

import json
from dataclasses import replace

import pytest
import torch

from lssvwm_agents.data import EpisodeStore
from lssvwm_agents.data.collect import CollectConfig, collect
from lssvwm_agents.errors import UserError
from lssvwm_agents.recipes import maze_debug
from lssvwm_agents.trainers import model_refresh, pipeline
from lssvwm_agents.trainers.model_refresh import RefreshConfig, collect_episodes, fit_model
from lssvwm_agents.trainers.pipeline import RunOptions, run_experiment
from lssvwm_agents.trainers.policy_config import PolicyRecipe
from lssvwm_agents.trainers.policy_run import PolicyRun, PolicyRunOptions


def recorded(path, env="lssvwm/RaycastMaze-7x7-v0", **kwargs):
    env_kwargs = {"max_episode_steps": 20, "observation": "dict", **kwargs}
    config = CollectConfig(env, "explorer", episodes=5, num_envs=5, env_kwargs=env_kwargs)
    collect(config, path, progress=False)
    return path


def experiment(mirror):
    recipe = maze_debug()
    return replace(
        recipe,
        data=replace(recipe.data, mirror=mirror, num_validation_store_episodes=2),
        tokenizer_training=replace(
            recipe.tokenizer_training, updates=1, num_frames=12, num_validation_frames=4
        ),
        training=replace(recipe.training, updates=2, num_validation_episodes=2),
    )


@pytest.fixture
def learnt(monkeypatch):
    """What the trainers are given, by run: the tokenizer's frames, the model's episodes, those held out."""
    seen = []
    train_tokenizer, train_world_model = pipeline.train_tokenizer, pipeline.train_world_model

    def tokenizer(config, training, loss, frames, held_out, *rest):
        seen.append({"frames": frames, "held_out_frames": held_out})
        return train_tokenizer(config, training, loss, frames, held_out, *rest)

    def world_model(model, training, objective, source, process, out, validation, **rest):
        seen[-1] |= {"episodes": source.at(0), "held_out": validation.dataset}
        return train_world_model(model, training, objective, source, process, out, validation, **rest)

    monkeypatch.setattr(pipeline, "train_tokenizer", tokenizer)
    monkeypatch.setattr(pipeline, "train_world_model", world_model)
    return seen


def test_a_run_learns_mirror_images_and_is_scored_without(tmp_path, learnt, capsys):
    store = recorded(tmp_path / "store")
    for mirror in (False, True):
        options = RunOptions(tmp_path / f"run-{mirror}", store, device="cpu", tensorboard=False)
        assert run_experiment(experiment(mirror), options) is not None
        said = "3 episodes to train on with their mirror images" if mirror else "3 episodes to train on, 2"
        assert said in capsys.readouterr().out
    plain, mirrored = learnt
    assert (plain["episodes"].num_episodes, mirrored["episodes"].num_episodes) == (3, 6)
    assert plain["held_out"].num_episodes == mirrored["held_out"].num_episodes == 2
    for name in ("actions", "proprio", "reward"):
        held_out = (getattr(run["held_out"], name) for run in learnt)
        assert torch.equal(*held_out), name
    assert torch.equal(plain["held_out_frames"], mirrored["held_out_frames"])
    changed = (plain["frames"] != mirrored["frames"]).flatten(1).any(1)
    assert 4 <= int(changed.sum()) <= 6  # half of twelve, less what may look the same in a mirror
    assert torch.equal(mirrored["frames"][changed].flip(2), plain["frames"][changed])


def test_a_run_of_before_mirror_images_goes_on(tmp_path, learnt):
    options = RunOptions(tmp_path / "run", recorded(tmp_path / "store"), device="cpu", tensorboard=False)
    run_experiment(experiment(False), options)
    path = options.out / "experiment.json"
    settings = json.loads(path.read_text())
    assert settings["experiment"]["data"].pop("mirror") is False
    path.write_text(json.dumps(settings))
    run_experiment(experiment(False), options)
    with pytest.raises(UserError, match="data.mirror was False and is now True"):
        run_experiment(experiment(True), options)


def test_what_cannot_be_mirrored_is_refused_before_anything_is_trained(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"--data.mirror needs recorded episodes \(--store\)"):
        run_experiment(experiment(True), RunOptions(out, device="cpu"))
    cue = recorded(tmp_path / "cue", "lssvwm/RaycastMaze-Cue-v0", cue_delay=16)
    with pytest.raises(UserError, match="leave out --data.mirror: .* must not have the cue task"):
        run_experiment(experiment(True), RunOptions(out, cue, device="cpu"))
    assert not out.exists()


@pytest.mark.parametrize("mirror", [False, True])
def test_the_loop_fits_its_model_to_mirror_images_where_asked(tmp_path, monkeypatch, mirror):
    config = RefreshConfig("maze-debug", episodes=4, num_envs=4, mirror=mirror)
    fitted = []
    monkeypatch.setattr(model_refresh, "run_experiment", lambda *given: fitted.append(given))
    fit_model(recorded(tmp_path / "store"), tmp_path / "fit", None, config, "cpu", 0.0, False)
    assert [given[0].data.mirror for given in fitted] == [mirror]


def test_the_loop_refuses_before_it_collects(tmp_path):
    config = RefreshConfig("maze-debug", mirror=True)
    for env_id, rule in (
        ("lssvwm/RaycastMaze-Cue-v0", "cue task"),
        ("lssvwm/PointMaze-UMaze-v0", "left and right are alike"),
    ):
        with pytest.raises(UserError, match=f"leave out --refresh.mirror: .*{rule}"):
            collect_episodes(tmp_path / "real", env_id, config, 0, None)
        with pytest.raises(UserError, match=f"leave out --refresh.mirror: .*{rule}"):
            PolicyRun(PolicyRecipe(), PolicyRunOptions(tmp_path / "run", env=env_id, refresh=config))
    assert not list(tmp_path.iterdir())


def test_the_loop_collects_no_mirror_images(tmp_path):
    env_kwargs = json.dumps({"max_episode_steps": 6})
    config = RefreshConfig("maze-debug", episodes=2, num_envs=2, env_kwargs=env_kwargs, mirror=True)
    store = collect_episodes(tmp_path / "real", "lssvwm/RaycastMaze-7x7-v0", config, 0, None)
    assert isinstance(store, EpisodeStore) and store.num_episodes == 2
