"""Two-hot scalars, nulls of the conditioning, noise levels and the sampler."""

import pytest
import torch
from worldmodel_builders import randomise

from lssvwm_agents.worldmodel import WorldModel, WorldModelConfig
from lssvwm_agents.worldmodel.conditioning import FrameConditioning
from lssvwm_agents.worldmodel.heads import Heads, TwoHot, symexp, symlog
from lssvwm_agents.worldmodel.noise import add_noise
from lssvwm_agents.worldmodel.sampler import sample

VALUES = torch.tensor([-60.0, -53.0, -3.3, -1.0, -0.01, 0.0, 0.2, 1.0, 7.7, 53.0, 60.0], dtype=torch.float64)


def test_symexp_is_the_inverse_of_symlog():
    torch.testing.assert_close(symexp(symlog(VALUES)), VALUES)
    torch.testing.assert_close(symlog(symexp(VALUES / 20)), VALUES / 20)
    assert symlog(torch.tensor(1.0)) == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize("num_bins", [3, 5, 41])
def test_mean_of_the_target_is_the_value(num_bins):
    two_hot = TwoHot(num_bins)
    target = two_hot.target(VALUES)
    assert target.shape == (len(VALUES), num_bins)
    assert (target >= 0).all() and ((target > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(target.sum(-1), torch.ones_like(VALUES))
    mean = two_hot.mean(target.clamp(min=1e-30).log())
    limit = float(two_hot.bins[-1])
    torch.testing.assert_close(mean, VALUES.clamp(-limit, limit), rtol=1e-6, atol=1e-6)


def test_mean_of_bfloat16_logits_is_not_rounded():
    """Bins reach 53.6: summed in bfloat16, a flat distribution would not even mean zero."""
    two_hot = TwoHot(41)
    mean = two_hot.mean(torch.zeros(3, 41, dtype=torch.bfloat16))
    assert mean.dtype == torch.float32 and mean.abs().max() < 1e-4
    sharp = torch.full((41,), -20.0, dtype=torch.bfloat16)
    sharp[33] = 20.0
    assert float(two_hot.mean(sharp)) == pytest.approx(float(two_hot.bins[33]), rel=1e-4)


def test_bins_reach_as_far_as_they_are_asked_to():
    beyond = torch.tensor([100.0])
    for limit, said in ((4.0, 53.598), (5.0, 100.0)):
        two_hot = TwoHot(41, limit)
        mean = two_hot.mean(two_hot.target(beyond).clamp(min=1e-30).log())
        assert float(mean) == pytest.approx(said, rel=1e-4)
    with pytest.raises(ValueError, match="`symlog_limit` must be positive, got 0"):
        WorldModelConfig(symlog_limit=0.0)
    model = WorldModel(WorldModelConfig(symlog_limit=5.0))
    assert float(model.heads.two_hot.bins[-1]) == pytest.approx(147.41, rel=1e-4)


def test_untrained_head_predicts_zero():
    heads = Heads(feature_dim=8, action_dim=3, proprio_dim=2, num_bins=41, value=True)
    features = torch.randn(5, 8)
    assert heads.two_hot.mean(heads.reward(features)).abs().max() < 1e-4
    assert heads.proprio is not None
    proprio, action = torch.randn(5, 2), torch.randn(5, 3)
    change = heads.proprio.predict(features, proprio, action)
    torch.testing.assert_close(heads.proprio.apply_change(proprio, change), proprio)


def test_two_hot_loss_gradient_is_softmax_minus_target():
    two_hot = TwoHot(41)
    logits = torch.randn(4, 41, requires_grad=True)
    value = torch.tensor([-2.0, 0.0, 0.5, 12.0])
    (gradient,) = torch.autograd.grad(two_hot.loss(logits, value).sum(), logits)
    torch.testing.assert_close(
        gradient, logits.detach().softmax(-1) - two_hot.target(value), atol=1e-6, rtol=1e-5
    )


def condition(module, **changes):
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "noise_level": torch.rand(2, 3, generator=generator),
        "action": torch.randn(2, 3, 3, generator=generator),
        "action_known": torch.ones(2, 3),
        "proprio": torch.randn(2, 3, 2, generator=generator),
        "proprio_known": torch.ones(2, 3),
    }
    return module(**{**inputs, **changes})


@pytest.mark.parametrize("name", ["action", "proprio"])
def test_unknown_inputs_are_a_learned_null(name):
    module = FrameConditioning(width=8, action_dim=3, proprio_dim=2)
    randomise(module)
    width = {"action": 3, "proprio": 2}[name]
    one, two = torch.randn(2, 3, width), torch.randn(2, 3, width)
    known, unknown = torch.ones(2, 3), torch.zeros(2, 3)
    changed = condition(module, **{name: one, f"{name}_known": known})
    assert (changed - condition(module, **{name: two, f"{name}_known": known})).abs().max() > 1e-3
    hidden = condition(module, **{name: one, f"{name}_known": unknown})
    assert torch.equal(hidden, condition(module, **{name: two, f"{name}_known": unknown.bool()}))
    assert (hidden - changed).abs().max() > 1e-3
    with torch.no_grad():
        getattr(module, f"null_{name}").add_(1.0)
    assert (hidden - condition(module, **{name: one, f"{name}_known": unknown})).abs().max() > 1e-3
    assert torch.equal(changed, condition(module, **{name: one, f"{name}_known": known}))


def test_odometry_statistics_roundtrip():
    module = FrameConditioning(width=8, action_dim=3, proprio_dim=2)
    proprio = 3.0 + 5.0 * torch.randn(1000, 2)
    module.fit_proprio(proprio)
    standardised = module.standardise(proprio)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(0), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(module.restore(standardised), proprio)


def test_noise_levels():
    clean, noise = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    level = torch.tensor([[0.0, 0.25, 1.0], [1.0, 0.5, 0.0]])
    noisy = add_noise(clean, noise, level)
    assert torch.equal(noisy[0, 0], clean[0, 0])
    torch.testing.assert_close(noisy[0, 1], 0.75 * clean[0, 1] + 0.25 * noise[0, 1])
    assert not noisy[0, 2].any() and not noisy[1, 0].any()


class CountingDenoiser:
    def __init__(self, answer):
        self.levels, self.inputs, self.answer = [], [], answer

    def __call__(self, noisy, level):
        self.levels.append(level)
        self.inputs.append(noisy)
        return self.answer(noisy, level)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_sampler_calls_the_denoiser_once_per_step(steps):
    point = torch.randn(2, 1, 2, 4, 4)
    denoise = CountingDenoiser(lambda noisy, level: point)
    found = sample(denoise, point.shape, steps, torch.Generator().manual_seed(0), like=point)
    assert torch.equal(found, point)  # the ideal denoiser of a point mass
    assert denoise.levels == pytest.approx([1.0 - i / steps for i in range(steps)])
    assert not denoise.inputs[0].any()  # pure noise tells nothing
    # on the way, the latent is a mix of the point and one noise, at the level that the denoiser is told
    for level, noisy in zip(denoise.levels[1:], denoise.inputs[1:], strict=True):
        noise = (noisy - (1 - level) * point) / level
        torch.testing.assert_close(
            noise, (denoise.inputs[1] - point / steps) * steps / (steps - 1), atol=1e-4, rtol=1e-4
        )


def test_samples_follow_the_data_of_a_gaussian():
    """Data N(0, s^2), ideal denoiser: samples have deviation near s; one step gives only their mean."""
    s = 0.5

    def ideal(noisy, level):
        return noisy * (1 - level) * s**2 / ((1 - level) ** 2 * s**2 + level**2)

    like = torch.zeros(1)
    generator = torch.Generator().manual_seed(0)
    found = sample(ideal, (20000, 1, 1, 1, 1), 64, generator, like)
    assert float(found.std()) == pytest.approx(s, rel=0.05)
    assert not sample(ideal, (100, 1, 1, 1, 1), 1, generator, like).any()


def test_one_step_is_deterministic_and_leaves_the_generator_alone():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    answers = [
        sample(lambda noisy, level: noisy + level, (1, 1, 1, 2, 2), 1, generator, torch.zeros(1))
        for _ in range(2)
    ]
    assert torch.equal(*answers) and torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("steps", [1, 3])
def test_sampler_is_differentiable(steps):
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def final(value):
        generator = torch.Generator().manual_seed(3)
        return sample(
            lambda noisy, level: value * (noisy + level), (1, 1, 1, 2, 2), steps, generator, scale.detach()
        ).sum()

    (gradient,) = torch.autograd.grad(final(scale), scale)
    numeric = (final(scale.detach() + 1e-6) - final(scale.detach() - 1e-6)) / 2e-6
    assert float(gradient) == pytest.approx(float(numeric), rel=1e-6)


def test_sampler_refuses_zero_steps():
    with pytest.raises(ValueError, match="`num_denoising_steps` must be at least 1, got 0"):
        sample(lambda noisy, level: noisy, (1, 1, 1, 2, 2), 0, None, torch.zeros(1))
