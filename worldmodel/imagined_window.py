"""The end of a training window in the model's own imagination, as a planner would imagine it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lssvwm_agents.worldmodel.backbone import Frames
from lssvwm_agents.worldmodel.batch import WindowBatch
from lssvwm_agents.worldmodel.model import WorldModel


class ImaginedWindow(NamedTuple):
    """``H`` imagined frames of ``B`` windows.

    Attributes:
        latents: (B,H,C,h,w).
        features: (B,H,F).
        changes: (B,H,C) standardised changes of odometry from the head, or None without odometry.
        before: (B,H,P) odometry that each change set out from, or None.
    """

    latents: torch.Tensor
    features: torch.Tensor
    changes: torch.Tensor | None
    before: torch.Tensor | None


def imagine_window(
    model: WorldModel, batch: WindowBatch, proprio: torch.Tensor, start: int
) -> ImaginedWindow:
    """Imagine the frames from ``start`` on, after the real ones before it, under the window's actions.

    Odometry is the model's own prediction where the action is known, and the real one where it is not (there
    it alone says where the camera goes). The gradient flows through the imagined frames; not through the
    odometry, each change of which has a target of its own, and not into the real prefix.

    Args:
        model: The world model.
        batch: Windows of ``T`` frames.
        proprio: (B,T,P) their odometry.
        start: First imagined frame, in [1, T).
    """
    rows, time = batch.reward.shape
    dtype = model.backbone.position.dtype
    action_known, proprio_known = batch.action_known.to(dtype), batch.proprio_known.to(dtype)
    latents, past = batch.latents[:, :start].to(dtype), slice(0, start)
    with torch.no_grad():
        state, _ = model.write(
            model.initial_state(rows),
            Frames(
                latents=latents,
                noise_level=latents.new_zeros(rows, start),
                action=batch.actions[:, past],
                action_known=action_known[:, past],
                proprio=proprio[:, past],
                proprio_known=proprio_known[:, past],
            ),
        )
    imagined, all_features, changes, before = [], [], [], []
    for t in range(start, time):
        action, pose = batch.actions[:, t], proprio[:, t]
        if model.heads.proprio is not None:
            ahead, change = model.next_odometry(state.features, state.proprio, action)
            changes.append(change)
            before.append(state.proprio)
            pose = torch.where(batch.action_known[:, t, None], ahead.detach(), pose)
        state, latent, features = model.advance(state, action, action_known[:, t], pose, proprio_known[:, t])
        imagined.append(latent)
        all_features.append(features)
    return ImaginedWindow(
        torch.stack(imagined, 1),
        torch.stack(all_features, 1),
        torch.stack(changes, 1) if changes else None,
        torch.stack(before, 1) if before else None,
    )
