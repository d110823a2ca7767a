"""The behaviour prior: KL, recorded choices, their clone, and policies that begin as it and stay near it."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from policy_worlds import BOX, TWO, Clock, HandOutcome, Line, make_policy, train

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.errors import UserError
from lssvwm_agents.planners import ContinuousActions
from lssvwm_agents.policies import behaviour
from lssvwm_agents.policies.actor_critic import PolicyConfig, load_policy, make_actor
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.actors import OneHotActions, SquashedNormal
from lssvwm_agents.policies.behaviour import behaviour_prior, clone, recorded_choices
from lssvwm_agents.policies.imagined_rollouts import imagine_policy
from lssvwm_agents.policies.through_dynamics import dynamics_gradients
from lssvwm_agents.trainers.policy_algorithms import ActorCriticImprover, World
from lssvwm_agents.trainers.policy_config import (
    PolicyEvaluationConfig,
    PolicyRecipe,
    PolicyTrainingConfig,
    StartsConfig,
)
from lssvwm_agents.trainers.policy_run import PolicyRun, PolicyRunOptions, run_policy
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

MAZE = "lssvwm/RaycastMaze-7x7-v0"
F64 = {"dtype": torch.float64}


def small_model(place_features: int = 8, **more) -> WorldModel:
    torch.manual_seed(0)
    backbone = BackboneConfig(
        width=16,
        conditioning_width=8,
        block_sizes=(2, 1),
        head_dim=8,
        state_dim=8,
        place_features=place_features,
    )
    tokenizer = TokenizerConfig(channels=(8, 8, 8), latent_channels=4, num_residual_blocks=0)
    settings = {"env_id": MAZE, "odometry": "pose", "action_dim": 6, "discrete_actions": True, **more}
    model = WorldModel(WorldModelConfig(tokenizer=tokenizer, backbone=backbone, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


def write_store(path, lengths, choose=None, end_at=None, **spec) -> EpisodeStore:
    """Random frames; what is done in frame t is ``choose(draw, t)``, by default anything."""
    draw = np.random.default_rng(3)
    spec = {"env_kwargs": {}, "num_actions": 6, "proprio_dim": 4, **spec}
    continuous = not spec["num_actions"]
    with EpisodeStore.create(path, StoreSpec(MAZE, **spec)) as store:
        for number, length in enumerate(lengths):
            terminated = np.zeros(length, bool)
            if end_at is not None and number == 0:
                terminated[end_at] = True
            angle = draw.uniform(-0.1, 0.1, length).cumsum()
            pose = np.stack([np.arange(length), 0 * angle, np.sin(angle), np.cos(angle)], axis=1)
            actions = draw.uniform(-1, 1, (length, 2)).astype(np.float32) if continuous else None
            if actions is None:
                actions = np.array(
                    [0] + [choose(draw) if choose else draw.integers(6) for _ in range(1, length)]
                )
            store.append(
                Episode(
                    frames=draw.integers(0, 256, (length, 64, 64, 3), dtype=np.uint8),
                    actions=actions,
                    rewards=np.zeros(length, np.float32),
                    terminated=terminated,
                    truncated=np.zeros(length, bool),
                    proprio=pose[:, : spec["proprio_dim"]].astype(np.float32),
                )
            )
    return store


# --- how far a policy is from another -------------------------------------------------------------


def test_kl_of_discrete_actions_by_hand():
    logits = torch.tensor([0.75, 0.25], **F64).log().requires_grad_()
    other = OneHotActions(torch.tensor([0.5, 0.5], **F64).log())
    nats = OneHotActions(logits).kl(other)
    assert nats.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    backwards = other.kl(OneHotActions(logits.detach()))
    assert float(backwards) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    (gradient,) = torch.autograd.grad(nats, logits)  # p (log p/q - KL)
    assert float(gradient[0]) == pytest.approx(0.75 * (math.log(1.5) - nats.item()))
    assert other.kl(other).item() == 0


def test_kl_of_squashed_normals_is_the_mean_log_ratio_of_their_densities():
    low, high = torch.tensor([-1.0, 0.0], **F64), torch.tensor([3.0, 1.0], **F64)
    mean = torch.tensor([0.3, -0.2], **F64, requires_grad=True)
    std = torch.tensor([0.5, 0.2], **F64, requires_grad=True)
    other = SquashedNormal(torch.tensor([0.0, 0.1], **F64), torch.tensor([1.0, 0.4], **F64), low, high)
    mine = SquashedNormal(mean, std, low, high)
    by_hand = sum(
        math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
        for m1, s1, m2, s2 in ((0.3, 0.5, 0.0, 1.0), (-0.2, 0.2, 0.1, 0.4))
    )
    nats = mine.kl(other)
    assert float(nats.detach()) == pytest.approx(by_hand)
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), **F64)
    samples = mine.sample(noise)
    ratio = (mine.log_prob(samples) - other.log_prob(samples)).mean()
    assert float(ratio.detach()) == pytest.approx(by_hand, abs=0.01)
    exact = torch.autograd.grad(nats, [mean, std])
    sampled = torch.autograd.grad(ratio, [mean, std])
    for one, two in zip(exact, sampled, strict=True):
        assert torch.allclose(one, two, atol=0.02)
    assert float(other.kl(other)) == 0


# --- what was done --------------------------------------------------------------------------------


def one_by_one(model, episode, num_actions, count):
    """Features of the first ``count`` frames, and the actions that follow them, frame by frame."""
    state, features, actions = model.initial_state(1), [], []
    for t in range(count):
        led = torch.zeros(1, 1, model.config.action_dim)
        if t > 0:
            led[0, 0] = told(episode.actions[t], num_actions)
        frame = torch.from_numpy(episode.frames[t]).permute(2, 0, 1)[None, None] / 255
        proprio = torch.from_numpy(episode.proprio[t])[None, None] if model.config.proprio_dim else None
        state, seen = model.observe(state, frame, led, proprio, torch.tensor([[float(t > 0)]]))
        features.append(seen[0, 0])
        actions.append(told(episode.actions[t + 1], num_actions))
    return torch.stack(features), torch.stack(actions)


def told(action, num_actions):
    return torch.eye(num_actions)[int(action)] if num_actions else torch.from_numpy(action)


@pytest.mark.parametrize("kind", ["pose", "continuous", "none"])
@torch.no_grad()
def test_recorded_choices_are_those_of_streams_frame_by_frame(tmp_path, kind):
    if kind == "continuous":
        model = small_model(action_dim=2, discrete_actions=False)
        spec = {"action_shape": (2,), "action_dtype": "float32", "num_actions": 0}
        spec |= {"action_low": (-1.0, -1.0), "action_high": (1.0, 1.0)}
    else:
        model = small_model() if kind == "pose" else small_model(0, odometry="vector", proprio_dim=0)
        spec = {}
    lengths = [9, 1, 4, 12, 6]
    store = write_store(tmp_path / "store", lengths, end_at=5, **spec)
    features, actions = recorded_choices(model, store, 10**6, 0, episodes_at_once=3, frames_at_once=4)
    counts = [5, 0, 3, 11, 5]  # frame 5 of the first is terminated
    expected = [
        one_by_one(model, store.episode(index), store.spec.num_actions, count)
        for index, count in enumerate(counts)
        if count
    ]
    assert features.shape == (24, model.feature_dim) and len(actions) == 24
    begins = set()
    for wanted, done in expected:  # episode after episode, in some order
        (begin,) = (
            i
            for i in range(24 - len(done) + 1)
            if torch.equal(actions[i : i + len(done)], done)
            and torch.allclose(features[i : i + len(done)], wanted, atol=1e-4)
        )
        begins.add(begin)
    assert len(begins) == 4


def test_so_many_whole_episodes_are_drawn_as_are_needed(tmp_path):
    model = small_model()
    store = write_store(tmp_path / "store", [5] * 6)
    assert len(recorded_choices(model, store, 10, 0)[0]) == 2 * 4
    assert len(recorded_choices(model, store, 11, 0)[0]) == 3 * 4
    few = [recorded_choices(model, store, 5, seed)[1] for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(few[0], few[1]) and not all(torch.equal(few[0], one) for one in few[2:])


def test_episodes_that_do_not_fit_the_model_are_refused(tmp_path):
    model = small_model()
    nothing = write_store(tmp_path / "nothing", [1, 1])
    with pytest.raises(UserError, match="nothing was done in the 2 episodes"):
        recorded_choices(model, nothing, 100, 0)
    with pytest.raises(UserError, match="at least 1 episode"):
        recorded_choices(model, write_store(tmp_path / "empty", []), 100, 0)
    with pytest.raises(UserError, match="odometry of 4 values, but the episodes of .* have 2"):
        recorded_choices(model, write_store(tmp_path / "blind", [4], proprio_dim=2), 100, 0)
    with pytest.raises(UserError, match="are discrete of 6 numbers, but those of .* are discrete of 7"):
        recorded_choices(model, write_store(tmp_path / "seven", [4], num_actions=7), 100, 0)
    with pytest.raises(UserError, match="at least 3 choices, got 2"):
        clone(make_policy(TWO, 3).actor, torch.randn(2, 3), torch.eye(2), 1)


# --- its clone ------------------------------------------------------------------------------------


def test_a_clone_finds_discrete_choices_as_likely_as_they_are():
    """Done is what the sign of the first feature says, but one time in five the other."""
    draw = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.randn(4000, 5, generator=draw)
    right = (features[:, 0] > 3) ^ (torch.rand(4000, generator=draw) < 0.2)
    actor = make_policy(TWO, 5).actor
    nats = clone(actor, features, torch.eye(2)[right.long()], 300, batch=128, learning_rate=3e-3)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert entropy - 0.08 < nats < entropy + 0.08 < math.log(2) == pytest.approx(actor.max_entropy)
    assert torch.allclose(actor.mlp.mean, torch.full((5,), 3.0), atol=0.2)
    likely = actor(torch.tensor([[5.0, 3, 3, 3, 3], [1.0, 3, 3, 3, 3]])).probabilities
    assert torch.allclose(likely, torch.tensor([[0.2, 0.8], [0.8, 0.2]]), atol=0.1)


def test_a_clone_finds_continuous_choices_and_is_not_lost_at_the_bounds():
    spec = ContinuousActions((0.0, -2.0), (4.0, 2.0))
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 3, generator=draw)
    first = 2 + 2 * torch.tanh(features[:, 0] + 0.3 * torch.randn(4000, generator=draw))
    actions = torch.stack([first, 2 * features[:, 1].sign()], dim=1)
    actor = make_policy(spec, 3, num_layers=2).actor
    nats = clone(actor, features, actions, 800, batch=128, learning_rate=3e-3)
    assert nats < actor.max_entropy - 1.5
    asked = torch.tensor([[0.5, 1.5, 0.0], [-0.5, -1.5, 0.0]])
    does = actor(asked)
    wanted = 2 + 2 * torch.tanh(asked[:, 0])
    assert torch.allclose(does.mode()[:, 0], wanted, atol=0.2)
    bound = math.atanh(behaviour.INSIDE)
    assert torch.allclose(does.mean[:, 1], torch.tensor([bound, -bound]), atol=0.3)
    assert (does.std[:, 0] - 0.3).abs().max() < 0.1


# --- policies near it -----------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
@pytest.mark.parametrize("discrete", [True, False])
def test_a_heavy_prior_holds_the_policy_and_none_lets_it_go(gradient, discrete):
    if discrete:  # the second action pays
        world = Clock(2, lambda _, second: second)
        state, spec = world.start(64), TWO
    else:
        world = Line(goal=3.0)
        state, spec = world.start(torch.zeros(64)), BOX
    prior = make_policy(spec, state.features.shape[1], seed=5).actor
    with torch.no_grad():
        prior.mlp.last.weight.normal_(std=0.3)
    kept = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    left = []
    for weight in (0.0, 1000.0):
        policy = make_policy(spec, state.features.shape[1])
        policy.actor.load_state_dict(prior.state_dict())
        told = train(world, state, policy, 2, 60, gradient=gradient, prior_weight=weight, prior=prior)
        left.append(told["prior_kl"])
    assert left[0] > 0.2 and left[1] < 0.01
    assert all(torch.equal(tensor, prior.state_dict()[name]) for name, tensor in kept.items())
    assert all(parameter.grad is None for parameter in prior.parameters())
    assert "prior_kl" not in train(world, state, make_policy(spec, state.features.shape[1]), 2, 1)


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_the_kl_is_from_the_prior_and_counts_as_far_as_a_frame_is_reached(gradient):
    """Uniform choices, a prior of 3/4 and 1/4, and half of the rollouts go on after the first frame."""
    world = Clock(2, lambda t, second: 0.0 * second, going_on=lambda t, second: 0.5 + 0.0 * second)

    def prior(features):
        return OneHotActions(torch.tensor([0.75, 0.25]).log().expand(*features.shape[:-1], 2))

    told = train(world, world.start(4), make_policy(TWO, 3), 2, 1, gradient=gradient, prior=prior)
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert told["prior_kl"] == pytest.approx((1 + 0.5) / 2 * kl, rel=1e-4)


def test_the_dynamics_are_not_asked_to_bring_the_policy_nearer_to_the_prior():
    """Nothing pays: the actor's gradient is that of the KL at frames as they are, not of the way there."""
    world, policy, prior = Line(), make_policy(BOX, 2), make_policy(BOX, 2, seed=1)
    world.step = lambda state, action: (Line().step(state, action)[0], HandOutcome(0 * action[:, 0]))
    with torch.no_grad():
        for parameter in (*policy.actor.parameters(), *prior.actor.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    start, noise = world.start(torch.linspace(-1, 1, 16)), torch.randn(3, 16, 1)
    objective = ActorCriticObjective("dynamics", entropy_weight=0.0, prior_weight=1.0)
    dynamics_gradients(world, start, policy, noise, objective, prior.actor)
    seen = imagine_policy(world, start, policy.actor, noise)[1].features[:, :-1].detach()
    kl = policy.actor(seen).kl(prior.actor(seen)).mean()
    for parameter, expected in zip(
        policy.actor.parameters(), torch.autograd.grad(kl, list(policy.actor.parameters())), strict=True
    ):
        assert torch.allclose(parameter.grad, expected, atol=1e-6)


def recipe(clone_updates=300, prior_weight=0.0, updates=4, **training):
    return PolicyRecipe(
        hidden=16,
        num_layers=1,
        objective=ActorCriticObjective(prior_weight=prior_weight),
        training=PolicyTrainingConfig(
            updates=updates,
            horizon=3,
            starts=4,
            forks=2,
            log_every=1,
            clone_updates=clone_updates,
            clone_frames=60,
            **training,
        ),
        starts=StartsConfig(context_frames=(3,), pool=4, block=2, streams=0),
        evaluation=PolicyEvaluationConfig(
            episodes=2, look_around=2, steps=3, horizon=2, futures=0, film=False
        ),
    )


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    small_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def store_path(tmp_path_factory):
    """Episodes in which one of the first two actions is done."""
    folder = tmp_path_factory.mktemp("stores") / "two"
    write_store(folder, [12] * 5, choose=lambda draw: draw.integers(2))
    return folder


def improver(model_path, store, out, settings):
    model = load_model(model_path, "cpu")
    return ActorCriticImprover(World(model, "", store, settings), model_path, settings, out, False)


def test_a_run_begins_as_the_clone_and_a_resumed_one_reads_it(tmp_path, model_path, store_path, monkeypatch):
    settings = recipe(prior_weight=0.1)
    out = tmp_path / "run"
    made = improver(model_path, store_path, out, settings)
    assert not made.improve(0, deadline=0.0)  # stopped before its first update
    policy = load_policy(out)
    prior = make_actor(policy.config)
    folder = out / "behaviour" / "000"
    from safetensors.torch import load_file

    prior.load_state_dict(load_file(folder / "policy.safetensors"))
    features, actions = recorded_choices(made.model, EpisodeStore.open(store_path), 60, 0)
    with torch.no_grad():
        assert float(policy.actor(features).kl(prior(features)).abs().max()) == 0
        assert float(policy.actor(features).probabilities[:, :2].sum(1).min()) > 0.7
    assert torch.equal(policy.actor.mlp.std, prior.mlp.std)
    assert not torch.equal(policy.critic.mlp.std, torch.ones_like(policy.critic.mlp.std))
    assert not torch.equal(policy.critic.mlp.std, prior.mlp.std)
    told = json.loads((folder / "behaviour.json").read_text())
    assert told["choices"] == 55 == len(actions) and told["nats"] < 1.2 < told["uniform_nats"]
    plain = make_policy(policy.actor.action_spec, made.model.feature_dim, hidden=16)
    assert policy.state_dict().keys() == plain.state_dict().keys()

    with monkeypatch.context() as patched:
        patched.setattr(behaviour, "recorded_choices", None)  # a call would fail
        again = improver(model_path, store_path, out, settings)
        assert again.improve(0, deadline=None)
        learnt = again.policy().state_dict()
        assert not torch.equal(learnt["actor.mlp.last.weight"], prior.state_dict()["mlp.last.weight"])
        assert not again.improve(1, deadline=0.0)  # nothing changed: the same prior, and the policy goes on
        assert all(torch.equal(learnt[name], now) for name, now in again.policy().state_dict().items())
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines[0]["prior_kl"] == pytest.approx(0, abs=1e-6) and lines[-1]["prior_kl"] > 0
    more = tmp_path / "more"
    write_store(more, [12] * 6, choose=lambda draw: draw.integers(2))
    assert improver(model_path, more, out, settings).improve(
        1, deadline=None
    )  # cloned anew from more episodes
    assert (out / "behaviour" / "001" / "policy.safetensors").is_file()


def test_the_same_seed_clones_the_same_prior(tmp_path, model_path, store_path):
    model, store = load_model(model_path, "cpu"), EpisodeStore.open(store_path)
    config = PolicyConfig(model.feature_dim, num_actions=6, hidden=16, num_layers=1)
    made = [
        behaviour_prior(tmp_path / str(number), 0, config, model, store, 60, 5, seed)
        for number, seed in enumerate((1, 1, 2))
    ]
    one, two, other = (actor.mlp.last.weight for actor in made)
    assert torch.equal(one, two) and not torch.equal(one, other) and not one.requires_grad


def test_through_the_dynamics_a_whole_run_has_a_prior_too(tmp_path, model_path, store_path):
    settings = recipe(prior_weight=0.1, updates=2, reuse=2)
    settings = dataclasses.replace(settings, objective=ActorCriticObjective("dynamics", prior_weight=0.1))
    options = {"model": model_path, "store": store_path, "iterations": 1, "controls": False}
    out = tmp_path / "run"
    assert run_policy(settings, PolicyRunOptions(out, device="cpu", tensorboard=False, **options))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["phase"] == "policy"]
    assert ["prior_kl" in line for line in trained] == [True, False]  # in the second the critic learns alone


def test_settings_that_ask_for_no_prior_that_can_be_are_refused(tmp_path, model_path, store_path):
    with pytest.raises(ValueError, match="set `clone_updates` above 0"):
        recipe(clone_updates=0, prior_weight=0.1)
    with pytest.raises(ValueError, match="`prior_weight` must be at least 0, got -1"):
        ActorCriticObjective(prior_weight=-1)
    for wrong in ({"clone_updates": -1}, {"clone_frames": 0}):
        with pytest.raises(ValueError, match="`clone_updates` must be at least 0 and `clone_frames`"):
            PolicyTrainingConfig(**wrong)
    with pytest.raises(UserError, match="give episodes by --store"):
        improver(model_path, None, tmp_path / "one", recipe())
    with pytest.raises(UserError, match="give episodes by --store"):
        PolicyRun(recipe(), PolicyRunOptions(tmp_path / "two", model=model_path, device="cpu"))
    ppo = PolicyRunOptions(tmp_path / "three", model=model_path, store=store_path, algo="ppo", device="cpu")
    with pytest.raises(UserError, match="`training.clone_updates` is of the actor-critic"):
        PolicyRun(recipe(), ppo)
    assert not list(tmp_path.iterdir())
