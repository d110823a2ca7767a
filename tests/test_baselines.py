import functools
from dataclasses import replace

import pytest
import torch

from lssvwm_agents.baselines import BASELINES, TOLERANCE, parameter_count, scan_state_size
from lssvwm_agents.recipes import RECIPES, maze_debug, with_maze
from lssvwm_agents.worldmodel import BackboneConfig, WorldModel, small, tiny


def with_backbone(config, **changes):
    return replace(config, backbone=replace(config.backbone, **changes))


DEBUG = with_maze(maze_debug()).model
PLACES = {"place_features": 8, "place_values": 8}
BASES = {
    "tiny": tiny(),
    "small": small(),
    "debug": DEBUG,
    "rotary": with_backbone(tiny(), recurrence="rotary_ssd"),
    "scan": with_backbone(DEBUG, place_features=0),
    "places": with_backbone(DEBUG, **PLACES),
    "place_keys": with_backbone(DEBUG, **PLACES, place_keys=True, num_groups=2, mlp_ratio=3.0),
}
BASES |= {name: with_maze(recipe()).model for name, recipe in RECIPES.items()}
DISTINCT = {base: name for name, base in reversed(BASES.items())}
every_base = pytest.mark.parametrize("base", DISTINCT, ids=DISTINCT.values())

HAS = {  # scan, memory of places, full attention
    "ours": (True, True, False),
    "ours_rotary": (True, True, False),
    "scan_only": (True, False, False),
    "scan_place_keys": (True, False, False),
    "places_only": (False, True, False),
    "window_only": (False, False, False),
    "frame_scan": (True, False, False),
    "frame_scan_large_state": (True, False, False),
    "blocks_1x1": (True, False, False),
    "full_attention": (False, False, True),
}


@functools.cache
def baselines_of(base):
    return {
        name: function(base)
        for name, function in BASELINES.items()
        if base.backbone.place_features or name != "places_only"
    }


def test_names() -> None:
    assert list(BASELINES) == list(HAS)


@every_base
def test_parameter_counts_agree_and_nothing_but_the_backbone_differs(base) -> None:
    kept = "width conditioning_width head_dim expand window num_layers half_life_frames".split()
    for name, config in baselines_of(base).items():
        assert abs(parameter_count(config) / parameter_count(base) - 1) <= TOLERANCE, name
        assert replace(config, backbone=base.backbone) == base, name
        assert all(getattr(config.backbone, f) == getattr(base.backbone, f) for f in kept), name
        assert config.backbone.mlp_ratio >= base.backbone.mlp_ratio / 2, name


def test_the_count_is_that_of_a_built_model() -> None:
    config = BASELINES["full_attention"](BASES["debug"])
    assert parameter_count(config) == sum(p.numel() for p in WorldModel(config).parameters())
    both = BASES["places"]
    assert parameter_count(both) == sum(p.numel() for p in WorldModel(both).parameters())
    for name in ("window_only", "places_only"):  # the scan's modulation is there and not used
        without = BASELINES[name](both)
        model = WorldModel(without)
        unused = sum(3 * 32 * (16 + 1) for _ in model.backbone.layers)
        assert parameter_count(without) == sum(p.numel() for p in model.parameters()) - unused


@pytest.mark.parametrize("name", ["places_only", "window_only", "ours"])
def test_what_is_not_counted_takes_no_part(name) -> None:
    """Of the modulation, the parts without a gradient are those that `parameter_count` leaves out."""
    config = BASELINES[name](BASES["places"])
    model = with_random_gates(WorldModel(config))
    latents, actions, proprio = video(model, batch=1)
    state, _ = model.observe_latents(model.initial_state(1), latents, actions, proprio)
    _, imagined = model.imagine(state, actions[:, :1], proprio=proprio[:, :1])
    imagined.latent.square().sum().backward()
    unused = 0
    for layer in model.backbone.layers:
        rows = layer.modulation.weight.grad.abs().sum(1).unflatten(0, (-1, config.backbone.width))
        unused += int((rows.sum(1) == 0).sum()) * config.backbone.width * (16 + 1)
    assert unused == sum(p.numel() for p in model.parameters()) - parameter_count(config)


@every_base
def test_what_each_baseline_is(base) -> None:
    made = {name: config.backbone for name, config in baselines_of(base).items()}
    grid, layers = base.grid_size, base.backbone.num_layers
    assert BASELINES["ours"](base) == base
    assert made["scan_only"].recurrence == made["scan_place_keys"].recurrence == "ssd"
    assert made["ours_rotary"].recurrence == "rotary_ssd"
    for field in ("place_features", "place_values", "place_lengths", "place_ridges", "place_keys"):
        assert getattr(made["ours_rotary"], field) == getattr(base.backbone, field)
    for name in ("scan_only", "scan_place_keys", "ours_rotary"):
        assert made[name].block_sizes == base.backbone.block_sizes
    assert made["scan_place_keys"].num_groups == base.backbone.num_heads
    for name in ("frame_scan", "frame_scan_large_state"):
        assert made[name].block_sizes == (grid,) * layers
    assert made["blocks_1x1"].block_sizes == (1,) * layers
    sizes = {name: scan_state_size(config) for name, config in baselines_of(base).items()}
    assert sizes["frame_scan_large_state"] == scan_state_size(base) > sizes["frame_scan"]


@pytest.mark.parametrize("base", ["tiny", "places", "place_keys", "maze-tiny"])
@pytest.mark.parametrize("name", BASELINES)
def test_which_memories_each_baseline_has(name, base) -> None:
    base = BASES[base]
    config = BASELINES[name](base)
    with torch.device("meta"):
        layers = WorldModel(config).backbone.layers
    for layer in layers:
        found = (layer.scan, layer.place_memory, layer.full_attention)
        assert tuple(part is not None for part in found) == HAS[name]
    keys = base.backbone.place_keys and name in ("ours", "ours_rotary")
    assert config.backbone.place_keys == (keys or name == "scan_place_keys")


def test_a_base_without_memory_of_places_is_its_own_scan() -> None:
    base = BASES["scan"]
    assert BASELINES["scan_only"](base) == base
    with pytest.raises(ValueError, match="`place_features` of the base must be above 0, got 0"):
        BASELINES["places_only"](base)


def test_the_state_size_is_that_of_a_state() -> None:
    base = BASES["debug"]
    state = WorldModel(base).initial_state(1)
    assert scan_state_size(base) == sum(layer.scan.numel() for layer in state.layers)


def with_random_gates(model):
    """Zero-initialised parameters filled, so that every branch has a say."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any() and "null" not in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def video(model, batch=2, time=12):
    """Latents (B,T,C,h,w), actions (B,T,A) and one pose throughout (B,T,P)."""
    latents = torch.randn(batch, time, *model.config.tokenizer.latent_shape)
    actions = torch.eye(model.config.action_dim)[torch.randint(model.config.action_dim, (batch, time))]
    proprio = torch.zeros(batch, time, model.config.proprio_dim)
    proprio[..., 3] = 1.0
    return latents, actions, proprio


@pytest.mark.parametrize("name", BASELINES)
def test_window_only_alone_forgets_what_left_the_windows(name) -> None:
    """From a base with memory of places, with the agent standing still; forks imagine the same."""
    torch.manual_seed(0)
    model = with_random_gates(WorldModel(BASELINES[name](BASES["places"]))).double()
    backbone = model.config.backbone
    reach, imagined = backbone.num_layers * backbone.window, []
    latents, actions, proprio = (tensor.double() for tensor in video(model))
    other = latents.clone()
    other[:, : -reach - 1] = torch.randn_like(other[:, : -reach - 1])
    for seen in (latents, other):
        with torch.no_grad():
            state, _ = model.observe_latents(model.initial_state(2), seen, actions, proprio)
            _, first = model.imagine(state, actions[:, :3], proprio=proprio[:, :3])
            _, forked = model.imagine(
                model.repeat(state, 2),
                actions[:, :3].repeat_interleave(2, 0),
                proprio=proprio[:1, :3].expand(4, -1, -1),
            )
        imagined.append(first.latent)
        assert torch.isfinite(first.latent).all()
        torch.testing.assert_close(forked.latent[::2], first.latent, rtol=1e-9, atol=1e-9)
    difference = float((imagined[0] - imagined[1]).abs().max())
    assert difference == 0.0 if name == "window_only" else difference > 1e-6


@pytest.mark.parametrize(
    ("base", "name"), [(base, name) for base in ("places", "debug") for name in baselines_of(BASES[base])]
)
def test_every_baseline_runs(base, name) -> None:
    torch.manual_seed(0)
    model = WorldModel(BASELINES[name](BASES[base])).eval()
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
