"""What the model is compared with: the same code, data and parameter count, another memory.

Each baseline is a configuration made from a base configuration; all but ``ours``, ``ours_rotary`` and
``places_only`` leave the base's memory of places out. Where a memory has more or fewer parameters than the
base's, the MLPs are made narrower or wider until the counts agree.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch

from lssvwm_agents.worldmodel import BackboneConfig, WorldModel, WorldModelConfig

TOLERANCE = 0.03
"""Largest relative difference of a baseline's parameter count from its base's."""
_LEAST_MLP = 0.5  # of the base's width: a narrower MLP would be a handicap of its own
_WITHOUT_PLACES: dict[str, object] = {"place_features": 0, "place_keys": False}


def ours(base: WorldModelConfig) -> WorldModelConfig:
    """The base as it is: block-wise scan and, if it has one, memory of places."""
    return base


def ours_rotary(base: WorldModelConfig) -> WorldModelConfig:
    """As :func:`ours`, the keys of the block-wise scan rotating (Mamba-3).

    Its keys are per head and its rotations are parameters too: where the MLPs cannot pay for them, the state
    is made smaller, by as little as will do.

    Raises:
        ValueError: If not even a state of 2 per channel fits.
    """
    largest = base.backbone.state_dim
    tries = [{"recurrence": "rotary_ssd", "state_dim": size} for size in range(largest, 0, -2)]
    return _first_matched(base, tries)


def scan_only(base: WorldModelConfig) -> WorldModelConfig:
    """Block-wise scan with Mamba-2's recurrence, as in the paper, without the memory of places."""
    return _matched(base, memory="block_scan", recurrence="ssd", **_WITHOUT_PLACES)


def scan_place_keys(base: WorldModelConfig) -> WorldModelConfig:
    """As :func:`scan_only`, the keys per head and rotated by the odometry.

    Raises:
        ValueError: If the base has no odometry, or the MLPs cannot pay for the keys.
    """
    changes = {**_WITHOUT_PLACES, "place_keys": True, "num_groups": base.backbone.num_heads}
    return _matched(base, memory="block_scan", recurrence="ssd", **changes)


def places_only(base: WorldModelConfig) -> WorldModelConfig:
    """Memory of places with local attention, without the block-wise scan.

    Raises:
        ValueError: If the base has no memory of places.
    """
    if not base.backbone.place_features:
        raise ValueError("`place_features` of the base must be above 0, got 0.")
    return _matched(base, memory="none", place_keys=False)


def window_only(base: WorldModelConfig) -> WorldModelConfig:
    """Local attention alone: what left the windows of all layers is forgotten."""
    return _matched(base, memory="none", **_WITHOUT_PLACES)


def frame_scan(base: WorldModelConfig) -> WorldModelConfig:
    """One scan over all tokens of each frame, in every layer (Mamba-2 with local attention)."""
    whole = (base.grid_size,) * base.backbone.num_layers
    return _matched(base, memory="block_scan", block_sizes=whole, **_WITHOUT_PLACES)


def frame_scan_large_state(base: WorldModelConfig) -> WorldModelConfig:
    """As :func:`frame_scan`, with as many numbers of state in total as the base's blocks have together.

    The state size per channel is raised; where the wider keys would take more parameters than the MLPs have
    to give, fewer groups of heads share them. Always with Mamba-2's recurrence: rotating keys of that size,
    which no heads share, could not be paid for.

    Raises:
        ValueError: If the parameter count cannot be matched even with one group.
    """
    backbone = base.backbone
    whole = (base.grid_size,) * backbone.num_layers
    target = scan_state_size(base)
    per_dim = scan_state_size(replace(base, backbone=replace(backbone, block_sizes=whole, state_dim=2))) // 2
    state_dim = 2 * round(target / per_dim / 2)
    heads = backbone.num_heads
    tries = [
        {
            "recurrence": "ssd",
            "block_sizes": whole,
            "state_dim": state_dim,
            "num_groups": groups,
            **_WITHOUT_PLACES,
        }
        for groups in range(backbone.num_groups, 0, -1)
        if heads % groups == 0
    ]
    return _first_matched(base, tries)


def blocks_1x1(base: WorldModelConfig) -> WorldModelConfig:
    """A scan of its own for every token of the grid, in every layer."""
    single = (1,) * base.backbone.num_layers
    return _matched(base, memory="block_scan", block_sizes=single, **_WITHOUT_PLACES)


def full_attention(base: WorldModelConfig) -> WorldModelConfig:
    """Causal attention over all past frames with a cache, in place of the scan."""
    return _matched(base, memory="full_attention", **_WITHOUT_PLACES)


BASELINES: dict[str, Callable[[WorldModelConfig], WorldModelConfig]] = {
    function.__name__: function
    for function in (
        ours,
        ours_rotary,
        scan_only,
        scan_place_keys,
        places_only,
        window_only,
        frame_scan,
        frame_scan_large_state,
        blocks_1x1,
        full_attention,
    )
}
"""Baselines by name."""


@functools.cache
def parameter_count(config: WorldModelConfig) -> int:
    """Parameters that take part in a prediction, tokenizer included.

    Without scan and full attention, the part of every layer's modulation that is theirs is not counted.
    """
    with torch.device("meta"):
        model = WorldModel(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    backbone = config.backbone
    if backbone.memory == "none":
        count -= backbone.num_layers * 3 * backbone.width * (backbone.conditioning_width + 1)
    return count


def scan_state_size(config: WorldModelConfig) -> int:
    """Numbers of scan state of one episode, over all layers and blocks."""
    backbone = config.backbone
    blocks = sum((config.grid_size // block) ** 2 for block in backbone.block_sizes)
    return blocks * backbone.expand * backbone.width * backbone.state_dim


def _first_matched(base: WorldModelConfig, tries: list[dict[str, object]]) -> WorldModelConfig:
    """The first of several block scans whose parameter count can be matched."""
    for changes in tries[:-1]:
        try:
            return _matched(base, memory="block_scan", **changes)
        except ValueError:
            continue
    return _matched(base, memory="block_scan", **tries[-1])


def _matched(base: WorldModelConfig, **changes: object) -> WorldModelConfig:
    """The base with another backbone, its MLPs as wide as gives the base's parameter count.

    Raises:
        ValueError: If no width of at least half the base's does.
    """
    backbone: BackboneConfig = replace(base.backbone, **changes)  # type: ignore[arg-type]
    goal, unchanged = parameter_count(base), replace(base, backbone=backbone)
    if abs(parameter_count(unchanged) / goal - 1) < 1e-3:
        return unchanged

    def with_inner(inner: int) -> WorldModelConfig:
        # Half a channel more, so that rounding down inside the layer gives `inner` exactly.
        return replace(base, backbone=replace(backbone, mlp_ratio=(inner + 0.5) / backbone.width))

    least = max(1, int(_LEAST_MLP * base.backbone.mlp_ratio * backbone.width))
    per_channel = backbone.num_layers * (2 * backbone.width + 1)
    inner = least + round((goal - parameter_count(with_inner(least))) / per_channel)
    found = with_inner(max(least, inner))
    if abs(parameter_count(found) / goal - 1) > TOLERANCE:
        raise ValueError(
            f"a baseline must have the base's {goal} parameters to within {100 * TOLERANCE:.0f} %, got "
            f"{parameter_count(found)} with MLPs half as wide and {changes}: widen the base's `mlp_ratio`."
        )
    return found
