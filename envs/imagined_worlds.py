"""Imagined episodes, batched: start them from contexts, step them, and end them.

All there is to know about a moment is a frozen dataclass of tensors that nobody changes in place, and what is
random comes from hashes of the episode's own seed and step. So an episode does not depend on those beside it,
and a moment can be kept and gone back to exactly.

Shapes: B episodes, A width of a float action, C h w latent, T frames of a context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lssvwm_agents.envs.contexts import Context, ContextSource
from lssvwm_agents.envs.hashing import derive_seeds, hash_bits
from lssvwm_agents.envs.imagined_spaces import check_choice
from lssvwm_agents.worldmodel import WorldModel, WorldState

Termination = Literal["sampled", "threshold", "never"]
FIRST_FRAME_STEPS = 16
"""Denoising steps of the first frame of an episode that begins without a context, at least."""

_NOISE, _END = 0x2015E, 0xE2D
_FRAMES_AT_ONCE = 4096
_POSE_DIM = 4


@dataclass(frozen=True)
class ImaginedMoment:
    """Everything about ``B`` imagined episodes at one moment; :meth:`ImaginedEnv.set_state` goes back to it.

    Attributes:
        world: What the world model remembers.
        latent: (B, C, h, w) of the frame shown.
        continuation: (B,) probability, by the model, that the episode goes on after that frame.
        base_seed: (B,) int64 seed of the environment.
        episode: (B,) int64 how many episodes came before since that seed was given.
        seed: (B,) int64 seed of the episode.
        step_count: (B,) int64 imagined steps since the episode began.
        over: (B,) bool whether the episode has ended.
    """

    world: WorldState
    latent: Tensor
    continuation: Tensor
    base_seed: Tensor
    episode: Tensor
    seed: Tensor
    step_count: Tensor
    over: Tensor

    @property
    def batch_size(self) -> int:
        """Number of episodes ``B``."""
        return int(self.latent.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; they do not grow with the number of steps."""
        return sum(leaf.nbytes for leaf in pytree.tree_leaves(self))

    def select(self, rows: Tensor) -> ImaginedMoment:
        """Episodes ``rows`` (K,) int64, in that order."""
        selected: ImaginedMoment = pytree.tree_map(lambda leaf: leaf.index_select(0, rows), self)
        return selected

    def replace_rows(self, rows: Tensor, new: ImaginedMoment) -> ImaginedMoment:
        """Another moment, with episodes ``rows`` (K,) int64 replaced by those of ``new``."""
        replaced: ImaginedMoment = pytree.tree_map(
            lambda leaf, fresh: leaf.index_copy(0, rows, fresh), self, new
        )
        return replaced


pytree.register_pytree_node(
    ImaginedMoment,
    lambda moment: ([getattr(moment, field.name) for field in fields(moment)], None),
    lambda children, _: ImaginedMoment(*children),
    serialized_type_name="lssvwm_agents.ImaginedMoment",
)


@dataclass(frozen=True)
class ImaginedWorlds:
    """The rules of imagined episodes; the model is shared, and holds nothing of any episode.

    Attributes:
        model: The world model; it is put in evaluation mode.
        contexts: Where episodes begin; None for a cold state, in which even the first frame is imagined.
        num_denoising_steps: Of every imagined frame.
        termination: How an episode ends; see :class:`ImaginedEnv`.
        threshold: Continuation below which ``termination="threshold"`` ends an episode.
        max_episode_steps: Steps before truncation; None for no limit.

    Raises:
        ValueError: If a number is out of range, or the model's memory grows with time.
    """

    model: WorldModel
    contexts: ContextSource | None = None
    num_denoising_steps: int = 8
    termination: Termination = "sampled"
    threshold: float = 0.5
    max_episode_steps: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, WorldModel):
            raise ValueError(
                f"`model` must be a WorldModel, got {type(self.model).__name__}: "
                "load one by `lssvwm_agents.weights.load_model`, or use gymnasium.make('lssvwm/Imagined-v0')."
            )
        check_choice("termination", self.termination, Termination)
        if self.num_denoising_steps < 1:
            raise ValueError(f"`num_denoising_steps` must be at least 1, got {self.num_denoising_steps}.")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"`threshold` must be in [0, 1], got {self.threshold}.")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ValueError(f"`max_episode_steps` must be at least 1 or None, got {self.max_episode_steps}.")
        if self.model.config.backbone.memory == "full_attention":
            raise ValueError(
                "an imagined environment needs a memory of constant size, got a model with "
                "`memory`='full_attention'."
            )
        self.model.eval()

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    # --- beginning --------------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, base_seed: Tensor, episode: Tensor) -> ImaginedMoment:
        """Begin one episode for each row of ``base_seed`` and ``episode``, both (B,) int64.

        Raises:
            ValueError: If the contexts do not fit the model.
        """
        base_seed, episode = base_seed.to(self.device), episode.to(self.device)
        seed = derive_seeds(base_seed, episode)
        world, latent = self._cold(seed) if self.contexts is None else self._warm(self.contexts, seed)
        zeros = torch.zeros_like(seed)
        return ImaginedMoment(
            world=world,
            latent=latent,
            continuation=torch.ones(seed.shape, device=self.device),
            base_seed=base_seed,
            episode=episode,
            seed=seed,
            step_count=zeros,
            over=zeros.bool(),
        )

    def _warm(self, contexts: ContextSource, seed: Tensor) -> tuple[WorldState, Tensor]:
        """Burn in the seeds' contexts, a bounded number of frames at once."""
        rows = max(1, _FRAMES_AT_ONCE // contexts.num_frames)
        parts = [self._burn_in(contexts.draw(some)) for some in seed.split(rows)]
        joined: tuple[WorldState, Tensor] = pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)
        return joined

    def _burn_in(self, context: Context) -> tuple[WorldState, Tensor]:
        config, dtype = self.model.config, self.model.backbone.position.dtype
        size = config.tokenizer.frame_size
        if tuple(context.frames.shape[2:4]) != (size, size):
            raise ValueError(
                f"this model sees frames of {size}x{size}, but the contexts' are of "
                f"{'x'.join(map(str, context.frames.shape[2:4]))}."
            )
        if context.actions.shape[2] != config.action_dim:
            raise ValueError(
                f"this model's actions have {config.action_dim} numbers, but the contexts' have "
                f"{context.actions.shape[2]}."
            )
        width = 0 if context.proprio is None else context.proprio.shape[2]
        if config.proprio_dim not in (0, width):
            raise ValueError(
                f"this model needs odometry of {config.proprio_dim} values, but the contexts have {width}."
            )
        frames = context.frames.to(self.device).permute(0, 1, 4, 2, 3).to(dtype) / 255
        latents = self.model.tokenizer.encode(frames)
        proprio = None
        if config.proprio_dim and context.proprio is not None:
            proprio = context.proprio.to(self.device, dtype)
        state, _ = self.model.observe_latents(
            self.model.initial_state(len(frames)),
            latents,
            context.actions.to(self.device, dtype),
            proprio,
            context.action_known.to(self.device, dtype),
        )
        return state, latents[:, -1]

    def _cold(self, seed: Tensor) -> tuple[WorldState, Tensor]:
        """Imagine even the first frame, which no action led to, from the seed's noise."""
        model, batch = self.model, len(seed)
        state = model.initial_state(batch)
        like = model.backbone.position
        proprio, pose = state.proprio, model.config.odometry == "pose"
        if model.config.proprio_dim:
            proprio = model.backbone.conditioning.proprio_mean.to(like).expand(batch, -1).clone()
            if pose:  # relative to the first frame: here it is the first frame
                proprio[:, :_POSE_DIM] = like.new_tensor([0.0, 0.0, 0.0, 1.0])
        count = torch.zeros_like(seed)
        state, latent, _ = model.advance(
            state,
            like.new_zeros(batch, model.config.action_dim),
            like.new_zeros(batch),
            proprio,
            like.new_full((batch,), float(pose and model.config.proprio_dim > 0)),
            max(FIRST_FRAME_STEPS, self.num_denoising_steps),
            noise=self._noise(seed, count),
        )
        return state, latent

    # --- going on ---------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, moment: ImaginedMoment, action: Tensor) -> tuple[ImaginedMoment, Tensor, Tensor, Tensor]:
        """Imagine one frame under float actions (B, A).

        Returns:
            The moment after it, and reward (B,) float32, terminated (B,) and truncated (B,) bool.
        """
        count = moment.step_count + 1
        noise = self._noise(moment.seed, count) if self.num_denoising_steps > 1 else None
        world, prediction = self.model.step(
            moment.world,
            action.to(moment.latent.dtype),
            self.num_denoising_steps,
            noise=noise,
        )
        terminated = self._ends(prediction.continuation, moment.seed, count)
        truncated = torch.zeros_like(terminated)
        if self.max_episode_steps is not None:
            truncated = count >= self.max_episode_steps
        after = ImaginedMoment(
            world=world,
            latent=prediction.latent,
            continuation=prediction.continuation.float(),
            base_seed=moment.base_seed,
            episode=moment.episode,
            seed=moment.seed,
            step_count=count,
            over=terminated | truncated,
        )
        return after, prediction.reward.float(), terminated, truncated

    def _ends(self, continuation: Tensor, seed: Tensor, count: Tensor) -> Tensor:
        if self.termination == "never":
            return torch.zeros_like(continuation, dtype=torch.bool)
        if self.termination == "threshold":
            return continuation < self.threshold
        return uniform(seed, _END, count) >= continuation.double()

    def _noise(self, seed: Tensor, count: Tensor) -> Tensor:
        """Standard normal noise (B, C, h, w) of step ``count`` of the episodes of ``seed``."""
        shape = self.model.config.tokenizer.latent_shape
        place = torch.arange(math.prod(shape), device=seed.device)
        radius, angle = (
            uniform(seed[:, None], _NOISE + part, count[:, None], place[None]) for part in (0, 1)
        )
        normal = (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller (1958)
        return normal.to(self.model.backbone.position.dtype).view(-1, *shape)

    # --- looking ----------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, moment: ImaginedMoment) -> Tensor:
        """The frames shown: (B, 3, H, W) in [0, 1]."""
        return self.model.decode(moment.latent)

    def check_moment(self, moment: Any, batch_size: int) -> ImaginedMoment:
        """The moment on this model's device, if it fits.

        Raises:
            ValueError: If it is none, or one of other environments or of another model.
        """
        if not isinstance(moment, ImaginedMoment):
            raise ValueError(f"a state must be an ImaginedMoment, got {type(moment).__name__}.")
        expected = [leaf.shape[1:] for leaf in pytree.tree_leaves(self.model.initial_state(1))]
        got = [leaf.shape[1:] for leaf in pytree.tree_leaves(moment.world)]
        if expected != got:
            raise ValueError("a state must come from an environment of the same model, got another model's.")
        if moment.batch_size != batch_size:
            raise ValueError(f"a state must hold {batch_size} episodes, got {moment.batch_size}.")
        moved: ImaginedMoment = pytree.tree_map(lambda leaf: leaf.to(self.device), moment)
        return moved


def uniform(seed: Tensor, stream: int, *counters: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64, by :func:`hash_bits`."""
    return (hash_bits(seed, stream, *counters).double() + 0.5) / 2**32
