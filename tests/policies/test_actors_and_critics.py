import pytest
import torch
from policy_worlds import BOX, TWO, make_policy

from lssvwm_agents.planners import ContinuousActions, DiscreteActions
from lssvwm_agents.policies.actor_critic import PolicyConfig, load_policy
from lssvwm_agents.policies.actors import Actor, OneHotActions, SquashedNormal
from lssvwm_agents.policies.critics import Critic, SlowCopy


def normal_noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def squashed(mean=0.3, std=0.7, low=-1.0, high=3.0):
    tensors = (torch.tensor([value], dtype=torch.float64) for value in (mean, std, low, high))
    return SquashedNormal(*tensors)


def test_discrete_samples_come_with_their_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    distribution = OneHotActions(logits)
    samples = distribution.sample(normal_noise(40000, 3))
    assert ((samples == 0) | (samples == 1)).all() and (samples.sum(-1) == 1).all()
    assert torch.allclose(samples.mean(0), torch.softmax(logits, 0), atol=0.01)
    assert torch.allclose(distribution.log_prob(samples).exp(), (samples @ torch.softmax(logits, 0)))


def test_the_straight_through_gradient_is_that_of_the_probabilities():
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    sample = OneHotActions(logits).sample(normal_noise(3))
    assert sample.sum() == 1 and set(sample.tolist()) == {0.0, 1.0}
    worth = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((sample * worth).sum(), logits)
    assert torch.allclose(gradient, (worth - worth.mean()) / 3)


def test_mixing_in_the_uniform_distribution_keeps_every_action():
    distribution = OneHotActions(torch.tensor([100.0, 0.0]), uniform_share=0.1)
    assert torch.allclose(distribution.probabilities, torch.tensor([0.95, 0.05]))


def test_densities_of_squashed_normals_integrate_to_one():
    distribution = squashed()
    grid = torch.linspace(-1, 3, 20001, dtype=torch.float64)[1:-1, None]
    mass = distribution.log_prob(grid).exp().sum() * (grid[1, 0] - grid[0, 0])
    assert float(mass) == pytest.approx(1.0, abs=1e-4)


def test_the_entropy_of_squashed_normals_is_the_mean_of_minus_log_density():
    for mean, std in ((0.0, 0.1), (0.3, 0.7), (2.0, 1.0)):
        distribution = squashed(mean, std)
        samples = distribution.sample(normal_noise(200000, 1))
        assert float(-distribution.log_prob(samples).mean()) == pytest.approx(
            float(distribution.entropy()), abs=0.01
        )


def test_squashed_samples_stay_in_the_box_and_extremes_have_finite_densities():
    distribution = squashed(mean=20.0, std=1.0)
    samples = distribution.sample(normal_noise(100, 1))
    assert samples.max() <= 3.0 and samples.min() >= -1.0
    assert distribution.log_prob(samples).isfinite().all() and distribution.entropy().isfinite()


def test_the_largest_entropy_is_that_of_the_uniform_distribution():
    assert Actor(2, DiscreteActions(4)).max_entropy == pytest.approx(float(torch.log(torch.tensor(4.0))))
    box = ContinuousActions((-1.0, 0.0), (1.0, 0.5))
    assert Actor(2, box).max_entropy == pytest.approx(0.0)


def test_a_fresh_actor_is_undecided_and_a_fresh_critic_expects_nothing():
    features = torch.randn(3, 5)
    assert torch.allclose(Actor(5, DiscreteActions(4))(features).probabilities, torch.tensor(0.25))
    assert Critic(5)(features).abs().max() < 1e-2


def test_a_critic_learns_small_and_large_returns_alike():
    torch.manual_seed(0)
    critic = Critic(3, hidden=32, num_layers=1)
    features, returns = torch.eye(3), torch.tensor([0.03, -2.0, 70.0])
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(400):
        critic.loss(features, returns).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.allclose(critic(features), returns, rtol=0.02, atol=0.03)


def test_a_critic_learns_the_mean_of_returns_not_their_mode():
    torch.manual_seed(0)
    critic = Critic(2, hidden=16, num_layers=1)
    features = torch.ones(10, 2)
    returns = torch.tensor([1.0] + 9 * [0.0])
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(600):
        critic.loss(features, returns).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert critic(features)[0].item() == pytest.approx(0.1, abs=0.01)


def test_a_slow_copy_follows_and_lets_gradients_through_to_its_arguments_alone():
    linear = torch.nn.Linear(2, 1)
    slow = SlowCopy(linear)
    before = {name: value.clone() for name, value in slow.named_buffers()}
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.add_(1.0)
    slow.update(0.75)
    for name, value in slow.named_buffers():
        assert torch.allclose(value, before[name] + 0.25)
    x = torch.ones(1, 2, requires_grad=True)
    slow(x).sum().backward()
    assert torch.allclose(x.grad, before["weight"] + 0.25)
    assert all(parameter.grad is None for parameter in linear.parameters())
    assert not list(slow.parameters())


@pytest.mark.parametrize("spec", [TWO, BOX])
def test_a_policy_is_saved_and_read_back(tmp_path, spec):
    policy = make_policy(spec, 4, features_of="abc")
    torch.nn.init.normal_(policy.actor.mlp.last.weight)
    policy.scale.update(torch.tensor([0.0, 3.0]))
    policy.save(tmp_path / "policy")
    again = load_policy(tmp_path)
    features = torch.randn(2, 4)
    assert torch.equal(again.actor(features).mode(), policy.actor(features).mode())
    assert again.actor.action_spec == spec and float(again.scale()) == float(policy.scale())
    with pytest.raises(ValueError, match="another|trained on|that it was trained in"):
        again.check_features("xyz")


def test_what_is_no_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no policy"):
        load_policy(tmp_path)
    make_policy(TWO, 4).save(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        load_policy(tmp_path)
    with pytest.raises(ValueError, match="either"):
        PolicyConfig(3)
