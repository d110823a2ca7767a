from dataclasses import replace

import pytest
import torch

from lssvwm_agents.baselines import BASELINES, TOLERANCE, parameter_count, scan_state_size
from lssvwm_agents.recipes import maze_debug
from lssvwm_agents.worldmodel import BackboneConfig, WorldModel, small, tiny

BASES = {"tiny": tiny(), "small": small(), "debug": maze_debug().model}
BASES["rotary"] = replace(BASES["tiny"], backbone=replace(BASES["tiny"].backbone, recurrence="rotary_ssd"))
every_base = pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())


def test_names() -> None:
    assert list(BASELINES) == (
        "ours_ssd ours_rotary window_only frame_scan frame_scan_large_state blocks_1x1 full_attention".split()
    )


@every_base
@pytest.mark.parametrize("name", BASELINES)
def test_parameter_counts_agree_and_nothing_but_the_backbone_differs(base, name) -> None:
    config = BASELINES[name](base)
    assert abs(parameter_count(config) / parameter_count(base) - 1) <= TOLERANCE
    assert replace(config, backbone=base.backbone) == base
    kept = "width conditioning_width head_dim expand window num_layers half_life_frames".split()
    assert all(getattr(config.backbone, field) == getattr(base.backbone, field) for field in kept)
    assert config.backbone.mlp_ratio >= base.backbone.mlp_ratio / 2


def test_the_count_is_that_of_a_built_model() -> None:
    config = BASELINES["full_attention"](BASES["debug"])
    assert parameter_count(config) == sum(p.numel() for p in WorldModel(config).parameters())
    without = BASELINES["window_only"](BASES["debug"])
    model = WorldModel(without)
    unused = sum(3 * 32 * (16 + 1) for _ in model.backbone.layers)
    assert parameter_count(without) == sum(p.numel() for p in model.parameters()) - unused


@every_base
def test_what_each_baseline_is(base) -> None:
    made = {name: function(base).backbone for name, function in BASELINES.items()}
    grid, layers = base.grid_size, base.backbone.num_layers
    own = "ours_rotary" if base.backbone.recurrence == "rotary_ssd" else "ours_ssd"
    assert BASELINES[own](base) == base and made["ours_ssd"].recurrence == "ssd"
    assert made["ours_rotary"].recurrence == "rotary_ssd"
    assert made["window_only"].memory == "none" and made["full_attention"].memory == "full_attention"
    for name in ("frame_scan", "frame_scan_large_state"):
        assert made[name].block_sizes == (grid,) * layers
    assert made["blocks_1x1"].block_sizes == (1,) * layers
    sizes = {name: scan_state_size(BASELINES[name](base)) for name in made}
    assert sizes["frame_scan_large_state"] == scan_state_size(base) > sizes["frame_scan"]


def test_the_state_size_is_that_of_a_state() -> None:
    base = BASES["debug"]
    state = WorldModel(base).initial_state(1)
    assert scan_state_size(base) == sum(layer.scan.numel() for layer in state.layers)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_runs(name) -> None:
    torch.manual_seed(0)
    model = WorldModel(BASELINES[name](BASES["debug"])).eval()
    actions = torch.eye(6)[None, :3].expand(2, -1, -1)
    latents = torch.randn(2, 3, *model.config.tokenizer.latent_shape)
    with torch.no_grad():
        state, _ = model.observe_latents(model.initial_state(2), latents, actions)
        _, imagined = model.imagine(state, actions)
    assert bool(torch.isfinite(imagined.latent).all())


def test_a_base_without_room_is_refused() -> None:
    base = replace(BASES["debug"], backbone=BackboneConfig(width=32, conditioning_width=16, mlp_ratio=0.1))
    with pytest.raises(ValueError, match=r"must have the base's \d+ parameters to within 3 %, got \d+"):
        BASELINES["frame_scan_large_state"](base)
