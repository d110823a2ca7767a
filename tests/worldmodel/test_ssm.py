"""The block scan as a module: rotation is a complex recurrence; cuts, reads and initial half-lives."""

import math

import pytest
import torch

from lssvwm_agents.worldmodel import BackboneConfig
from lssvwm_agents.worldmodel.ssm import BlockScan

GRID, BLOCK = (2, 4), 2


def make_scan(recurrence, seed=0, block=BLOCK, **overrides):
    torch.manual_seed(seed)
    options = {"width": 8, "head_dim": 4, "state_dim": 6, "recurrence": recurrence, **overrides}
    module = BlockScan(BackboneConfig(**options), block, GRID).double()
    with torch.no_grad():
        module.skip.copy_(torch.randn(module.heads))
        if module.rotary:
            module.project_in.weight[-module.sizes[-1] :] *= 10.0  # turn well away from zero
    return module


def frames(time, seed=1, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, *GRID, 8, generator=generator, dtype=torch.float64)


def started(module, batch=2):
    state, angle = module.initial_state(batch, frames(1))
    assert state.shape == (batch, 2, module.heads, 4, 6) and not state.any() and not angle.any()
    generator = torch.Generator().manual_seed(7)
    state = torch.randn(state.shape, generator=generator, dtype=torch.float64)
    return state, 6.0 * torch.rand(angle.shape, generator=generator, dtype=torch.float64)


def test_rotation_is_a_complex_recurrence():
    """h[l] = exp(dt a - i turn[l]) h[l-1] + dt x b; y = Re(conj(c) h); a read turns by its own turns."""
    module = make_scan("rotary_ssd")
    tokens, write, read = BLOCK**2, frames(5), frames(5, seed=2)
    state, angle = started(module)
    found = module(write, read, state, angle)

    half = module.state_dim // 2

    def number(x):
        return torch.complex(x[..., :half], x[..., half:])

    parts, reads = module._split(write, None), module._split(read, None)
    dt = torch.nn.functional.softplus(parts.dt + module.dt_bias)
    a = -torch.exp(module.log_a)
    h = number(state.flatten(0, 1)) * torch.exp(-1j * angle.flatten(0, 1))[:, :, None, :]  # (R,H,P,N/2)
    total = angle.flatten(0, 1).clone()
    y, y_read, before = [], [], h
    for token in range(write.shape[1] * tokens):
        if token % tokens == 0:
            before, own = h, torch.zeros_like(total)
        turn, turn_read = parts.turn[:, token], reads.turn[:, token]
        assert turn.abs().mean() > 0.1
        written = (
            dt[:, token, :, None, None]
            * parts.x[:, token, :, :, None]
            * number(parts.b[:, token])[:, :, None, :]
        )
        h = torch.exp((dt[:, token] * a)[..., None, None] - 1j * turn[:, :, None, :]) * h + written
        y.append((number(parts.c[:, token]).conj()[:, :, None, :] * h).sum(-1).real)
        own = own + turn_read
        seen = torch.exp(-1j * own)[:, :, None, :] * before
        y_read.append((number(reads.c[:, token]).conj()[:, :, None, :] * seen).sum(-1).real)
        total = total + turn
    torch.testing.assert_close(found[0], module._finish(parts, torch.stack(y, 1)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], module._finish(reads, torch.stack(y_read, 1)), rtol=1e-9, atol=1e-9)
    upright = h * torch.exp(1j * total)[:, :, None, :]
    expected = torch.cat([upright.real, upright.imag], -1)
    torch.testing.assert_close(found[2].flatten(0, 1), expected, rtol=1e-9, atol=1e-9)
    difference = torch.remainder(found[3].flatten(0, 1) - total + math.pi, 2 * math.pi) - math.pi
    assert difference.abs().max() < 1e-9
    assert (found[3] >= 0).all() and (found[3] < 2 * math.pi).all()


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_cutting_changes_nothing(recurrence, cut):
    module, write, read = make_scan(recurrence), frames(5), frames(5, seed=2)
    state, angle = started(module)
    whole = module(write, read, state, angle)
    first = module(write[:, :cut], read[:, :cut], state, angle)
    second = module(write[:, cut:], read[:, cut:], *first[2:])
    for i in (0, 1):
        torch.testing.assert_close(torch.cat([first[i], second[i]], 1), whole[i], rtol=1e-9, atol=1e-9)
    for i in (2, 3):
        torch.testing.assert_close(second[i], whole[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_reading_one_frame_alone_equals_reading_in_parallel(recurrence):
    module, write, read = make_scan(recurrence), frames(4), frames(4, seed=2)
    state, angle = started(module)
    whole = module(write, read, state, angle)
    for t in range(4):
        alone = module(None, read[:, t : t + 1], state, angle)
        assert alone[0] is None and alone[2] is state and alone[3] is angle
        torch.testing.assert_close(alone[1], whole[1][:, t : t + 1], rtol=1e-9, atol=1e-9)
        _, _, state, angle = module(write[:, t : t + 1], None, state, angle)


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_what_is_written_does_not_depend_on_reads(recurrence):
    module, write = make_scan(recurrence), frames(4)
    state, angle = started(module)
    without = module(write, None, state, angle)
    assert without[1] is None
    for seed in (2, 3):
        with_reads = module(write, frames(4, seed=seed), state, angle)
        for i in (0, 2, 3):
            torch.testing.assert_close(with_reads[i], without[i], rtol=1e-12, atol=1e-12)


def test_blocks_do_not_see_each_other():
    module, write = make_scan("ssd"), frames(3)
    state, angle = module.initial_state(2, write)
    changed = write.clone()
    changed[:, :, :, 2:] += 1.0  # the right block
    one, two = module(write, None, state, angle)[0], module(changed, None, state, angle)[0]
    assert torch.equal(one[:, :, :, :2], two[:, :, :, :2])
    assert (one[:, :, :, 2:] - two[:, :, :, 2:]).abs().max() > 1e-3


@pytest.mark.parametrize("block", [1, 2])
def test_initial_half_lives_are_in_frames(block):
    """With the projection of dt at zero, a state halves in between the configured numbers of frames."""
    module = make_scan("ssd", block=block, half_life_frames=(4.0, 256.0))
    decay_per_token = torch.nn.functional.softplus(module.dt_bias) * torch.exp(module.log_a)
    half_life_frames = math.log(2.0) / (decay_per_token * block**2)
    assert half_life_frames.tolist() == pytest.approx([4.0, 256.0], rel=1e-4)


def test_running_angle_keeps_its_digits_over_a_long_video():
    """In float32, after 16k tokens that turn the same way, the phase is good to a thousandth of a turn."""
    from lssvwm_agents.worldmodel.rotary import running_angle, wrap

    increment = torch.full((1, 16384, 1, 3), 2.9) + 0.2 * torch.rand(1, 16384, 1, 3)
    start = torch.zeros(1, 1, 3)
    exact = wrap(running_angle(increment.double(), start.double()))
    error = wrap(wrap(running_angle(increment, start)).double() - exact + math.pi) - math.pi
    assert error.abs().max() < 2 * math.pi / 1000


def test_normalised_keys_do_not_feel_the_scale_of_their_projection():
    outputs = {}
    for normalise in (True, False):
        outputs[normalise] = []
        for scale in (1.0, 7.0):
            scan = make_scan("ssd", normalise_keys=normalise)
            start, width = sum(scan.sizes[:2]), sum(scan.sizes[2:4])
            with torch.no_grad():
                scan.project_in.weight[start : start + width] *= scale
            outputs[normalise].append(scan(frames(4), None, *started(scan))[0])
    torch.testing.assert_close(*outputs[True], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(*outputs[False], rtol=1e-2)
