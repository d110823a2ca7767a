"""Actor and critic on worlds solved by hand: what is credited, what ends count, which gradient is which."""

import pytest
import torch
from policy_worlds import BOX, TWO, Clock, HandState, Line, make_policy, train

from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective, wanted_entropy
from lssvwm_agents.policies.imagined_rollouts import imagine_policy
from lssvwm_agents.policies.policy_gradients import accumulate_gradients, score_batch, score_gradients
from lssvwm_agents.policies.returns import lambda_return
from lssvwm_agents.policies.through_dynamics import critic_gradients, dynamics_gradients

KINDS = ["score_function", "dynamics"]


def second(policy, frame, length):
    """Probability of the second action at a frame of a Clock."""
    return policy.actor(torch.eye(length + 1)[frame]).probabilities[1].item()


def test_rollouts_keep_the_contract_of_time():
    world = Clock(3, lambda t, second: 10.0 * t + second)
    policy = make_policy(TWO, 4)
    _, rollouts = imagine_policy(world, world.start(5), policy.actor, torch.randn(3, 5, 2))
    assert rollouts.features.shape == (5, 4, 4) and rollouts.actions.shape == (5, 4, 2)
    assert (rollouts.actions[:, 0] == 0).all() and (rollouts.reward[:, 0] == 0).all()
    assert torch.equal(rollouts.features.argmax(-1), torch.arange(4).expand(5, -1))
    expected = 10.0 * torch.arange(1, 4) + rollouts.actions[:, 1:, 1]
    assert torch.equal(rollouts.reward[:, 1:], expected)


@pytest.mark.parametrize("gradient", KINDS)
def test_a_reward_is_credited_to_the_action_that_led_to_its_frame(gradient):
    """The second action pays at frame 2 and costs at 1 and 3: one step off would learn the opposite."""
    sign = torch.tensor([0.0, -1.0, 1.0, -1.0])
    world = Clock(3, lambda t, second: sign[t] * second)
    policy = make_policy(TWO, 4)
    train(world, world.start(32), policy, 3, 150, gradient=gradient, lam=0.0)
    chosen = [second(policy, frame, 3) for frame in range(3)]
    assert chosen[0] < 0.2 and chosen[1] > 0.8 and chosen[2] < 0.2


@pytest.mark.parametrize(("pays", "ends"), [(2.0, True), (1.0, False)])
def test_an_end_is_taken_when_it_pays_more_than_what_would_follow(pays, ends):
    """The second action ends the episode at frame 1 and pays there; going on pays 0.5 in each of 3 frames.

    A mask one frame early would zero what the end pays; one frame late would add what follows.
    """
    world = Clock(
        3,
        reward=lambda t, second: torch.where(t == 1, second * pays + (1 - second) * 0.5, 0.5),
        going_on=lambda t, second: torch.where(t == 1, 1 - second, (t < 3).float()),
    )
    policy = make_policy(TWO, 4)
    train(world, world.start(64), policy, 3, 250, lam=1.0)
    assert (second(policy, 0, 3) > 0.8) is ends and (second(policy, 0, 3) < 0.2) is not ends
    assert policy.critic(torch.eye(4)[0]).item() == pytest.approx(max(pays, 1.5), abs=0.15)


def test_the_critic_learns_the_discounted_value_of_every_frame():
    """Rewards 1, 2, 3 and an end, whatever is done: values 1 + .5 (2 + .5 3), 2 + .5 3, 3."""
    world = Clock(3, lambda t, second: t.float(), going_on=lambda t, second: (t < 3).float())
    policy = make_policy(TWO, 4)
    train(world, world.start(8), policy, 3, 400, discount=0.5, slow_decay=0.9)
    values = policy.critic(torch.eye(4)[:3])
    assert torch.allclose(values, torch.tensor([2.75, 3.5, 3.0]), atol=0.1)


@pytest.mark.parametrize("gradient", KINDS)
def test_both_gradients_learn_to_stay_at_a_goal(gradient):
    world, start = Line(goal=0.5), torch.linspace(-0.4, 1.4, 32)
    policy = make_policy(BOX, 2, min_std=0.05)
    updates = 250 if gradient == "dynamics" else 600
    train(world, world.start(start), policy, 3, updates, gradient=gradient, entropy_weight=1e-3)
    after = start + policy.actor(world.start(start).features).mode()[:, 0]
    assert float((after - 0.5).abs().mean()) < (0.1 if gradient == "dynamics" else 0.15)


def test_the_dynamics_gradient_is_the_derivative_of_the_mean_target():
    """Finite differences through policy, dynamics, rewards and values, in float64."""
    world = Line()
    policy = make_policy(BOX, 2).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    policy.slow_critic.update(0.0)
    state = world.start(torch.tensor([-0.5, 0.8], dtype=torch.float64))
    noise = torch.randn(4, 2, 1, generator=generator, dtype=torch.float64)
    objective = ActorCriticObjective("dynamics", 0.9, 0.7, truncation=4, entropy_weight=0.0, slow_decay=1.0)
    weight = policy.actor.mlp.last.weight

    def worth() -> float:
        with torch.no_grad():
            _, r = imagine_policy(world, state, policy.actor, noise)
            target = lambda_return(r.reward, r.continuation, policy.slow_critic(r.features), 0.9, 0.7)
        return float(target[:, :-1].mean())

    policy.scale.update(torch.zeros(2))
    accumulate_gradients(world, state, policy, noise, objective)
    scale = float(policy.scale())
    for index in ((0, 0), (0, 5), (1, 3)):
        with torch.no_grad():
            weight[index] += 1e-6
            up = worth()
            weight[index] -= 2e-6
            down = worth()
            weight[index] += 1e-6
        assert -float(weight.grad[index]) * scale == pytest.approx((up - down) / 2e-6, rel=1e-4)


def test_the_score_function_gradient_is_the_derivative_of_the_expected_return():
    """One choice, payoffs 1 and 3: d E / d logit = p (1 - p) (3 - 1), whatever the baseline."""
    world = Clock(1, lambda t, second: 1.0 + 2.0 * second)
    policy = make_policy(TWO, 2, uniform_share=0.0)
    noise = torch.randn(1, 20000, 2, generator=torch.Generator().manual_seed(0))
    objective = ActorCriticObjective(discount=1.0, entropy_weight=0.0)
    accumulate_gradients(world, world.start(20000), policy, noise, objective)
    gradient = policy.actor.mlp.last.bias.grad * policy.scale()
    assert -float(gradient[1]) == pytest.approx(0.25 * 2.0, rel=0.05)


def test_a_batch_teaches_no_more_once_the_policy_has_moved_by_the_clip():
    """Payoffs 1 and 3, one batch for all updates: the second's probability stops near 1.2 times 0.5."""
    world = Clock(1, lambda t, second: 1.0 + 2.0 * second)
    objective = ActorCriticObjective(discount=1.0, entropy_weight=0.0, clip=0.2)
    reached = []
    for kept in (True, False):
        policy = make_policy(TWO, 2, uniform_share=0.0)
        optimizer = torch.optim.SGD(policy.actor.parameters(), lr=0.2)
        batch = None
        for update in range(60):
            if batch is None or not kept:
                noise = torch.randn(1, 4096, 2, generator=torch.Generator().manual_seed(update))
                with torch.no_grad():
                    _, rollouts = imagine_policy(world, world.start(4096), policy.actor, noise)
                batch = score_batch(policy, rollouts, objective)
            optimizer.zero_grad()
            _, metrics = score_gradients(policy, batch, objective)
            optimizer.step()
        reached.append(second(policy, 0, 1))
    assert reached[0] == pytest.approx(0.6, abs=0.08) and reached[1] > 0.9
    assert metrics["clipped"] == 0  # a fresh batch is the policy's own


def test_truncation_cuts_the_graph_and_leaves_the_rollouts_as_they_are():
    world, horizon = Line(), 12
    seen: list[bool] = []

    class Watched(Line):
        def step(self, state, action):
            seen.append(state.features.requires_grad)
            return super().step(state, action)

    def gradients(truncation: int):
        policy = make_policy(BOX, 2)
        torch.nn.init.normal_(policy.actor.mlp.last.weight, generator=torch.Generator().manual_seed(3))
        noise = torch.randn(horizon, 4, 1, generator=torch.Generator().manual_seed(0))
        objective = ActorCriticObjective("dynamics", truncation=truncation)
        state = world.start(torch.linspace(-1, 1, 4))
        _, metrics = accumulate_gradients(Watched(), state, policy, noise, objective)
        return metrics, policy.actor.mlp.last.weight.grad.clone()

    whole, full = gradients(12)
    assert seen == [False] + 11 * [True]
    seen.clear()
    cut, part = gradients(5)
    assert seen == [False, *4 * [True]] * 2 + [False, True]
    assert float(cut["imagined_return"]) == pytest.approx(float(whole["imagined_return"]), rel=1e-5)
    assert not torch.allclose(full, part)


def test_the_critic_learns_on_from_the_same_rollouts_and_the_actor_does_not():
    policy, world = make_policy(BOX, 2), Line()
    noise = torch.randn(12, 4, 1, generator=torch.Generator().manual_seed(0))
    objective = ActorCriticObjective("dynamics", truncation=5, slow_decay=1.0)  # the targets stay
    state = world.start(torch.linspace(-1, 1, 4))
    _, first, spans = dynamics_gradients(world, state, policy, noise, objective)
    assert [span.reach.shape[1] for span in spans] == [5, 5, 2]
    expected = [weight.grad.clone() for weight in policy.critic.parameters()]
    policy.zero_grad()
    _, again = critic_gradients(policy, spans, objective)
    for weight, gradient in zip(policy.critic.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-6)
    assert all(weight.grad is None for weight in policy.actor.parameters())
    for name, value in again.items():
        assert float(value) == pytest.approx(float(first[name]), abs=1e-5)


def test_rows_that_ended_teach_nothing_more():
    """From the end on neither actor nor critic learns: gradients equal those of the shorter rollout."""
    ends = Clock(4, lambda t, second: second * t, going_on=lambda t, second: (t < 2).float())
    gradients = []
    for horizon in (2, 4):
        policy = make_policy(TWO, 5)
        noise = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0))[:horizon]
        objective = ActorCriticObjective(lam=1.0, entropy_weight=0.0)
        policy.scale.decay = 0.0
        policy.scale.floor = 100.0
        accumulate_gradients(ends, ends.start(6), policy, noise, objective)
        gradients.append([p.grad * horizon for p in policy.actor.parameters() if p.grad is not None])
    for short, long in zip(*gradients, strict=True):
        assert torch.allclose(short, long, atol=1e-7)


def test_the_entropy_is_held_at_its_target():
    world = Clock(1, lambda t, second: 0.1 * second)
    policy = make_policy(TWO, 2)
    metrics = train(
        world,
        world.start(64),
        policy,
        1,
        600,
        learning_rate=2e-2,
        entropy_target=0.6,
        entropy_weight=0.1,
    )
    objective = ActorCriticObjective(entropy_target=0.6)
    assert metrics["entropy"] == pytest.approx(wanted_entropy(policy, objective), abs=0.08)


def test_a_state_that_wants_gradients_gets_none():
    features = torch.zeros(2, 2, requires_grad=True)
    policy = make_policy(BOX, 2)
    objective = ActorCriticObjective("dynamics")
    accumulate_gradients(Line(), HandState(features), policy, torch.randn(2, 2, 1), objective)
    assert features.grad is None


def test_objectives_out_of_range_are_named():
    for field, value in (("gradient", "both"), ("lam", 2.0), ("truncation", 0), ("entropy_target", 1.0)):
        with pytest.raises(ValueError, match=field):
            ActorCriticObjective(**{field: value})
