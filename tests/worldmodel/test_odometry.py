"""Odometry: changes and poses, against what is known by hand and against the real maze."""

import math
from dataclasses import replace

import pytest
import torch

from lssvwm_agents.data.online import render_episodes
from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.recipes import RECIPES
from lssvwm_agents.worldmodel import ObjectiveConfig, WorldModelConfig, world_model_loss
from lssvwm_agents.worldmodel.odometry import OdometryDynamics, OdometryHead
from tests.worldmodel.worldmodel_builders import (
    micro_model,
    state_distance,
    video,
    window_batch,
)


def head(kind: str, proprio_dim: int) -> OdometryHead:
    return OdometryHead(torch.nn.Identity(), kind, proprio_dim, 2)


def pose(x: float, y: float, degrees: float, *rest: float) -> torch.Tensor:
    angle = math.radians(degrees)
    return torch.tensor([x, y, math.sin(angle), math.cos(angle), *rest], dtype=torch.float64)


def test_a_step_ahead_goes_where_the_agent_looks():
    north = pose(1.0, 2.0, 90.0)
    change = torch.tensor([0.5, 0.0, math.radians(-90.0)], dtype=torch.float64)
    torch.testing.assert_close(head("pose", 4).apply_change(north, change), pose(1.0, 2.5, 0.0))
    aside = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(head("pose", 4).apply_change(north, aside), pose(0.5, 2.0, 90.0))


@pytest.mark.parametrize(("kind", "size"), [("vector", 3), ("pose", 4), ("pose", 6)])
def test_a_change_applied_is_the_change_measured(kind, size):
    torch.manual_seed(0)
    before, after = torch.randn(50, size, dtype=torch.float64), torch.randn(50, size, dtype=torch.float64)
    if kind == "pose":
        for p in (before, after):
            p[:, 2:4] /= p[:, 2:4].norm(dim=1, keepdim=True)
    module = head(kind, size).double()
    module.fit(before, after, torch.randn(50, 2, dtype=torch.float64))
    change = module.change(before, after)
    assert change.shape == (50, OdometryHead.change_dim(kind, size))
    torch.testing.assert_close(change.mean(0), torch.zeros_like(change[0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(module.apply_change(before, change), after)


@pytest.mark.parametrize("discrete", [True, False])
def test_what_the_action_decides_is_known_exactly_and_the_rest_is_left_to_learn(discrete):
    torch.manual_seed(0)
    action = torch.eye(2)[torch.randint(2, (500,))] if discrete else torch.randn(500, 2)
    open_ = torch.randn(500)  # what no action tells: the third number
    change = torch.stack([0.3 * action[:, 0] + 0.1, action[:, 1] - 2.0 * action[:, 0], open_], dim=1)
    before = torch.randn(500, 3)
    module = head("vector", 3)
    module.fit(before, before + change, action)
    nothing_seen = module.expect(action, torch.zeros(500, 3))
    after = module.apply_change(before, nothing_seen)
    torch.testing.assert_close(after[:, :2], (before + change)[:, :2], atol=1e-4, rtol=0)
    assert module.left_open[:2].max() < 2e-3 and 0.9 < module.left_open[2] < 1.1
    all_seen = torch.zeros(500, 3)
    all_seen[:, 2] = (module.change(before, before + change) - nothing_seen)[:, 2] / module.left_open[2]
    torch.testing.assert_close(
        module.apply_change(before, module.expect(action, all_seen)), before + change, atol=1e-4, rtol=0
    )


def test_turns_of_the_maze_need_no_learning():
    episodes = render_episodes(
        MazeConfig(size=7), 4, 64, "explorer", 3, "cpu", lambda frames: frames[:, :1, 0]
    )
    module = head_of_six(episodes)
    expected = module.expect(episodes.actions[:, 1:], torch.zeros(4, 63, 3))
    pose_BTP = [episodes.proprio[:, 0].double()]
    for t in range(63):
        pose_BTP.append(module.apply_change(pose_BTP[-1], expected[:, t].double()))
    heading = torch.stack(pose_BTP, dim=1)[..., 2:4]
    torch.testing.assert_close(heading, episodes.proprio[..., 2:4].double(), atol=1e-4, rtol=0)


def head_of_six(episodes) -> OdometryHead:
    module = OdometryHead(torch.nn.Identity(), "pose", 4, 6)
    before, after = episodes.proprio[:, :-1].flatten(0, 1), episodes.proprio[:, 1:].flatten(0, 1)
    module.fit(before.float(), after.float(), episodes.actions[:, 1:].flatten(0, 1).float())
    return module


def test_weights_from_before_load_as_they_were():
    torch.manual_seed(0)
    module, old = head("vector", 3), head("vector", 3).state_dict()
    module.fit(torch.randn(50, 3), torch.randn(50, 3), torch.randn(50, 2))
    for name in ("by_action", "left_open"):
        del old[name]
    fresh = head("vector", 3)
    fresh.load_state_dict(old)
    seen = torch.randn(5, 3)
    assert torch.equal(fresh.expect(torch.randn(5, 2), seen), seen)


def test_odometry_heads_begin_anew_and_the_layers_are_told_what_they_were():
    model = micro_model(torch.float32, odometry="pose", proprio_dim=4, visual_odometry=True)
    with torch.no_grad():
        model.heads.proprio.mlp[-1].weight.fill_(1.0)
        model.heads.visual_odometry[-1].bias.fill_(1.0)
    told = model.backbone.conditioning.proprio_std.clone()
    proprio, actions = 9.0 * torch.randn(3, 8, 4), torch.randn(3, 8, model.config.action_dim)
    recorded = torch.ones(3, 8, dtype=torch.bool)
    model.fit_odometry(proprio, actions, recorded, heads_alone=True)
    assert torch.equal(model.backbone.conditioning.proprio_std, told)
    assert not model.heads.proprio.mlp[-1].weight.any() and not model.heads.visual_odometry[-1].bias.any()
    assert model.heads.proprio.by_action.any()
    model.fit_odometry(proprio, actions, recorded)
    assert not torch.equal(model.backbone.conditioning.proprio_std, told)
    vector = micro_model(torch.float32, odometry_dynamics=True)
    state, action = torch.randn(3, 2), torch.randn(3, vector.config.action_dim)
    assert vector.heads.proprio.by_odometry(state, action).all()
    vector.heads.forget_odometry()
    assert not vector.heads.proprio.by_odometry(state, action).any()


def test_turning_is_counted_across_the_half_circle():
    change = head("pose", 4).change(pose(0, 0, 170.0), pose(0, 0, -175.0))
    assert change[2].item() == pytest.approx(math.radians(15.0))


def test_free_moves_of_the_maze_are_one_motion_wherever_they_happen():
    """In the agent's own frame a free step is straight ahead by one length, and turns are of 15 degrees."""
    config = MazeConfig(size=7)
    frames = render_episodes(config, 8, 60, "explorer", 3, "cpu", lambda frames: frames[..., :1, :1, :1])
    before, after = frames.proprio[:, :-1].double(), frames.proprio[:, 1:].double()
    motion = head("pose", 4).change(before, after)
    action = frames.actions[:, 1:].argmax(-1)
    forward = motion[action == 1]
    free = forward[forward[:, 0] > 0.95 * forward[:, 0].max()]
    assert len(free) > 20
    assert free[:, 0].std() < 2e-3 and free[:, 1:].abs().max() < 2e-3
    turns = motion[(action == 2) | (action == 3)]
    torch.testing.assert_close(
        turns[:, 2].abs(), torch.full_like(turns[:, 2], math.radians(15.0)), atol=2e-3, rtol=0
    )
    assert turns[:, :2].abs().max() < 2e-3


def test_imagined_poses_stay_on_the_circle_and_are_differentiable():
    model = micro_model(proprio_dim=4, odometry="pose")
    latents, actions, _ = video(model, 2, 3)
    start = torch.stack([pose(0, 0, 30.0), pose(1, -1, 200.0)])[:, None].expand(-1, 3, -1)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, start)
    wanted = torch.nn.functional.one_hot(torch.zeros(2, 5, dtype=torch.long), actions.shape[-1]).double()
    wanted.requires_grad_()
    _, imagined = model.imagine(state, wanted)
    assert imagined.proprio is not None
    torch.testing.assert_close(imagined.proprio[..., 2:].norm(dim=-1), torch.ones(2, 5, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(imagined.proprio[:, -1, :2].sum(), wanted)
    assert gradient.abs().sum() > 0


def test_a_short_pose_is_refused():
    with pytest.raises(ValueError, match="`proprio_dim` must be 0 or at least 4, got 3"):
        WorldModelConfig(proprio_dim=3, odometry="pose")


# --- seen from frame to frame -----------------------------------------------------------------------


def seeing_model(**options):
    model = micro_model(odometry="pose", proprio_dim=5, visual_odometry=True, place_features=6, **options)
    with torch.no_grad():  # the builder's statistics are random; a change of spread 0.3 keeps poses near
        model.heads.proprio.change_std.fill_(0.3)
    return model


def test_without_odometry_the_model_sees_its_own_motion():
    """Observing without odometry is observing with what was seen, in one call or in several."""
    model = seeing_model()
    latents, actions, _ = video(model, 2, 7)
    start = model.initial_state(2)
    seen = model.see_motion(start, latents, actions)
    assert torch.equal(seen[:, 0], torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]] * 2, dtype=seen.dtype))
    assert (seen[:, 1:] - seen[:, :-1]).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(seen[..., 2:4].square().sum(-1), torch.ones(2, 7, dtype=seen.dtype))
    alone, features = model.observe_latents(start, latents, actions)
    told, expected = model.observe_latents(start, latents, actions, seen)
    torch.testing.assert_close(features, expected)
    assert state_distance(alone, told) < 1e-12 and bool(alone.proprio_known.all())
    state, parts = start, []
    for piece in (slice(0, 1), slice(1, 4), slice(4, 7)):
        state, part = model.observe_latents(state, latents[:, piece], actions[:, piece])
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), features)
    assert state_distance(state, alone) < 1e-9


def test_a_reset_row_begins_at_the_origin_again():
    model = seeing_model()
    latents, actions, _ = video(model, 2, 4)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions)
    state = state.reset(torch.tensor([True, False]))
    after, _ = model.observe_latents(state, latents[:, :1], actions[:, :1])
    assert after.proprio[0].tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert after.proprio[1].tolist() != [0.0, 0.0, 0.0, 1.0, 0.0]


def test_visual_odometry_learns_true_motion_alone():
    """Its target is the motion between neighbouring frames; pairs that are no move are not asked for."""
    model = seeing_model().train()
    batch = window_batch(model, 3, 6)
    proprio = batch.proprio.clone()
    proprio[..., 2:4] = torch.nn.functional.normalize(proprio[..., 2:4], dim=-1)
    batch = replace(batch, proprio=proprio)
    objective = ObjectiveConfig(proprio_dropout=0.0, action_dropout=0.0)

    def loss(window):
        return world_model_loss(model, window, torch.Generator().manual_seed(0), objective)[1][
            "loss/visual_odometry"
        ]

    target = model.heads.proprio.change(proprio[:, :-1], proprio[:, 1:])
    said = model.see_change(batch.latents[:, :-1], batch.latents[:, 1:], batch.actions[:, 1:])
    torch.testing.assert_close(loss(batch), (said - target).square().mean().detach().to(loss(batch).dtype))
    hidden = batch.action_known.clone()
    hidden[:, 3] = False
    jumped = proprio.clone()
    jumped[:, :3, :2] += 5.0
    moved = loss(replace(batch, action_known=hidden, proprio=jumped))
    torch.testing.assert_close(moved, loss(replace(batch, action_known=hidden)))


@pytest.mark.parametrize("options", [{"odometry": "vector", "proprio_dim": 4}, {"proprio_dim": 0}])
def test_without_a_pose_no_motion_is_seen(options):
    model = micro_model(visual_odometry=True, **options)
    assert not model.config.sees_motion and model.heads.visual_odometry is None
    latents, actions, _ = video(model, 2, 3)
    state, _ = model.observe_latents(model.initial_state(2), latents, actions)
    assert not state.proprio_known.any()
    assert torch.equal(state.latent, latents[:, -1].to(state.latent.dtype))  # kept for policies


def pushed_ball(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Place and speed (rows, 2) before and after a push (rows, 1), between walls at -1 and 1."""
    place, speed, push = 2 * torch.rand(rows) - 1, 0.2 * torch.randn(rows), 2 * torch.rand(rows, 1) - 1
    place = torch.where(torch.rand(rows) < 0.3, place.sign(), place)  # often pressed against a wall
    faster = 0.8 * speed + 0.1 * push[:, 0]
    after = place + faster
    stopped = after.abs() >= 1
    after, faster = after.clamp(-1, 1), torch.where(stopped, 0.0, faster)
    return torch.stack([place, speed], 1), torch.stack([after, faster], 1), push


def test_odometry_dynamics_keep_a_ball_within_walls_whatever_features_say():
    """Trained as the model is, features of pure noise beside; in the end a ball is pressed for 20 frames."""
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(64 + 2 + 1, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))
    module = OdometryHead(mlp, "vector", 2, 1, OdometryDynamics(2, 1, 2, hidden=64))
    before, after, push = pushed_ball(2000)
    module.fit(before, after, push)
    features = torch.randn(2000, 64)
    mean, std = before.mean(0), before.std(0)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(400):
        rows = torch.randint(2000, (256,))
        standard = (before[rows] - mean) / std
        target = module.change(before[rows], after[rows])
        whole = module.predict(features[rows], standard, push[rows])
        alone = module.expect(push[rows], module.by_odometry(standard, push[rows]))
        optimizer.zero_grad()
        ((whole - target).square().mean() + (alone - target).square().mean()).backward()
        optimizer.step()
    ball, pressed = torch.tensor([[0.9, 0.0]]).repeat(50, 1), torch.ones(50, 1)
    with torch.no_grad():
        for _ in range(20):
            change = module.predict(torch.randn(50, 64), (ball - mean) / std, pressed)
            ball = module.apply_change(ball, change)
    assert (ball[:, 0] - 1).abs().mean() < 0.1, "it is imagined at the wall"


def test_odometry_dynamics_say_nothing_at_first_and_are_sharp_under_autocast():
    torch.manual_seed(0)
    dynamics = OdometryDynamics(2, 3, 2)
    state, action = torch.randn(5, 7, 2, requires_grad=True), torch.randn(5, 7, 3, requires_grad=True)
    assert not dynamics(state, action).any()
    torch.nn.init.normal_(dynamics.mlp[-1].weight)
    said = dynamics(state, action)
    said.sum().backward()
    assert state.grad.abs().min() > 0 and action.grad.abs().min() > 0  # a policy learns through them
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dynamics(state, action), said)
    dynamics.forget()
    assert not dynamics(state, action).any()


def test_what_odometry_says_is_in_units_of_what_actions_leave_open():
    model = micro_model(odometry_dynamics=True)
    head = model.heads.proprio
    assert (head.left_open - 1).abs().min() > 1e-2
    features, state = torch.randn(5, model.feature_dim).double(), torch.randn(5, 2).double()
    action = torch.randn(5, model.config.action_dim).double()
    whole, said = head.predict(features, state, action), head.by_odometry(state, action)
    head.by_odometry.forget()
    torch.testing.assert_close(whole - head.predict(features, state, action), head.left_open * said)


def test_point_mazes_have_odometry_dynamics():
    config = RECIPES["point-maze"]().model
    assert config.odometry_dynamics and config.odometry == "vector" and config.proprio_dim == 4


def test_odometry_dynamics_are_for_vectors_alone_and_learn_their_own_loss():
    assert (
        micro_model(odometry="pose", proprio_dim=4, odometry_dynamics=True).heads.proprio.by_odometry is None
    )
    assert micro_model(proprio_dim=0, odometry_dynamics=True).heads.proprio is None
    model = micro_model(odometry_dynamics=True)
    batch = window_batch(model, 4, 6)
    config = ObjectiveConfig(rollout_weight=0.5, action_dropout=0.0, proprio_dropout=0.0)
    told = world_model_loss(model, batch, torch.Generator().manual_seed(0), config)[1][
        "loss/odometry_dynamics"
    ]
    head, standardise = model.heads.proprio, model.backbone.conditioning.standardise
    before, action = batch.proprio[:, :-1], batch.actions[:, 1:]
    change = head.expect(action, head.by_odometry(standardise(before), action))
    error = (change - head.change(before, batch.proprio[:, 1:])).square().mean(-1)
    known = batch.proprio_known[:, 1:] & batch.action_known[:, 1:] & batch.proprio_known[:, :-1]
    torch.testing.assert_close(told, ((error * known).sum() / known.sum()).detach(), check_dtype=False)
    light, heavy = (
        world_model_loss(model, batch, torch.Generator().manual_seed(0), replace(config, **weights))[1]
        for weights in ({"rollout_weight": 0.0}, {"rollout_weight": 0.0, "proprio_weight": 3.0})
    )
    weighed = 2.0 * (light["loss/proprio"] + light["loss/odometry_dynamics"])
    torch.testing.assert_close(heavy["loss/total"] - light["loss/total"], weighed, check_dtype=False)
    without = micro_model()
    assert without.heads.proprio.by_odometry is None
    losses = world_model_loss(without, batch, torch.Generator().manual_seed(0), config)[1]
    assert "loss/odometry_dynamics" not in losses
