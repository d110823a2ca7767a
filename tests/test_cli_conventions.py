"""Flags that several commands have mean the same in each."""

import dataclasses
import importlib
import inspect
import json
import shlex
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import lssvwm_agents.envs  # noqa: F401  (registers the ids)
from lssvwm_agents import cli
from lssvwm_agents.commands.train import TrainArgs, with_seed
from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.recipes import maze_debug
from lssvwm_agents.trainers.store_fit import check_store, with_store
from lssvwm_agents.trainers.suggestion import fitting_recipe, suggest_next

WITHOUT = {
    "json": {"play"},  # a page, until somebody ends it
    "seed": {
        *("doctor", "report", "data info", "data convert", "data merge", "data preview"),  # nothing is drawn
        "compare",  # --seeds of the trainings, --evaluation-seed
    },
    "device": {
        *("report", "data info", "data convert", "data merge", "data preview"),  # no model computes
        "bench planners",  # one thread of the processor, for the sake of comparison
    },
}
"""Commands without a flag, and why."""


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: " ".join(command.words))
def test_common_flags_mean_the_same(command, capsys: pytest.CaptureFixture[str]) -> None:
    name = " ".join(command.words)
    module = importlib.import_module(command.module)
    fields = {one.name: one for one in dataclasses.fields(cli.argument_class(module))}
    for flag, exceptions in WITHOUT.items():
        assert (flag in fields) != (name in exceptions), f"{name}: --{flag}"
    with pytest.raises(SystemExit):
        cli.execute([*command.words, "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    if "json" in fields:
        assert fields["json"].type == "Path | None" and fields["json"].default is None
        assert "File for the result" in text or "File for the findings" in text
    if "seed" in fields:
        assert fields["seed"].type.startswith("int") and "ames" in text or "Of the maze" in text
    if "device" in fields:
        assert fields["device"].type == "str" and fields["device"].default in ("cpu", "auto")
        assert "cpu or cuda" in text
    assert "Next: " in inspect.getsource(module.run), f"{name} does not say what to try next"


def test_a_record_says_what_made_it_and_where_the_output_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = tmp_path / "store", tmp_path / "record.json"
    env = ["--env", "lssvwm/RaycastMaze-7x7-v0", "--env-kwargs", '{"max_episode_steps": 8}']
    told = {
        store: ["collect", *env, "--episodes", "2"],
        tmp_path / "copy": ["data", "convert", str(store)],
        tmp_path / "both": ["data", "merge", str(store), str(store)],
        tmp_path / "look": ["data", "preview", str(store), "--columns", "3"],
    }
    for out, words in told.items():
        monkeypatch.setattr("sys.argv", ["/somewhere/lssvwm", *words])
        assert cli.main([*words, "--out", str(out), "--json", str(record)]) == 0
        made = json.loads(record.read_text())
        assert made["out"] == str(out) and out.is_dir()
        assert made["command"] == shlex.join(["lssvwm", *words])
        assert {"commit", "device", "versions"} <= set(made) and made["episodes"] == (
            4 if out.name == "both" else 2
        )
        assert words[0] == "data" or made["seed"] == 0
        assert words[1] != "preview" or all(Path(made[name]).is_file() for name in ("sheet", "film"))
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].startswith("Next: ") and f"Written to {record}." in lines
        record.unlink()


def store_of(path: Path, lengths: list[int], **spec) -> EpisodeStore:
    size = spec.pop("size", 64)
    made = StoreSpec(frame_shape=(size, size, 3), **{"env_id": "", "num_actions": 3, **spec})
    with EpisodeStore.create(path, made) as store:
        for seed, length in enumerate(lengths):
            store.append(
                Episode(
                    frames=np.zeros((length, size, size, 3), np.uint8),
                    actions=np.zeros((length, *made.action_shape), made.action_dtype),
                    rewards=np.zeros(length, np.float32),
                    terminated=np.zeros(length, bool),
                    truncated=np.arange(length) == length - 1,
                    proprio=np.zeros((length, made.proprio_dim), np.float32),
                    seed=seed,
                )
            )
    return store


@pytest.mark.parametrize(
    ("lengths", "spec", "recipe"),
    [
        ([300] * 3, {"env_id": "lssvwm/RaycastMaze-9x9-v0", "proprio_dim": 4, "num_actions": 6}, "maze-tiny"),
        ([260, 90, 30], {"env_id": "lssvwm/MiniGrid-MemoryS13-v0", "proprio_dim": 4}, "minigrid-memory"),
        ([52] * 70, {"env_id": "lssvwm/MiniGrid-MemoryS13-v0", "proprio_dim": 4}, "minigrid-memory"),
        ([52] * 3, {"env_id": "lssvwm/MiniGrid-MemoryS13-v0"}, "minigrid-memory"),
        ([260] * 3, {"env_id": "lssvwm/MiniGrid-FourRooms-v0", "proprio_dim": 4}, "maze-tiny"),
        ([300] * 3, {"env_id": "lssvwm/MemoryMaze-11x11-v0", "proprio_dim": 4}, "memory-maze-9x9"),
        ([300] * 3, {"env_id": "lssvwm/MemoryMaze-9x9-v0"}, "memory-maze-9x9"),
        ([48] * 12, {"env_id": "lssvwm/RaycastMaze-Cue-v0", "proprio_dim": 4}, "memory-cue"),
        (
            [61] * 3,
            {"env_id": "lssvwm/PointMaze-UMaze-v0", "proprio_dim": 4, "num_actions": 0, "action_shape": (2,)}
            | {"action_dtype": "float32"},
            "point-maze",
        ),
        ([13, 11], {"env_id": "lssvwm/PointMaze-UMaze-v0", "proprio_dim": 4}, "point-maze"),
        ([200] * 3, {"env_id": "CartPole-v1", "proprio_dim": 4}, "maze-tiny"),
        ([500] * 3, {"env_id": "Pendulum-v1", "proprio_dim": 3}, "maze-tiny"),
        ([9, 70, 17], {"env_id": "somewhere:Slider-v0"}, "maze-tiny"),
    ],
)
def test_a_store_is_followed_by_a_training_that_takes_it(
    tmp_path: Path, lengths: list[int], spec: dict, recipe: str
) -> None:
    store = store_of(tmp_path / "a store", lengths, **spec)
    words = shlex.split(suggest_next(store))
    assert words[:2] == ["lssvwm", "train"] and recipe == fitting_recipe(store.spec.env_id)
    _, args = cli.parse_command(words[1:])
    assert isinstance(args, TrainArgs) and (args.recipe, args.store) == (recipe, store.path)
    check_store(store, with_store(args.experiment, store))


@pytest.mark.parametrize(
    ("lengths", "size", "words"),
    [([30, 30], 16, "--frame-size 64"), ([300], 64, "more episodes"), ([300, 7], 64, "longer episodes")],
)
def test_what_no_training_takes_is_told(tmp_path: Path, lengths: list[int], size: int, words: str) -> None:
    assert words in suggest_next(store_of(tmp_path / "store", lengths, size=size))


def test_collect_writes_what_it_made_and_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["collect", "--env", "lssvwm/RaycastMaze-Cue-v0", "--episodes", "2", "--out", str(tmp_path / "s")]
    told += ["--env-kwargs", '{"cue_delay": 16}', "--json", str(tmp_path / "made.json")]
    assert cli.main(told) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert (made["episodes"], made["seeds"], made["env_kwargs"]) == (2, [0, 1], {"cue_delay": 16})
    assert made["versions"] and "command" in made
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Next: lssvwm train --recipe memory-cue --store")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env", "CartPole-v1"], "plays on cpu"),
        (["--env", "lssvwm/RaycastMaze-7x7-v0", "--processes"], "in processes plays on cpu"),
        pytest.param(
            ["--env", "lssvwm/RaycastMaze-7x7-v0"],
            "needs a CUDA device",
            marks=pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a device is there"),
        ),
    ],
)
def test_collect_refuses_a_device_it_would_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert cli.main(["collect", *flags, "--device", "cuda", "--out", str(tmp_path / "s")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "s").exists()


@pytest.mark.gpu
def test_collect_plays_the_same_episodes_on_cuda(tmp_path: Path) -> None:
    told = ["collect", "--env", "lssvwm/RaycastMaze-7x7-v0", "--policy", "explorer", "--episodes", "3"]
    told += ["--env-kwargs", '{"max_episode_steps": 30}']
    for device in ("cpu", "cuda"):
        assert cli.main([*told, "--device", device, "--out", str(tmp_path / device)]) == 0
    one, other = (EpisodeStore.open(tmp_path / device) for device in ("cpu", "cuda"))
    assert one.spec == other.spec
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine.actions, theirs.actions) and np.array_equal(mine.rewards, theirs.rewards)
        assert np.abs(mine.frames.astype(int) - theirs.frames.astype(int)).mean() < 0.1


def test_seed_names_all_that_is_random_in_a_training() -> None:
    seeded = with_seed(maze_debug(), 7)
    assert (seeded.tokenizer_training.seed, seeded.training.seed) == (7, 7)
    assert seeded.model == maze_debug().model
    _, args = cli.parse_command(["train", "--out", "x", "--recipe", "maze-debug", "--seed", "7"])
    assert isinstance(args, TrainArgs) and args.seed == 7


def test_an_environment_of_the_working_folder_is_found(tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    (tmp_path / "here_envs.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Here-v0', CartPoleEnv, max_episode_steps=9)\n"
    )
    told = ["collect", "--env", "here_envs:Here-v0", "--episodes", "2", "--out", "store", "--frame-size", "8"]
    assert cli.main(told) == 0
    assert EpisodeStore.open("store").spec.env_id == "here_envs:Here-v0" and "Here-v0" in gymnasium.registry
    del gymnasium.registry["Here-v0"]
