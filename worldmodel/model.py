"""The world model: a long-memory video simulator that observes real frames and imagines new ones.

Long-Context State-Space Video World Models (Po et al. 2025, arXiv 2505.20171), with actions in place of given
poses, one frame at a time, differentiable, and with heads for reward, continuation, value and odometry.
"""

# No postponed evaluation of annotations here: the hub mixin reads the type of `config` to rebuild it.
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from lssvwm_agents.worldmodel.backbone import Backbone, BackboneOutput, Frames
from lssvwm_agents.worldmodel.checkpoint import (
    CONFIG,
    compacted,
    find_weights,
    load_weights,
    missing,
    save_whole,
)
from lssvwm_agents.worldmodel.config import WorldModelConfig
from lssvwm_agents.worldmodel.heads import Heads
from lssvwm_agents.worldmodel.layer import Stream
from lssvwm_agents.worldmodel.sampler import sample
from lssvwm_agents.worldmodel.scan import Backend
from lssvwm_agents.worldmodel.ssm import BlockScan
from lssvwm_agents.worldmodel.state import LayerState, WorldState
from lssvwm_agents.worldmodel.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prediction:
    """One imagined frame of ``B`` episodes, or with a time axis after the batch, T of them.

    Attributes:
        latent: (B, [T,] C, h, w).
        features: (B, [T,] F).
        reward: (B[, T]) expected reward that comes with the frame.
        continuation: (B[, T]) probability that the episode goes on after it.
        proprio: (B, [T,] P) odometry, or None for a model without.
        value: (B[, T]) expected discounted sum of the rewards after it, under the policy that made the
            training data, or None.
    """

    latent: torch.Tensor
    features: torch.Tensor
    reward: torch.Tensor
    continuation: torch.Tensor
    proprio: torch.Tensor | None
    value: torch.Tensor | None


class WorldModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="lssvwm-agents",
):
    """A differentiable simulator with long memory; having ``step`` and ``repeat``, a planner's ``Dynamics``.

    Shapes: B batch, T frames, A action width (one-hot for discrete actions), P odometry width.
    ``actions[:, t]`` led to frame t.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        self.backbone = Backbone(config)
        self.heads = Heads(
            self.backbone.feature_dim,
            config.action_dim,
            config.proprio_dim,
            config.num_bins,
            config.value_head,
            config.odometry,
            math.prod(config.tokenizer.latent_shape) if config.sees_motion else 0,
            config.symlog_limit,
            config.odometry_dynamics and config.odometry == "vector",
        )

    @property
    def feature_dim(self) -> int:
        """Width ``F`` of the features."""
        return self.backbone.feature_dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.position.device

    def set_scan_backend(self, backend: Backend) -> Self:
        """Choose the scan implementation of every layer; it changes speed, not results."""
        for module in self.modules():
            if isinstance(module, BlockScan):
                module.backend = backend
        return self

    # --- state ------------------------------------------------------------------------------------

    def initial_state(self, batch_size: int) -> WorldState:
        """The state before an episode's first frame, for ``batch_size`` episodes."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        zeros = self.backbone.position.new_zeros
        return WorldState(
            layers=self.backbone.initial_layers(batch_size),
            features=zeros(batch_size, self.feature_dim),
            proprio=zeros(batch_size, self.config.proprio_dim),
            proprio_known=zeros(batch_size),
            latent=zeros(batch_size, *self.config.tokenizer.latent_shape),
        )

    def repeat(self, state: WorldState, n: int) -> WorldState:
        """Fork every row n times (row b*n + i: the i-th of row b); forks share the past's long memory."""
        return state.fork(n, self.backbone.scan_groups, self.backbone.place_priors)

    # --- real frames ------------------------------------------------------------------------------

    def observe(
        self,
        state: WorldState,
        frames: torch.Tensor,
        actions: torch.Tensor,
        proprio: torch.Tensor | None = None,
        action_known: torch.Tensor | None = None,
    ) -> tuple[WorldState, torch.Tensor]:
        """Take real frames into memory, in parallel over time.

        Args:
            state: Of ``B`` episodes.
            frames: (B,T,3,H,W) in [0, 1].
            actions: (B,T,A); ``actions[:, t]`` led to frame t.
            proprio: (B,T,P) odometry, or None where there is none: then a model with visual odometry sees its
                own motion, and any other is told that it is not known.
            action_known: (B,T) False where no action led to the frame (the first after a reset). Default: for
                discrete actions, where the row is not all zeros; for continuous ones, everywhere.

        Returns:
            The new state and the frames' features (B,T,F). Cutting a video into several calls changes
            nothing.

        Raises:
            ValueError: If a shape does not fit.
        """
        return self.observe_latents(state, self.tokenizer.encode(frames), actions, proprio, action_known)

    def observe_latents(
        self,
        state: WorldState,
        latents: torch.Tensor,
        actions: torch.Tensor,
        proprio: torch.Tensor | None = None,
        action_known: torch.Tensor | None = None,
    ) -> tuple[WorldState, torch.Tensor]:
        """As :meth:`observe`, from latents (B,T,C,h,w) that were encoded before."""
        state = state.materialise()
        if latents.ndim != 5 or tuple(latents.shape[2:]) != self.config.tokenizer.latent_shape:
            expected = ", ".join(map(str, self.config.tokenizer.latent_shape))
            raise ValueError(
                f"latents must be (B, T, C, h, w)=(B, T, {expected}), got {tuple(latents.shape)}."
            )
        batch, time = latents.shape[:2]
        if time < 1:
            raise ValueError("at least 1 frame is needed to observe, got 0.")
        self._check_actions(actions, (batch, time))
        if batch != state.batch_size:
            raise ValueError(f"frames must have the state's batch size {state.batch_size}, got {batch}.")
        if proprio is None and self.config.sees_motion:
            proprio = self.see_motion(state, latents, actions)
        known = latents.new_full((batch, time), float(proprio is not None))
        if proprio is None:
            proprio = latents.new_zeros(batch, time, self.config.proprio_dim)
        elif proprio.shape != (batch, time, self.config.proprio_dim):
            raise ValueError(
                f"`proprio` must be (B, T, P)={(batch, time, self.config.proprio_dim)}, "
                f"got {tuple(proprio.shape)}."
            )
        frames = Frames(
            latents=latents,
            noise_level=latents.new_zeros(batch, time),
            action=actions,
            action_known=self._action_known(actions) if action_known is None else action_known,
            proprio=proprio,
            proprio_known=known,
        )
        return self.write(state, frames)

    # --- odometry ---------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_odometry(
        self,
        proprio: torch.Tensor,
        actions: torch.Tensor,
        recorded: torch.Tensor,
        heads_alone: bool = False,
    ) -> None:
        """Measure how odometry and its changes are spread, and what actions alone say of the changes.

        Args:
            proprio: (E,T,P).
            actions: (E,T,A), those that led to the frames.
            recorded: (E,T) bool, where there was a frame.
            heads_alone: Leave what the layers are told as it is, and begin both odometry heads anew, for a
                model whose layers are trained.

        Raises:
            ValueError: If the model has no odometry, or fewer than 2 changes were recorded.
        """
        if self.heads.proprio is None:
            raise ValueError("only a model with odometry can be fitted to it, got `proprio_dim`=0.")
        both = recorded[:, 1:] & recorded[:, :-1]
        if int(both.sum()) < 2:
            raise ValueError(f"odometry is fitted to at least 2 changes of it, got {int(both.sum())}.")
        if heads_alone:
            self.heads.forget_odometry()
        else:
            self.backbone.conditioning.fit_proprio(proprio[recorded])
        self.heads.proprio.fit(proprio[:, :-1][both], proprio[:, 1:][both], actions[:, 1:][both])

    def next_odometry(
        self, features: torch.Tensor, proprio: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Odometry after an action, from the features and odometry of the frame before it.

        Args:
            features: (...,F).
            proprio: (...,P).
            action: (...,A).

        Returns:
            (...,P), and the standardised change (...,C) that it is made of.
        """
        head = self.heads.proprio
        assert head is not None
        change = head.predict(features, self.backbone.conditioning.standardise(proprio), action)
        return head.apply_change(proprio, change).to(proprio.dtype), change

    def see_change(self, before: torch.Tensor, after: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Standardised change of odometry between latents (...,C,h,w) with an action (...,A) between them."""
        head = self.heads.visual_odometry
        assert head is not None
        seen = [before.flatten(-3), after.flatten(-3), action.to(after.dtype)]
        assert self.heads.proprio is not None
        return self.heads.proprio.expect(action, head(torch.cat(seen, dim=-1)))

    def see_motion(self, state: WorldState, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Odometry (B,T,P) of frames that came without: motion seen from frame to frame, added up.

        An episode's first frame is where its odometry begins: ahead 0, left 0, heading 0, all else 0.

        Args:
            state: Before the frames; where its odometry is not known, the first of them begins an episode.
            latents: (B,T,C,h,w).
            actions: (B,T,A).
        """
        head = self.heads.proprio
        assert head is not None
        before = torch.cat([state.latent[:, None].to(latents.dtype), latents[:, :-1]], dim=1)
        changes = self.see_change(before, latents, actions)
        origin = torch.zeros_like(state.proprio)
        origin[:, 3] = 1.0
        began = state.proprio_known[:, None] > 0
        pose = torch.where(began, head.apply_change(state.proprio, changes[:, 0]).to(origin.dtype), origin)
        poses = [pose]
        for t in range(1, latents.shape[1]):
            poses.append(head.apply_change(poses[-1], changes[:, t]).to(origin.dtype))
        return torch.stack(poses, dim=1)

    # --- imagined frames --------------------------------------------------------------------------

    def step(
        self,
        state: WorldState,
        action: torch.Tensor,
        num_denoising_steps: int = 1,
        generator: torch.Generator | None = None,
        proprio: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> tuple[WorldState, Prediction]:
        """Imagine the frame that ``action`` leads to, and remember it.

        Args:
            state: Of ``B`` episodes.
            action: (B,A) float.
            num_denoising_steps: 1 gives the mean of what may come, 8 or more give samples.
            generator: Source of noise when there is more than one denoising step.
            proprio: (B,P) odometry of the new frame if it is known; else the model predicts it.
            noise: (B,C,h,w) instead of the generator, so that every row can have its own.

        Raises:
            ValueError: If a shape does not fit.
        """
        self._check_actions(action, (state.batch_size,))
        state = state.materialise(only_long=True)
        known = state.proprio_known
        if proprio is not None:
            if proprio.shape != state.proprio.shape:
                raise ValueError(
                    f"`proprio` must be (B, P)={tuple(state.proprio.shape)}, got {tuple(proprio.shape)}."
                )
            known = torch.ones_like(known)
        elif self.config.proprio_dim:
            proprio = self.next_odometry(state.features, state.proprio, action)[0]
        else:
            proprio = state.proprio

        given = action.new_ones(state.batch_size)
        state, latent, features = self.advance(
            state, action, given, proprio, known, num_denoising_steps, generator, noise
        )
        return state, self._predict(latent, features, state)

    def advance(
        self,
        state: WorldState,
        action: torch.Tensor,
        action_known: torch.Tensor,
        proprio: torch.Tensor,
        proprio_known: torch.Tensor,
        num_denoising_steps: int = 1,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
    ) -> tuple[WorldState, torch.Tensor, torch.Tensor]:
        """The core of :meth:`step`: sample one frame under given conditions and remember it.

        Args:
            state: Of ``B`` episodes.
            action: (B,A) float.
            action_known: (B,) 0 where the model is given its null action.
            proprio: (B,P) odometry of the new frame.
            proprio_known: (B,) 0 where the model is given its null odometry.
            num_denoising_steps: As :meth:`step`.
            generator: As :meth:`step`.
            noise: As :meth:`step`.

        Returns:
            The new state, the latent (B,C,h,w) and its features (B,F).
        """
        condition = (action[:, None], action_known[:, None], proprio[:, None], proprio_known[:, None])
        shape = (state.batch_size, 1, *self.config.tokenizer.latent_shape)
        recalled: Stream | None = None
        if self.backbone.denoiser is not None:  # it asks memory once, however many denoising steps
            blank = self.backbone.position.new_zeros
            recalled = self.backbone.recall(Frames(blank(shape), blank(shape[:2]), *condition), state.layers)

        def denoise(noisy: torch.Tensor, level: float) -> torch.Tensor:
            noise_level = noisy.new_full((state.batch_size, 1), level)
            if recalled is not None:
                return self.backbone.denoise(noisy, noise_level, recalled)
            clean = self._read(Frames(noisy, noise_level, *condition), state.layers).clean
            assert clean is not None
            return clean

        own = None if noise is None else noise[:, None]
        latent = sample(denoise, shape, num_denoising_steps, generator, self.backbone.position, own)
        level = latent.new_full((state.batch_size, 1), self.config.imagined_noise_level)
        after, features = self.write(state, Frames(latent, level, *condition))
        return after, latent[:, 0], features[:, 0]

    def imagine(
        self,
        state: WorldState,
        actions: torch.Tensor,
        proprio: torch.Tensor | None = None,
        num_denoising_steps: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        """Imagine ``T`` frames under actions (B,T,A) and known odometry (B,T,P), if any. Differentiable."""
        if actions.ndim != 3:
            raise ValueError(f"actions must be (B, T, A) floats, got {tuple(actions.shape)}.")
        self._check_actions(actions, (state.batch_size, actions.shape[1]))
        if proprio is not None and proprio.shape[:2] != actions.shape[:2]:
            lead = tuple(actions.shape[:2])
            raise ValueError(f"`proprio` must be (B, T, P) with (B, T)={lead}, got {tuple(proprio.shape)}.")
        predictions = []
        for t in range(actions.shape[1]):
            given = None if proprio is None else proprio[:, t]
            state, prediction = self.step(state, actions[:, t], num_denoising_steps, generator, given)
            predictions.append(prediction)
        return state, stack_predictions(predictions)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latents (..., C, h, w) -> frames (..., 3, H, W) in [0, 1]."""
        return self.tokenizer.decode(latent)

    # --- files ------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, compact: bool = False, **kwargs: Any) -> str | None:
        """Write config.json and model.safetensors, each whole or not at all.

        Args:
            save_directory: Made if missing.
            compact: Write the matrices of backbone and heads in bfloat16, in half the space; they are loaded
                into float32 again.
            kwargs: As `huggingface_hub.PyTorchModelHubMixin.save_pretrained`.
        """
        target = Path(save_directory)
        kwargs.setdefault("repo_id", target.name)
        model = compacted(self, ("backbone.", "heads.")) if compact else self
        save = super(WorldModel, model).save_pretrained

        def fill(folder: Path) -> str | None:
            url: str | None = save(folder, **kwargs)
            return url

        return save_whole(fill, target)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        map_location: str = "cpu",
        config: WorldModelConfig | None = None,
        **download: Any,
    ) -> Self:
        """Called by ``from_pretrained`` of the hub mixin: build the model around its weights, all of them."""
        if config is None:
            raise missing(model_id, CONFIG)
        model = cls(config)
        load_weights(model, find_weights(model_id, **download), map_location)
        return model.to(map_location).eval()

    # --- inside -----------------------------------------------------------------------------------

    def write(self, state: WorldState, frames: Frames) -> tuple[WorldState, torch.Tensor]:
        """Take finished frames into memory; returns the new state and their features (B,T,F)."""
        out = self.backbone(frames, None, state.layers)
        assert out.features is not None
        after = WorldState(
            features=out.features[:, -1].to(state.features.dtype),
            proprio=frames.proprio[:, -1],
            proprio_known=frames.proprio_known[:, -1],
            latent=frames.latents[:, -1].to(state.latent.dtype),
            layers=out.layers,
        )
        return after, out.features

    def _read(self, noisy: Frames, layers: tuple[LayerState, ...]) -> BackboneOutput:
        if self.config.objective == "teacher_forcing":
            out: BackboneOutput = self.backbone(None, noisy, layers)
        else:  # the noisy frame enters a fork of memory, which is then thrown away
            out = self.backbone(noisy, None, layers, denoise_writes=True)
        return out

    def _predict(self, latent: torch.Tensor, features: torch.Tensor, state: WorldState) -> Prediction:
        heads = self.heads
        return Prediction(
            latent=latent,
            features=features,
            reward=heads.two_hot.mean(heads.reward(features)),
            continuation=torch.sigmoid(_wide(heads.continuation(features))).squeeze(-1),
            proprio=state.proprio if self.config.proprio_dim else None,
            value=None if heads.value is None else heads.two_hot.mean(heads.value(features)),
        )

    def _action_known(self, actions: torch.Tensor) -> torch.Tensor:
        if self.config.discrete_actions:
            return (actions.detach().abs().sum(-1) > 0).to(actions.dtype)
        return actions.new_ones(actions.shape[:-1])

    def _check_actions(self, actions: torch.Tensor, lead: tuple[int, ...]) -> None:
        expected = (*lead, self.config.action_dim)
        if tuple(actions.shape) != expected:
            names = "(B, A)" if len(lead) == 1 else "(B, T, A)"
            raise ValueError(f"actions must be {names}={expected} floats, got {tuple(actions.shape)}.")


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: in bfloat16 every probability above 0.998 would be 1."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def stack_predictions(predictions: list[Prediction]) -> Prediction:
    """T predictions (B, ...) -> one with a time axis (B, T, ...).

    Raises:
        ValueError: If there are none.
    """
    if not predictions:
        raise ValueError("at least 1 action is needed to imagine a frame, got 0.")

    def stack(name: str) -> Any:
        values = [getattr(prediction, name) for prediction in predictions]
        return None if values[0] is None else torch.stack(values, dim=1)

    return Prediction(
        *(stack(name) for name in ("latent", "features", "reward", "continuation", "proprio", "value"))
    )
