"""An autoencoder of `diffusers` (AutoencoderKL; Rombach et al. 2022, arXiv 2112.10752) as tokenizer.

Its latent here is the mean of its posterior: encoding the same frame twice gives the same latent.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import nn

from lssvwm_agents.worldmodel.config import TokenizerConfig
from lssvwm_agents.worldmodel.diffusers_package import diffusers_package

_WANTED_BY = "the tokenizer of kind 'diffusers'"
# What a TokenizerConfig has fields for, by AutoencoderKL's names.
_OURS = {"block_out_channels": "channels", "latent_channels": "latent_channels"}
_OURS |= {"layers_per_block": "num_residual_blocks"}


class PosteriorMean(nn.Module):
    """The first half of the channels; the second says how uncertain the encoder is."""

    def forward(self, moments: torch.Tensor) -> torch.Tensor:
        """(N, 2C, h, w) -> (N, C, h, w)."""
        return moments.chunk(2, dim=1)[0]


def build_autoencoder(config: TokenizerConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """A freshly initialised encoder and decoder.

    Raises:
        ImportError: If `diffusers` is not installed.
        ValueError: If ``autoencoder_json`` names what the configuration has a field for.
    """
    package = diffusers_package(_WANTED_BY)
    stages = len(config.channels)
    arguments: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * stages,
        "up_block_types": ("UpDecoderBlock2D",) * stages,
        "norm_num_groups": _groups(config.channels),
    }
    given = json.loads(config.autoencoder_json)
    twice = sorted(set(given) & set(_OURS))
    if twice:
        fields = ", ".join(_OURS[name] for name in twice)
        raise ValueError(f"`autoencoder_json` must leave these to the fields {fields}, got {twice}.")
    arguments |= {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    arguments |= {name: getattr(config, field) for name, field in _OURS.items()}
    return take_apart(package.AutoencoderKL(**arguments))


def load_autoencoder(
    path: str, frame_size: int, **options: Any
) -> tuple[TokenizerConfig, nn.Sequential, nn.Sequential]:
    """A trained AutoencoderKL and the configuration that rebuilds it.

    Args:
        path: Folder, or id on the Hugging Face hub.
        frame_size: Height and width of the frames that it will see, in pixels.
        options: As ``AutoencoderKL.from_pretrained``, such as ``subfolder="vae"``.

    Raises:
        ImportError: If `diffusers` is not installed.
        ValueError: If it is no autoencoder of RGB frames, or the size does not fit it.
        OSError: If there is none.
    """
    package = diffusers_package(_WANTED_BY)
    trained = package.AutoencoderKL.from_pretrained(path, **{"low_cpu_mem_usage": False, **options})
    arguments = {name: value for name, value in trained.config.items() if not name.startswith("_")}
    colours = (arguments["in_channels"], arguments["out_channels"])
    if colours != (3, 3):
        raise ValueError(f"an autoencoder must turn 3 colour channels into 3, got {colours} in `{path}`.")
    config = TokenizerConfig(
        kind="diffusers",
        frame_size=frame_size,
        channels=tuple(arguments.pop("block_out_channels")),
        latent_channels=arguments.pop("latent_channels"),
        num_residual_blocks=arguments.pop("layers_per_block"),
        autoencoder_json=json.dumps(arguments, sort_keys=True),
    )
    return config, *take_apart(trained)


def take_apart(autoencoder: Any) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder, frames in [-1, 1] to latents, and decoder of an AutoencoderKL: it shares their weights."""
    before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
    encoder = [autoencoder.encoder, *([] if before is None else [before]), PosteriorMean()]
    decoder = [*([] if after is None else [after]), autoencoder.decoder]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _groups(channels: tuple[int, ...]) -> int:
    """Groups for normalising, of 4 channels or more where they are so many; AutoencoderKL's 32 at most."""
    common = math.gcd(*channels)
    return max(groups for groups in range(1, 33) if common % groups == 0 and 4 * groups <= max(common, 4))
