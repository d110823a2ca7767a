"""What an imagined moment looks like: observations and infos as arrays or tensors, and pictures."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_agents.envs.imagined_spaces import ImaginedObservation, check_choice
from lssvwm_agents.envs.imagined_worlds import ImaginedMoment, ImaginedWorlds

ArrayType = Literal["numpy", "torch"]
VIEW_SIZE = 256


class ImaginedView:
    """What of a moment is shown, and as what."""

    def __init__(
        self,
        worlds: ImaginedWorlds,
        observation: ImaginedObservation,
        array_type: ArrayType,
        render_mode: str | None,
    ) -> None:
        check_choice("array_type", array_type, ArrayType)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"`render_mode` must be None or 'rgb_array', got {render_mode!r}.")
        self.worlds, self.observation, self.array_type = worlds, observation, array_type

    def observe(self, moment: ImaginedMoment) -> tuple[Any, dict[str, Any]]:
        """Observations and infos of all B episodes, as fresh arrays or tensors."""
        shown: Any
        if self.observation == "latent":
            shown = moment.latent.float()
        elif self.observation == "features":
            shown = moment.world.features.float()
        else:
            shown = to_frames(self.worlds.decode(moment))
            if self.observation == "dict":
                shown = {"frame": shown, "proprio": moment.world.proprio.float()}
        info = {"continuation": moment.continuation}
        if self.worlds.model.config.proprio_dim:
            info["proprio"] = moment.world.proprio.float()
        return hand_over(shown, self.array_type), hand_over(info, self.array_type)

    def enlarged(self, moment: ImaginedMoment) -> NDArray[np.uint8]:
        """Frames for people to look at: (B, 256, 256, 3) uint8."""
        pixels: NDArray[np.uint8] = enlarge(to_frames(self.worlds.decode(moment))).cpu().numpy()
        return pixels


def first_row(value: Any) -> Any:
    """Row 0 of an array, a tensor, or each of a dict of them."""
    return {key: part[0] for key, part in value.items()} if isinstance(value, dict) else value[0]


def to_frames(decoded: Tensor) -> Tensor:
    """Frames (B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    return (decoded.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def enlarge(frames: Tensor) -> Tensor:
    """Frames (B, H, W, 3) uint8 -> (B, 256, 256, 3), nearest pixel, for people to look at."""
    pixels = frames.permute(0, 3, 1, 2)
    pixels = torch.nn.functional.interpolate(pixels, size=(VIEW_SIZE, VIEW_SIZE), mode="nearest")
    return pixels.permute(0, 2, 3, 1).contiguous()


def hand_over(value: Any, array_type: ArrayType) -> Any:
    """A tensor, or a dict of them, that no one else holds: as it is, or as a numpy array."""
    if isinstance(value, dict):
        return {key: hand_over(part, array_type) for key, part in value.items()}
    return value.clone() if array_type == "torch" else value.detach().cpu().numpy().copy()
