"""Forks that share the past's state give the numbers of forks that copied it."""

import pytest
import torch
from torch.utils import _pytree as pytree
from worldmodel_builders import ACTION_DIM, micro_model, state_distance, video

from lssvwm_agents.worldmodel import forked_scan
from lssvwm_agents.worldmodel import state as state_module
from lssvwm_agents.worldmodel.forked_scan import ForkedScan

VARIANTS = {
    "ssd": {},
    "rotary": {"recurrence": "rotary_ssd"},
    "groups": {"num_groups": 2},
    "places": {"place_features": 6, "place_values": 4, "place_half_life_frames": 30.0},
    "poses": {"place_features": 6, "place_values": 4, "odometry": "pose", "proprio_dim": 4},
    "visual_odometry": {"odometry": "pose", "proprio_dim": 5, "visual_odometry": True},
    "normalised_keys": {"normalise_keys": True, "num_groups": 2},
    "place_keys": {"place_keys": True, "num_groups": 2},
    "no_memory": {"memory": "none"},
    "full_attention": {"memory": "full_attention"},
    "diffusion_forcing": {"objective": "diffusion_forcing"},
}
every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
FORKS, PASTS, TIME = 3, 2, 5


def past(model, batch=PASTS):
    latents, actions, proprio = video(model, batch, 4)
    return model.observe_latents(model.initial_state(batch), latents, actions, proprio)[0]


def plans(rows, seed=3):
    return torch.rand(
        rows, TIME, ACTION_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def assert_same(one, two):
    (state_one, outcome_one), (state_two, outcome_two) = one, two
    for name in ("latent", "features", "reward", "continuation", "proprio", "value"):
        torch.testing.assert_close(
            getattr(outcome_one, name), getattr(outcome_two, name), rtol=1e-9, atol=1e-9
        )
    assert state_distance(state_one.materialise(), state_two.materialise()) < 1e-9


@every_variant
@pytest.mark.parametrize("max_tokens", [256, 6])
def test_shared_forks_imagine_as_copies_do(options, max_tokens, monkeypatch):
    monkeypatch.setattr(state_module, "MAX_TOKENS", max_tokens)
    model = micro_model(**options)
    state, actions = past(model), plans(PASTS * FORKS)
    shared = model.repeat(state, FORKS)
    assert shared.batch_size == PASTS * FORKS
    has_memory = model.config.backbone.memory == "block_scan"
    assert any(isinstance(layer.scan, ForkedScan) for layer in shared.layers) == has_memory
    assert state_distance(shared.materialise(), state.repeat(FORKS)) == 0.0
    assert_same(model.imagine(shared, actions), model.imagine(state.repeat(FORKS), actions))


@every_variant
def test_gradients_through_shared_forks(options):
    model = micro_model(**options)
    actions = plans(PASTS * FORKS).requires_grad_()
    state = past(model).detach().map(lambda leaf: leaf.clone().requires_grad_())
    leaves = [leaf for leaf in pytree.tree_leaves(state) if leaf.numel()]

    def gradients(start):
        outcome = model.imagine(start, actions)[1]
        total = (outcome.reward * outcome.continuation).sum() + outcome.latent.square().sum()
        wanted = [actions, *leaves, model.backbone.embed.weight]
        return torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)

    for one, two in zip(gradients(model.repeat(state, FORKS)), gradients(state.repeat(FORKS)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_forks_are_ordinary_states(recurrence):
    """Select, reset, detach, observe, fork again: as with copies, also in the middle of imagining."""
    model = micro_model(recurrence=recurrence)
    state, actions = past(model), plans(PASTS * FORKS)
    shared, copied = (
        model.imagine(start, actions[:, :2])[0] for start in (model.repeat(state, FORKS), state.repeat(FORKS))
    )
    index, mask = torch.tensor([4, 0, 4]), torch.arange(PASTS * FORKS) % 2 == 0
    assert state_distance(shared.select(index), copied.select(index)) < 1e-9
    assert state_distance(shared.reset(mask), copied.reset(mask)) < 1e-9
    assert state_distance(shared.repeat(2), copied.repeat(2)) < 1e-9
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(shared.detach()))
    assert_same(model.imagine(shared.detach(), actions), model.imagine(copied, actions))
    twice = plans(PASTS * FORKS * 2, seed=4)
    assert_same(model.imagine(model.repeat(shared, 2), twice), model.imagine(copied.repeat(2), twice))
    latents, real_actions, proprio = video(model, PASTS * FORKS, 3)
    one = model.observe_latents(shared, latents, real_actions, proprio)
    two = model.observe_latents(copied, latents, real_actions, proprio)
    torch.testing.assert_close(one[1], two[1], rtol=1e-9, atol=1e-9)
    assert state_distance(one[0], two[0]) < 1e-9


def test_forks_hold_less_than_copies_and_become_copies_when_long(monkeypatch):
    monkeypatch.setattr(state_module, "MAX_TOKENS", 8)
    model = micro_model(state_dim=64)
    state = past(model)
    shared, copied = model.repeat(state, 50), state.repeat(50)
    assert shared.nbytes < copied.nbytes / 5
    action = torch.ones(100, ACTION_DIM, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(12):
            shared, _ = model.step(shared, action)
    assert shared.nbytes == copied.nbytes
    assert forked_scan.MAX_TOKENS == 256


@every_variant
def test_the_first_leaf_tells_the_batch_size(options):
    """Planners read a state's batch size from its first tensor: one can plan from forks too."""
    model = micro_model(**options)
    state = past(model)
    assert pytree.tree_leaves(state)[0].shape[0] == PASTS
    assert pytree.tree_leaves(model.repeat(state, FORKS))[0].shape[0] == PASTS * FORKS


@pytest.mark.parametrize("name", ["ssd", "places", "poses", "full_attention"])
def test_forks_imagine_in_bfloat16(name):
    """Weights are cast where autocast is on, also behind what is computed in full precision."""
    model = micro_model(torch.float32, **VARIANTS[name]).requires_grad_(False)
    latents, actions, proprio = video(model, PASTS, 4)
    state = model.observe_latents(model.initial_state(PASTS), latents, actions, proprio)[0]
    plan = plans(PASTS * FORKS).float()
    with torch.autocast("cpu", torch.bfloat16):
        copied = model.imagine(state.repeat(FORKS), plan)[1]
        found = model.imagine(model.repeat(state, FORKS), plan)[1]
    assert found.features.dtype == torch.bfloat16  # autocast was at work
    for one, two in ((found.reward, copied.reward), (found.latent, copied.latent)):
        assert float((one - two).norm() / two.norm()) < 0.05
