"""Every backend of the scan gives the numbers of the token-by-token reference."""

import pytest
import torch
from worldmodel_builders import random_scan, relative_error

from lssvwm_agents.worldmodel.scan import BACKENDS, Writes, read, scan
from lssvwm_agents.worldmodel.scan_mamba import _deinterleave, _interleave, mamba_is_available

GPU = pytest.mark.gpu


def run(backend, inputs, *, with_reads=True, tokens_per_frame=1, chunk_size=64):
    """Outputs, and the gradients of a random projection of all outputs with respect to every input."""
    writes, a, state, c_read = inputs
    result = scan(
        writes,
        a,
        state,
        c_read=c_read if with_reads else None,
        tokens_per_frame=tokens_per_frame,
        backend=backend,
        chunk_size=chunk_size,
    )
    outputs = [result.y, result.state] + ([result.y_read] if with_reads else [])
    generator = torch.Generator().manual_seed(99)
    loss = sum(
        (out.double() * torch.randn(out.shape, generator=generator).to(out.device)).sum() for out in outputs
    )
    leaves = [*writes, a, state] + ([c_read] if with_reads else [])
    return outputs, torch.autograd.grad(loss, leaves)


def assert_same(first, second, tolerance=1e-9):
    for one, two in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert one.shape == two.shape
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("with_reads", [True, False])
@pytest.mark.parametrize(
    ("tokens_per_frame", "frames", "chunk_size"),
    [
        (1, 1, 8),
        (1, 13, 4),
        (1, 16, 4),
        (4, 1, 64),
        (4, 5, 8),
        (4, 7, 12),
        (16, 3, 32),
        (16, 5, 16),
        (16, 2, 4),
    ],
)
def test_chunked_equals_reference(groups, with_reads, tokens_per_frame, frames, chunk_size):
    inputs = random_scan(2, frames * tokens_per_frame, heads=4, groups=groups)
    options = {"with_reads": with_reads, "tokens_per_frame": tokens_per_frame}
    reference = run("reference", inputs, **options)
    assert_same(run("chunked", inputs, chunk_size=chunk_size, **options), reference)


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7, 16, 100, 1000])
def test_chunk_size_changes_no_result(chunk_size):
    inputs = random_scan(2, 40, heads=2, groups=1)
    reference = run("chunked", inputs, tokens_per_frame=4, chunk_size=40)
    assert_same(run("chunked", inputs, tokens_per_frame=4, chunk_size=chunk_size), reference)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_state_carries_over_a_cut(backend):
    writes, a, state, c_read = random_scan(2, 24, heads=2, groups=2)
    whole = scan(writes, a, state, c_read=c_read, tokens_per_frame=4, backend=backend, chunk_size=8)
    for cut in (4, 12, 20):
        first = scan(
            Writes(*(t[:, :cut] for t in writes)),
            a,
            state,
            c_read=c_read[:, :cut],
            tokens_per_frame=4,
            backend=backend,
            chunk_size=8,
        )
        second = scan(
            Writes(*(t[:, cut:] for t in writes)),
            a,
            first.state,
            c_read=c_read[:, cut:],
            tokens_per_frame=4,
            backend=backend,
            chunk_size=8,
        )
        torch.testing.assert_close(torch.cat([first.y, second.y], 1), whole.y, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            torch.cat([first.y_read, second.y_read], 1), whole.y_read, rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(second.state, whole.state, rtol=1e-9, atol=1e-9)


def test_reading_the_first_frame_is_read_of_the_state():
    writes, a, state, c_read = random_scan(3, 8, heads=4, groups=2)
    result = scan(writes, a, state, c_read=c_read, tokens_per_frame=4, backend="chunked")
    torch.testing.assert_close(read(c_read[:, :4], state), result.y_read[:, :4], rtol=1e-9, atol=1e-9)


def test_recurrence_solved_by_hand():
    """One head, channel and state: s1 = e^-0.5 * 2 + 0.5 * 3 * 1; y1 = s1 * 2; the read of frame 0 sees 2."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    writes = Writes(x=3 * one, dt=0.5 * one[..., 0], b=one, c=2 * one)
    for backend in ("reference", "chunked"):
        result = scan(writes, -one.flatten(), 2 * one, c_read=5 * one, backend=backend)
        expected = 2 * torch.exp(torch.tensor(-0.5, dtype=torch.float64)) + 1.5
        assert float(result.state) == pytest.approx(float(expected))
        assert float(result.y) == pytest.approx(2 * float(expected))
        assert float(result.y_read) == pytest.approx(10.0)


@pytest.mark.parametrize("rate", [-1e-6, -5.0, -200.0])
def test_long_and_strong_decay_stays_finite(rate):
    """2048 tokens, up to exp(-200) a token: a product of decays underflows and its inverse overflows."""
    writes, _, state, c_read = random_scan(1, 2048, heads=2, groups=1, dtype=torch.float32)
    a = torch.full((2,), rate, requires_grad=True)
    outputs, gradients = run("chunked", (writes, a, state, c_read), tokens_per_frame=4)
    assert all(torch.isfinite(tensor).all() for tensor in (*outputs, *gradients))
    exact = [t.detach().double() for t in (*writes, a, state, c_read)]
    reference = scan(
        Writes(*exact[:4]), exact[4], exact[5], c_read=exact[6], tokens_per_frame=4, backend="reference"
    )
    assert relative_error(outputs, (reference.y, reference.state, reference.y_read)) < 1e-4


def test_mixed_decay_over_a_long_sequence_in_float32():
    """Strong forgetting early must not blur what is remembered late: subtracting log-decays loses digits."""
    writes, _, state, c_read = random_scan(1, 2048, heads=1, groups=1, dtype=torch.float32)
    dt = torch.full_like(writes.dt, 1e-3)
    dt[:, :1024] = 30.0
    writes = writes._replace(dt=dt)
    a = torch.full((1,), -1.0)
    result = scan(writes, a, state, c_read=c_read, tokens_per_frame=4, backend="chunked")
    exact = [t.detach().double() for t in (*writes, a, state, c_read)]
    reference = scan(
        Writes(*exact[:4]), exact[4], exact[5], c_read=exact[6], tokens_per_frame=4, backend="reference"
    )
    late = relative_error(
        (result.y[:, 1024:], result.state, result.y_read[:, 1024:]),
        (reference.y[:, 1024:], reference.state, reference.y_read[:, 1024:]),
    )
    assert late < 1e-4


def test_interleave_roundtrip_and_order():
    first, second = torch.arange(12).reshape(1, 12, 1), 100 + torch.arange(12).reshape(1, 12, 1)
    pair = _interleave(first, second, tokens_per_frame=4)
    assert pair[0, :16, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 4, 5, 6, 7, 104, 105, 106, 107]
    back = _deinterleave(pair, tokens_per_frame=4)
    assert torch.equal(back[0], first) and torch.equal(back[1], second)


@pytest.mark.parametrize("tokens_per_frame", [1, 4])
def test_reads_are_tokens_with_dt_zero_before_their_frame(tokens_per_frame):
    """What the mamba backend relies on: [reads with dt = 0, writes] scanned is a scan with reads."""
    writes, a, state, c_read = random_scan(2, 12, heads=4, groups=2)
    expected = scan(writes, a, state, c_read=c_read, tokens_per_frame=tokens_per_frame, backend="reference")
    zeros = [torch.zeros_like(t) for t in writes]
    long = Writes(
        x=_interleave(
            torch.randn_like(writes.x), writes.x, tokens_per_frame
        ),  # whatever a read carries: dt = 0
        dt=_interleave(zeros[1], writes.dt, tokens_per_frame),
        b=_interleave(zeros[2], writes.b, tokens_per_frame),
        c=_interleave(c_read, writes.c, tokens_per_frame),
    )
    both = scan(long, a, state, backend="reference")
    y_read, y = _deinterleave(both.y, tokens_per_frame)
    torch.testing.assert_close(y, expected.y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y_read, expected.y_read, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.state, expected.state, rtol=1e-12, atol=1e-12)


def test_bad_arguments_are_named():
    writes, a, state, _ = random_scan(1, 6, heads=2, groups=1)
    with pytest.raises(ValueError, match="`tokens_per_frame`=4 must divide the number of tokens, got 6"):
        scan(writes, a, state, tokens_per_frame=4)
    with pytest.raises(ValueError, match="`backend` must be one of"):
        scan(writes, a, state, backend="cuda")
    assert set(BACKENDS) == {"auto", "reference", "chunked", "mamba"}


@pytest.mark.skipif(mamba_is_available(), reason="mamba-ssm is installed here")
def test_missing_mamba_names_the_extra():
    writes, a, state, _ = random_scan(1, 4, heads=2, groups=1)
    with pytest.raises(ImportError, match=r"lssvwm-agents\[mamba\]"):
        scan(writes, a, state, backend="mamba")


@GPU
@pytest.mark.skipif(not mamba_is_available(), reason="needs mamba-ssm and CUDA")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("tokens_per_frame", "frames"), [(1, 100), (4, 64), (16, 21)])
def test_mamba_equals_reference(dtype, tolerance, groups, tokens_per_frame, frames):
    length = frames * tokens_per_frame
    inputs = random_scan(
        2, length, heads=4, groups=groups, channels=32, state_size=32, dtype=dtype, device="cuda"
    )
    writes, a, state, c_read = inputs
    dt, a = (t.detach().float().requires_grad_() for t in (writes.dt, a))
    b = (writes.b.detach() / 32**0.5).requires_grad_()
    inputs = (writes._replace(b=b, dt=dt), a, state, c_read)
    exact = [t.detach().double().requires_grad_() for t in (*inputs[0], *inputs[1:])]
    reference = run("reference", (Writes(*exact[:4]), *exact[4:]), tokens_per_frame=tokens_per_frame)
    for with_reads in (True, False):
        if not with_reads:
            reference = run("reference", (Writes(*exact[:4]), *exact[4:]), with_reads=False,
                            tokens_per_frame=tokens_per_frame)  # fmt: skip
        found = run("mamba", inputs, with_reads=with_reads, tokens_per_frame=tokens_per_frame)
        assert relative_error(found[0], reference[0]) < tolerance
        assert relative_error(found[1], reference[1]) < tolerance
