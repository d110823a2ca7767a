"""Micro models, states and batches that the tests of the world model share."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lssvwm_agents.worldmodel import (
    BackboneConfig,
    TokenizerConfig,
    WindowBatch,
    WorldModel,
    WorldModelConfig,
)
from lssvwm_agents.worldmodel.scan import Writes

ACTION_DIM, PROPRIO_DIM = 3, 2


def micro_config(**overrides: object) -> WorldModelConfig:
    """2x2 tokens of an 8x8 frame, two layers, width 8: small enough for finite differences."""
    backbone: dict[str, object] = {
        "width": 8,
        "conditioning_width": 8,
        "block_sizes": (2, 1),
        "head_dim": 4,
        "state_dim": 4,
        "window": 2,
        "mlp_ratio": 1.0,
        "half_life_frames": (2.0, 64.0),
    }
    names = set(BackboneConfig.__dataclass_fields__)
    backbone |= {name: overrides.pop(name) for name in list(overrides) if name in names}
    config: dict[str, object] = {
        "tokenizer": TokenizerConfig(frame_size=8, channels=(4,), latent_channels=2),
        "patch_size": 2,
        "action_dim": ACTION_DIM,
        "proprio_dim": PROPRIO_DIM,
        "num_bins": 5,
        "backbone": BackboneConfig(**backbone),  # type: ignore[arg-type]
    }
    return WorldModelConfig(**{**config, **overrides})  # type: ignore[arg-type]


def micro_model(dtype: torch.dtype = torch.float64, seed: int = 0, **overrides: object) -> WorldModel:
    """A model whose zero-initialised gates and heads are random: no test passes because all is zero."""
    torch.manual_seed(seed)
    model = WorldModel(micro_config(**overrides)).to(dtype)
    randomise(model, seed)
    return model.eval()


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Replace all-zero parameters (gates, last layers of heads, nulls) and the stored statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any() or name.endswith("continuation.weight"):
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
            if name.endswith("heads.continuation.bias"):
                parameter.fill_(0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("by_action"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            if name.endswith(("_std", "left_open")):
                buffer.copy_(0.8 + 0.4 * torch.rand(buffer.shape, generator=generator))


def video(
    model: WorldModel, batch: int, time: int, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Random latents (B,T,C,h,w), one-hot actions (B,T,A), the first one null, and odometry or None."""
    generator = torch.Generator().manual_seed(seed)
    dtype = model.backbone.position.dtype
    shape = (batch, time, *model.config.tokenizer.latent_shape)
    latents = torch.randn(shape, generator=generator, dtype=dtype)
    index = torch.randint(model.config.action_dim, (batch, time), generator=generator)
    actions = torch.nn.functional.one_hot(index, model.config.action_dim).to(dtype)
    actions[:, 0] = 0.0
    proprio = torch.randn(batch, time, model.config.proprio_dim, generator=generator, dtype=dtype)
    return latents, actions, proprio if model.config.proprio_dim else None


def window_batch(model: WorldModel, batch: int, time: int, seed: int = 1) -> WindowBatch:
    """A training batch around :func:`video` with every target known."""
    latents, actions, proprio = video(model, batch, time, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    everywhere = torch.ones(batch, time, dtype=torch.bool)
    return WindowBatch(
        latents=latents,
        actions=actions,
        action_known=actions.sum(-1) > 0,
        proprio=proprio,
        proprio_known=everywhere & (proprio is not None),
        reward=(torch.rand(batch, time, generator=generator) < 0.2).to(latents.dtype),
        continuation=(torch.rand(batch, time, generator=generator) < 0.9).to(latents.dtype),
        reward_mask=everywhere,
        value=torch.rand(batch, time, generator=generator).to(latents.dtype),
        value_mask=everywhere,
    )


def random_scan(
    rows: int,
    length: int,
    heads: int,
    groups: int,
    channels: int = 3,
    state_size: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> tuple[Writes, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Writes, decay rates (H,), initial state and reading queries, all of them leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> torch.Tensor:
        tensor = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return tensor.to(device, dtype).requires_grad_()

    def positive(*shape: int) -> torch.Tensor:
        tensor = 0.05 + torch.rand(*shape, generator=generator, dtype=torch.float64)
        return tensor.to(device, dtype)

    writes = Writes(
        x=leaf(rows, length, heads, channels),
        dt=positive(rows, length, heads).requires_grad_(),
        b=leaf(rows, length, groups, state_size),
        c=leaf(rows, length, groups, state_size),
    )
    a = (-positive(heads)).requires_grad_()
    return writes, a, leaf(rows, heads, channels, state_size), leaf(rows, length, groups, state_size)


def state_distance(first: object, second: object) -> float:
    """Largest absolute difference between two pytrees of tensors."""
    from torch.utils import _pytree as pytree

    pairs = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True)
    return max(_distance(one, two) for one, two in pairs)


def relative_error(values: Iterable[torch.Tensor], references: Iterable[torch.Tensor]) -> float:
    """Largest |value - reference| / |reference| in the 2-norm, over pairs of tensors."""
    worst = 0.0
    for value, reference in zip(values, references, strict=True):
        reference = reference.detach().double()
        worst = max(
            worst, float((value.detach().double() - reference).norm() / reference.norm().clamp(min=1e-12))
        )
    return worst


def _distance(one: torch.Tensor, two: torch.Tensor) -> float:
    assert one.shape == two.shape
    return float((one - two).detach().abs().max()) if one.numel() else 0.0
