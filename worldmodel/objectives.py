"""What training minimises: pure functions of a module, a batch and the generator of every draw.

For data-parallel training noise is drawn for the global batch and each process takes its rows: a run on two
processes sees the numbers of a run on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from lssvwm_agents.worldmodel.backbone import Frames
from lssvwm_agents.worldmodel.batch import WindowBatch
from lssvwm_agents.worldmodel.imagined_window import imagine_window
from lssvwm_agents.worldmodel.model import WorldModel
from lssvwm_agents.worldmodel.noise import add_noise
from lssvwm_agents.worldmodel.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenizerLossConfig:
    """Weights of the tokenizer's loss.

    Attributes:
        mse: Weight of the squared error.
        mae: Weight of the absolute error.
        worst: Weight of the squared error of the worst pixels of every frame: without it, objects of a few
            pixels in a large calm frame may be left out.
        worst_share: How many of a frame's pixels those are, at least one.
        latent_penalty: Weight of the mean squared latent, which keeps latents bounded.
    """

    mse: float = 1.0
    mae: float = 0.2
    worst: float = 0.0
    worst_share: float = 0.02
    latent_penalty: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 < self.worst_share <= 1.0:
            raise ValueError(f"`worst_share` must be in (0, 1], got {self.worst_share}.")


def tokenizer_loss(
    tokenizer: Tokenizer, frames: torch.Tensor, config: TokenizerLossConfig
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Reconstruction error on frames (B,3,H,W) in [0, 1]; returns a scalar and its parts."""
    latents = tokenizer.encode(frames)
    error = tokenizer.decode_unclamped(latents) - frames
    mse, mae = error.square().mean(), error.abs().mean()
    loss = config.mse * mse + config.mae * mae + config.latent_penalty * latents.square().mean()
    psnr = -10.0 * torch.log10(mse.detach().clamp(min=1e-10))
    parts = {"tokenizer/mse": mse.detach(), "tokenizer/mae": mae.detach(), "tokenizer/psnr": psnr}
    if config.worst > 0:
        pixels = error.square().mean(1).flatten(1)
        count = max(1, round(config.worst_share * pixels.shape[1]))
        worst = pixels.topk(count, dim=1).values.mean()
        loss = loss + config.worst * worst
        parts["tokenizer/worst"] = worst.detach()
    return loss, parts


@dataclass(frozen=True)
class ObjectiveConfig:
    """How noise is drawn and what each part of the loss weighs.

    Attributes:
        full_noise_share: Share of frames denoised from pure noise (level 1): the ones that must be recalled
            or predicted.
        clean_noise_max: The clean stream carries noise of a level uniform in [0, this], told to the model.
        action_dropout: Share of windows whose actions are hidden.
        proprio_dropout: Share of windows whose odometry is hidden.
        rollout_weight: Of the open-loop loss: some windows go on from a real prefix in the model's own
            imagination, and latents, rewards, values and odometry of the imagined frames are compared with
            the real ones. The gradient flows through the imagined frames. 0 for none.
        rollout_horizon: Frames imagined; at most half of the window.
        rollout_rows: About how many windows of a batch.
        clean_prefix_share: Diffusion forcing: share of windows with a clean prefix longer than half.
        reward_weight: Of the reward head's cross-entropy.
        continuation_weight: Of the continuation head's cross-entropy.
        value_weight: Of the value head's cross-entropy.
        proprio_weight: Of the odometry head's squared error, in deviations of a change (in rollouts of a
            ``vector`` twice Huber's loss), and of the same by odometry and action alone, where there are
            odometry dynamics.
    """

    full_noise_share: float = 0.5
    clean_noise_max: float = 0.1
    action_dropout: float = 0.1
    proprio_dropout: float = 0.1
    rollout_weight: float = 0.0
    rollout_horizon: int = 12
    rollout_rows: int = 64
    clean_prefix_share: float = 0.5
    reward_weight: float = 0.5
    continuation_weight: float = 0.1
    value_weight: float = 0.1
    proprio_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "full_noise_share",
            "action_dropout",
            "proprio_dropout",
            "clean_prefix_share",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")
        for name in ("rollout_horizon", "rollout_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("clean_noise_max", "rollout_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")


class _Draws:
    """Random numbers for this process's rows of the global batch."""

    def __init__(
        self,
        generator: torch.Generator,
        batch: WindowBatch,
        row_offset: int,
        global_rows: int | None,
        sum_over_processes: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        self.generator, self.device = generator, batch.latents.device
        self.sum_over_processes = sum_over_processes
        self.local, self.offset = batch.latents.shape[0], row_offset
        self.rows = self.local if global_rows is None else global_rows

    def _mine(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[self.offset : self.offset + self.local].to(self.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        return self._mine(
            torch.rand(self.rows, *shape, generator=self.generator, device=self.generator.device)
        )

    def normal(self, *shape: int) -> torch.Tensor:
        return self._mine(
            torch.randn(self.rows, *shape, generator=self.generator, device=self.generator.device)
        )

    def masked_mean(self, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mean of a (B, ...) value where the mask is True.

        With several processes, the sum over this one's rows by its fair share of the global count: the
        average over processes, weighted by rows, is then the mean over the global batch.
        """
        count = mask.sum()
        if self.sum_over_processes is not None:
            share = self.local / self.rows
            return (value * mask).sum() / (self.sum_over_processes(count).clamp(min=1) * share)
        return (value * mask).sum() / count.clamp(min=1)


def world_model_loss(
    model: WorldModel,
    batch: WindowBatch,
    generator: torch.Generator,
    config: ObjectiveConfig,
    row_offset: int = 0,
    global_rows: int | None = None,
    sum_over_processes: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The whole training loss on windows of latents.

    Args:
        model: Whose ``config.objective`` says how frames are denoised.
        batch: ``B`` windows of ``T`` frames.
        generator: Source of all noise.
        config: Noise and weights.
        row_offset: First row of this process's share of the global batch.
        global_rows: Rows of the global batch; None if this is all of it.
        sum_over_processes: Adds up a tensor over the processes sharing the batch; None if there is one.

    Returns:
        A scalar, and its parts for logging (detached scalars).
    """
    draws = _Draws(generator, batch, row_offset, global_rows, sum_over_processes)
    batch, proprio = _hide_inputs(model, batch, config, draws)
    if model.config.objective == "teacher_forcing":
        denoising, features, valid = _teacher_forcing(model, batch, proprio, config, draws)
    else:
        denoising, features, valid = _diffusion_forcing(model, batch, proprio, config, draws)
    parts = {"denoising": denoising, **_outcome_losses(model, batch, features, valid, draws)}
    if model.heads.proprio is not None:
        parts |= _odometry_losses(model, batch, proprio, features, valid, draws)
    if model.heads.visual_odometry is not None:
        parts["visual_odometry"] = _visual_odometry_loss(model, batch, proprio, draws)
    weights = {
        "denoising": 1.0,
        "reward": config.reward_weight,
        "continuation": config.continuation_weight,
        "value": config.value_weight,
        "proprio": config.proprio_weight,
        "odometry_dynamics": config.proprio_weight,
        "visual_odometry": config.proprio_weight,
    }
    total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    if config.rollout_weight > 0:
        # After the losses above: autocast would keep weights cast without gradient for the real prefix.
        ahead = _rollout_losses(model, batch, proprio, config, draws)
        total = total + config.rollout_weight * sum(weights[name] * value for name, value in ahead.items())
        parts |= {f"rollout_{name}": value for name, value in ahead.items()}
    metrics = {f"loss/{name}": value.detach() for name, value in parts.items()}
    return total, {"loss/total": total.detach(), **metrics}


def _hide_inputs(
    model: WorldModel, batch: WindowBatch, config: ObjectiveConfig, draws: _Draws
) -> tuple[WindowBatch, torch.Tensor]:
    """Hide the actions of some windows and the odometry of others, never both."""
    rows, time = batch.action_known.shape
    u = draws.uniform()
    hide_action = u < config.action_dropout
    hide_proprio = u > 1.0 - config.proprio_dropout
    proprio = batch.proprio
    if proprio is None or model.config.proprio_dim == 0:
        proprio = batch.latents.new_zeros(rows, time, model.config.proprio_dim)
    if model.config.proprio_dim == 0 or batch.proprio is None:
        hide_action = torch.zeros_like(hide_action)
    batch = replace(
        batch,
        action_known=batch.action_known & ~hide_action[:, None],
        proprio_known=batch.proprio_known & ~hide_proprio[:, None] & (batch.proprio is not None),
    )
    return batch, proprio


def _frames(batch: WindowBatch, proprio: torch.Tensor, latents: torch.Tensor, level: torch.Tensor) -> Frames:
    return Frames(latents, level, batch.actions, batch.action_known, proprio, batch.proprio_known)


def _teacher_forcing(
    model: WorldModel,
    batch: WindowBatch,
    proprio: torch.Tensor,
    config: ObjectiveConfig,
    draws: _Draws,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    latents = batch.latents.to(model.backbone.position.dtype)
    rows, time = latents.shape[:2]
    clean_level = config.clean_noise_max * draws.uniform(time) * (draws.uniform(1) < 0.5)
    clean = add_noise(latents, draws.normal(*latents.shape[1:]), clean_level)
    level = draws.uniform(time)
    level = torch.where(draws.uniform(time) < config.full_noise_share, torch.ones_like(level), level)
    noisy = add_noise(latents, draws.normal(*latents.shape[1:]), level)
    layers = model.backbone.initial_layers(rows)
    out = model.backbone(
        _frames(batch, proprio, clean, clean_level), _frames(batch, proprio, noisy, level), layers
    )
    loss = (
        F.mse_loss(out.clean.float(), latents.float())
        if latents.dtype != torch.float64
        else F.mse_loss(out.clean, latents)
    )
    return loss, out.features, torch.ones_like(batch.reward_mask)


def _diffusion_forcing(
    model: WorldModel, batch: WindowBatch, proprio: torch.Tensor, config: ObjectiveConfig, draws: _Draws
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy frames write (Chen et al. 2024, arXiv 2407.01392), after LSSVWM's clean prefix (section 4.3)."""
    latents = batch.latents.to(model.backbone.position.dtype)
    rows, time = latents.shape[:2]
    level = draws.uniform(time)
    level = torch.where(draws.uniform(time) < config.full_noise_share, torch.ones_like(level), level)
    length = (time * (0.5 + 0.5 * draws.uniform())).long().clamp(max=time - 1)[:, None]
    with_prefix = (draws.uniform() < config.clean_prefix_share)[:, None]
    prefix = with_prefix & (torch.arange(time, device=latents.device)[None] < length)
    level = torch.where(prefix, torch.zeros_like(level), level)
    noisy = add_noise(latents, draws.normal(*latents.shape[1:]), level)
    out = model.backbone(
        _frames(batch, proprio, noisy, level), None, model.backbone.initial_layers(rows), denoise_writes=True
    )
    error = (out.clean - latents).square().mean(dim=(2, 3, 4))
    return draws.masked_mean(error, level > 0), out.features, prefix


def _outcome_losses(
    model: WorldModel, batch: WindowBatch, features: torch.Tensor, valid: torch.Tensor, draws: _Draws
) -> dict[str, torch.Tensor]:
    """Reward, continuation and value, from the features (B,T,F) of the batch's frames."""
    heads = model.heads
    reward_mask, value_mask = batch.reward_mask & valid, batch.value_mask & valid
    ending = F.binary_cross_entropy_with_logits(
        heads.continuation(features).squeeze(-1).float(), batch.continuation.float(), reduction="none"
    )
    losses = {
        "reward": draws.masked_mean(heads.two_hot.loss(heads.reward(features), batch.reward), reward_mask),
        "continuation": draws.masked_mean(ending, reward_mask),
    }
    if heads.value is not None:
        losses["value"] = draws.masked_mean(
            heads.two_hot.loss(heads.value(features), batch.value), value_mask
        )
    return losses


def _odometry_losses(
    model: WorldModel,
    batch: WindowBatch,
    proprio: torch.Tensor,
    features: torch.Tensor,
    valid: torch.Tensor,
    draws: _Draws,
) -> dict[str, torch.Tensor]:
    """Each frame's change of odometry from the frame before and the action; the same without features."""
    head = model.heads.proprio
    assert head is not None
    before, actions = proprio[:, :-1], batch.actions[:, 1:]
    changes = {"proprio": model.next_odometry(features[:, :-1], before, actions)[1]}
    if head.by_odometry is not None:
        standardised = model.backbone.conditioning.standardise(before)
        changes["odometry_dynamics"] = head.expect(actions, head.by_odometry(standardised, actions))
    target = head.change(before, proprio[:, 1:])
    known = batch.proprio_known & batch.action_known
    mask = (known & valid)[:, 1:] & batch.proprio_known[:, :-1] & valid[:, :-1]
    return {
        name: draws.masked_mean((change.float() - target.float()).square().mean(-1), mask)
        for name, change in changes.items()
    }


def _visual_odometry_loss(
    model: WorldModel, batch: WindowBatch, proprio: torch.Tensor, draws: _Draws
) -> torch.Tensor:
    """Each frame's change of odometry, seen in it and in the frame before."""
    assert model.heads.proprio is not None
    latents = batch.latents.to(model.backbone.position.dtype)
    change = model.see_change(latents[:, :-1], latents[:, 1:], batch.actions[:, 1:])
    target = model.heads.proprio.change(proprio[:, :-1], proprio[:, 1:])
    error = (change.float() - target.float()).square().mean(-1)
    known = (batch.proprio_known & batch.action_known)[:, 1:] & batch.proprio_known[:, :-1]
    return draws.masked_mean(error, known)


def _rollout_losses(
    model: WorldModel, batch: WindowBatch, proprio: torch.Tensor, config: ObjectiveConfig, draws: _Draws
) -> dict[str, torch.Tensor]:
    """Every so many-th window of the global batch, its last frames imagined."""
    stride = max(1, draws.rows // config.rollout_rows)
    first = -draws.offset % stride
    if first >= draws.local:
        raise ValueError(
            f"`rollout_rows`={config.rollout_rows} must give every process a window: at least one for each."
        )
    batch, proprio = batch.map(lambda tensor: tensor[first::stride]), proprio[first::stride]
    time = batch.reward.shape[1]
    start = time - min(config.rollout_horizon, time // 2)
    imagined = imagine_window(model, batch, proprio, start)
    future = batch.map(lambda tensor: tensor[:, start:])
    everywhere = torch.ones_like(future.reward_mask)
    error = (imagined.latents - future.latents.to(imagined.latents.dtype)).square().mean(dim=(2, 3, 4))
    losses = {
        "denoising": draws.masked_mean(error, everywhere),
        **_outcome_losses(model, future, imagined.features, everywhere, draws),
    }
    if imagined.changes is not None:
        assert model.heads.proprio is not None and imagined.before is not None
        # A head that sees its odometry is to come back from where it strayed: a ball out of the wall that it
        # is imagined in. One that sees a pose by its frame alone cannot: its changes are the real ones.
        returns = model.heads.proprio.kind == "vector"
        before = imagined.before if returns else proprio[:, start - 1 : -1]
        target = model.heads.proprio.change(before, proprio[:, start:])
        apart = imagined.changes.float() - target.float()
        # Far astray, the way back would outweigh all else: twice Huber's loss is the square up to 1.
        each = (
            2.0 * F.huber_loss(apart, torch.zeros_like(apart), reduction="none")
            if returns
            else apart.square()
        )
        error = each.mean(-1)
        known = batch.proprio_known[:, start - 1 : -1] & future.proprio_known & future.action_known
        losses["proprio"] = draws.masked_mean(error, known)
    return losses
