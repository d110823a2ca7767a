"""The training loss: it falls, its masks mask, and a share of a batch sees the numbers of the whole."""

from dataclasses import replace

import pytest
import torch
from worldmodel_builders import micro_config, micro_model, relative_error, window_batch

from lssvwm_agents.worldmodel import (
    ObjectiveConfig,
    Tokenizer,
    TokenizerConfig,
    TokenizerLossConfig,
    WorldModel,
    tokenizer_loss,
    world_model_loss,
)
from lssvwm_agents.worldmodel.imagined_window import imagine_window

OBJECTIVES = pytest.mark.parametrize("objective", ["teacher_forcing", "diffusion_forcing"])
PARTS = ("denoising", "reward", "continuation", "value", "proprio")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def loss_of(model, batch, seed=0, config=None, **share):
    return world_model_loss(model, batch, generator(seed), config or ObjectiveConfig(), **share)


@OBJECTIVES
@pytest.mark.parametrize("options", [{}, {"recurrence": "rotary_ssd"}, {"proprio_dim": 0}, {"memory": "none"},
                                     {"value_head": False}])  # fmt: skip
def test_loss_is_the_weighted_sum_of_its_parts(objective, options):
    model = micro_model(objective=objective, **options)
    config = ObjectiveConfig(rollout_weight=0.5)
    loss, metrics = loss_of(model, window_batch(model, 3, 6), config=config)
    parts = [name for name in PARTS if f"loss/{name}" in metrics]
    assert ("proprio" in parts) == (model.config.proprio_dim > 0)
    assert ("value" in parts) == model.config.value_head
    weights = {"denoising": 1.0, **{name: getattr(config, f"{name}_weight") for name in PARTS[1:]}}
    total = sum(weights[name] * metrics[f"loss/{name}"] for name in parts)
    total = total + 0.5 * sum(weights[name] * metrics[f"loss/rollout_{name}"] for name in parts)
    torch.testing.assert_close(loss.detach(), total)
    torch.testing.assert_close(metrics["loss/total"], total)
    assert loss.requires_grad and not any(metric.requires_grad for metric in metrics.values())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if not name.startswith("tokenizer.")}
    missing = {name for name, g in gradients.items() if g is None or not torch.isfinite(g).all()}
    allowed = (
        ("conditioning.embed_proprio", "conditioning.null_proprio") if model.config.proprio_dim == 0 else ()
    )
    assert not {name for name in missing if not any(part in name for part in allowed)}


@OBJECTIVES
def test_the_same_generator_gives_the_same_loss(objective):
    model = micro_model(objective=objective)
    batch = window_batch(model, 3, 6)
    assert torch.equal(loss_of(model, batch)[0], loss_of(model, batch)[0])
    assert not torch.equal(loss_of(model, batch)[0], loss_of(model, batch, seed=1)[0])


@pytest.mark.parametrize(
    ("objective", "rollout_weight"),
    [("teacher_forcing", 0.0), ("teacher_forcing", 1.0), ("diffusion_forcing", 0.0)],
)
def test_a_small_batch_can_be_overfitted(objective, rollout_weight):
    torch.manual_seed(0)
    model = WorldModel(
        micro_config(objective=objective, width=16, conditioning_width=16, recurrence="rotary_ssd")
    )
    batch = window_batch(model, 4, 6)
    config = ObjectiveConfig(rollout_weight=rollout_weight, clean_prefix_share=0.5, proprio_weight=1.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    noise, history = generator(), []
    for _ in range(60):
        loss, metrics = world_model_loss(model, batch, noise, config)
        assert all(torch.isfinite(metric) for metric in metrics.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append({name: float(metric) for name, metric in metrics.items()})

    def mean(name, part):
        return sum(record[name] for record in part) / len(part)

    assert mean("loss/total", history[-10:]) < 0.7 * mean("loss/total", history[:10])
    for name in ("loss/denoising", "loss/reward", "loss/continuation"):
        assert mean(name, history[-10:]) < mean(name, history[:10])


def gradients_of(model, loss):
    parameters = [p for name, p in model.named_parameters() if not name.startswith("tokenizer.")]
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize(
    ("objective", "rollout_weight"),
    [("teacher_forcing", 0.0), ("teacher_forcing", 1.0), ("diffusion_forcing", 0.0)],
)
def test_two_shares_averaged_are_the_whole_batch(objective, rollout_weight):
    """Data-parallel: each process takes its rows; the mean of their gradients is the single process's."""
    model = micro_model(objective=objective)
    # with equally many targets on either side; full noise, no prefix and nothing hidden keep the counts equal
    config = ObjectiveConfig(
        rollout_weight=rollout_weight,
        rollout_rows=2,
        clean_prefix_share=0.0,
        action_dropout=0.0,
        proprio_dropout=0.0,
    )
    batch = window_batch(model, 4, 6)
    whole, metrics = loss_of(model, batch, config=config)
    halves = [
        loss_of(model, batch.rows(start, start + 2), config=config, row_offset=start, global_rows=4)
        for start in (0, 2)
    ]
    for name, metric in metrics.items():
        torch.testing.assert_close((halves[0][1][name] + halves[1][1][name]) / 2, metric)
    averaged = [(a + b) / 2 for a, b in zip(*(gradients_of(model, half[0]) for half in halves), strict=True)]
    whole_gradients = gradients_of(model, whole)
    for one, two in zip(averaged, whole_gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_shares_with_unequal_masks_are_the_whole_batch():
    """Processes that agree on the counts: means over what is known are those of the whole batch."""
    model = micro_model()
    config = ObjectiveConfig(rollout_weight=1.0, rollout_rows=4, rollout_horizon=3)
    batch = window_batch(model, 8, 6)
    visible = torch.rand(8, 6, generator=generator(3)) < 0.4
    batch = replace(batch, reward_mask=visible, value_mask=~visible)
    counts: list[list[torch.Tensor]] = [[], []]

    def share(half, summed):
        return loss_of(
            model,
            batch.rows(4 * half, 4 * half + 4),
            config=config,
            row_offset=4 * half,
            global_rows=8,
            sum_over_processes=summed,
        )

    for half in (0, 1):
        share(half, lambda count, half=half: counts[half].append(count) or count)
    assert any(not torch.equal(one, two) for one, two in zip(*counts, strict=True))
    totals = [one + two for one, two in zip(*counts, strict=True)]
    halves = []
    for half in (0, 1):
        remaining = iter(totals)
        halves.append(share(half, lambda _, remaining=remaining: next(remaining)))
    whole, metrics = loss_of(model, batch, config=config)
    for name, metric in metrics.items():
        torch.testing.assert_close((halves[0][1][name] + halves[1][1][name]) / 2, metric)
    averaged = [(a + b) / 2 for a, b in zip(*(gradients_of(model, half[0]) for half in halves), strict=True)]
    for one, two in zip(averaged, gradients_of(model, whole), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_imagined_frames_do_not_train_the_odometry_head_through_poses():
    """Every change of odometry has a target of its own; a chain of poses would drown it."""
    model = micro_model()
    batch = window_batch(model, 3, 7)
    imagined = imagine_window(model, batch, batch.proprio, 4)
    weight = model.heads.proprio.mlp[0].weight
    (through,) = torch.autograd.grad(
        imagined.latents[:, -1].sum(), weight, allow_unused=True, materialize_grads=True, retain_graph=True
    )
    (own,) = torch.autograd.grad(imagined.changes[:, -1].sum(), weight)
    assert not through.any() and own.any()


@OBJECTIVES
def test_rows_see_the_noise_of_their_place_in_the_global_batch(objective):
    model = micro_model(objective=objective)
    batch = window_batch(model, 4, 6)
    row = batch.rows(2, 3)
    here = loss_of(model, row, row_offset=2, global_rows=4)[0]
    assert torch.equal(here, loss_of(model, row, row_offset=2, global_rows=4)[0])
    assert not torch.equal(here, loss_of(model, row, row_offset=0, global_rows=4)[0])


@pytest.mark.parametrize(
    ("target", "mask"), [("reward", "reward_mask"), ("continuation", "reward_mask"), ("value", "value_mask")]
)
def test_masked_targets_count_nothing(target, mask):
    model = micro_model()
    batch = window_batch(model, 3, 6)
    visible = torch.rand(3, 6, generator=generator()) < 0.5
    batch = replace(batch, **{mask: visible})
    changed = torch.where(visible, getattr(batch, target), 1.0 - getattr(batch, target))
    same = loss_of(model, replace(batch, **{target: changed}))[1]
    metrics = loss_of(model, batch)[1]
    for name in metrics:
        assert torch.equal(same[name], metrics[name])
    everywhere = torch.ones_like(visible)
    unmasked = loss_of(model, replace(batch, **{target: changed, mask: everywhere}))[1]
    assert not torch.equal(unmasked[f"loss/{target}"], metrics[f"loss/{target}"])
    nothing = loss_of(model, replace(batch, **{mask: ~everywhere}))[1]
    assert float(nothing[f"loss/{target}"]) == 0.0


def test_unknown_odometry_and_actions_do_not_matter():
    model = micro_model()
    batch = window_batch(model, 3, 6)
    unknown = torch.rand(3, 6, generator=generator()) < 0.4
    batch = replace(batch, proprio_known=~unknown, action_known=batch.action_known & ~unknown.roll(1, 0))
    others = replace(
        batch,
        proprio=torch.where(batch.proprio_known[..., None], batch.proprio, torch.randn_like(batch.proprio)),
        actions=torch.where(batch.action_known[..., None], batch.actions, torch.rand_like(batch.actions)),
    )
    for name, metric in loss_of(model, batch)[1].items():
        torch.testing.assert_close(loss_of(model, others)[1][name], metric, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", ["actions", "proprio"])
def test_dropout_hides_whole_windows(hidden):
    model = micro_model()
    batch = window_batch(model, 3, 6)
    config = ObjectiveConfig(
        action_dropout=float(hidden == "actions"), proprio_dropout=float(hidden == "proprio")
    )
    others = replace(batch, **{hidden: torch.rand_like(getattr(batch, hidden))})
    one, two = (loss_of(model, each, config=config)[1] for each in (batch, others))
    assert torch.equal(one["loss/denoising"], two["loss/denoising"])
    assert float(one["loss/proprio"]) == 0.0
    config = ObjectiveConfig(action_dropout=0.0, proprio_dropout=0.0)
    one, two = (loss_of(model, each, config=config)[1] for each in (batch, others))
    assert not torch.equal(one["loss/denoising"], two["loss/denoising"])


def test_a_model_from_actions_alone_never_loses_its_actions():
    model = micro_model(proprio_dim=0)
    batch = window_batch(model, 3, 6)
    config = ObjectiveConfig(action_dropout=1.0)
    others = replace(batch, actions=torch.rand_like(batch.actions))
    one, two = (loss_of(model, each, config=config)[1]["loss/denoising"] for each in (batch, others))
    assert not torch.equal(one, two)


def test_diffusion_forcing_counts_noised_frames_only(monkeypatch):
    """A clean frame's prediction may be anything: the loss is the mean over the noised ones."""
    model = micro_model(objective="diffusion_forcing")
    batch = window_batch(model, 3, 8)
    seen = {}
    forward = model.backbone.forward

    def spy(write, read, layers, **options):
        seen["level"] = write.noise_level
        seen["out"] = forward(write, read, layers, **options)
        seen["latents"] = write.latents
        return seen["out"]

    monkeypatch.setattr(model.backbone, "forward", spy)
    config = ObjectiveConfig(clean_prefix_share=1.0)
    metrics = loss_of(model, batch, config=config)[1]
    level = seen["level"]
    clean = level == 0
    assert (clean.sum(1) >= 4).all() and (
        clean.sum(1) < 8
    ).all()  # a prefix longer than half, never everything
    assert (clean.long().diff(dim=1) <= 0).all()
    assert torch.equal(seen["latents"][clean], batch.latents[clean])
    error = (seen["out"].clean - batch.latents).square().mean(dim=(2, 3, 4))
    torch.testing.assert_close(metrics["loss/denoising"], error[~clean].mean().detach())


def test_teacher_forcing_denoises_every_frame_from_the_frames_before(monkeypatch):
    model = micro_model()
    batch = window_batch(model, 64, 6)
    seen = {}
    forward = model.backbone.forward

    def spy(write, read, layers, **options):
        seen.update(write=write, read=read)
        return forward(write, read, layers, **options)

    monkeypatch.setattr(model.backbone, "forward", spy)
    loss_of(model, batch)
    write, read = seen["write"], seen["read"]
    assert float(write.noise_level.max()) <= 0.1 and (write.noise_level == 0).all(1).float().mean() > 0.3
    assert 0.4 < float((read.noise_level == 1).float().mean()) < 0.6
    assert not read.latents[read.noise_level == 1].any()
    noise = (write.latents - batch.latents).square().mean(dim=(2, 3, 4)).sqrt()
    assert (noise <= 0.1 * 3).all()


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_the_end_of_a_window_is_imagined_as_a_planner_would(recurrence):
    """The rollout of training is `observe`, then `imagine` with the head's own odometry."""
    model = micro_model(imagined_noise_level=0.05, recurrence=recurrence)
    batch = window_batch(model, 3, 7)
    imagined = imagine_window(model, batch, batch.proprio, 4)
    past = (x[:, :4] for x in (batch.latents, batch.actions, batch.proprio))
    state, _ = model.observe_latents(model.initial_state(3), *past, action_known=batch.action_known[:, :4])
    _, rollout = model.imagine(state, batch.actions[:, 4:])
    torch.testing.assert_close(imagined.latents, rollout.latent)
    torch.testing.assert_close(imagined.features, rollout.features)
    proprio = batch.proprio[:, 3]
    for t in range(3):
        proprio = model.heads.proprio.apply_change(proprio, imagined.changes[:, t])
        torch.testing.assert_close(proprio, rollout.proprio[:, t])
    unknown = replace(batch, action_known=torch.zeros_like(batch.action_known))
    moved = batch.proprio.clone()
    moved[:, 4:] += 1.0  # without actions the real odometry leads
    one, two = (imagine_window(model, unknown, proprio, 4).latents for proprio in (batch.proprio, moved))
    assert not torch.allclose(one, two)


def test_the_rollout_counts_imagined_frames_against_real_ones():
    model = micro_model()
    batch = window_batch(model, 8, 6)
    config = ObjectiveConfig(
        rollout_weight=1.0, rollout_horizon=2, rollout_rows=4, action_dropout=0.0, proprio_dropout=0.0
    )
    metrics = loss_of(model, batch, config=config)[1]
    rows = batch.map(lambda tensor: tensor[::2])  # every second window
    imagined = imagine_window(model, rows, rows.proprio, 4)
    error = (imagined.latents - rows.latents[:, 4:]).square().mean()
    torch.testing.assert_close(metrics["loss/rollout_denoising"], error.detach())
    with pytest.raises(ValueError, match="`rollout_rows`=1"):
        loss_of(model, batch.rows(1, 2), config=replace(config, rollout_rows=1), row_offset=1, global_rows=8)


@pytest.mark.parametrize("odometry", ["vector", "pose"])
def test_imagined_odometry_is_to_come_back_where_the_head_sees_it(odometry):
    """A ball that strayed in imagination is to return; a pose that no frame shows is to move as it did."""
    model = micro_model(odometry=odometry, proprio_dim=4)
    torch.nn.init.normal_(model.heads.proprio.mlp[-1].weight)  # so that it strays
    batch = window_batch(model, 8, 6)
    config = ObjectiveConfig(
        rollout_weight=1.0, rollout_horizon=3, rollout_rows=8, action_dropout=0.0, proprio_dropout=0.0
    )
    told = loss_of(model, batch, config=config)[1]["loss/rollout_proprio"]
    imagined = imagine_window(model, batch, batch.proprio, 3)
    head, at, errors = model.heads.proprio, batch.proprio[:, 2], []
    for t in range(3):
        set_out = at if odometry == "vector" else batch.proprio[:, 2 + t]
        target = head.change(set_out, batch.proprio[:, 3 + t])
        apart = (imagined.changes[:, t] - target).abs()
        far = apart > (1.0 if odometry == "vector" else torch.inf)  # the way back from far astray counts less
        errors.append(torch.where(far, 2 * apart - 1, apart.square()).mean(-1))
        at = head.apply_change(at, imagined.changes[:, t])
    assert (torch.stack(errors) > 1).any()
    known = batch.proprio_known[:, 2:5] & batch.proprio_known[:, 3:] & batch.action_known[:, 3:]
    expected = (torch.stack(errors, 1) * known).sum() / known.sum()
    torch.testing.assert_close(told, expected.detach().float())


def test_bad_shares_are_named():
    with pytest.raises(ValueError, match=r"`full_noise_share` must be in \[0, 1\], got 1.5"):
        ObjectiveConfig(full_noise_share=1.5)
    with pytest.raises(ValueError, match="`rollout_horizon` must be at least 1, got 0"):
        ObjectiveConfig(rollout_horizon=0)
    with pytest.raises(ValueError, match="`rollout_weight` must be at least 0, got -1"):
        ObjectiveConfig(rollout_weight=-1)


def test_batches_move_and_split():
    model = micro_model()
    batch = window_batch(model, 4, 3)
    part = batch.rows(1, 3)
    assert part.latents.shape[0] == part.reward.shape[0] == 2
    assert torch.equal(part.actions, batch.actions[1:3])
    assert batch.to("cpu").latents.device.type == "cpu"
    assert replace(batch, proprio=None).rows(0, 1).proprio is None


def test_the_worst_pixels_of_each_frame_can_count_more():
    tokenizer = Tokenizer(TokenizerConfig(frame_size=8, channels=(4,), latent_channels=2))
    frames = torch.rand(3, 3, 8, 8)
    plain, parts = tokenizer_loss(tokenizer, frames, TokenizerLossConfig())
    assert "tokenizer/worst" not in parts
    config = TokenizerLossConfig(worst=0.5, worst_share=0.05)
    loss, parts = tokenizer_loss(tokenizer, frames, config)
    with torch.no_grad():
        error = (tokenizer.decode_unclamped(tokenizer.encode(frames)) - frames).square().mean(1).flatten(1)
    by_hand = torch.stack([row.sort(descending=True).values[:3] for row in error]).mean()
    torch.testing.assert_close(parts["tokenizer/worst"], by_hand)
    torch.testing.assert_close(loss, plain + 0.5 * by_hand)
    everywhere = TokenizerLossConfig(mse=0.0, worst=1.0, worst_share=1.0)
    torch.testing.assert_close(tokenizer_loss(tokenizer, frames, everywhere)[0], plain)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"`worst_share` must be in \(0, 1\], got"):
            TokenizerLossConfig(worst_share=share)


def test_tokenizer_learns():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(frame_size=16, channels=(8, 8), latent_channels=4))
    frames = torch.rand(8, 3, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        loss, metrics = tokenizer_loss(tokenizer, frames, TokenizerLossConfig())
        assert metrics["tokenizer/psnr"] == pytest.approx(
            -10 * torch.log10(metrics["tokenizer/mse"]).item(), abs=1e-3
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.5 * history[0]
    assert relative_error([tokenizer.decode(tokenizer.encode(frames))], [frames]) < 0.5
