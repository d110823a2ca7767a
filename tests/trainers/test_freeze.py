"""Training only a part of the model."""

from dataclasses import replace

import pytest
import torch

from lssvwm_agents.recipes import maze_debug, with_maze
from lssvwm_agents.trainers.world_model_trainer import build_world_model, freeze_all_but
from lssvwm_agents.worldmodel import BackboneConfig, WorldModel, WorldModelConfig


def test_only_the_named_parts_are_trained() -> None:
    backbone = BackboneConfig(width=32, conditioning_width=8, block_sizes=(2,), head_dim=16, state_dim=8)
    model = WorldModel(WorldModelConfig(backbone=backbone))
    freeze_all_but(model, ())
    assert all(p.requires_grad for p in model.parameters())
    freeze_all_but(model, ("heads.proprio", "heads.reward"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith(("heads.proprio", "heads.reward")) for name in trained)
    with pytest.raises(ValueError, match="`only` must name parameters of the model.*'head.proprio'"):
        freeze_all_but(model, ("head.proprio",))


@pytest.mark.parametrize("seeing", [False, True])
def test_weights_with_and_without_visual_odometry_start_each_other(seeing):
    """The head is fresh where the start has none, and left behind where the model wants none."""
    base = with_maze(maze_debug()).model
    torch.manual_seed(1)
    start = WorldModel(replace(base, visual_odometry=not seeing))
    config = replace(base, visual_odometry=seeing)
    model = build_world_model(config, start.tokenizer, 0, "cpu", start)
    kept = dict(start.named_parameters())
    for name, parameter in model.named_parameters():
        assert name.startswith("heads.visual_odometry.") or torch.equal(parameter, kept[name])
    assert (model.heads.visual_odometry is not None) == seeing


@pytest.mark.parametrize(("theirs", "ours"), [(False, True), (True, False), (True, True)])
def test_weights_with_and_without_odometry_dynamics_start_each_other(theirs, ours):
    """Fresh ones say nothing; all else, buffers too, is that of the start."""
    base = replace(maze_debug().model, proprio_dim=4, odometry="vector")
    torch.manual_seed(1)
    start = WorldModel(replace(base, odometry_dynamics=theirs))
    with torch.no_grad():
        start.heads.proprio.left_open.fill_(0.5)
        for parameter in start.heads.parameters():
            parameter.add_(0.1)
    model = build_world_model(replace(base, odometry_dynamics=ours), start.tokenizer, 0, "cpu", start)
    kept = start.state_dict()
    for name, value in model.state_dict().items():
        fresh = ours > theirs and name.startswith("heads.proprio.by_odometry.")
        assert fresh or torch.equal(value, kept[name]), name
    dynamics = model.heads.proprio.by_odometry
    assert (dynamics is not None) == ours
    if ours:
        assert bool(dynamics(torch.ones(1, 4), torch.ones(1, base.action_dim)).any()) == theirs


def test_heads_whose_bins_would_mean_other_numbers_begin_anew():
    base = with_maze(maze_debug()).model
    torch.manual_seed(1)
    start = WorldModel(base)
    with torch.no_grad():
        for parameter in start.heads.parameters():
            parameter.add_(0.1)
    model = build_world_model(replace(base, symlog_limit=5.0), start.tokenizer, 0, "cpu", start)
    kept = dict(start.named_parameters())
    anew = {name for name, p in model.named_parameters() if not torch.equal(p, kept[name])}
    assert anew and all(name.startswith(("heads.reward.", "heads.value.")) for name in anew)
    assert not model.heads.reward[-1].weight.any()
