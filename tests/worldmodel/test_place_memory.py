"""The memory of places is a Kalman filter: in parallel, frame by frame, and in forks."""

import math

import pytest
import torch
from torch.nn import functional as F
from worldmodel_builders import micro_config, micro_model, state_distance

from lssvwm_agents.worldmodel import WorldModelConfig
from lssvwm_agents.worldmodel.forked_place import fork_place, forked_learn, forked_recall
from lssvwm_agents.worldmodel.place import PlaceFeatures, place_of
from lssvwm_agents.worldmodel.place_memory import PlaceMemory
from lssvwm_agents.worldmodel.place_regression import PlacePrior, PlaceState, learn, recall

B, T, S, V, N = 2, 23, 3, 4, 16
RIDGE, DECAY = 0.1, -0.02
PRIOR = PlacePrior(RIDGE, DECAY)


def nothing(batch=B, size=N):
    zeros = torch.zeros(batch, S, V, size, dtype=torch.float64)
    return PlaceState(zeros, torch.zeros(batch, size, size, dtype=torch.float64))


def directions(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def values(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kalman(v, phi, asked, log_decay):
    """The recurrence as it is written in the literature, with the covariance itself."""
    rho, prior = math.exp(log_decay), torch.eye(N, dtype=torch.float64) / RIDGE
    weights, covariance = torch.zeros(B, S, V, N, dtype=torch.float64), prior.expand(B, N, N)
    rows = []
    for t in range(T):
        weights, covariance = rho * weights, rho**2 * covariance + (1 - rho**2) * prior
        row = []
        for features in (phi[:, t], asked[:, t]):
            variance = torch.einsum("bn,bnm,bm->b", features, covariance, features)
            row += [torch.einsum("bsvn,bn->bsv", weights, features), RIDGE * variance]
        rows.append(row)
        through = torch.einsum("bnm,bm->bn", covariance, phi[:, t])
        gain = through / (1 + (phi[:, t] * through).sum(-1, keepdim=True))
        weights = weights + (v[:, t] - row[0])[..., None] * gain[:, None, None]
        covariance = covariance - gain[:, :, None] * through[:, None]
    return [torch.stack(column, 1) for column in zip(*rows, strict=True)], weights, prior - covariance


@pytest.mark.parametrize("log_decay", [0.0, DECAY])
def test_parallel_regression_is_the_kalman_filter(log_decay):
    v, phi, asked = values(B, T, S, V), directions(B, T, N), directions(B, T, N, seed=1)
    said, read, state = learn(v, phi, asked, nothing(), PlacePrior(RIDGE, log_decay))
    expected, weights, certainty = kalman(v, phi, asked, log_decay)
    found = (said.values, said.novelty, read.values, read.novelty)
    for one, two in zip(
        (*found, state.weights, state.certainty), (*expected, weights, certainty), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    again, same, _ = learn(v, phi, None, nothing(), PlacePrior(RIDGE, log_decay))
    torch.testing.assert_close(same.values, said.values)
    torch.testing.assert_close(again.novelty, said.novelty)


@pytest.mark.parametrize("cut", [1, 7, 22])
@pytest.mark.parametrize("chunk", [256, 5])
def test_cutting_and_chunks_change_nothing(cut, chunk, monkeypatch):
    monkeypatch.setattr("lssvwm_agents.worldmodel.place_regression.CHUNK", chunk)
    v, phi, asked = values(B, T, S, V), directions(B, T, N), directions(B, T, N, seed=1)
    _, whole, end = learn(v, phi, asked, nothing(), PRIOR)
    _, first, state = learn(v[:, :cut], phi[:, :cut], asked[:, :cut], nothing(), PRIOR)
    alone = recall(asked[:, cut : cut + 1], state, PRIOR)
    _, second, state = learn(v[:, cut:], phi[:, cut:], asked[:, cut:], state, PRIOR)
    torch.testing.assert_close(torch.cat([first.values, second.values], 1), whole.values)
    torch.testing.assert_close(alone.values, whole.values[:, cut : cut + 1])
    torch.testing.assert_close(alone.novelty, whole.novelty[:, cut : cut + 1])
    assert state_distance(state, end) < 1e-10


def test_forks_say_and_learn_what_copies_do():
    v, phi = values(B, T, S, V), directions(B, T, N)
    state = learn(v, phi, None, nothing(), PRIOR)[2]
    forks = fork_place(state, 3, PRIOR)
    copies = PlaceState(*(tensor.repeat_interleave(3, 0) for tensor in (state.weights, state.certainty)))
    for t in range(6):
        place, seen = directions(3 * B, 1, N, seed=10 + t), values(3 * B, 1, S, V, seed=20 + t)
        ask = directions(3 * B, 1, N, seed=30 + t)
        assert state_distance(forked_recall(ask, forks).values, recall(ask, copies, PRIOR).values) < 1e-10
        one, forks = forked_learn(seen, place, forks)
        two, _, copies = learn(seen, place, None, copies, PRIOR)
        torch.testing.assert_close(one.values, two.values)
        torch.testing.assert_close(one.novelty, two.novelty)
        assert state_distance(forks.materialise(), copies) < 1e-10


def test_as_many_places_as_features_are_kept_apart():
    """N orthogonal places, each seen once, in the weights at once: all are recalled, as the ridge allows."""
    phi = torch.eye(N, dtype=torch.float64)[torch.randperm(N)].expand(B, N, N)
    v = values(B, N, S, V)
    _, _, state = learn(v, phi, None, nothing(), PlacePrior(RIDGE, 0.0))
    said = torch.einsum("bsvn,btn->btsv", state.weights, phi)
    torch.testing.assert_close(said, v / (1 + RIDGE))


@pytest.mark.parametrize("ridge", [0.01, 0.3])
def test_a_hundred_thousand_frames_leave_it_as_precise_as_before(ridge):
    """In float32, over and over the same few places: covariance stays a covariance, old places stay known."""
    phi, v = directions(B, 300, N).float(), values(B, 300, S, V).float()
    prior = PlacePrior(ridge, -math.log(2.0) / 20000)
    state = learn(v, phi, None, PlaceState(torch.zeros(B, S, V, N), torch.zeros(B, N, N)), prior)[2]
    few = torch.arange(256) % 3
    for _ in range(390):
        state = learn(v[:, few], phi[:, few], None, state, prior)[2]
    spectrum = torch.linalg.eigvalsh(torch.eye(N) / ridge - state.certainty)
    assert torch.isfinite(state.weights).all() and float(spectrum.min()) > 0
    assert float(spectrum.max()) < 1 / ridge * 1.001
    for t in range(3):
        said = recall(phi[:, t : t + 1], state, prior)
        assert float(said.novelty.max()) < 0.01
        torch.testing.assert_close(said.values, v[:, t : t + 1], rtol=0.0, atol=0.05)


def test_features_are_a_kernel_of_distance_and_heading():
    features = PlaceFeatures(512, 0.1, "pose", 4).double()

    def at(x, y, degrees):
        angle = math.radians(degrees)
        proprio = torch.tensor([[[x, y, math.sin(angle), math.cos(angle)]]], dtype=torch.float64)
        return features(place_of("pose", proprio, proprio, torch.ones(1, 1)))[0, 0]

    here = at(0.3, -0.2, 40.0)
    assert float(here @ here) == pytest.approx(1.0)
    torch.testing.assert_close(at(0.3, -0.2, 400.0), here)  # a full turn changes nothing
    near, further, away = (float(here @ at(0.3 + d, -0.2, 40.0)) for d in (0.03, 0.1, 2.0))
    assert near > further > 0.3 and abs(away) < 0.2
    assert float(here @ at(0.3, -0.2, 220.0)) < 0.3
    unknown = place_of("pose", torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), torch.zeros(1, 1))
    assert not features(unknown).any()


def test_unknown_places_are_neither_learnt_nor_asked():
    model = micro_model(place_features=6, place_values=4, odometry="pose", proprio_dim=4)
    memory = model.backbone.layers[0].place_memory
    assert isinstance(memory, PlaceMemory)
    tokens = values(2, 5, 2, 2, 8)
    place = place_of("pose", values(2, 5, 4), values(2, 5, 4), torch.zeros(2, 5))
    out, _, state = memory(tokens, None, memory.initial_state(2, tokens), place, None)
    assert not out.any() and not state.weights.any() and not state.certainty.any()


def test_gradients_reach_the_place():
    """A planner that differentiates asks how what is seen changes with where the agent is."""
    memory = PlaceMemory(
        micro_config(place_features=8, place_values=4).backbone, 0, (2, 2), "vector", 2
    ).double()
    tokens, place = values(1, 4, 2, 2, 8), values(1, 4, 3, seed=8)
    place[..., -1] = 1.0
    state = memory(tokens, None, memory.initial_state(1, tokens), place, None)[2]

    def ask(where):
        known = torch.cat([where, torch.ones_like(where[..., :1])], -1)
        return memory(None, tokens[:, :1], state, None, known)[1]

    assert torch.autograd.gradcheck(ask, (values(1, 1, 2, seed=9).requires_grad_(),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"place_features": 7}, "place_features"),
        ({"place_features": -2}, "place_features"),
        ({"place_values": 0}, "place_values"),
        ({"place_lengths": (0.1, 0.0)}, "place_lengths"),
        ({"place_ridges": (0.1,)}, "place_ridges"),
        ({"place_half_life_frames": 0.0}, "place_half_life_frames"),
    ],
)
def test_bad_settings_name_themselves(options, message):
    with pytest.raises(ValueError, match=message):
        micro_config(**options)


@pytest.mark.parametrize("options", [{"place_features": 8}, {"place_keys": True}])
def test_places_need_odometry(options):
    with pytest.raises(ValueError, match="proprio_dim"):
        micro_config(proprio_dim=0, **options)
    assert isinstance(micro_config(**options), WorldModelConfig)
