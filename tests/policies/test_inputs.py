"""What a policy reads beside features: odometry and the last latent, real, imagined or recorded."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_behaviour import MAZE, small_model, write_store
from test_recorded_value import recipe

from lssvwm_agents.agents.imagination import FutureState, Imagination
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.policy import evaluate_policy
from lssvwm_agents.planners import CEM, ContinuousActions, DiscreteActions
from lssvwm_agents.policies.actor_critic import ActorCritic, PolicyConfig, load_policy
from lssvwm_agents.policies.behaviour import recorded_choices
from lssvwm_agents.policies.imagined_rollouts import imagine_policy
from lssvwm_agents.policies.inputs import INPUTS, input_width, read_inputs
from lssvwm_agents.policies.policy_planner import CriticValue, with_policy
from lssvwm_agents.trainers.imagined_dynamics import ImaginedDynamics, recorded_value
from lssvwm_agents.trainers.policy_config import PolicyRecipe
from lssvwm_agents.trainers.policy_run import PolicyRunOptions, run_policy
from lssvwm_agents.worldmodel import WorldModelConfig


def policy_of(model, actions=None, inputs=INPUTS):
    torch.manual_seed(1)
    width = input_width(inputs, model.feature_dim, model.config)
    actions = actions or DiscreteActions(6)
    return ActorCritic(PolicyConfig.for_actions(actions, width, hidden=16, num_layers=1, inputs=inputs))


def seen(model, rows=2, frames=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    video = torch.rand(rows, frames, 3, 64, 64, generator=draw)
    actions = torch.eye(6)[torch.randint(6, (rows, frames), generator=draw)]
    poses = torch.randn(rows, frames, 4, generator=draw)
    state, features = model.observe(model.initial_state(rows), video, actions, poses)
    return video, poses, features, state


@torch.no_grad()
def test_after_real_frames_it_is_the_last_frames_features_pose_and_latent():
    model = small_model()
    video, poses, features, state = seen(model)
    whole = torch.cat([features[:, -1], poses[:, -1], model.tokenizer.encode(video[:, -1]).flatten(1)], dim=1)
    assert torch.equal(read_inputs(state, INPUTS), whole)
    assert whole.shape[1] == input_width(INPUTS, model.feature_dim, model.config)
    backwards = ("features", "latent", "odometry")
    assert torch.equal(read_inputs(state, backwards)[:, -4:], poses[:, -1])
    assert torch.equal(read_inputs(state), features[:, -1])


@torch.no_grad()
def test_of_an_imagined_frame_state_and_prediction_say_the_same():
    model = small_model()
    state, predicted = model.imagine(seen(model)[3], torch.eye(6)[torch.tensor([[1, 2], [3, 4]])])
    read = read_inputs(predicted, INPUTS)
    assert torch.equal(read_inputs(state, INPUTS), read[:, -1])
    assert torch.equal(read[:, 0, model.feature_dim : model.feature_dim + 4], predicted.proprio[:, 0])
    assert torch.equal(read[:, 0, model.feature_dim + 4 :], predicted.latent[:, 0].flatten(1))
    shared = Imagination(model, num_threads=2).repeat(state, 2)
    for other in (shared, FutureState(state.repeat(2), 0)):
        assert torch.equal(read_inputs(other, INPUTS), read_inputs(state.repeat(2), INPUTS))


def test_odometry_is_not_rounded_to_the_features_type():
    half = SimpleNamespace(
        features=torch.ones(1, 3, dtype=torch.bfloat16),
        proprio=torch.tensor([[10.037, 0.0, 0.0, 1.0]]),
        latent=torch.ones(1, 2, 2, 2, dtype=torch.bfloat16),
    )
    assert read_inputs(half, INPUTS)[0, 3].item() == pytest.approx(10.037, abs=1e-5)
    assert read_inputs(half).dtype == torch.bfloat16


@pytest.mark.parametrize("part", ["odometry", "latent"])
def test_gradients_run_through_each_input(part):
    """By the dynamics, an action changes what is read after it."""
    model = small_model(action_dim=2, discrete_actions=False).requires_grad_(False)
    policy = policy_of(model, ContinuousActions((-1.0, -1.0), (1.0, 1.0)))
    with torch.no_grad():
        policy.actor.mlp.last.weight.normal_()
    start = model.initial_state(3)
    start = replace(
        start, proprio=torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(3, 1), proprio_known=torch.ones(3)
    )
    rollouts = imagine_policy(
        ImaginedDynamics(model), start, policy.actor, torch.randn(2, 3, 2), policy.read
    )[1]
    first, last = {"odometry": (0, 4), "latent": (4, None)}[part]
    rollouts.features[:, -1, model.feature_dim :][:, first:last].square().sum().backward()
    assert float(policy.actor.mlp.last.weight.grad.abs().max()) > 1e-7


@torch.no_grad()
@pytest.mark.parametrize("blind", [False, True], ids=["odometry", "visual odometry"])
def test_what_is_read_of_recorded_frames_is_what_would_have_been_read_there(tmp_path, blind):
    model = small_model(visual_odometry=True)
    store = write_store(tmp_path / "store", (7, 4), proprio_dim=0 if blind else 4)
    read, _ = recorded_choices(model, store, 1000, seed=0, inputs=INPUTS, frames_at_once=3)
    again, _ = recorded_choices(model, store, 1000, seed=0, inputs=INPUTS, frames_at_once=100)
    assert torch.allclose(read, again, atol=1e-5) and len(read) == 6 + 3
    found = []
    for number in range(2):
        episode, state = store.episode(number), model.initial_state(1)
        for t in range(len(episode) - 1):
            frame = torch.from_numpy(episode.frames[t]).permute(2, 0, 1)[None, None].float() / 255
            action = torch.eye(6)[int(episode.actions[t])][None, None] * (t > 0)
            pose = None if blind else torch.from_numpy(episode.proprio[t])[None, None]
            state, _ = model.observe(state, frame, action, pose)
            found.append(read_inputs(state, INPUTS)[0])
    for row in read:
        assert min(float((row - one).abs().max()) for one in found) < 1e-4


@torch.no_grad()
def test_the_models_own_heads_get_its_features_alone():
    model = small_model()
    state, predicted = model.step(seen(model)[3], torch.eye(6)[:2])
    assert torch.allclose(recorded_value(model)(read_inputs(state, INPUTS)), predicted.value)


@torch.no_grad()
def test_a_search_proposes_and_ends_by_all_that_the_policy_reads():
    model, spec = small_model(), DiscreteActions(6)
    policy = policy_of(model)
    policy.critic.mlp.last.weight.normal_()
    planner = CEM(spec, horizon=2, num_samples=8, num_elites=2, num_iterations=1)
    state = seen(model)[3]
    plan = with_policy(planner, policy, num_proposals=3).plan(
        Imagination(model), state, generator=torch.Generator().manual_seed(0)
    )
    _, future = model.imagine(state, plan.actions)
    value = CriticValue(policy)(future)
    assert torch.equal(value, policy.critic(read_inputs(future, INPUTS))) and value.shape == (2, 2)


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_a_run_reads_them_everywhere(tmp_path, gradient):
    """Pool, streams of its own, clone, evaluation, and a policy that is loaded again."""
    model, store = small_model(), write_store(tmp_path / "store", (8, 8, 8))
    model.save_pretrained(tmp_path / "model")
    wanted = recipe(0.97, gradient=gradient)
    wanted = replace(
        wanted,
        inputs=INPUTS,
        objective=replace(wanted.objective, bootstrap="critic"),
        training=replace(wanted.training, clone_updates=2),
        starts=replace(wanted.starts, streams=2, stream_frames=1, stream_steps=4),
    )
    out = tmp_path / "run"
    options = PolicyRunOptions(
        out,
        model=str(tmp_path / "model"),
        store=store.path,
        iterations=1,
        controls=False,
        device="cpu",
        tensorboard=False,
    )
    assert run_policy(wanted, options)
    told = json.loads((out / "policy" / "policy.json").read_text())
    assert told["inputs"] == list(INPUTS) and told["feature_dim"] == model.feature_dim + 4 + 4 * 8 * 8
    last = json.loads((out / "evaluations" / "000.json").read_text())
    again = evaluate_policy(
        model, load_policy(out), wanted.evaluation, MAZE, progress=False, allow_other_env=True
    )
    assert again["policy"] == last["policy"]


def test_inputs_that_cannot_be_read_are_refused(tmp_path):
    for inputs, got in (
        ((), "nothing"),
        (("latent", "features"), "latent, features"),
        (("features", "latent", "latent"), "features, latent, latent"),
        (("features", "pixels"), "features, pixels"),
    ):
        for refuse in (
            lambda inputs: PolicyRecipe(inputs=inputs),
            lambda inputs: PolicyConfig(4, num_actions=2, inputs=inputs),
            lambda inputs: input_width(inputs, 4, WorldModelConfig()),
        ):
            with pytest.raises(ValueError, match=f"`inputs` must be features, .* each once, got {got}"):
                refuse(inputs)
    blind = small_model(place_features=0, proprio_dim=0, odometry="vector")
    blind.save_pretrained(tmp_path / "model")
    with pytest.raises(
        UserError, match="must not hold odometry for a world model without, got `proprio_dim`=0"
    ):
        run_policy(
            replace(recipe(0.97), inputs=INPUTS),
            PolicyRunOptions(tmp_path / "run", model=str(tmp_path / "model"), device="cpu"),
        )
    with pytest.raises(
        UserError, match="`inputs` are of the actor-critic: with --algo ppo leave them at .* got feat"
    ):
        run_policy(
            PolicyRecipe(inputs=("features", "latent")),
            PolicyRunOptions(tmp_path / "run", model="tiny", algo="ppo", device="cpu"),
        )
    with pytest.raises(UserError, match="`symlog_limit` is of the actor-critic: .* leave it at 5, got 6"):
        run_policy(
            PolicyRecipe(symlog_limit=6.0),
            PolicyRunOptions(tmp_path / "run", model="tiny", algo="ppo", device="cpu"),
        )
    assert not (tmp_path / "run").exists()
