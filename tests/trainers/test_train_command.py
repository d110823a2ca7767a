"""The train command as users run it: in processes of its own, killed, resumed, shared by two."""

import json
import socket
import time

import pytest
import torch
from separate_processes import lssvwm, start_lssvwm

FLAGS = [
    *("train", "--recipe", "maze-debug", "--device", "cpu", "--no-tensorboard"),
    *("--data.num-envs", "8", "--data.episode-length", "24"),
    *("--tokenizer-training.updates", "4", "--tokenizer-training.num-frames", "64"),
    *("--tokenizer-training.num-validation-frames", "8", "--tokenizer-training.log-every", "1"),
    *("--training.updates", "12", "--training.log-every", "1", "--training.checkpoint-every", "3"),
    *("--training.num-validation-episodes", "2", "--training.validation-context", "6"),
    *("--training.validation-horizon", "2", "--data.refresh-every", "5"),
    *("--objective.rollout-weight", "0.3", "--training.rollout-start", "0.5", "--training.compact-weights"),
]


def command(out, *more):
    return [*FLAGS, "--out", str(out), *more]


def run(words):
    done = lssvwm(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(out, phase="world_model"):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["update"]: line["loss"] for line in lines if line["phase"] == phase and "loss" in line}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    text = run(command(out, "--json", str(out / "result.json"), "--seed", "0"))
    assert text.splitlines()[-3].endswith(f"weights: {out / 'model'}")
    result = json.loads((out / "result.json").read_text())
    assert (result["recipe"], result["seed"], result["last_validation"]["update"]) == ("maze-debug", 0, 12)
    assert text.splitlines()[-1].startswith(f"Next: `lssvwm report {out}`")
    return out


def test_rollouts_begin_when_they_are_told_to(uninterrupted):
    lines = [json.loads(line) for line in (uninterrupted / "log.jsonl").read_text().splitlines()]
    with_rollouts = [line["update"] for line in lines if "loss/rollout_denoising" in line]
    assert with_rollouts == list(range(7, 13))


def test_compact_weights_are_saved_in_half_precision(uninterrupted):
    from safetensors.torch import load_file

    weights = load_file(uninterrupted / "model" / "model.safetensors")
    assert weights["backbone.embed.weight"].dtype == torch.bfloat16
    assert weights["backbone.embed.bias"].dtype == torch.float32


def test_a_run_leaves_weights_log_and_settings(uninterrupted):
    from lssvwm_agents.weights import load_model

    found = losses(uninterrupted)
    assert list(found) == list(range(1, 13)) and list(losses(uninterrupted, "tokenizer")) == [1, 2, 3, 4]
    model = load_model(uninterrupted)
    assert model.config.env_id == "lssvwm/RaycastMaze-7x7-v0" and model.config.action_dim == 6
    assert json.loads((uninterrupted / "experiment.json").read_text())["experiment"]["name"] == "maze-debug"
    last = [json.loads(line) for line in (uninterrupted / "log.jsonl").read_text().splitlines()][-1]
    for name in ("val/loss", "val/imagined_psnr", "val/copy_last_psnr", "val/recall_mse"):
        assert last[name] == last[name], name
    state, _ = model.observe(model.initial_state(1), torch.rand(1, 3, 3, 64, 64), torch.zeros(1, 3, 6))
    assert model.step(state, torch.zeros(1, 6))[1].reward.isfinite().all()


def test_killed_and_resumed_equals_uninterrupted(uninterrupted, tmp_path):
    out = tmp_path / "killed"
    process = start_lssvwm(*command(out))
    checkpoints = out / "checkpoints" / "world_model"
    give_up = time.monotonic() + 240
    while not (checkpoints / "latest").is_file():
        assert process.is_alive() and time.monotonic() < give_up
        time.sleep(0.005)
    process.kill()
    process.join()
    assert not (out / "model" / "config.json").is_file()
    run(command(out))
    assert losses(out) == losses(uninterrupted)
    ours, theirs = ((folder / "model" / "model.safetensors").read_bytes() for folder in (out, uninterrupted))
    assert ours == theirs


def test_two_processes_equal_one(uninterrupted, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # by torchrun
    processes = [
        start_lssvwm(*command(tmp_path / "two"), RANK=str(rank), LOCAL_RANK=str(rank), **given)
        for rank in range(2)
    ]
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    one, two = losses(uninterrupted), losses(tmp_path / "two")
    assert list(one) == list(two)
    torch.testing.assert_close(list(two.values()), list(one.values()), rtol=0, atol=1e-4)


def test_a_store_trains_a_model_for_its_environment(tmp_path):
    from lssvwm_agents.weights import load_model

    store, out = tmp_path / "store", tmp_path / "run"
    collect = ["collect", "--env", "lssvwm/RaycastMaze-7x7-v0", "--out", str(store), "--policy", "explorer"]
    collect += ["--episodes", "4", "--num-envs", "4", "--env-kwargs", '{"max_episode_steps": 20}']
    run(collect)
    shorter = ["--tokenizer-training.updates", "2", "--training.updates", "2"]
    said = run(command(out, "--store", str(store), *shorter))
    assert "warning: only 0 % of the frames are followed by enough of their episode for a value" in said
    assert len(list((out / "latents").iterdir())) == 2
    done = lssvwm(*command(tmp_path / "other", "--store", str(store), "--training.curriculum", "0", "64"))
    assert done.returncode == 2 and "frames of the longest window, got one of 21" in done.stderr
    assert not (tmp_path / "other" / "tokenizer").exists()  # told before anything is trained
    config = load_model(out).config
    assert config.env_id == "lssvwm/RaycastMaze-7x7-v0" and "max_episode_steps" in config.env_kwargs_json
    assert losses(out).keys() == {1, 2}


def test_flags_override_the_recipe_they_name():
    from lssvwm_agents.commands.train import parse
    from lssvwm_agents.errors import UserError

    words = ["--recipe", "maze-debug", "--out", "x", "--maze.size", "9"]
    words += ["--training.curriculum", "0", "8", "0.5", "16"]
    args = parse(words, "lssvwm train")
    assert args.experiment.maze.size == 9 and args.experiment.data.num_envs == 16
    assert args.experiment.training.curriculum == ((0.0, 8), (0.5, 16))
    assert parse(["--out", "x"], "lssvwm train").experiment.name == "maze-tiny"
    with pytest.raises(UserError, match="There is no recipe `maze-huge`: choose one of maze-tiny"):
        parse(["--recipe=maze-huge", "--out", "x"], "lssvwm train")


def test_another_recipe_in_the_same_folder_is_refused(uninterrupted):
    done = lssvwm(*command(uninterrupted, "--training.learning-rate", "0.5"))
    assert done.returncode == 2
    assert "training.learning_rate was 0.003 and is now 0.5" in done.stderr and "Traceback" not in done.stderr
