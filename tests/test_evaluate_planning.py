import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from lssvwm_agents import cli
from lssvwm_agents.data.collect import CollectConfig
from lssvwm_agents.data.online import maze_seeds
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate import planning
from lssvwm_agents.evaluate.contenders import SCRIPTED, play_planner, play_scripted
from lssvwm_agents.evaluate.environments import make_envs
from lssvwm_agents.evaluate.mazes import HeldRandom, episode_seeds, look_around, make_mazes, maze_of
from lssvwm_agents.evaluate.planner_options import PlannerOptions
from lssvwm_agents.evaluate.planning import evaluate_planning, summary
from lssvwm_agents.report import file_sha256
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

ENV_ID = "lssvwm/RaycastMaze-7x7-v0"
QUICK = PlannerOptions(
    horizon=2, action_repeat=2, num_samples=4, num_elites=2, num_iterations=1, replan_every=2
)
FLAGS = "--planner.horizon 2 --planner.action-repeat 2 --planner.num-samples 4 --planner.num-elites 2".split()
FLAGS += "--planner.num-iterations 1 --planner.replan-every 2".split()


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(channels=(8, 8, 8), latent_channels=4, num_residual_blocks=0),
        backbone=BackboneConfig(
            width=32, conditioning_width=16, block_sizes=(2, 1), head_dim=16, state_dim=16
        ),
        env_id=ENV_ID,
    )
    return WorldModel(config).eval()


@pytest.fixture(scope="module")
def saved(model: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


def test_summary_of_known_scores() -> None:
    result = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert result["mean"] == 3.0 and result["episodes"] == [1, 2, 3, 4, 5] and result["num_episodes"] == 5
    assert result["ci95"] == pytest.approx([3 - 1.96324, 3 + 1.96324], abs=1e-4)


def test_seeds_differ_between_evaluations_and_are_no_training_seeds() -> None:
    a, b = episode_seeds(0, 50), episode_seeds(1, 50)
    assert len({*a, *b}) == 100 and min(*a, *b) >= 2**31 and max(*a, *b) < 2**32
    CollectConfig(env=ENV_ID, seed=2**31 - 10, episodes=10)
    with pytest.raises(UserError, match="`seed` must be in"):
        CollectConfig(env=ENV_ID, seed=2**31 - 10, episodes=11)
    assert int(maze_seeds(0, 8, "cpu").min()) >= 2**40
    assert episode_seeds(0, 10) == a[:10]


def test_looking_around_is_the_same_whoever_watches(model: WorldModel) -> None:
    from lssvwm_agents.evaluate.planner_options import make_planning_agent

    seeds = episode_seeds(3, 2)
    ends = []
    for watched in (False, True):
        env = make_mazes(ENV_ID, 2, 20, {"observation": "dict"})
        agent = make_planning_agent(model, QUICK, env.single_action_space, 2) if watched else None
        observation, carry = look_around(env, seeds, 12, agent, agent.initial_carry(2) if agent else None)
        ends.append((observation["frame"], maze_of(env)[1]))
        if carry is not None:
            assert carry.frames_seen == 12 and carry.stats.plans == 0
    assert np.array_equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1].position, ends[1][1].position)


def test_held_random_holds_each_action() -> None:
    from lssvwm_agents.envs import make_policy

    env = make_mazes(ENV_ID, 3, 20, {})
    env.reset(seed=0)
    config, state = maze_of(env)
    policy = HeldRandom(make_policy("random", config), 4)
    carry, actions = policy.initial_carry(torch.arange(3), "cpu"), []
    for _ in range(12):
        action, carry = policy.act(state, carry)
        actions.append(action)
    held = torch.stack(actions).view(3, 4, 3)
    assert bool((held == held[:, :1]).all())
    assert len(held[:, 0].unique()) > 1


def test_result_has_every_key_and_repeats(model: WorldModel) -> None:
    run = dict(look_around_moves=4, steps=6, options=QUICK, progress=False)
    result = evaluate_planning(model, None, 3, 5, envs_at_once=2, **run)
    for name in ("planner", *SCRIPTED):
        assert len(result[name]["episodes"]) == 3
        low, high = result[name]["ci95"]
        assert low <= result[name]["mean"] <= high
    assert result["imagined_frames"] == 3 * 3 * 4 * 4  # plans, rows, samples, moves
    assert result["imagined_frames_per_second"] > 0
    assert result["seeds"] == episode_seeds(5, 3)
    again = evaluate_planning(model, None, 3, 5, envs_at_once=2, **run)
    for name in ("planner", *SCRIPTED):
        assert again[name] == result[name]
    cut = evaluate_planning(model, None, 1, 5, memory_frames=2, **run)
    assert cut["memory_cut"] == 2
    assert list(cut["planners"]) == ["cem/last 2"]


def test_all_planners_play_the_same_mazes(model: WorldModel) -> None:
    run = dict(look_around_moves=4, steps=2, options=QUICK, progress=False, other_model=model)
    names = ("random_shooting", "icem", "mppi", "gradient", "categorical_cem")
    result = evaluate_planning(model, None, 2, 5, planners=names, **run)
    labels = [label for name in names for label in (name, f"{name}/other model")]
    assert list(result["planners"]) == labels
    for label in labels:
        entry = result["planners"][label]
        apart = np.subtract(entry["episodes"], result["random"]["episodes"])
        assert entry["minus_random"]["episodes"] == apart.tolist()
        assert entry["imagined_frames"] > 0
    assert result["planner"]["episodes"] == result["planners"]["random_shooting"]["episodes"]
    with pytest.raises(ValueError, match="`planners` must name each planner once, got cem, cem"):
        evaluate_planning(model, planners=("cem", "cem"))


def test_command_writes_the_result_of_record(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "planning.json"
    words = f"evaluate planning --model {saved} --episodes 2 --seed 1 --look-around 3 --steps 4 --json {out}"
    assert cli.main([*words.split(), *FLAGS]) == 0
    result = json.loads(out.read_text())
    required = (
        "planner random explorer oracle imagined_frames_per_second seeds model_sha256 command commit device"
    )
    assert set(required.split()) <= set(result)
    assert result["model_sha256"] == file_sha256(saved / "model.safetensors")
    assert result["planner_config"]["num_samples"] == 4
    assert "95 % interval" in capsys.readouterr().out


def test_a_killed_evaluation_goes_on_where_it_stopped(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"evaluate planning --model {saved} --episodes 1 --look-around 3 --steps 9 "
    words += "--planners cem mppi --json "
    whole, out = tmp_path / "whole.json", tmp_path / "planning.json"
    kept = tmp_path / "planning.partial.json"
    assert cli.main([*(words + str(whole)).split(), *FLAGS]) == 0
    played: list[str] = []
    stop_after = 1

    def planner_plays(env, seeds, agent, *more, **named):  # type: ignore[no-untyped-def]
        if len(played) >= len(SCRIPTED) + stop_after:
            raise KeyboardInterrupt
        played.append(type(agent.planner).__name__)
        return play_planner(env, seeds, agent, *more, **named)

    def script_plays(env, seeds, name, *more, **named):  # type: ignore[no-untyped-def]
        played.append(name)
        return play_scripted(env, seeds, name, *more, **named)

    monkeypatch.setattr(planning, "play_planner", planner_plays)
    monkeypatch.setattr(planning, "play_scripted", script_plays)
    assert cli.main([*(words + str(out)).split(), *FLAGS]) == 130
    assert kept.is_file() and not out.exists()
    stop_after = 99
    assert cli.main([*(words + f"{out} --seed 5").split(), *FLAGS]) == 2
    assert "other settings: seed was 0 and is now 5" in capsys.readouterr().err
    assert cli.main([*(words + str(out)).split(), *FLAGS]) == 0
    assert not kept.exists() and played == [*SCRIPTED, "CEM", "MPPI"]
    one, other = (json.loads(file.read_text()) for file in (whole, out))
    for name in SCRIPTED:
        assert one[name] == other[name]
    for name in ("cem", "mppi"):
        assert one["planners"][name]["episodes"] == other["planners"][name]["episodes"]
        assert one["planners"][name]["imagined_frames"] == other["planners"][name]["imagined_frames"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--model runs/no-such-model", "There is no world model `runs/no-such-model`"),
        ("--env lssvwm/RaycastMaze-9x9-v0", "was trained for lssvwm/RaycastMaze-7x7-v0"),
        ("--env lssvwm/NoSuchMaze-v0 --allow-other-env", "there is no environment"),
        ("--env lssvwm/RaycastMaze-7x7-Continuous-v0 --allow-other-env", "acts in Discrete(6)"),
        ("--episodes 0", "`episodes` must be at least 1, got 0"),
        ("--planner.num-elites 99", "num_elites"),
    ],
)
def test_mistakes_get_one_sentence(
    saved: Path, words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--model" in words else ["--model", str(saved)]
    assert cli.main(["evaluate", "planning", *model, "--steps", "2", *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_only_mazes_can_be_evaluated() -> None:
    with pytest.raises(ValueError, match="is no RaycastMaze"):
        make_mazes("CartPole-v1", 1, 10, {})
    assert isinstance(make_mazes(ENV_ID, 1, 10, {}), gymnasium.vector.VectorEnv)


def test_a_model_trained_on_short_episodes_is_scored_over_as_many_moves_as_asked() -> None:
    env = make_mazes(ENV_ID, 2, 30, {"max_episode_steps": 5})
    env.reset(seed=episode_seeds(0, 2))
    for _ in range(30):
        *_, truncated, _ = env.step(np.zeros(2, dtype=np.int64))
        assert not truncated.any()
    assert env.step(np.zeros(2, dtype=np.int64))[3].all()


def test_an_environment_that_does_not_take_the_models_arguments_is_refused() -> None:
    with pytest.raises(ValueError, match="CartPole-v1 does not take the arguments {'observation': 'dict'}"):
        make_envs("CartPole-v1", 2, {"observation": "dict"})
