"""Gradients of an imagined return in the actions and in the state, against finite differences."""

import pytest
import torch
from torch.utils import _pytree as pytree
from worldmodel_builders import ACTION_DIM, micro_model, video


def imagined_return(model, state, actions, steps=1):
    """DESIGN's return of a plan, with the value as terminal value."""
    generator = torch.Generator().manual_seed(0)
    _, outcome = model.imagine(state, actions, num_denoising_steps=steps, generator=generator)
    weight, total = 1.0, 0.0
    for t in range(actions.shape[1]):
        total = total + weight * outcome.reward[:, t]
        weight = weight * 0.97 * outcome.continuation[:, t]
    return total + weight * outcome.value[:, -1]


def numeric_gradient(model, state, actions, steps, epsilon=1e-6):
    """Central differences of the rows' returns; without noise all of them as rows of one batch."""
    if steps > 1:  # every difference must see the same noise
        gradient = torch.zeros_like(actions)
        with torch.no_grad():
            for index in range(actions.numel()):
                bump = torch.zeros(actions.numel(), dtype=actions.dtype)
                bump[index] = epsilon
                up, down = (actions + sign * bump.reshape(actions.shape) for sign in (1, -1))
                change = imagined_return(model, state, up, steps) - imagined_return(model, state, down, steps)
                gradient.view(-1)[index] = change.sum() / (2 * epsilon)
        return gradient
    count = actions[0].numel()
    bumps = epsilon * torch.eye(count, dtype=actions.dtype).reshape(count, *actions.shape[1:])
    moved = actions[:, None] + torch.cat([bumps, -bumps])
    with torch.no_grad():
        value = imagined_return(model, state.repeat(2 * count), moved.flatten(0, 1), steps).reshape(
            -1, 2, count
        )
    return ((value[:, 0] - value[:, 1]) / (2 * epsilon)).reshape(actions.shape)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"recurrence": "rotary_ssd"}, {"objective": "diffusion_forcing"}, {"proprio_dim": 0}],
    ids=["ssd", "rotary", "diffusion_forcing", "actions_alone"],
)
def test_gradient_of_the_imagined_return_in_actions(options, steps):
    model = micro_model(**options).requires_grad_(False)
    latents, actions, proprio = video(model, 2, 4)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    plan = torch.rand(2, 5 - 2 * steps + 1, ACTION_DIM, dtype=torch.float64)
    first = state.select(torch.tensor([0]))
    for start in (state, model.repeat(first, 2)):
        wanted = plan.clone().requires_grad_()
        (exact,) = torch.autograd.grad(imagined_return(model, start, wanted, steps).sum(), wanted)
        numeric = numeric_gradient(model, start, plan, steps)
        assert (exact.abs() > 1e-4).float().mean() > 0.9  # not trivially zero, at any time and in any action
        torch.testing.assert_close(exact, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_gradient_of_the_imagined_return_in_the_state(recurrence):
    model = micro_model(recurrence=recurrence).requires_grad_(False)
    latents, actions, proprio = video(model, 1, 5)
    state, _ = model.observe_latents(model.initial_state(1), latents, actions, proprio)
    leaves, structure = pytree.tree_flatten(state)
    generator = torch.Generator().manual_seed(2)
    for i, leaf in enumerate(leaves):
        if not leaf.numel() or leaf is state.latent:  # that is for visual odometry and policies
            continue
        direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)

        def value(step, i=i, leaf=leaf, direction=direction):
            moved = [leaf + step * direction if j == i else other for j, other in enumerate(leaves)]
            return imagined_return(model, pytree.tree_unflatten(moved, structure), actions[:, 1:3]).sum()

        at = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (exact,) = torch.autograd.grad(value(at), at)
        numeric = (value(1e-6) - value(-1e-6)) / 2e-6
        assert abs(float(exact)) > 1e-6
        assert float(exact) == pytest.approx(float(numeric), rel=1e-5, abs=1e-8)
