"""Imagined episodes, batched: start them from contexts, step them, and end them.

All there is to know about a moment is a frozen dataclass of tensors that nobody changes in place, and what is
random comes from hashes of the episode's own seed and step. So an episode does not depend on those beside it,
and a moment can be kept and gone back to exactly.

Shapes: B episodes, A width of a float action, C h w latent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lssvwm_agents.envs.contexts import ContextSource
from lssvwm_agents.envs.hashing import derive_seeds
from lssvwm_agents.envs.imagined_spaces import check_choice
from lssvwm_agents.envs.imagined_starts import StartStates, normal_noise, uniform
from lssvwm_agents.worldmodel import WorldModel, WorldState

Termination = Literal["sampled", "threshold", "never"]
_END = 0xE2D


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
    lambda moment: ([getattr(moment, one.name) for one in fields(moment)], None),
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
        num_starts: Different beginnings; None for as many as there are seeds.
        starts: Made from the above.

    Raises:
        ValueError: If a number is out of range, or the model's memory grows with time.
    """

    model: WorldModel
    contexts: ContextSource | None = None
    num_denoising_steps: int = 1
    termination: Termination = "sampled"
    threshold: float = 0.5
    max_episode_steps: int | None = None
    num_starts: int | None = None
    starts: StartStates = field(init=False, repr=False)

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
        starts = StartStates(self.model, self.contexts, self.num_denoising_steps, self.num_starts)
        object.__setattr__(self, "starts", starts)

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
        world, latent = self.starts.draw(seed)
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

    # --- going on ---------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, moment: ImaginedMoment, action: Tensor) -> tuple[ImaginedMoment, Tensor, Tensor, Tensor]:
        """Imagine one frame under float actions (B, A).

        Returns:
            The moment after it, and reward (B,) float32, terminated (B,) and truncated (B,) bool.
        """
        count = moment.step_count + 1
        noise = normal_noise(self.model, moment.seed, count) if self.num_denoising_steps > 1 else None
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
