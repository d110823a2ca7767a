"""Controls do what they say; a model without memory cannot tell them from the real thing."""

import pytest
import torch
from memory_builders import debug_model

from lssvwm_agents.envs import MazeConfig, odometry, reset, step
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.memory import controls
from lssvwm_agents.evaluate.memory.controls import (
    imagine,
    make_trial,
    nearest_views,
    remember,
    run_conditions,
    window_reach,
    with_shuffled_context,
    with_wrong_actions,
)
from lssvwm_agents.evaluate.memory.drift import full_turn, turning_odometry
from lssvwm_agents.evaluate.memory.episodes import play_explorer, play_moves, walked_back
from lssvwm_agents.evaluate.memory.events import balanced_seeds, cue_paths, event_memory, times_right
from lssvwm_agents.evaluate.memory.paths import loop_moves, usable_seeds
from lssvwm_agents.evaluate.memory.streaming import streaming

MAZE = MazeConfig(size=7)
SEEDS = episode_seeds(2, 4)
CONTEXT, HORIZON = 20, 6


@pytest.fixture(scope="module")
def episodes():
    return play_explorer(MAZE, SEEDS, CONTEXT + HORIZON, "cpu")


@pytest.mark.parametrize(
    ("baseline", "remembers", "odometry_given", "places"),
    [
        ("window_only", False, True, False),
        ("window_only", False, False, False),
        ("window_only", False, True, True),
        ("ours", True, True, False),
        ("ours", True, False, False),
        ("ours", True, True, True),
        ("full_attention", True, True, False),
        ("full_attention", True, False, False),
        ("places_only", True, True, True),
    ],
)
def test_only_a_memory_notices_that_the_far_context_is_missing_or_shuffled(
    episodes, baseline, remembers, odometry_given, places
):
    model = debug_model(baseline, odometry_given, places=places)
    found = dict(run_conditions(model, None, episodes, CONTEXT, seed=0))
    assert set(found) == set(controls.CONDITIONS) - {"window_only"}
    for name in ("context_cut", "shuffled_context"):
        difference = float((found[name] - found["ours"]).abs().max())
        assert difference > 1e-6 if remembers else difference == 0.0, (name, difference)
    assert float((found["wrong_actions"] - found["ours"]).abs().max()) > 1e-4
    assert all(frames.shape == (4, HORIZON, 3, 64, 64) for frames in found.values())
    last = controls.unit(episodes.frames[:, CONTEXT - 1])
    assert torch.equal(found["copy_last"][:, 3], last)
    assert torch.allclose(found["mean_frame"][0, 0], controls.unit(episodes.frames[:, :CONTEXT]).mean((0, 1)))


def test_a_perfect_memory_of_poses_reaches_the_ceiling_where_views_recur():
    """The positive control: on a loop, and on the way back, copying by pose is the tokenizer's own best."""
    seeds, model = usable_seeds(MAZE, SEEDS, 2), debug_model()
    moves = loop_moves(MAZE, reset(MAZE, seeds), seeds, 32, 28, 12)
    context = play_explorer(MAZE, seeds, 32, "cpu")
    for episodes in (play_moves(MAZE, seeds, moves), walked_back(context, 12)):
        found = dict(run_conditions(model, None, episodes, 32, seed=0))
        assert torch.allclose(found["nearest_view"], found["tokenizer"], atol=1e-6)
        assert float((found["copy_last"] - found["tokenizer"]).abs().max()) > 0.1


def test_the_nearest_view_by_hand():
    latents = torch.arange(3.0).view(1, 3, 1, 1, 1)
    poses = [[0, 0, 0, 1], [2, 0, 0, 1], [2, 0, 1, 0], [1.6, 0, 0, 1], [1.6, 0, 1, 0], [0.4, 0, 0, 1]]
    found = nearest_views(latents, torch.tensor([poses], dtype=torch.float32))
    assert found.flatten().tolist() == [1, 2, 0]


def test_imagining_is_the_models_own(episodes):
    """With odometry given, and with the model's own, as `imagine` of the model does it."""
    model = debug_model()
    for own in (False, True):
        trial = make_trial(model, episodes, CONTEXT, own)
        told = None if own else episodes.proprio[:, CONTEXT:]
        with torch.no_grad():
            state = remember(model, trial)
            _, expected = model.imagine(state, episodes.actions[:, CONTEXT:], proprio=told)
            assert torch.allclose(imagine(model, state, trial), expected.latent, atol=1e-6)


def test_on_the_way_back_actions_are_hidden_and_odometry_told(episodes):
    model = debug_model()
    back = walked_back(episodes.take(torch.arange(CONTEXT)), HORIZON)
    trial = make_trial(model, back, CONTEXT)
    with torch.no_grad():
        state, expected = remember(model, trial), []
        for t in range(CONTEXT, CONTEXT + HORIZON):
            nothing, told = torch.zeros(4), torch.ones(4)
            state, latent, _ = model.advance(
                state, torch.zeros(4, 6), nothing, episodes.proprio[:, 2 * CONTEXT - 1 - t], told
            )
            expected.append(latent)
        found = imagine(model, remember(model, trial), trial)
    assert torch.allclose(found, torch.stack(expected, 1), atol=1e-6)


def test_wrong_actions_are_the_next_mazes(episodes):
    trial = make_trial(debug_model(), episodes, CONTEXT)
    wrong = with_wrong_actions(trial)
    for name in ("actions", "proprio", "action_known"):
        right, other = getattr(trial, name), getattr(wrong, name)
        assert torch.equal(other[:, :CONTEXT], right[:, :CONTEXT])
        assert torch.equal(other[1:, CONTEXT:], right[:-1, CONTEXT:])
        assert torch.equal(other[0, CONTEXT:], right[-1, CONTEXT:])


def test_shuffling_keeps_every_frame_and_the_last_ones_in_place(episodes):
    trial = make_trial(debug_model(), episodes, CONTEXT)
    shuffled = with_shuffled_context(trial, kept=5, seed=0)
    assert torch.equal(shuffled.latents[:, -5:], trial.latents[:, -5:])
    assert torch.equal(shuffled.actions, trial.actions) and torch.equal(shuffled.proprio, trial.proprio)
    ours, theirs = (t.latents[:, :-5].flatten(2) for t in (trial, shuffled))
    nearest = torch.cdist(theirs, ours).argmin(-1)
    for row in range(4):
        assert torch.equal(theirs[row], ours[row, nearest[row]])
        assert not torch.equal(nearest[row], torch.arange(CONTEXT - 5))
    assert torch.equal(with_shuffled_context(trial, 5, 0).latents, shuffled.latents)
    assert torch.equal(with_shuffled_context(trial, CONTEXT + 3, 0).latents, trial.latents)


def test_a_cut_context_is_a_fresh_memory_of_the_last_frames(episodes):
    model = debug_model()
    trial, last = make_trial(model, episodes, CONTEXT), slice(CONTEXT - 7, CONTEXT)
    with torch.no_grad():
        expected, _ = model.observe_latents(
            model.initial_state(4), trial.latents[:, last], trial.actions[:, last], trial.proprio[:, last]
        )
        assert torch.allclose(remember(model, trial, 7).features, expected.features, atol=1e-6)
    assert window_reach(model) == 4


# --- events, drift, streaming -----------------------------------------------------------------------


@pytest.mark.parametrize("delay", [16, 32, 64])
def test_the_way_to_the_junction_takes_the_delay_and_branches_pay_by_the_cue(delay):
    config = MazeConfig(task="cue", cue_delay=delay)
    paths = cue_paths(config)
    assert len(paths.approach) == delay + 1 and paths.branches.shape[0] == 2
    seeds = balanced_seeds(config, episode_seeds(0, 20), 4)
    pays = reset(config, seeds).current_target
    assert pays.tolist() == [0, 0, 1, 1]
    for branch in (0, 1):
        state, total = reset(config, seeds), torch.zeros(4)
        for move in torch.cat([paths.approach[1:], paths.branches[branch]]):
            state, reward, ended = step(config, state, move.expand(4))
            total += reward
        assert bool(ended.all()) and total.tolist() == [float(pay == branch) for pay in pays]
    with pytest.raises(ValueError, match="30 balanced corridors are needed"):
        balanced_seeds(config, episode_seeds(0, 20), 30)
    with pytest.raises(ValueError, match="`task` must be 'cue', got 'collect'"):
        cue_paths(MAZE)


def test_times_right_by_hand():
    left, right = torch.tensor([0.9, 0.9, 0.1, 0.1, 0.5]), torch.tensor([0.1, 0.1, 0.9, 0.9, 0.5])
    assert times_right(left, right, torch.tensor([0, 0, 1, 1, 1])) == 4.5
    assert times_right(left, right, torch.tensor([0, 1, 1, 0, 0])) == 2.5
    assert times_right(left, right, torch.tensor([1, 1, 0, 0, 0])) == 0.5


def test_who_cannot_tell_the_branches_apart_is_at_chance():
    config = MazeConfig(task="cue", cue_delay=16)
    seeds = balanced_seeds(config, episode_seeds(0, 20), 4)
    model = debug_model("ours")
    with torch.no_grad():  # a reward head that says the same everywhere
        for parameter in model.heads.reward.parameters():
            parameter.zero_()
    result = event_memory(model, debug_model("window_only"), config, seeds, 0)
    assert result["frames"] == 16
    assert all(result[name][0] == 0.5 for name in ("ours", "context_cut", "shuffled_context"))
    assert 0.0 <= result["window_only"][0] <= 1.0


def test_turning_odometry_is_the_mazes():
    state = reset(MAZE, SEEDS)
    for move in (1, 4, 2, 1):
        state, *_ = step(MAZE, state, torch.full((4,), move))
    here, told = odometry(MAZE, state), []
    for turn in range(25):
        if turn:
            state, *_ = step(MAZE, state, torch.full((4,), 2))
        told.append(odometry(MAZE, state))
    assert torch.allclose(turning_odometry(here, 24, MAZE.turn_degrees), torch.stack(told, 1), atol=1e-5)


@pytest.mark.parametrize("odometry_given", [True, False])
def test_a_full_turn_of_a_model_that_sees_the_pose_alone_comes_back(episodes, odometry_given):
    model = debug_model("window_only", odometry_given)
    with torch.no_grad():  # blind to frames and actions: what is left is the odometry
        model.backbone.conditioning.embed_proprio.weight.mul_(20)
        model.backbone.project_out.weight.mul_(20)
        for module in (model.backbone.embed, model.backbone.conditioning.embed_action):
            module.weight.zero_()
        for layer in model.backbone.layers:
            layer.attention.project_out.weight.zero_()
    trial = make_trial(model, episodes, CONTEXT)
    state = remember(model, trial)
    here = episodes.proprio[:, CONTEXT - 1] if odometry_given else None
    result = full_turn(model, MAZE, state, here)
    assert result["same_view"][0] > 60
    assert (result["opposite_view"][0] < 60) == odometry_given  # without a pose all views are one


@pytest.mark.parametrize(("baseline", "grows"), [("ours", False), ("full_attention", True)])
def test_streaming_counts_bytes_and_time(episodes, baseline, grows):
    told: list[int] = []
    result = streaming(debug_model(baseline), episodes, longest=1000, repeats=3, progress=told.append)
    assert result["frames"] == [100, 1000] and sum(told) == 1000 and result["finite"]
    first, last = result["state_bytes"]
    assert (last > 5 * first) == grows and (last == first) == (not grows)
    assert min(result["ms_per_frame"] + result["ms_per_imagined_frame"]) > 0
    with pytest.raises(ValueError, match="at least 100 frames, got 99"):
        streaming(debug_model(baseline), episodes, longest=99)
