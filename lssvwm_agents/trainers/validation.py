"""Score a world model on episodes it never saw: one-step prediction, open-loop imagination, and recall.

Shapes: ``V`` episodes of ``T`` = context + horizon frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.data.latents import LatentDataset
from lssvwm_agents.data.windows import WindowIndex, gather_windows
from lssvwm_agents.metrics import psnr
from lssvwm_agents.seeding import generator
from lssvwm_agents.trainers.loss_modules import unit_frames
from lssvwm_agents.worldmodel import ObjectiveConfig, WindowBatch, WorldModel, world_model_loss
from lssvwm_agents.worldmodel.backbone import Frames


@dataclass(frozen=True)
class ValidationSet:
    """Episodes held out, with their real frames.

    Attributes:
        dataset: V episodes of T frames.
        frames: (V, T, H, W, 3) uint8.
        context: Real frames given before imagining; the rest is imagined.
    """

    dataset: LatentDataset
    frames: torch.Tensor
    context: int

    @property
    def horizon(self) -> int:
        """Frames imagined."""
        return self.frames.shape[1] - self.context


def ordered_index(dataset: LatentDataset, length: int, replay: bool = False) -> WindowIndex:
    """The first ``length`` frames of every episode; with ``replay`` its first half twice, then shuffled."""
    rows, device = dataset.num_episodes, dataset.device
    time_T = torch.arange(length, device=device)
    half = (length + 1) // 2
    replayed_T = (time_T >= half) & replay
    order = torch.rand(rows, half, generator=torch.Generator().manual_seed(0)).argsort(1).to(device)
    frame_BT = torch.where(replayed_T, order[:, (time_T - half) % half], time_T)
    return WindowIndex(torch.arange(rows, device=device), frame_BT, replayed_T.expand(rows, -1).contiguous())


@torch.no_grad()
def validate_world_model(
    model: WorldModel, held_out: ValidationSet, objective: ObjectiveConfig
) -> dict[str, float]:
    """Score a model; all names begin with ``val/``, PSNR is in dB against the real frames.

    ``one_step_psnr`` predicts each frame from the real ones before it; ``imagined_psnr`` goes on from
    ``context`` real frames with the true actions alone, beside ``copy_last_psnr`` and the tokenizer's own
    ceiling; ``recall_mse`` is the error of latents shown a second time, in random order, so that little but
    memory knows them (now and then a neighbour is in the attention window), beside ``fresh_mse``, that of
    frames as late in ordinary windows (1 is the error of knowing nothing). ``return_correlation`` compares
    imagined and real sums of rewards over the horizon.
    """
    context, horizon = held_out.context, held_out.horizon
    length = context + horizon
    real = gather_windows(held_out.dataset, ordered_index(held_out.dataset, length))
    real = real.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    frames = unit_frames(held_out.frames)
    noise = generator(model.device, 0x76616C)
    loss, parts = world_model_loss(model, real, noise, objective)
    values = {"val/loss": loss, **{f"val/{name.removeprefix('loss/')}": part for name, part in parts.items()}}
    values.pop("val/total", None)

    proprio = None if real.proprio is None or model.config.proprio_dim == 0 else real.proprio
    state, _ = model.observe_latents(
        model.initial_state(len(frames)),
        real.latents[:, :context],
        real.actions[:, :context],
        None if proprio is None else proprio[:, :context],
    )
    _, imagined = model.imagine(state, real.actions[:, context:])
    decoded = model.decode(imagined.latent)
    future = frames[:, context:]
    imagined_T = psnr(decoded, future).mean(0)
    values["val/imagined_psnr_first"] = imagined_T[0]
    values["val/imagined_psnr_last"] = imagined_T[-1]
    values["val/imagined_psnr"] = imagined_T.mean()
    last = frames[:, context - 1 : context].expand_as(future)
    values["val/copy_last_psnr"] = psnr(last, future).mean()
    values["val/tokenizer_psnr"] = psnr(model.decode(real.latents[:, context:]), future).mean()
    if imagined.proprio is not None and proprio is not None:
        off = (imagined.proprio - proprio[:, context:])[..., :2].square().sum(-1).sqrt()
        values["val/odometry_error_last"] = off[:, -1].mean()
    true_return, imagined_return = real.reward[:, context:].sum(1), imagined.reward.sum(1)
    if len(true_return) > 1 and float(true_return.std()) > 0 and float(imagined_return.std()) > 0:
        values["val/return_correlation"] = torch.corrcoef(torch.stack([true_return, imagined_return]))[0, 1]

    if model.config.objective == "teacher_forcing":
        predicted = one_step_latents(model, real)
        values["val/one_step_psnr"] = psnr(model.decode(predicted[:, context:]), future).mean()
        if proprio is not None:
            again = gather_windows(held_out.dataset, ordered_index(held_out.dataset, length, replay=True))
            again = again.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
            late = slice(length - length // 4, None)
            recalled = one_step_latents(model, again)[:, late]
            values["val/recall_mse"] = (recalled - again.latents[:, late]).square().mean()
            values["val/fresh_mse"] = (predicted[:, late] - real.latents[:, late]).square().mean()
    return {name: float(value) for name, value in values.items()}


def one_step_latents(model: WorldModel, batch: WindowBatch) -> torch.Tensor:
    """Each frame's latent predicted from the real frames before it, in parallel: (B, T, C, h, w)."""
    latents = batch.latents
    rows, time = latents.shape[:2]
    proprio = batch.proprio
    if proprio is None or model.config.proprio_dim == 0:
        proprio = latents.new_zeros(rows, time, model.config.proprio_dim)
    rest = (batch.actions, batch.action_known, proprio, batch.proprio_known)
    clean = Frames(latents, latents.new_zeros(rows, time), *rest)
    noisy = Frames(torch.zeros_like(latents), latents.new_ones(rows, time), *rest)
    predicted = model.backbone(clean, noisy, model.backbone.initial_layers(rows)).clean
    assert isinstance(predicted, torch.Tensor)
    return predicted
