"""What followed in recorded episodes, in the place of the critic: targets, gradients, a run, refusals."""

import json

import pytest
import torch
from policy_worlds import BOX, TWO, Clock, HandOutcome, HandState, Line, make_policy, train

from lssvwm_agents.errors import UserError
from lssvwm_agents.planners import DiscreteActions
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.imagined_rollouts import imagine_policy
from lssvwm_agents.policies.policy_gradients import accumulate_gradients
from lssvwm_agents.policies.through_dynamics import critic_gradients, dynamics_gradients
from lssvwm_agents.trainers.imagined_dynamics import ImaginedDynamics, recorded_value
from lssvwm_agents.trainers.policy_config import (
    PolicyEvaluationConfig,
    PolicyRecipe,
    PolicyTrainingConfig,
    StartsConfig,
)
from lssvwm_agents.trainers.policy_run import PolicyRun, PolicyRunOptions, run_policy
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

SIX = DiscreteActions(6)


class Unpaid(Line):
    """A line where nothing pays."""

    def step(self, state: HandState, action: torch.Tensor) -> tuple[HandState, HandOutcome]:
        after, outcome = super().step(state, action)
        return after, HandOutcome(torch.zeros_like(outcome.reward))


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_a_policy_goes_where_more_followed_though_nothing_pays_on_the_way(gradient):
    world, start = Unpaid(), torch.linspace(-0.4, 1.4, 32)

    def followed(features: torch.Tensor) -> torch.Tensor:
        return -(features[..., 0] - 0.5).square()

    off = {}
    for value in (followed, None):
        policy = make_policy(BOX, 2, min_std=0.05)
        updates = 250 if gradient == "dynamics" else 600
        train(world, world.start(start), policy, 2, updates, value=value, gradient=gradient, lam=0.5)
        after = start + policy.actor(world.start(start).features).mode()[:, 0]
        off[value] = (after - 0.5).abs().mean().item()
    assert off[followed] < 0.2 < 0.35 < off[None]


def test_the_critic_learns_on_towards_what_followed():
    """Rewards 1 at frames 1 and 2, and 10 afterwards, discount 0.5: 1 + .5 (1 + .5 10), and 1 + .5 10."""
    world = Clock(2, lambda t, second: torch.ones_like(second))
    policy = make_policy(TWO, 3)
    objective = ActorCriticObjective("dynamics", discount=0.5, lam=1.0, entropy_weight=0.0)
    noise = torch.zeros(2, 8, 2)
    told = []
    for value in (lambda features: 10.0 * features[..., -1], None):
        _, _, spans = dynamics_gradients(world, world.start(8), policy, noise, objective, None, value)
        told.append(critic_gradients(policy, spans, objective, value)[1]["target"].item())
    assert told[0] == pytest.approx((4.0 + 6.0) / 2)
    assert told[1] == pytest.approx((1.5 + 1.0) / 2, abs=0.1)  # the critic's own values are nearly 0


# --- a run --------------------------------------------------------------------------------------------


def a_model(**settings):
    torch.manual_seed(0)
    small = BackboneConfig(
        width=16, conditioning_width=8, block_sizes=(2,), head_dim=8, state_dim=8, window=2
    )
    tokenizer = TokenizerConfig(channels=(8, 8, 8), latent_channels=2, num_residual_blocks=0)
    config = WorldModelConfig(
        tokenizer=tokenizer, backbone=small, env_id="lssvwm/RaycastMaze-7x7-v0", **settings
    )
    return WorldModel(config).eval()


def recipe(discount, reuse=1, **objective):
    return PolicyRecipe(
        hidden=16,
        num_layers=1,
        objective=ActorCriticObjective(discount=discount, bootstrap="recorded", **objective),
        training=PolicyTrainingConfig(updates=2, reuse=reuse, starts=2, forks=2, horizon=2, log_every=1),
        starts=StartsConfig(policies=("explorer",), context_frames=(3,), pool=2, block=2, streams=0),
        evaluation=PolicyEvaluationConfig(
            episodes=1, look_around=2, steps=2, horizon=2, futures=0, envs_at_once=1, film=False
        ),
    )


def test_recorded_values_are_those_of_predictions():
    model = a_model()
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        state, prediction = model.step(model.initial_state(3), torch.eye(6)[:3])
        assert prediction.value is not None and float(prediction.value.abs().min()) > 1e-3
        assert torch.equal(recorded_value(model)(state.features), prediction.value)


def test_the_gradient_runs_through_recorded_values_to_the_policy_and_not_to_the_model():
    model = a_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.requires_grad_(False)
    policy = make_policy(SIX, model.feature_dim)
    with torch.no_grad():
        policy.actor.mlp.last.weight.normal_()
    noise = torch.randn(2, 4, 6)
    _, rollouts = imagine_policy(ImaginedDynamics(model), model.initial_state(4), policy.actor, noise)
    recorded_value(model)(rollouts.features)[:, -1].sum().backward()
    assert float(policy.actor.mlp.last.weight.grad.abs().max()) > 1e-6
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_objective_without_what_it_asks_for_is_refused():
    world, policy, noise = Unpaid(), make_policy(BOX, 2), torch.zeros(1, 2, 1)
    start = world.start(torch.zeros(2))
    for settings, value, rule in (
        ({"bootstrap": "recorded"}, None, "got 'recorded' and none"),
        ({}, lambda features: features[..., 0], "got 'critic' and one"),
        ({"prior_weight": 0.5}, None, r"needs a behaviour prior \(`prior`\), got 0\.5 and none"),
    ):
        with pytest.raises(ValueError, match=rule):
            accumulate_gradients(world, start, policy, noise, ActorCriticObjective(**settings), None, value)
    with pytest.raises(ValueError, match="got `value_head`=False"):
        recorded_value(a_model(value_head=False))


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_a_run_is_judged_by_recorded_values(tmp_path, gradient):
    model = a_model(value_discount=0.9)
    with torch.no_grad():  # the model says that 20 always follow
        model.heads.value[-1].weight.zero_()
        bins = model.heads.two_hot.bins
        model.heads.value[-1].bias.copy_(-50 * (bins - 20).abs() / bins.abs().clamp(min=1))
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "run"
    settings = recipe(0.9, reuse=2, gradient=gradient, lam=0.0)
    options = PolicyRunOptions(out, model=str(tmp_path / "model"), iterations=1, controls=False, device="cpu")
    assert run_policy(settings, options)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    expected = float(bins[(bins - 20).abs().argmin()])
    for line in [line for line in lines if line["phase"] == "policy"]:  # the second from the same batch
        assert line["value"] == pytest.approx(expected, rel=0.1)
        assert line["target"] > 0.5 * expected


def test_values_that_do_not_fit_are_refused_before_a_folder_is_made(tmp_path):
    a_model(value_head=False).save_pretrained(tmp_path / "blind")
    a_model(value_discount=0.9).save_pretrained(tmp_path / "other")

    def run(settings, **options):
        return PolicyRun(settings, PolicyRunOptions(tmp_path / "run", device="cpu", **options))

    with pytest.raises(UserError, match="needs a world model with a value head"):
        run(recipe(0.9), model=str(tmp_path / "blind"))
    with pytest.raises(UserError, match=r"must be that of the recorded values, 0\.9, .* got 0\.95"):
        run(recipe(0.95), model=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"must be that of the recorded values, 0\.97, .* got 0\.95"):
        run(recipe(0.95), env="lssvwm/RaycastMaze-7x7-v0")
    with pytest.raises(UserError, match="`objective.bootstrap` is of the actor-critic"):
        run(recipe(0.9), model=str(tmp_path / "other"), algo="ppo")
    with pytest.raises(ValueError, match="`bootstrap` must be critic or recorded, got 'both'"):
        ActorCriticObjective(bootstrap="both")
    assert not (tmp_path / "run").exists()
