"""Frozen configurations of the world model, and its named sizes.

A configuration says what the weights are; nothing about training, devices or data belongs here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar, get_args

Recurrence = Literal["ssd", "rotary_ssd"]
Objective = Literal["teacher_forcing", "diffusion_forcing"]
Memory = Literal["block_scan", "none", "full_attention"]
Odometry = Literal["vector", "pose"]
Denoiser = Literal["stream", "diffusers"]
TokenizerKind = Literal["conv", "identity", "diffusers"]
_T = TypeVar("_T")


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{rule}, got {value}.")


def _require_one_of(name: str, value: str, literal: object) -> None:
    _require(value in get_args(literal), f"`{name}` must be one of {get_args(literal)}", value)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


@dataclass(frozen=True)
class TokenizerConfig:
    """A frame of ``frame_size`` x ``frame_size`` pixels becomes a latent of ``latent_channels`` on a grid.

    Attributes:
        frame_size: Height and width of a frame in pixels.
        channels: Width of each stage. Each stage halves the resolution; with ``diffusers`` each but the last.
            With ``identity`` only their number counts.
        latent_channels: Channels of the latent; with ``identity`` 3 * 4**len(channels).
        num_residual_blocks: Residual blocks at the lowest resolution, in encoder and decoder each; with
            ``diffusers`` the residual blocks of every stage.
        kind: ``conv``, our own; ``identity``, squares of pixels as they are; ``diffusers``, an AutoencoderKL
            of that package.
        autoencoder_json: With ``diffusers``, further arguments of AutoencoderKL, as a JSON object.
    """

    frame_size: int = 64
    channels: tuple[int, ...] = (16, 32, 48)
    latent_channels: int = 8
    num_residual_blocks: int = 1
    kind: TokenizerKind = "conv"
    autoencoder_json: str = "{}"

    def __post_init__(self) -> None:
        _require_one_of("kind", self.kind, TokenizerKind)
        _require(len(self.channels) >= 1, "`channels` must name at least one stage", self.channels)
        halvings = "len(channels)" if self.kind != "diffusers" else "(len(channels) - 1)"
        _require(
            self.frame_size % 2**self.num_halvings == 0,
            f"`frame_size` must be divisible by 2**{halvings}={2**self.num_halvings}",
            self.frame_size,
        )
        _require(self.latent_channels >= 1, "`latent_channels` must be at least 1", self.latent_channels)
        pixels = 3 * 4**self.num_halvings
        _require(
            self.kind != "identity" or self.latent_channels == pixels,
            f"`latent_channels` of an identity tokenizer must be 3 * 4**len(channels)={pixels}",
            self.latent_channels,
        )
        _require(
            self.kind != "diffusers" or self.num_residual_blocks >= 1,
            "`num_residual_blocks` of a diffusers tokenizer must be at least 1",
            self.num_residual_blocks,
        )
        _require(
            self.kind == "diffusers" or self.autoencoder_json == "{}",
            "`autoencoder_json` is only for a tokenizer of kind diffusers",
            self.autoencoder_json,
        )
        _require(
            _is_json_object(self.autoencoder_json),
            "`autoencoder_json` must be a JSON object",
            self.autoencoder_json,
        )

    @property
    def num_halvings(self) -> int:
        """How often the resolution is halved."""
        return len(self.channels) - (self.kind == "diffusers")

    @property
    def latent_size(self) -> int:
        """Height and width of the latent."""
        return self.frame_size >> self.num_halvings

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one frame's latent."""
        return (self.latent_channels, self.latent_size, self.latent_size)


@dataclass(frozen=True)
class BackboneConfig:
    """The stack of layers: block-wise state-space scan, frame-local attention, MLP.

    Attributes:
        width: Channels ``D`` of a token.
        conditioning_width: Channels of the conditioning vector that drives AdaLN.
        block_sizes: One block edge per layer, in tokens; each must divide the token grid.
        head_dim: Channels ``P`` of one scan head and of one attention head.
        expand: The scan's inner width is ``expand * width``.
        state_dim: State size ``N`` per channel of the scan.
        num_groups: Groups that share B and C (Mamba-2); ignored by ``rotary_ssd``, which is per head.
        recurrence: ``ssd`` (Mamba-2) or ``rotary_ssd`` (complex state, Mamba-3).
        memory: ``block_scan``; as baselines ``none`` (the window alone) or ``full_attention`` over all past
            frames, whose cache grows with time.
        window: Previous frames ``k`` that local attention sees, besides the frame itself.
        mlp_ratio: The MLP's inner width is ``mlp_ratio * width``.
        half_life_frames: Shortest and longest half-life of the state at initialisation, in frames.
        half_life_factor: If above 1, no head's half-life leaves its initial one by more than this factor,
            whatever is learnt or seen; 0: free, as in Mamba-2.
        normalise_keys: Normalise B and C to unit mean square, times a learnt scale, as in Mamba-3.
        place_keys: Rotate B and C by the odometry, so that memory is asked by place; needs odometry.
        place_features: Features ``N`` of the memory of places; 0 for none; needs odometry.
        place_values: Channels ``V`` that it keeps of a token.
        place_lengths: Distance over which places are alike, in standard deviations of the odometry, in the
            first layer and in the last.
        place_ridges: How much the prior counts beside one sighting of a place, in the first layer and in the
            last; small recalls exactly, large averages.
        place_half_life_frames: Frames after which it has half forgotten.
    """

    width: int = 64
    conditioning_width: int = 40
    block_sizes: tuple[int, ...] = (2, 1, 2, 1)
    head_dim: int = 32
    expand: int = 1
    state_dim: int = 64
    num_groups: int = 1
    recurrence: Recurrence = "ssd"
    memory: Memory = "block_scan"
    window: int = 4
    mlp_ratio: float = 2.0
    half_life_frames: tuple[float, float] = (4.0, 1024.0)
    half_life_factor: float = 0.0
    normalise_keys: bool = False
    place_keys: bool = False
    place_features: int = 0
    place_values: int = 64
    place_lengths: tuple[float, float] = (0.08, 0.25)
    place_ridges: tuple[float, float] = (0.01, 0.3)
    place_half_life_frames: float = 20000.0

    def __post_init__(self) -> None:
        _require_one_of("recurrence", self.recurrence, Recurrence)
        _require_one_of("memory", self.memory, Memory)
        inner = self.expand * self.width
        _require(inner % self.head_dim == 0, f"`head_dim` must divide expand*width={inner}", self.head_dim)
        _require(self.width % self.head_dim == 0, f"`head_dim` must divide width={self.width}", self.head_dim)
        _require(self.head_dim % 4 == 0, "`head_dim` must be divisible by 4", self.head_dim)
        _require(self.state_dim % 2 == 0, "`state_dim` must be even", self.state_dim)
        heads = inner // self.head_dim
        _require(heads % self.num_groups == 0, f"`num_groups` must divide the {heads} heads", self.num_groups)
        _require(
            self.half_life_factor == 0.0 or self.half_life_factor > 1.0,
            "`half_life_factor` must be 0 or above 1",
            self.half_life_factor,
        )
        _require(
            self.place_features >= 0 and self.place_features % 2 == 0,
            "`place_features` must be even and at least 0",
            self.place_features,
        )
        _require(self.place_values >= 1, "`place_values` must be at least 1", self.place_values)
        _require(
            not self.place_keys or self.memory == "block_scan",
            "`place_keys` are keys of the scan: `memory` must be 'block_scan'",
            self.memory,
        )
        for name in ("place_lengths", "place_ridges"):
            ends = getattr(self, name)
            _require(len(ends) == 2 and min(ends) > 0, f"`{name}` must be two numbers above 0", ends)
        _require(
            self.place_half_life_frames > 0,
            "`place_half_life_frames` must be above 0",
            self.place_half_life_frames,
        )
        _require(self.window >= 1, "`window` must be at least 1 frame", self.window)
        _require(len(self.block_sizes) >= 1, "`block_sizes` must name at least one layer", self.block_sizes)

    @property
    def num_layers(self) -> int:
        """Number of layers ``L``."""
        return len(self.block_sizes)

    @property
    def num_heads(self) -> int:
        """Heads ``H`` of the scan."""
        return self.expand * self.width // self.head_dim


@dataclass(frozen=True)
class TransformerConfig:
    """Size of the `diffusers` transformer that denoises, if one does; its width is num_heads * head_dim.

    Attributes:
        num_layers: Transformer layers.
        num_heads: Attention heads.
        head_dim: Channels of a head.
    """

    num_layers: int = 2
    num_heads: int = 4
    head_dim: int = 16

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "head_dim"):
            _require(getattr(self, name) >= 1, f"`{name}` must be at least 1", getattr(self, name))
        width = self.num_heads * self.head_dim
        _require(width % 4 == 0, "num_heads * head_dim must be divisible by 4 (positions)", width)


@dataclass(frozen=True)
class WorldModelConfig:
    """Everything needed to build a world model around its weights.

    Attributes:
        tokenizer: Frames to latents and back.
        patch_size: Edge, in latent sites, of the square that makes one token.
        backbone: The stack of layers.
        action_dim: Width ``A`` of the float action (one-hot for discrete actions).
        discrete_actions: Whether actions are one-hot.
        proprio_dim: Width of the odometry vector; 0 for a model from actions alone.
        odometry: ``pose`` if its first four numbers are position ahead and to the left of the first frame,
            sine and cosine of the heading; ``vector`` for any other.
        visual_odometry: Whether the model learns to see its own motion between two frames, so that it needs
            odometry for training alone; without effect where odometry is no ``pose``.
        odometry_dynamics: Whether a network of odometry and action alone says most of how odometry changes,
            and features what is left: for odometry that is a physical state, such as place and speed, and
            stays within what was recorded; without effect where odometry is a ``pose``.
        objective: ``teacher_forcing`` (denoising frames only read memory) or ``diffusion_forcing``.
        denoiser: ``stream`` (noisy tokens go through the backbone's own layers) or ``diffusers`` (a
            transformer of that package gets what the layers read from memory; needs ``teacher_forcing``).
        transformer: Size of that transformer; unused with ``stream``.
        num_bins: Bins of the two-hot reward and value heads.
        symlog_limit: How far they reach, in symlog: 4 for 53.6, 5 for 147.4; what lies beyond counts as that.
        value_head: Whether a head predicts the return-to-go of the policy that made the data.
        value_discount: Discount of that return, per frame.
        imagined_noise_level: Noise level told to the clean stream for imagined frames, in [0, 0.1].
        env_id: Environment the weights were trained for; agents check it.
        env_kwargs_json: Its keyword arguments, as JSON.
    """

    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    patch_size: int = 4
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    action_dim: int = 6
    discrete_actions: bool = True
    proprio_dim: int = 4
    odometry: Odometry = "vector"
    visual_odometry: bool = False
    odometry_dynamics: bool = False
    objective: Objective = "teacher_forcing"
    denoiser: Denoiser = "stream"
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    num_bins: int = 41
    symlog_limit: float = 4.0
    value_head: bool = True
    value_discount: float = 0.97
    imagined_noise_level: float = 0.0
    env_id: str = ""
    env_kwargs_json: str = "{}"

    def __post_init__(self) -> None:
        _require_one_of("objective", self.objective, Objective)
        object.__setattr__(self, "tokenizer", _rebuild(TokenizerConfig, self.tokenizer))
        object.__setattr__(self, "backbone", _rebuild(BackboneConfig, self.backbone))
        object.__setattr__(self, "transformer", _rebuild(TransformerConfig, self.transformer))
        _require_one_of("denoiser", self.denoiser, Denoiser)
        _require(
            self.denoiser == "stream" or self.objective == "teacher_forcing",
            f"`denoiser`='{self.denoiser}' needs `objective`='teacher_forcing'",
            self.objective,
        )
        size = self.tokenizer.latent_size
        _require(
            size % self.patch_size == 0, f"`patch_size` must divide the latent's {size}", self.patch_size
        )
        for block in self.backbone.block_sizes:
            _require(
                self.grid_size % block == 0,
                f"every block size must divide the token grid of {self.grid_size}x{self.grid_size}",
                block,
            )
        _require(self.action_dim >= 1, "`action_dim` must be at least 1", self.action_dim)
        _require(self.proprio_dim >= 0, "`proprio_dim` must be at least 0", self.proprio_dim)
        _require_one_of("odometry", self.odometry, Odometry)
        _require(
            self.proprio_dim > 0 or not (self.backbone.place_keys or self.backbone.place_features),
            "memory by place (`place_features`, `place_keys`) needs odometry: `proprio_dim` must be above 0",
            self.proprio_dim,
        )
        _require(
            self.odometry == "vector" or self.proprio_dim == 0 or self.proprio_dim >= 4,
            "a `pose` has 4 numbers or more: `proprio_dim` must be 0 or at least 4",
            self.proprio_dim,
        )
        _require(
            self.num_bins >= 3 and self.num_bins % 2 == 1,
            "`num_bins` must be odd and at least 3",
            self.num_bins,
        )
        _require(self.symlog_limit > 0, "`symlog_limit` must be positive", self.symlog_limit)
        _require(
            0.0 <= self.imagined_noise_level <= 0.1,
            "`imagined_noise_level` must be in [0, 0.1]",
            self.imagined_noise_level,
        )

    @property
    def sees_motion(self) -> bool:
        """Whether the model can do without odometry, by visual odometry."""
        return self.visual_odometry and self.odometry == "pose" and self.proprio_dim > 0

    @property
    def grid_size(self) -> int:
        """Tokens along one edge of a frame."""
        return self.tokenizer.latent_size // self.patch_size

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one frame."""
        return self.grid_size**2


def tiny(**overrides: object) -> WorldModelConfig:
    """2x2 tokens a 64x64 frame, 1.24 million parameters: demo and notebooks on two CPU cores.

    A token stands for 128 latent numbers: a narrower stack would be a bottleneck.
    """
    defaults: dict[str, object] = {
        "backbone": BackboneConfig(width=128, block_sizes=(1, 2, 1), place_features=256, place_values=128)
    }
    return WorldModelConfig(**{**defaults, **overrides})  # type: ignore[arg-type]


def small(**overrides: object) -> WorldModelConfig:
    """2x2 tokens a 64x64 frame, about three million parameters: memory results and GPU figures."""
    defaults: dict[str, object] = {
        "backbone": BackboneConfig(
            width=192,
            conditioning_width=64,
            block_sizes=(1, 2, 1),
            head_dim=48,
            num_groups=4,
            mlp_ratio=3.0,
            place_features=256,
            place_values=128,
        ),
    }
    return WorldModelConfig(**{**defaults, **overrides})  # type: ignore[arg-type]


def _rebuild(cls: type[_T], value: object) -> _T:
    """A nested configuration as it comes back from JSON: a dict, with lists for tuples."""
    if isinstance(value, cls):
        return value
    _require(isinstance(value, dict), f"a nested configuration must be a {cls.__name__} or its fields", value)
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - known)  # type: ignore[call-overload]
    _require(not unknown, f"{cls.__name__} has only the fields {sorted(known)}", unknown)
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})  # type: ignore[attr-defined]
