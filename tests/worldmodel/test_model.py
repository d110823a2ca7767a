"""The world model's promises: cuts, rows, reads, training equals imagining, far memory."""

from dataclasses import replace

import pytest
import torch
from torch.utils import _pytree as pytree
from worldmodel_builders import ACTION_DIM, PROPRIO_DIM, micro_model, state_distance, video

from lssvwm_agents.worldmodel import WorldState
from lssvwm_agents.worldmodel.backbone import Frames

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
    "actions_alone": {"proprio_dim": 0},
    "diffusion_forcing": {"objective": "diffusion_forcing"},
    "rotary_diffusion_forcing": {"objective": "diffusion_forcing", "recurrence": "rotary_ssd"},
    "no_value": {"value_head": False, "discrete_actions": False, "imagined_noise_level": 0.05},
}
every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def close(one, two, tolerance=1e-9):
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


def frames_of(latents, actions, proprio, level, model):
    known = latents.new_ones(latents.shape[:2])
    proprio = latents.new_zeros(*latents.shape[:2], model.config.proprio_dim) if proprio is None else proprio
    has_proprio = known if model.config.proprio_dim else 0 * known
    return Frames(latents, level, actions, known, proprio, has_proprio)


# --- observing ------------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_cutting_a_video_anywhere_changes_nothing(options, dtype, tolerance):
    model = micro_model(dtype, **options)
    latents, actions, proprio = video(model, 2, 9)
    given = (latents, actions) if proprio is None else (latents, actions, proprio)
    whole_state, whole = model.observe_latents(model.initial_state(2), *given)
    assert whole.shape == (2, 9, model.feature_dim) and whole.std() > 0.01
    for cuts in (range(10), (0, 1, 9), (0, 4, 9), (0, 3, 7, 9)):
        state, parts = model.initial_state(2), []
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            state, features = model.observe_latents(state, *(t[:, start:stop] for t in given))
            parts.append(features)
        close(torch.cat(parts, 1), whole, tolerance)
        assert pytree.tree_structure(state) == pytree.tree_structure(whole_state)
        assert state_distance(unwind(state), unwind(whole_state)) < tolerance


def unwind(state):
    """Angles as points on the circle: 0 and 2 pi are the same."""
    layers = tuple(replace(s, angle=torch.stack([s.angle.cos(), s.angle.sin()], -1)) for s in state.layers)
    return replace(state, layers=layers)


def test_observing_frames_is_observing_their_latents():
    model = micro_model()
    _, actions, proprio = video(model, 2, 3)
    frames = torch.rand(2, 3, 3, 8, 8, dtype=torch.float64)
    state, features = model.observe(model.initial_state(2), frames, actions, proprio)
    latents = model.tokenizer.encode(frames)
    state_2, features_2 = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    close(features, features_2)
    assert state_distance(state, state_2) < 1e-12


@every_variant
def test_rows_do_not_depend_on_each_other(options):
    model = micro_model(**options)
    latents, actions, proprio = video(model, 3, 5)
    given = [latents, actions] + ([] if proprio is None else [proprio])
    state, features = model.observe_latents(model.initial_state(3), *given)
    state, prediction = model.imagine(state, actions[:, 1:4])
    for row in range(3):
        alone, features_alone = model.observe_latents(
            model.initial_state(1), *(t[row : row + 1] for t in given)
        )
        alone, prediction_alone = model.imagine(alone, actions[row : row + 1, 1:4])
        close(features_alone[0], features[row])
        close(prediction_alone.latent[0], prediction.latent[row])
        close(prediction_alone.reward[0], prediction.reward[row])
        assert state_distance(alone, state.select(torch.tensor([row]))) < 1e-9


def test_the_null_action_is_unknown_and_a_given_flag_overrules():
    model = micro_model()
    latents, actions, proprio = video(model, 1, 2)
    assert not actions[:, 0].any()

    def features(known):
        return model.observe_latents(model.initial_state(1), latents, actions, proprio, action_known=known)[1]

    close(features(None), features(torch.tensor([[False, True]])))
    assert (features(None) - features(torch.tensor([[True, True]]))).abs().max() > 1e-3


# --- training equals imagining --------------------------------------------------------------------


@pytest.mark.parametrize("level", [1.0, 0.4])
@pytest.mark.parametrize(
    "options",
    [{}, {"recurrence": "rotary_ssd"}, {"memory": "none"}, {"proprio_dim": 0}, {"num_groups": 2}],
    ids=["ssd", "rotary", "no_memory", "actions_alone", "groups"],
)
def test_denoising_in_parallel_is_denoising_after_observing(options, level):
    """Teacher forcing: what training asks of frame t is what `step` computes after frames 0 to t-1."""
    model = micro_model(**options)
    latents, actions, proprio = video(model, 2, 8)
    actions[:, 0, 0] = 1.0
    noisy = torch.zeros_like(latents) if level == 1.0 else torch.randn_like(latents)
    levels = torch.full((2, 8), level, dtype=torch.float64)
    clean_frames = frames_of(latents, actions, proprio, torch.zeros_like(levels), model)
    noisy_frames = frames_of(noisy, actions, proprio, levels, model)
    trained = model.backbone(clean_frames, noisy_frames, model.initial_state(2).layers)
    assert trained.clean.std() > 0.01

    state = model.initial_state(2)
    for t in range(8):
        given = None if proprio is None else proprio[:, t]
        if level == 1.0:
            stepped, prediction = model.step(state, actions[:, t], proprio=given)
            found = prediction.latent
            # and the imagined frame is remembered as an observed one would be
            observed, features = model.observe_latents(
                state, found[:, None], actions[:, t : t + 1], None if proprio is None else given[:, None]
            )
            close(prediction.features, features[:, 0])
            assert state_distance(stepped, observed) < 1e-9
        else:
            found = model._read(Frames(*(x[:, t : t + 1] for x in noisy_frames)), state.layers).clean[:, 0]
        close(found, trained.clean[:, t])
        state, features = model.observe_latents(
            state,
            *(x[:, t : t + 1] for x in (latents, actions)),
            None if proprio is None else proprio[:, t : t + 1],
        )
        close(features[:, 0], trained.features[:, t])


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_diffusion_forcing_denoises_a_written_frame(recurrence):
    """A noisy frame after a clean prefix, in training, is what `step` computes on a fork of memory."""
    model = micro_model(objective="diffusion_forcing", recurrence=recurrence)
    latents, actions, proprio = video(model, 2, 6)
    actions[:, 0, 0] = 1.0
    for t in (0, 1, 5):
        level = torch.zeros(2, t + 1, dtype=torch.float64)
        level[:, t] = 1.0
        mixed = latents[:, : t + 1].clone()
        mixed[:, t] = 0.0
        frames = frames_of(mixed, actions[:, : t + 1], proprio[:, : t + 1], level, model)
        trained = model.backbone(frames, None, model.initial_state(2).layers, denoise_writes=True)
        state = model.initial_state(2)
        if t:
            state, _ = model.observe_latents(state, latents[:, :t], actions[:, :t], proprio[:, :t])
        _, prediction = model.step(state, actions[:, t], proprio=proprio[:, t])
        close(prediction.latent, trained.clean[:, t])
        assert prediction.latent.std() > 0.01


# --- imagining ------------------------------------------------------------------------------------


@every_variant
def test_imagine_is_a_loop_of_steps(options):
    model = micro_model(**options)
    latents, actions, proprio = video(model, 2, 6)
    start, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    state, predictions = model.imagine(
        start, actions, num_denoising_steps=2, generator=torch.Generator().manual_seed(1)
    )
    generator, looped = torch.Generator().manual_seed(1), start
    for t in range(6):
        looped, prediction = model.step(looped, actions[:, t], 2, generator)
        for name in ("latent", "features", "reward", "continuation", "proprio", "value"):
            one, many = getattr(prediction, name), getattr(predictions, name)
            assert (one is None) == (many is None)
            if one is not None:
                close(one, many[:, t])
    assert state_distance(state, looped) < 1e-12
    assert (predictions.value is None) == (not model.config.value_head)
    assert (predictions.proprio is None) == (model.config.proprio_dim == 0)
    assert predictions.latent.shape == (2, 6, *model.config.tokenizer.latent_shape)
    assert ((predictions.continuation > 0) & (predictions.continuation < 1)).all()
    frames = model.decode(predictions.latent)
    assert frames.shape == (2, 6, 3, 8, 8) and frames.min() >= 0 and frames.max() <= 1


@every_variant
def test_stepping_leaves_its_state_untouched_and_repeats_with_the_same_generator(options):
    model = micro_model(**options)
    latents, actions, proprio = video(model, 2, 4)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    copy = state.map(torch.clone)
    results = [model.step(state, actions[:, 1], 4, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert state_distance(state, copy) == 0.0
    assert torch.equal(results[0][1].latent, results[1][1].latent)
    assert state_distance(results[0][0], results[1][0]) == 0.0
    _, other = model.step(state, actions[:, 1], 4, torch.Generator().manual_seed(6))
    assert not torch.equal(other.latent, results[0][1].latent)
    once = [model.step(state, actions[:, 1])[1].latent for _ in range(2)]
    assert torch.equal(*once)


@every_variant
def test_reading_does_not_write(options):
    """Denoising several times, at any level, leaves memory as it was."""
    model = micro_model(**options)
    latents, actions, proprio = video(model, 2, 4)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    copy = state.map(torch.clone)
    level = torch.full((2, 1), 0.5, dtype=torch.float64)
    one = None if proprio is None else proprio[:, :1]
    noisy = frames_of(torch.randn_like(latents[:, :1]), actions[:, 1:2], one, level, model)
    model._read(noisy, state.layers)
    assert state_distance(state, copy) == 0.0
    if model.config.objective == "teacher_forcing":
        after = model._read(noisy, state.layers).layers
        assert state_distance(after, state.layers) == 0.0


def test_given_odometry_is_used_and_unknown_odometry_stays_unknown():
    model = micro_model()
    latents, actions, proprio = video(model, 2, 4)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions)
    assert not state.proprio_known.any()
    after, free = model.step(state, actions[:, 1])
    assert not after.proprio_known.any()
    after, told = model.step(state, actions[:, 1], proprio=proprio[:, 0])
    assert after.proprio_known.all() and torch.equal(told.proprio, proprio[:, 0])
    assert (free.latent - told.latent).abs().max() > 1e-4
    # where odometry is unknown, what the state holds in its place does not matter
    poisoned = replace(state, proprio=state.proprio + 5.0)
    close(model.step(poisoned, actions[:, 1])[1].latent, free.latent)


def test_predicted_odometry_feeds_the_next_frame():
    model = micro_model()
    latents, actions, proprio = video(model, 2, 4)
    state, features = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    expected, _ = model.next_odometry(features[:, -1], proprio[:, -1], actions[:, 1])
    after, prediction = model.step(state, actions[:, 1])
    close(prediction.proprio, expected)
    _, told = model.step(state, actions[:, 1], proprio=expected)
    close(prediction.latent, told.latent)
    assert torch.equal(after.proprio, prediction.proprio) and after.proprio_known.all()


# --- states ---------------------------------------------------------------------------------------


@every_variant
def test_state_is_constant_in_size_over_50_steps(options):
    if options.get("memory") == "full_attention":
        pytest.skip("a cache of all frames grows: see test_full_attention.py")
    model = micro_model(**options)
    state = model.initial_state(2)
    nbytes, shapes = state.nbytes, [leaf.shape for leaf in pytree.tree_leaves(state)]
    assert nbytes == sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(state)) > 0
    action = torch.eye(ACTION_DIM, dtype=torch.float64)[:2]
    with torch.no_grad():
        for _ in range(50):
            state, prediction = model.step(state, action)
    assert state.nbytes == nbytes
    assert [leaf.shape for leaf in pytree.tree_leaves(state)] == shapes
    assert torch.isfinite(prediction.latent).all()
    assert all(leaf.shape[0] == 2 for leaf in pytree.tree_leaves(state))


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_repeat_select_reset_and_detach(recurrence):
    model = micro_model(recurrence=recurrence)
    latents, actions, proprio = video(model, 3, 5)
    state, _ = model.observe_latents(model.initial_state(3), latents, actions, proprio)
    assert state.batch_size == 3
    repeated = state.repeat(2)
    assert repeated.batch_size == 6
    for row in range(6):
        here = repeated.select(torch.tensor([row]))
        assert state_distance(here, state.select(torch.tensor([row // 2]))) == 0.0
    swapped = state.select(torch.tensor([2, 0]))
    assert torch.equal(swapped.features, state.features[[2, 0]])
    mask = torch.tensor([True, False, True])
    reset = state.reset(mask)
    fresh = model.initial_state(3)
    for row in range(3):
        index = torch.tensor([row])
        assert state_distance(reset.select(index), (fresh if mask[row] else state).select(index)) == 0.0
    _, after_reset = model.observe_latents(reset, latents, actions, proprio)
    _, after_fresh = model.observe_latents(fresh, latents, actions, proprio)
    close(after_reset[[0, 2]], after_fresh[[0, 2]])
    assert (after_reset[1] - after_fresh[1]).abs().max() > 1e-3
    assert any(leaf.requires_grad for leaf in pytree.tree_leaves(state))
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(state.detach()))
    assert isinstance(pytree.tree_map(torch.clone, state), WorldState)


# --- memory ---------------------------------------------------------------------------------------


def first_frame_matters(model, time):
    """Largest change of the prediction after ``time`` frames when all that belongs to frame 0 is another."""
    latents, actions, proprio = video(model, 1, time)
    other = [t.clone() for t in (latents, actions, proprio)]
    for tensor in other:
        tensor[:, 0] += 1.0
    predictions = []
    for given in ((latents, actions, proprio), other):
        state, _ = model.observe_latents(model.initial_state(1), *given)
        # odometry is given: a predicted one comes from the last features, which see a frame further
        predictions.append(model.step(state, actions[:, 1], proprio=proprio[:, 1])[1].latent)
    return float((predictions[0] - predictions[1]).detach().abs().max())


@pytest.mark.parametrize("recurrence", ["ssd", "rotary_ssd"])
def test_memory_reaches_beyond_the_windows_of_all_layers(recurrence):
    reach = 2 * 2  # layers x window
    remembering, windowed = micro_model(recurrence=recurrence), micro_model(memory="none")
    assert first_frame_matters(windowed, reach) > 1e-6  # frame 0 is just inside
    assert first_frame_matters(windowed, reach + 1) == 0.0
    assert first_frame_matters(windowed, 40) == 0.0
    assert first_frame_matters(remembering, reach + 1) > 1e-4
    assert first_frame_matters(remembering, 40) > 1e-6


# --- what is refused ------------------------------------------------------------------------------


def test_wrong_shapes_are_named():
    model = micro_model()
    latents, actions, proprio = video(model, 2, 3)
    state = model.initial_state(2)
    with pytest.raises(ValueError, match=r"actions must be \(B, T, A\)=\(2, 3, 3\)"):
        model.observe_latents(state, latents, actions[..., :2], proprio)
    with pytest.raises(ValueError, match="batch size 2, got 1"):
        model.observe_latents(state, latents[:1], actions[:1], proprio[:1])
    with pytest.raises(ValueError, match=r"`proprio` must be \(B, T, P\)=\(2, 3, 2\)"):
        model.observe_latents(state, latents, actions, proprio[..., :1])
    with pytest.raises(ValueError, match=r"latents must be \(B, T, C, h, w\)"):
        model.observe_latents(state, latents[:, :, :1], actions, proprio)
    with pytest.raises(ValueError, match="at least 1 frame"):
        model.observe_latents(state, latents[:, :0], actions[:, :0], proprio[:, :0])
    with pytest.raises(ValueError, match=r"actions must be \(B, A\)=\(2, 3\)"):
        model.step(state, actions[:, 0, :2])
    with pytest.raises(ValueError, match=r"`proprio` must be \(B, P\)=\(2, 2\)"):
        model.step(state, actions[:, 0], proprio=torch.zeros(2, PROPRIO_DIM + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"actions must be \(B, T, A\)"):
        model.imagine(state, actions[:, 0])
    with pytest.raises(ValueError, match="at least 1 action"):
        model.imagine(state, actions[:, :0])
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        model.initial_state(0)


# --- low precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"recurrence": "rotary_ssd"}], ids=["ssd", "rotary"])
def test_bfloat16_autocast_keeps_the_state_and_the_scalars_wide(options):
    """Rewards, and continuations near 1, need more digits than bfloat16 has; a state keeps its dtypes."""
    model = micro_model(torch.float32, **options).requires_grad_(False)
    latents, actions, proprio = video(model, 2, 6)
    fresh = model.initial_state(2)
    exact, exact_outcome = model.imagine(model.observe_latents(fresh, latents, actions, proprio)[0], actions)
    with torch.autocast("cpu", torch.bfloat16):
        state, features = model.observe_latents(fresh, latents, actions, proprio)
        state, outcome = model.imagine(state, actions)
    assert features.dtype == torch.bfloat16  # autocast was at work
    assert [t.dtype for t in pytree.tree_leaves(state)] == [t.dtype for t in pytree.tree_leaves(fresh)]
    for name in ("reward", "continuation", "value", "proprio"):
        assert getattr(outcome, name).dtype == torch.float32
    for name in ("latent", "reward", "continuation", "value", "proprio"):
        one, two = getattr(outcome, name), getattr(exact_outcome, name)
        assert float((one - two).norm() / two.norm()) < 0.05
    assert float((state.layers[0].scan - exact.layers[0].scan).norm() / exact.layers[0].scan.norm()) < 0.05


def test_imagined_odometry_must_match_the_actions():
    model = micro_model()
    state = model.initial_state(2)
    actions = torch.zeros(2, 3, model.config.action_dim, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`proprio` must be \(B, T, P\) with \(B, T\)=\(2, 3\)"):
        model.imagine(state, actions, torch.zeros(2, 2, model.config.proprio_dim, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"actions must be \(B, T, A\) floats, got \(2, "):
        model.imagine(state, actions[:, 0])


def test_given_noise_stands_for_the_generator_and_each_row_has_its_own() -> None:
    model = micro_model()
    latents, actions, proprio = video(model, 2, 3)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    action = actions[:, -1]
    shape = (2, 1, *model.config.tokenizer.latent_shape)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=latents.dtype)[:, 0]
    by_generator = model.step(state, action, 3, torch.Generator().manual_seed(4))[1]
    close(model.step(state, action, 3, noise=drawn)[1].latent, by_generator.latent)
    one = torch.tensor([1])
    alone = model.step(state.select(one), action[one], 3, noise=drawn[one])[1]
    close(alone.latent, by_generator.latent[one])
    with pytest.raises(ValueError, match="`noise` must have shape"):
        model.step(state, action, 3, noise=drawn[one])
