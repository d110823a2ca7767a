"""Whole small runs of ``train-policy``: fixed model, the loop, stable-baselines3, resuming."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from lssvwm_agents.commands.train_policy import TrainPolicyArgs
from lssvwm_agents.commands.train_policy import run as run_command
from lssvwm_agents.data.collect import CollectConfig, collect
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.policy import compare, evaluate_policy, growing_gap
from lssvwm_agents.evaluate.policy_play import Played
from lssvwm_agents.policies.actor_critic import load_policy
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.actors import SquashedNormal, _quadrature
from lssvwm_agents.policies.sure_rewards import sure_reward
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers.going_on import GoingOn
from lssvwm_agents.trainers.model_refresh import RefreshConfig
from lssvwm_agents.trainers.policy_algorithms import World
from lssvwm_agents.trainers.policy_config import (
    PolicyEvaluationConfig,
    PolicyRecipe,
    PolicyTrainingConfig,
    SB3Config,
    StartsConfig,
)
from lssvwm_agents.trainers.policy_run import PolicyRun, PolicyRunOptions, run_policy
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

MAZE, BOXED = "lssvwm/RaycastMaze-7x7-v0", "lssvwm/RaycastMaze-7x7-Continuous-v0"


def recipe(**starts):
    return PolicyRecipe(
        hidden=16,
        num_layers=1,
        training=PolicyTrainingConfig(updates=3, horizon=4, starts=4, forks=2, log_every=1),
        starts=StartsConfig(
            **{
                "policies": ("explorer", "held_random"),
                "context_frames": (3, 5),
                "pool": 4,
                "block": 2,
                "refresh_every": 2,
                "streams": 3,
                **starts,
            }
        ),
        evaluation=PolicyEvaluationConfig(
            episodes=2, look_around=2, steps=9, horizon=4, futures=2, film=False
        ),
        sb3=SB3Config(
            steps=32, num_envs=4, batch_size=16, n_steps=8, n_epochs=1, learning_starts=8, buffer_size=64
        ),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained world models of the mazes with discrete and with continuous actions, on disk."""
    found = {}
    for env_id in (MAZE, BOXED):
        torch.manual_seed(0)
        discrete = env_id == MAZE
        config = WorldModelConfig(
            tokenizer=TokenizerConfig(channels=(8, 8, 8), latent_channels=4, num_residual_blocks=0),
            backbone=BackboneConfig(
                width=16, conditioning_width=8, block_sizes=(2, 1), head_dim=8, state_dim=8, place_features=8
            ),
            odometry="pose",
            env_id=env_id,
            action_dim=6 if discrete else 2,
            discrete_actions=discrete,
        )
        model = WorldModel(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
        folder = tmp_path_factory.mktemp("models") / ("discrete" if discrete else "continuous")
        model.save_pretrained(folder)
        found[env_id] = str(folder)
    return found


def options(out, **more):
    return PolicyRunOptions(out, device="cpu", **{"iterations": 1, "controls": False, **more})


def weights(out):
    return dict(load_policy(out).actor.named_parameters())


def test_a_run_leaves_policy_evaluations_film_and_log(tmp_path, models, capsys):
    filmed = recipe()
    filmed = dataclasses.replace(filmed, evaluation=dataclasses.replace(filmed.evaluation, film=True))
    out = tmp_path / "run"
    told = TrainPolicyArgs(
        out,
        model=models[MAZE],
        iterations=1,
        device="cpu",
        seed=7,
        json=tmp_path / "made.json",
        recipe=filmed,
    )
    run_command(told)
    assert "Next: `lssvwm evaluate policy" in capsys.readouterr().out.splitlines()[-1]
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["finished"] and made["seed"] == 7 and made["out"] == str(out)
    assert {"command", "commit", "device", "versions"} <= set(made)
    seeded = json.loads((out / "experiment.json").read_text())["recipe"]
    assert seeded["training"]["seed"] == 7
    policy = load_policy(out)
    assert policy.config.env_id == MAZE and policy.config.world_model == models[MAZE]
    result = json.loads((out / "evaluations" / "000.json").read_text())
    assert len(result["policy"]["episodes"]) == 2 and result["oracle"]["mean"] >= 0
    assert made["last_evaluation"] == result and made["scores"][0]["mean"] == result["policy"]["mean"]
    compared = result["imagined_against_real"]
    assert compared["num_windows"] == 4 and compared["spread"] > 0
    assert (out / "evaluations" / "000.mp4").stat().st_size > 1000
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["phase"] == "policy"]
    assert [line["update"] for line in trained] == [1, 2, 3] and "real_reward" in trained[0]
    assert [line["update"] for line in lines if line["phase"] == "evaluation"] == [3]
    assert any(path.name.startswith("events") for path in (out / "tensorboard").iterdir())
    for settings in (recipe(pool=8), dataclasses.replace(filmed, hidden=8)):
        with pytest.raises(UserError, match="other settings"):
            PolicyRun(settings, options(out, model=models[MAZE]))


def test_a_fixed_model_may_imagine_from_recorded_episodes_and_be_judged_elsewhere(tmp_path, models):
    collect(CollectConfig(MAZE, "explorer", 4, 4, env_kwargs={"max_episode_steps": 8}), tmp_path / "store")
    small = recipe(streams=0)
    small = dataclasses.replace(
        small, evaluation=dataclasses.replace(small.evaluation, env_kwargs='{"num_targets": 2}')
    )
    world = World(load_model(models[MAZE], "cpu"), "", tmp_path / "store", small)
    assert all(type(source).__name__ == "StoreContexts" for source in world.contexts())
    options = PolicyRunOptions(tmp_path / "run", model=models[MAZE], store=tmp_path / "store", iterations=1)
    assert run_policy(small, options)
    result = json.loads((tmp_path / "run/evaluations/000.json").read_text())
    assert result["env_kwargs"]["num_targets"] == 2 and result["streamed_frames"] == 0
    with pytest.raises(UserError, match="--store goes with --model"):
        run_policy(small, PolicyRunOptions(tmp_path / "other", env=MAZE, store=tmp_path / "store"))
    with pytest.raises(UserError, match="must be a JSON object"):
        PolicyEvaluationConfig(env_kwargs="[]")


def test_a_run_that_is_continued_is_the_run_made_at_once(tmp_path, models):
    plain = recipe(streams=0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_policy(plain, options(whole, model=models[MAZE], iterations=2, tensorboard=False))
    run_policy(plain, options(cut, model=models[MAZE], tensorboard=False))
    first = weights(cut)
    run_policy(plain, options(cut, model=models[MAZE], iterations=2, tensorboard=False))
    now = weights(cut)
    assert any(not torch.equal(first[name], now[name]) for name in first)
    for name, expected in weights(whole).items():
        assert torch.allclose(now[name], expected, atol=1e-6), name


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_one_batch_of_rollouts_serves_several_updates(tmp_path, models, gradient):
    reused = recipe()
    four = dataclasses.replace(reused.training, updates=4, reuse=2)
    reused = dataclasses.replace(reused, training=four, objective=ActorCriticObjective(gradient))
    out = tmp_path / "run"
    assert run_policy(reused, options(out, model=models[MAZE], tensorboard=False))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["phase"] == "policy"]
    earned = [line.get("imagined_return") for line in trained]
    if gradient == "dynamics":  # where the critic learns alone, nothing is imagined
        assert earned[0] != earned[2] and earned[1] is None is earned[3]
    else:
        assert earned[0] == earned[1] != earned[2] == earned[3]
    assert [line["frames_per_second"] > 0 for line in trained] == [True, False, True, False]
    result = json.loads((out / "evaluations" / "000.json").read_text())
    assert result["streamed_frames"] == 2 * 3 * 4
    with pytest.raises(UserError, match="`training.cuda_graph` needs a CUDA device, got cpu"):
        graphed = dataclasses.replace(four, cuda_graph=True)
        PolicyRun(
            dataclasses.replace(reused, training=graphed), options(tmp_path / "graphed", model=models[MAZE])
        )
    with pytest.raises(ValueError, match="`reuse` must divide `updates`=4, got 3"):
        dataclasses.replace(four, reuse=3)
    with pytest.raises(UserError, match="are of the actor-critic"):
        PolicyRun(reused, options(tmp_path / "other", algo="ppo", model=models[MAZE]))


def test_through_the_dynamics_the_actor_moves_once_a_batch(tmp_path, models):
    learnt = []
    for updates in (1, 3):
        objective = ActorCriticObjective("dynamics")
        training = dataclasses.replace(recipe().training, updates=updates, reuse=updates)
        one = dataclasses.replace(recipe(), training=training, objective=objective)
        out = tmp_path / str(updates)
        assert run_policy(one, options(out, model=models[MAZE], tensorboard=False))
        learnt.append(load_policy(out))
    once, thrice = learnt
    for name, weight in thrice.actor.state_dict().items():
        assert torch.equal(weight, once.actor.state_dict()[name]), name
    critics = zip(once.critic.parameters(), thrice.critic.parameters(), strict=True)
    assert any(not torch.equal(one, three) for one, three in critics)


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_rollouts_go_on_beside_recorded_starts_and_streams(tmp_path, models, gradient, monkeypatch):
    asked, kept, draw, keep = [], [], GoingOn.draw, GoingOn.keep

    def spied_draw(self, batch, starts):
        state, ages = draw(self, batch, starts)
        asked.append((batch, starts, ages.tolist()))
        return state, ages

    def spied_keep(self, ended, ages):
        assert (self._share, self._frames, self._horizon, self._seed) == (0.5, 9, 4, 7)
        kept.append((len(ended[1]), ages.tolist()))
        keep(self, ended, ages)

    monkeypatch.setattr(GoingOn, "draw", spied_draw)
    monkeypatch.setattr(GoingOn, "keep", spied_keep)
    one = recipe(streams=3, go_on_share=0.5, go_on_frames=9)
    training = dataclasses.replace(one.training, seed=7)
    one = dataclasses.replace(one, training=training, objective=ActorCriticObjective(gradient, truncation=2))
    run = PolicyRun(one, options(tmp_path / "run", model=models[MAZE], tensorboard=False))
    assert run._improver(0).improve(0, None)
    assert asked == [(0, 2, []), (1, 2, [4]), (2, 2, [4])]  # of four starts two are the streams'
    assert kept == [(8, [0, 0, 0, 0]), (8, [0, 0, 0, 4]), (8, [0, 0, 0, 4])]


def test_settings_of_the_actor_critic_are_refused_to_others(tmp_path, models):
    coloured = dataclasses.replace(recipe(), training=PolicyTrainingConfig(noise_colour=1.0))
    for settings, told in ((recipe(go_on_share=0.5), "0.5 and 0.0"), (coloured, "0.0 and 1.0")):
        with pytest.raises(UserError, match=f"`training.noise_colour` are of the actor-critic.*{told}"):
            PolicyRun(settings, options(tmp_path / "run", algo="ppo", model=models[MAZE]))


def test_entropy_has_gradients_whoever_asked_for_it_first():
    def actions(mean):
        return SquashedNormal(mean, torch.ones(2, 3), -torch.ones(3), torch.ones(3))

    _quadrature.cache_clear()
    with torch.inference_mode():
        actions(torch.ones(2, 3)).entropy()
    mean = torch.ones(2, 3, requires_grad=True)
    actions(mean).entropy().sum().backward()
    assert (mean.grad < 0).all()


def learn(out, model, gradient, device, graph):
    """All that a policy is after four updates from two batches, without warmup."""
    one = recipe(streams=0, go_on_share=0.5, go_on_frames=8)
    training = dataclasses.replace(
        one.training, updates=4, reuse=2, warmup_updates=0, num_denoising_steps=2, cuda_graph=graph
    )
    objective = ActorCriticObjective(gradient, truncation=2, entropy_target=0.5)
    settings = dataclasses.replace(options(out, model=model, tensorboard=False), device=device)
    run = PolicyRun(dataclasses.replace(one, training=training, objective=objective), settings)
    assert run._improver(0).improve(0, None)
    return load_policy(out).state_dict()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("gradient", "env_id"), [("score_function", MAZE), ("dynamics", MAZE), ("dynamics", BOXED)]
)
def test_captured_updates_are_the_eager_ones(tmp_path, models, gradient, env_id):
    """Critic, slow critic, scale and entropy weight too; four updates move a weight by some 2e-3."""
    eager, captured = (
        learn(tmp_path / str(graph), models[env_id], gradient, "cuda", graph) for graph in (False, True)
    )
    assert eager["log_entropy_weight"].abs() > 5e-4, "it moved"
    for name, expected in eager.items():
        torch.testing.assert_close(captured[name], expected, atol=1e-4, rtol=1e-4, msg=name)


def test_a_stage_that_was_cut_off_is_done_again(tmp_path, models):
    out = tmp_path / "run"
    run = PolicyRun(recipe(), options(out, model=models[MAZE], tensorboard=False))
    run.deadline = 0.0
    assert not run.run()
    assert run_policy(recipe(), options(out, model=models[MAZE], tensorboard=False))
    assert json.loads((out / "state.json").read_text()) == {"iteration": 0, "stage": "evaluate"}


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_a_run_on_a_gpu(tmp_path, models, gradient):
    out = tmp_path / "run"
    one = dataclasses.replace(recipe(), objective=ActorCriticObjective(gradient, truncation=2))
    settings = options(out, model=models[MAZE], controls=True, iterations=2)
    assert run_policy(one, dataclasses.replace(settings, device="cuda"))
    assert len(json.loads((out / "evaluations" / "001.json").read_text())["policy"]["episodes"]) == 2


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_continuous_mazes_learn_by_either_gradient(tmp_path, models, gradient):
    one = dataclasses.replace(recipe(), objective=ActorCriticObjective(gradient, truncation=2))
    out = tmp_path / "run"
    assert run_policy(one, options(out, model=models[BOXED], tensorboard=False))
    moved = weights(out)["mlp.last.weight"]
    assert moved.isfinite().all() and moved.abs().sum() > 0


@pytest.mark.parametrize(("algo", "env_id"), [("ppo", MAZE), ("sac", BOXED)])
def test_stable_baselines_trains_in_imagination_and_is_judged_alike(tmp_path, models, algo, env_id):
    pytest.importorskip("stable_baselines3")
    out = tmp_path / "run"
    assert run_policy(recipe(), options(out, algo=algo, model=models[env_id], iterations=2))
    results = [json.loads((out / "evaluations" / f"00{i}.json").read_text()) for i in (0, 1)]
    assert [result["updates"] for result in results] == [32, 64]
    assert all(len(result["policy"]["episodes"]) == 2 for result in results)


def test_an_algorithm_for_other_actions_is_refused(tmp_path, models):
    with pytest.raises(UserError, match="--algo sac"):
        run_policy(recipe(), options(tmp_path / "run", algo="sac", model=models[MAZE]))
    with pytest.raises(UserError, match="--env"):
        run_policy(recipe(), options(tmp_path / "other"))


def test_the_whole_loop_collects_fits_improves_and_evaluates(tmp_path):
    out = tmp_path / "run"
    refresh = RefreshConfig(
        recipe="maze-debug",
        episodes=3,
        first_episodes=4,
        num_envs=2,
        env_kwargs=json.dumps({"max_episode_steps": 24}),
        first_updates=6,
        updates=4,
    )
    settings = options(out, env=MAZE, iterations=2, refresh=refresh, tensorboard=False)
    assert run_policy(recipe(), settings)
    from lssvwm_agents.data.store import EpisodeStore

    store = EpisodeStore.open(out / "episodes" / "all")
    seeds = sorted(store.seeds.tolist())
    assert seeds == [fold_in(0, 36) % 2**30 + i for i in range(7)]
    assert EpisodeStore.open(out / "episodes" / "001").spec.policy == str(out / "policy")
    first, second = (load_model(out / "models" / f"00{i}") for i in (0, 1))
    assert not torch.equal(first.heads.reward[0].weight, second.heads.reward[0].weight)
    result = json.loads((out / "evaluations" / "001.json").read_text())
    assert result["collected_frames"] == 7 * 25 and result["streamed_frames"] == 6 * 3 * 4
    policy = load_policy(out)
    with pytest.raises(ValueError, match="that it was trained in"):
        evaluate_policy(first, policy, recipe().evaluation, progress=False)


def window(imagined, real):
    played = Played(np.zeros(2), np.zeros(2), np.zeros(2))
    played.imagined, played.real = [np.array(imagined)], [np.array(real)]
    played.sure = [0.5 * played.imagined[0]]
    return played


def test_the_gap_is_imagined_less_real_return_of_the_same_moves():
    result = compare([window([1.0, 3.0], [0.5, 1.5]), window([2.0, np.nan], [2.0, np.nan])], 4)
    assert result["gap"]["episodes"] == [0.5, 1.5, 0.0]
    assert result["imagined"] == 2.0 and result["imagined_sure"] == 1.0
    assert result["real"] == pytest.approx(4 / 3)
    assert result["num_windows"] == 3 and compare([], 4) is None


def test_a_gap_that_grows_is_reported_and_one_that_does_not_is_not():
    def at(mean, half):
        return {"horizon": 8, "gap": {"mean": mean, "ci95": [mean - half, mean + half]}}

    assert growing_gap([at(0.5, 0.1)]) is None
    assert growing_gap([at(0.1, 0.1), at(0.25, 0.1)]) is None
    assert growing_gap([at(-0.5, 0.1), at(-0.1, 0.05)]) is None
    warning = growing_gap([at(0.1, 0.1), at(0.5, 0.1), at(0.6, 0.1)])
    assert warning is not None and "0.60 in 8 moves" in warning and "exploits" in warning


def test_a_policy_is_judged_alone_and_inside_a_planner(tmp_path, models, capsys):
    from lssvwm_agents.commands.evaluate_policy import EvaluatePolicyArgs, run
    from lssvwm_agents.evaluate.planner_options import PlannerOptions

    out = tmp_path / "run"
    run_policy(recipe(streams=0), options(out, model=models[MAZE], tensorboard=False))
    planner = PlannerOptions(horizon=2, action_repeat=2, num_samples=8, num_elites=2, replan_every=2)
    run(
        EvaluatePolicyArgs(
            out,
            json=tmp_path / "result.json",
            with_planner=True,
            num_proposals=3,
            evaluation=recipe().evaluation,
            planner=planner,
        )
    )
    result = json.loads((tmp_path / "result.json").read_text())
    for who in ("policy", "planner", "planner_with_policy", "random", "oracle"):
        assert len(result[who]["episodes"]) == 2, who
    assert "planner_with_policy" in capsys.readouterr().out
    again = evaluate_policy(load_model(models[MAZE]), load_policy(out), recipe().evaluation, progress=False)
    assert again["policy"] == result["policy"]


def test_agents_too_are_judged_by_the_episodes_that_end_by_themselves(tmp_path, models, monkeypatch):
    from lssvwm_agents.evaluate import policy as module

    run_policy(recipe(streams=0), options(tmp_path / "run", model=models[MAZE], tensorboard=False))
    ends = iter(([True, False], [True, True]))  # the policy plays first
    monkeypatch.setattr(
        module, "play", lambda *_: Played(np.ones(2), np.ones(2, np.int64), np.array(next(ends)))
    )
    model, policy = load_model(models[MAZE]), load_policy(tmp_path / "run")
    result = evaluate_policy(model, policy, recipe().evaluation, agents={"other": None}, progress=False)
    assert result["success_rate"] == result["policy"]["success_rate"] == 0.5
    assert result["other"]["success_rate"] == 1.0 and result["other"]["success_ci95"][0] < 0.5


def test_a_trained_policy_collects_episodes(tmp_path, models):
    from lssvwm_agents.data.collect import CollectConfig, collect

    out = tmp_path / "run"
    run_policy(recipe(streams=0), options(out, model=models[MAZE], tensorboard=False))
    kwargs = {"observation": "dict", "max_episode_steps": 8}
    stores = [
        collect(CollectConfig(MAZE, str(out), 3, num_envs, env_kwargs=kwargs), tmp_path / f"store{num_envs}")
        for num_envs in (1, 3)
    ]
    alone, together = ({e.seed: e.actions.tolist() for e in store} for store in stores)
    assert alone == together and len(alone) == 3


def test_of_a_reward_the_part_that_is_sure_counts():
    bins = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)

    def rewarded(minus, nothing, plus, doubt=0.5):
        logits = torch.tensor([minus, nothing, plus], dtype=torch.float64).clamp_min(1e-30).log()
        return sure_reward(logits, bins, doubt).item()

    assert rewarded(0.0, 0.0, 1.0) == pytest.approx(1.0, abs=1e-5)
    assert rewarded(0.0, 0.81, 0.19) == 0.0 and rewarded(0.0, 0.79, 0.21) > 0.0
    assert rewarded(0.0, 0.1, 0.9) == pytest.approx(0.9 - 0.5 * 0.3)
    assert rewarded(0.9, 0.1, 0.0) == pytest.approx(-(0.9 - 0.5 * 0.3))
    assert rewarded(0.0, 0.7, 0.3, doubt=0.0) == pytest.approx(0.3)
