"""Memory stays bounded however long the stream: 4 times a training window, and 100,000 frames."""

from itertools import pairwise

import pytest
import torch
from worldmodel_builders import micro_model, random_scan

from lssvwm_agents.worldmodel import ssm
from lssvwm_agents.worldmodel.scan import Writes, scan
from lssvwm_agents.worldmodel.state_norms import decay_bound, half_lives, state_norms, stream_norms

TRAINED = 128  # frames of a window
LONG = 100_000
NUMBERS = 4 * 4  # of one head's state, P * N
every_recurrence = pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])


def stream(model, marks, still_row=False):
    """Pieces that end at the given frames. Row 0 changes at every frame; row 1, if any, stands still."""
    generator = torch.Generator().manual_seed(0)
    rows = 1 + still_row
    shape = (rows, 1, *model.config.tokenizer.latent_shape)
    still = torch.randn(shape, generator=generator)
    for start, stop in pairwise((0, *marks)):
        time = stop - start
        latents = still.expand(-1, time, -1, -1, -1).clone()
        latents[0] = torch.randn(latents[0].shape, generator=generator)
        index = torch.zeros(rows, time, dtype=torch.long)
        index[0] = torch.randint(3, (time,), generator=generator)
        proprio = torch.ones(rows, time, 2)
        proprio[0] = torch.randn(time, 2, generator=generator)
        yield latents, torch.eye(3)[index], proprio


def bounds(model, pieces, monkeypatch):
    """Largest Frobenius norm (L, H) that the heads' states may have, from what a stream really wrote."""
    modules = [layer.scan for layer in model.backbone.layers]
    rates = [torch.exp(module.log_a) for module in modules]
    step = [torch.zeros(module.heads) for module in modules]
    write = [torch.zeros(module.heads) for module in modules]
    calls = 0

    def spy(writes, a, *args, **options):
        nonlocal calls
        layer = calls % len(modules)
        calls += 1
        step[layer] = torch.maximum(step[layer], writes.dt.amax((0, 1)))
        size = writes.x.norm(dim=-1) * writes.b.norm(dim=-1)  # one group serves both heads
        write[layer] = torch.maximum(write[layer], size.amax((0, 1)))
        return scan(writes, a, *args, **options)

    monkeypatch.setattr(ssm, "scan", spy)
    result = stream_norms(model, pieces)
    assert calls >= len(modules) and all(w.min() > 0 for w in write)
    limit = torch.stack(
        [decay_bound(rate, dt) * w for rate, dt, w in zip(rates, step, write, strict=True)]
    ).detach()
    return result, limit


# --- the bound itself -----------------------------------------------------------------------------


def test_the_bound_by_hand():
    rate, step = torch.tensor([0.5, 1e-6, 20.0]).double(), torch.tensor([1.0, 0.1, 1.0]).double()
    weights = step[:, None] * torch.exp(-rate[:, None] * step[:, None] * torch.arange(100))
    bound = decay_bound(rate, step)
    assert float(bound[0]) == pytest.approx(float(weights[0].sum()), rel=1e-9)
    assert float(bound[1]) == pytest.approx(1e6, rel=1e-6)  # 1 / rate: decay is slow
    assert float(bound[2]) == pytest.approx(1.0, rel=1e-6)  # one step: nothing else is left
    assert (bound >= 1 / rate).all() and (bound <= 1 / rate + step).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_stream_passes_the_bound(seed):
    writes, a, state, _ = random_scan(3, 400, heads=4, groups=4, seed=seed)
    limit = decay_bound(-a, writes.dt.amax((0, 1))) * (writes.x.norm(dim=-1) * writes.b.norm(dim=-1)).amax(
        (0, 1)
    )
    after = scan(writes, a, torch.zeros_like(state)).state
    assert (after.norm(dim=(-1, -2)) <= limit).all()


def test_the_bound_is_reached_by_writing_the_same_again_and_again():
    writes, a, state, _ = random_scan(2, 1, heads=3, groups=3)
    same = Writes(*(tensor.expand(-1, 3000, *tensor.shape[2:]) for tensor in writes))
    limit = decay_bound(-a, writes.dt[:, 0]) * (writes.x.norm(dim=-1) * writes.b.norm(dim=-1))[:, 0]
    after = scan(same, a, torch.zeros_like(state)).state
    torch.testing.assert_close(after.norm(dim=(-1, -2)), limit, rtol=1e-6, atol=0)


# --- a model --------------------------------------------------------------------------------------


@every_recurrence
def test_states_stay_within_the_bound_over_four_training_lengths(recurrence, monkeypatch):
    model = micro_model(torch.float32, recurrence=recurrence, half_life_frames=(2.0, 1024.0))
    marks = range(TRAINED // 4, 4 * TRAINED + 1, TRAINED // 4)
    result, limit = bounds(model, stream(model, marks, still_row=True), monkeypatch)
    assert result.frames == tuple(marks) and result.norms.shape == (16, 2, 2)
    # The mean square over blocks, heads and channels is at most that of the heads' bounds.
    assert (result.norms <= (limit.square().mean(-1) / NUMBERS).sqrt()).all()
    assert result.norms.min() > 0.01


@every_recurrence
def test_states_settle_over_a_hundred_thousand_frames(recurrence, monkeypatch):
    model = micro_model(torch.float32, recurrence=recurrence, half_life_frames=(2.0, 1024.0))
    marks = range(2000, LONG + 1, 2000)
    result, limit = bounds(model, stream(model, marks, still_row=True), monkeypatch)
    norms = result.norms
    assert result.frames[-1] == LONG and norms.isfinite().all()
    assert (norms <= (limit.square().mean(-1) / NUMBERS).sqrt()).all()
    changing, still = norms[:, 0], norms[:, 1]
    early, late = changing[5:25].mean(0), changing[25:].mean(0)
    torch.testing.assert_close(late, early, rtol=0.05, atol=0)
    torch.testing.assert_close(still[25:], still[-1:].expand(25, -1), rtol=1e-3, atol=0)


def test_a_memory_that_does_not_decay_is_seen_to_grow():
    model = micro_model(torch.float32)
    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.scan.log_a.fill_(-30.0)
    _, norms = stream_norms(model, stream(model, (2000, 4000)))
    assert (norms[1] > 1.3 * norms[0]).all()


# --- the report -----------------------------------------------------------------------------------


def test_norms_by_hand():
    model = micro_model(torch.float32)
    (latents, actions, proprio), *_ = stream(model, (7,), still_row=True)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    report = stream_norms(model, stream(model, (7,), still_row=True))
    assert report.frames == (7,)
    for layer in range(2):
        expected = state.layers[layer].scan.detach().flatten(1).square().mean(1) ** 0.5
        torch.testing.assert_close(report.norms[0, :, layer], expected)
    assert not report.norms.requires_grad
    torch.testing.assert_close(
        state_norms(model.repeat(state, 3)), state_norms(state).repeat_interleave(3, 0)
    )


def test_pieces_change_nothing():
    model = micro_model(torch.float32)
    (whole,) = stream(model, (30,))
    cut = [tuple(t[:, a:b] for t in whole) for a, b in pairwise((0, 1, 12, 30))]
    norms = stream_norms(model, cut)
    assert norms.frames == (1, 12, 30)
    torch.testing.assert_close(norms.norms[-1], stream_norms(model, [whole]).norms[-1])


@every_recurrence
def test_half_lives_are_what_a_state_left_alone_would_show(recurrence):
    model = micro_model(torch.float64, recurrence=recurrence, half_life_frames=(4.0, 256.0))
    (latents, actions, proprio), *_ = stream(model, (9,))
    piece = (latents.double(), actions.double(), proprio.double())
    for layer in model.backbone.layers:  # steps by the bias alone: the half-lives of the configuration
        width = sum(layer.scan.sizes[:4])
        with torch.no_grad():
            layer.scan.project_in.weight[width : width + layer.scan.heads] = 0.0
    expected = torch.tensor([[4.0, 256.0]] * 2).double()
    torch.testing.assert_close(half_lives(model, piece), expected, rtol=1e-5, atol=0)
    with torch.no_grad():
        model.backbone.layers[1].scan.log_a += torch.log(torch.tensor(2.0))
    expected[1] /= 2
    torch.testing.assert_close(half_lives(model, piece), expected, rtol=1e-5, atol=0)


@every_recurrence
def test_bounded_half_lives_stay_within_their_factor_whatever_is_learnt(recurrence):
    model = micro_model(
        torch.float64, recurrence=recurrence, half_life_frames=(4.0, 256.0), half_life_factor=3.0
    )
    (latents, actions, proprio), *_ = stream(model, (9,))
    piece = (latents.double(), actions.double(), proprio.double())
    initial = torch.tensor([4.0, 256.0]).double()
    free = micro_model(torch.float64, recurrence=recurrence, half_life_frames=(4.0, 256.0))
    for sign in (-1.0, 1.0):
        for one in (model, free):
            for layer in one.backbone.layers:
                width = sum(layer.scan.sizes[:4])
                with torch.no_grad():
                    layer.scan.project_in.weight[width : width + layer.scan.heads].mul_(sign * 1e3)
        found = half_lives(model, piece)
        assert (found >= initial / 3.0 - 1e-9).all() and (found <= initial * 3.0 + 1e-9).all()
        assert ((found / initial - 1.0).abs() > 0.2).any()
        escaped = half_lives(free, piece)
        assert ((escaped < initial / 3.0) | (escaped > initial * 3.0)).any()
    assert not any(layer.scan.log_a.requires_grad for layer in model.backbone.layers)


def test_half_lives_of_other_memories_are_refused():
    model = micro_model(torch.float32, memory="none")
    (piece,) = stream(model, (3,))
    with pytest.raises(ValueError, match="half-lives need `memory`='block_scan', got none"):
        half_lives(model, piece)


@pytest.mark.parametrize("memory", ["none", "full_attention"])
def test_other_memories_are_refused(memory):
    model = micro_model(torch.float32, memory=memory)
    with pytest.raises(ValueError, match="need `memory`='block_scan' in every layer, got another in layer 0"):
        stream_norms(model, stream(model, (3,)))


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="at least 1 piece of a stream is needed"):
        stream_norms(micro_model(), [])
