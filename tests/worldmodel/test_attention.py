"""Banded attention in chunks of frames against a naive loop over frames, and cutting a video anywhere."""

import math

import pytest
import torch

from lssvwm_agents.worldmodel import BackboneConfig
from lssvwm_agents.worldmodel.attention import FrameAttention

GRID, HEAD_DIM, WIDTH = (2, 2), 8, 16


def make_attention(window):
    torch.manual_seed(0)
    module = FrameAttention(BackboneConfig(width=WIDTH, head_dim=HEAD_DIM, window=window)).double()
    with torch.no_grad():
        for norm in (module.norm_q, module.norm_k):
            norm.weight.copy_(1.0 + 0.5 * torch.rand(HEAD_DIM))
    return module


def turned(x, frame):
    """Rotary position of an absolute frame on half of the channels, written with complex numbers."""
    turning, still = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    pairs = HEAD_DIM // 4
    frequency = torch.logspace(0.0, -1.0, pairs, dtype=torch.float64)
    number = torch.complex(turning[..., :pairs], turning[..., pairs:]) * torch.exp(1j * frame * frequency)
    return torch.cat([number.real, number.imag, still], dim=-1)


def naive(module, write, read, keys, values):
    """Frame by frame, head by head; before the first frame stand ``keys`` and ``values``."""
    window, time = module.window, write.shape[1]

    def project(tokens):
        q, k, v = module.project_in(tokens.flatten(2, 3)).chunk(3, dim=-1)
        split = (*q.shape[:-1], module.heads, HEAD_DIM)
        return module.norm_q(q.reshape(split)), module.norm_k(k.reshape(split)), v.reshape(split)

    def attend(q, k, v):  # (B,S,H,E), (B,M,H,E)
        scores = torch.einsum("bshe,bmhe->bhsm", q, k) / math.sqrt(HEAD_DIM)
        return torch.einsum("bhsm,bmhe->bshe", scores.softmax(-1), v)

    q, k, v = project(write)
    past_k = [keys[:, i] for i in range(window)] + [k[:, t] for t in range(time)]
    past_v = [values[:, i] for i in range(window)] + [v[:, t] for t in range(time)]
    frames = range(-window, time)
    rq, rk, rv = project(read)
    out_write, out_read = [], []
    for t in range(time):
        band = [i for i, frame in enumerate(frames) if t - window <= frame <= t]
        seen_k = torch.cat([turned(past_k[i], frames[i]) for i in band], dim=1)
        seen_v = torch.cat([past_v[i] for i in band], dim=1)
        out_write.append(attend(turned(q[:, t], t), seen_k, seen_v))
        band = band[:-1]
        seen_k = torch.cat([turned(past_k[i], frames[i]) for i in band] + [turned(rk[:, t], t)], dim=1)
        seen_v = torch.cat([past_v[i] for i in band] + [rv[:, t]], dim=1)
        out_read.append(attend(turned(rq[:, t], t), seen_k, seen_v))

    def finish(outs):
        return module.project_out(torch.stack(outs, 1).flatten(-2)).reshape(write.shape)

    return (
        finish(out_write),
        finish(out_read),
        torch.stack(past_k[-window:], 1),
        torch.stack(past_v[-window:], 1),
    )


def inputs(time, batch=2):
    generator = torch.Generator().manual_seed(time)
    return (
        torch.randn(batch, time, *GRID, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)
    )


@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("time", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("fresh", [True, False])
def test_equals_naive(window, time, fresh):
    module = make_attention(window)
    write, read = inputs(time)
    keys = module.initial_state(2, 4, write)
    assert keys.shape == (2, window, 4, 2, HEAD_DIM) and not keys.any()
    values = torch.zeros_like(keys)
    if not fresh:
        keys, values = torch.randn_like(keys), torch.randn_like(values)
    expected = naive(module, write, read, keys, values)
    found = module(write, read, keys, values)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    alone = module(write, None, keys, values)
    assert alone[1] is None
    torch.testing.assert_close(alone[0], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cut", [1, 2, 3, 6, 8])
def test_cutting_changes_nothing(cut):
    module = make_attention(window=3)
    write, read = inputs(9)
    keys = values = module.initial_state(2, 4, write)
    whole = module(write, read, keys, values)
    first = module(write[:, :cut], read[:, :cut], keys, values)
    second = module(write[:, cut:], read[:, cut:], *first[2:])
    for i in (0, 1):
        torch.testing.assert_close(torch.cat([first[i], second[i]], 1), whole[i], rtol=1e-10, atol=1e-10)
    for i in (2, 3):
        torch.testing.assert_close(second[i], whole[i], rtol=1e-12, atol=1e-12)


def test_reading_one_frame_alone_equals_reading_in_parallel():
    module = make_attention(window=2)
    write, read = inputs(6)
    keys = values = module.initial_state(2, 4, write)
    whole = module(write, read, keys, values)
    for t in range(6):
        alone = module(None, read[:, t : t + 1], keys, values)
        assert alone[2] is keys and alone[3] is values
        torch.testing.assert_close(alone[1], whole[1][:, t : t + 1], rtol=1e-10, atol=1e-10)
        _, _, keys, values = module(write[:, t : t + 1], None, keys, values)
