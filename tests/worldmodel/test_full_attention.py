"""Full attention over all past frames against a loop over frames; a cache that grows, is reset and forked."""

import math

import pytest
import torch
from worldmodel_builders import ACTION_DIM, micro_model, video

from lssvwm_agents.worldmodel import BackboneConfig
from lssvwm_agents.worldmodel.full_attention import SLOWEST, FullAttention

GRID, HEAD_DIM, WIDTH = (2, 2), 8, 16


def make_attention():
    torch.manual_seed(0)
    module = FullAttention(BackboneConfig(width=WIDTH, head_dim=HEAD_DIM)).double()
    with torch.no_grad():
        for norm in (module.norm_q, module.norm_k):
            norm.weight.copy_(1.0 + 0.5 * torch.rand(HEAD_DIM))
    return module


def turned(x, frame):
    """Rotary position on half of the channels, written with complex numbers."""
    turning, still = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    pairs = HEAD_DIM // 4
    frequency = torch.logspace(0.0, SLOWEST, pairs, dtype=torch.float64)
    number = torch.complex(turning[..., :pairs], turning[..., pairs:]) * torch.exp(1j * frame * frequency)
    return torch.cat([number.real, number.imag, still], dim=-1)


def naive(module, write, read):
    """Frame by frame: every earlier frame is seen, however far."""
    time = write.shape[1]

    def project(tokens):
        q, k, v = module.project_in(tokens.flatten(2, 3)).chunk(3, dim=-1)
        split = (*q.shape[:-1], module.heads, HEAD_DIM)
        return module.norm_q(q.reshape(split)), module.norm_k(k.reshape(split)), v.reshape(split)

    def attend(q, k, v):
        scores = torch.einsum("bshe,bmhe->bhsm", q, k) / math.sqrt(HEAD_DIM)
        return torch.einsum("bhsm,bmhe->bshe", scores.softmax(-1), v)

    q, k, v = project(write)
    rq, rk, rv = project(read)
    out_write, out_read = [], []
    for t in range(time):
        past_k = [turned(k[:, i], i) for i in range(t)]
        past_v = [v[:, i] for i in range(t)]
        for out, query, key, value in ((out_write, q, k, v), (out_read, rq, rk, rv)):
            keys = torch.cat([*past_k, turned(key[:, t], t)], dim=1)
            out.append(attend(turned(query[:, t], t), keys, torch.cat([*past_v, value[:, t]], dim=1)))

    def finish(outs):
        return module.project_out(torch.stack(outs, 1).flatten(-2)).reshape(write.shape)

    return finish(out_write), finish(out_read)


@pytest.mark.parametrize("time", [1, 2, 5, 9])
def test_equals_naive_in_one_piece_and_in_two(time):
    module = make_attention()
    generator = torch.Generator().manual_seed(time)
    write, read = (
        torch.randn(2, time, *GRID, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    expected = naive(module, write, read)
    fresh = module.initial_state(2, 4, write)
    out_write, out_read, cache = module(write, read, fresh)
    torch.testing.assert_close(out_write, expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out_read, expected[1], rtol=1e-9, atol=1e-9)
    assert cache.keys.shape == (2, time, 4, WIDTH // HEAD_DIM, HEAD_DIM) and bool((cache.seen == 1).all())
    for cut in range(1, time):
        first = module(write[:, :cut], read[:, :cut], fresh)
        second = module(write[:, cut:], read[:, cut:], first[2])
        for index in (0, 1):
            joined = torch.cat([first[index], second[index]], 1)
            torch.testing.assert_close(joined, expected[index], rtol=1e-9, atol=1e-9)
        # reading alone, as a frame is denoised
        torch.testing.assert_close(
            module(None, read[:, cut : cut + 1], first[2])[1], expected[1][:, cut : cut + 1]
        )


def test_the_state_grows_by_the_same_number_of_bytes_with_every_frame():
    model = micro_model(memory="full_attention")
    state, sizes = model.initial_state(2), []
    action = torch.eye(ACTION_DIM, dtype=torch.float64)[:2]
    with torch.no_grad():
        for _ in range(6):
            sizes.append(state.nbytes)
            state, _ = model.step(state, action)
    backbone = model.config.backbone
    # per row, layer and frame: keys and values of 4 tokens, and one number that says whether it counts
    growth = 2 * backbone.num_layers * (2 * 4 * backbone.width + 1) * 8
    assert [b - a for a, b in zip(sizes[:-1], sizes[1:], strict=True)] == [growth] * 5


def test_a_reset_row_goes_on_as_a_fresh_one_beside_rows_that_remember():
    model = micro_model(memory="full_attention")
    latents, actions, proprio = video(model, 3, 5)
    state, _ = model.observe_latents(model.initial_state(3), latents, actions, proprio)
    mask = torch.tensor([True, False, True])
    reset, after = state.reset(mask), video(model, 3, 4, seed=7)
    new_state, features = model.observe_latents(reset, *after)
    _, fresh = model.observe_latents(model.initial_state(3), *after)
    _, going_on = model.observe_latents(state, *after)
    torch.testing.assert_close(features[mask], fresh[mask], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(features[~mask], going_on[~mask], rtol=1e-9, atol=1e-9)
    assert (fresh[1] - going_on[1]).abs().max() > 1e-3
    plan = torch.eye(ACTION_DIM, dtype=torch.float64)[None, :].expand(3, -1, -1)
    imagined = model.imagine(new_state, plan)[1].latent
    row = model.observe_latents(model.initial_state(1), *(tensor[:1] for tensor in after))[0]
    torch.testing.assert_close(imagined[:1], model.imagine(row, plan[:1])[1].latent, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("memory", "remembers"), [("full_attention", True), ("none", False)])
def test_the_first_frame_matters_after_any_number_of_frames(memory, remembers):
    model = micro_model(memory=memory, block_sizes=(2,), window=1)
    latents, actions, proprio = video(model, 1, 60)
    other = latents.clone()
    other[:, 0] += 1.0
    one, two = (
        model.observe_latents(model.initial_state(1), given, actions, proprio)[0]
        for given in (latents, other)
    )
    told = proprio[:, 1]
    change = model.step(one, actions[:, 1], proprio=told)[1].latent
    change = change - model.step(two, actions[:, 1], proprio=told)[1].latent
    assert (float(change.detach().abs().max()) > 1e-6) == remembers
