"""Episodes as latents that live on one device: what training samples its windows from.

Shapes: ``E`` episodes, ``T`` frames of the longest, ``C h w`` latent, ``A`` action, ``P`` odometry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lssvwm_agents.envs.mirror import check_mirror, mirror_actions, mirror_frames, mirror_odometry
from lssvwm_agents.files import write_tensors

if TYPE_CHECKING:
    from lssvwm_agents.data.episode import Episode
    from lssvwm_agents.data.store import EpisodeStore

EFFECTIVE_WEIGHT = 0.05
"""A return cut off where the discount still weighs more than this is no target for the value head."""


@dataclass(frozen=True)
class LatentDataset:
    """Episodes on one device, padded to the longest; action[t] led to frame t, reward[t] came with it.

    Attributes:
        latents: (E, T, C, h, w) standardised latents.
        actions: (E, T, A) float; one-hot for discrete actions; zeros at frame 0, where there was none.
        proprio: (E, T, P) odometry, or None.
        reward: (E, T).
        continuation: (E, T); 1 - terminated.
        value: (E, T) discounted sum of the rewards that came after frame t in the episode.
        value_valid: (E, T) bool; False where the episode was cut off before that sum was nearly complete.
        lengths: (E,) int64 frames of each episode.
        min_length: The shortest length, known to the host.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    proprio: torch.Tensor | None
    reward: torch.Tensor
    continuation: torch.Tensor
    value: torch.Tensor
    value_valid: torch.Tensor
    lengths: torch.Tensor
    min_length: int

    @property
    def num_episodes(self) -> int:
        """Number of episodes ``E``."""
        return int(self.latents.shape[0])

    @property
    def max_length(self) -> int:
        """Frames ``T`` of the padded episodes."""
        return int(self.latents.shape[1])

    @property
    def num_frames(self) -> int:
        """Frames of all episodes, padding included."""
        return self.num_episodes * self.max_length

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.latents.device

    @property
    def value_share(self) -> float:
        """Share of the frames after which the episode lasts long enough for a fair value target."""
        return float(self.value_valid.sum() / self.lengths.sum())

    def share_beyond(self, limit: float) -> float:
        """Share of the value targets that are larger than ``limit``, either way."""
        targets = self.value[self.value_valid]
        return float((targets.abs() > limit).float().mean()) if targets.numel() else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> LatentDataset:
        """Apply ``function`` to every tensor; it must keep the episodes' lengths."""
        tensors = {name: function(tensor) for name, tensor in self.tensors().items()}
        return LatentDataset(**{"proprio": None, **tensors}, min_length=self.min_length)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> LatentDataset:
        """The same episodes on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def select(self, start: int, stop: int) -> LatentDataset:
        """Episodes ``start`` to ``stop``."""
        part = self.map(lambda tensor: tensor[start:stop])
        return LatentDataset(**part._all(), min_length=int(part.lengths.min()))  # type: ignore[arg-type]

    def overwrite(self, start: int, other: LatentDataset) -> None:
        """Put ``other``'s episodes in the place of those from ``start`` on, keeping this memory."""
        if (other.max_length, other.min_length) != (self.max_length, self.min_length):
            raise ValueError(
                f"fresh episodes must have the {self.max_length} frames of the old, got {other.max_length}."
            )
        mine = self.tensors()
        for name, tensor in other.tensors().items():
            mine[name][start : start + other.num_episodes].copy_(tensor)

    def _all(self) -> dict[str, torch.Tensor | None]:
        return {"proprio": None, **self.tensors()}


def value_targets(
    reward_ET: torch.Tensor, continuation_ET: torch.Tensor, lengths_E: torch.Tensor, discount: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return-to-go after each frame, and where it is a fair target.

    ``value[t] = sum_{i>=1} discount**(i-1) * reward[t+i]`` within the episode. It is fair where the episode
    ended in a termination (nothing would have followed), or where what was cut off weighs at most 0.05.

    Args:
        reward_ET: (E, T) rewards; padding is ignored.
        continuation_ET: (E, T) 1 - terminated.
        lengths_E: (E,) int64 lengths.
        discount: Discount per frame.

    Returns:
        value (E, T) and value_valid (E, T) bool.
    """
    num_frames = reward_ET.shape[1]
    time_T = torch.arange(num_frames, device=reward_ET.device)
    inside_ET = time_T < lengths_E[:, None]
    reward_ET = torch.where(inside_ET, reward_ET, torch.zeros_like(reward_ET))
    value_ET = torch.zeros_like(reward_ET)
    for t in range(num_frames - 2, -1, -1):
        value_ET[:, t] = reward_ET[:, t + 1] + discount * value_ET[:, t + 1]
    last_E1 = (lengths_E - 1)[:, None]
    terminated_E1 = continuation_ET.gather(1, last_E1) < 0.5
    remaining_ET = (last_E1 - time_T).clamp(min=0)
    complete_ET = torch.as_tensor(discount, device=reward_ET.device) ** remaining_ET <= EFFECTIVE_WEIGHT
    return value_ET, inside_ET & (terminated_E1 | complete_ET)


def make_dataset(
    latents: torch.Tensor,
    actions: torch.Tensor,
    proprio: torch.Tensor | None,
    reward: torch.Tensor,
    continuation: torch.Tensor,
    lengths: torch.Tensor,
    value_discount: float,
) -> LatentDataset:
    """Complete recorded tensors (see `LatentDataset`) with the value targets."""
    value, value_valid = value_targets(reward, continuation, lengths, value_discount)
    return LatentDataset(
        latents, actions, proprio, reward, continuation, value, value_valid, lengths, int(lengths.min())
    )


def actions_to_float(actions: np.ndarray, num_actions: int | None) -> np.ndarray:
    """Turn an environment's actions (T, ...) into floats (T, A); frame 0 has none and is all zeros.

    Args:
        actions: (T,) integers, or (T, A) floats.
        num_actions: Actions of a discrete environment, or None for a continuous one.
    """
    if num_actions is None:
        result = np.asarray(actions, dtype=np.float32).reshape(len(actions), -1).copy()
    else:
        if actions.size and not (0 <= int(actions.min()) and int(actions.max()) < num_actions):
            raise ValueError(
                f"actions must be in [0, {num_actions}), got {actions.min()} to {actions.max()}."
            )
        result = np.eye(num_actions, dtype=np.float32)[np.asarray(actions).reshape(-1).astype(np.int64)]
    result[0] = 0.0
    return result


def module_hash(module: torch.nn.Module) -> str:
    """Sixteen hexadecimal digits that name a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode_frames(
    tokenizer: torch.nn.Module,
    frames: np.ndarray | torch.Tensor,
    device: torch.device | str,
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Encode frames in batches.

    Args:
        tokenizer: Has ``encode``: (N, 3, H, W) float in [0, 1] to (N, C, h, w).
        frames: (N, H, W, 3) uint8.
        device: Where the tokenizer is, and the latents will be.
        batch_size: Frames at once.
        dtype: Of the result; None for bfloat16 on CUDA and float32 elsewhere.

    Returns:
        (N, C, h, w) latents.
    """
    dtype = dtype or latent_dtype(device)
    parts = []
    for start in range(0, len(frames), batch_size):
        batch = torch.as_tensor(frames[start : start + batch_size]).to(device)
        batch = batch.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        parts.append(tokenizer.encode(batch).to(dtype))  # type: ignore[operator]
    return torch.cat(parts)


def latent_dtype(device: torch.device | str) -> torch.dtype:
    """The type latents are kept in: bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def encode_store(
    store: EpisodeStore,
    tokenizer: torch.nn.Module,
    device: torch.device | str,
    value_discount: float,
    *,
    episodes: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 512,
    mirror: bool = False,
) -> LatentDataset:
    """Encode a store's episodes once, and keep the latents beside it for the next time.

    Args:
        store: Recorded episodes.
        tokenizer: Makes the latents.
        device: Where the result lives.
        value_discount: Discount of the value targets, per frame.
        episodes: Which episodes; None for all.
        cache_dir: Folder of the cached latents; None for no cache.
        batch_size: Frames encoded at once.
        mirror: Whether the episodes are followed by their mirror images, in the same order.

    Raises:
        ValueError: If there are no episodes, or the environment has no mirror image.
    """
    episodes = range(store.num_episodes) if episodes is None else episodes
    if len(episodes) == 0:
        raise ValueError("a store must hold at least one episode to train from, got none.")
    if mirror:
        check_mirror(store.spec.env_id, store.spec.env_kwargs)
    num_actions = store.spec.num_actions or None
    path = None
    if cache_dir is not None:
        which = (
            f"{episodes.start}-{episodes.stop}-{episodes.step}"
            if isinstance(episodes, range)
            else list(episodes)
        )
        identity = f"{_store_identity(store)}/{which}"
        identity += "/mirror" if mirror else ""
        name = hashlib.sha256(f"{identity}/{latent_dtype(device)}/{module_hash(tokenizer)}".encode())
        path = Path(cache_dir) / f"latents-{name.hexdigest()[:24]}.safetensors"
    if path is not None and path.is_file():
        from safetensors.torch import load_file

        recorded = load_file(path, device=str(torch.device(device)))
    else:
        recorded = _encode_episodes(store, tokenizer, device, episodes, num_actions, batch_size, mirror)
        if path is not None:
            write_tensors(path, recorded)
    return make_dataset(
        recorded["latents"],
        recorded["actions"],
        recorded.get("proprio"),
        recorded["reward"],
        recorded["continuation"],
        recorded["lengths"],
        value_discount,
    )


def _encode_episodes(
    store: EpisodeStore,
    tokenizer: torch.nn.Module,
    device: torch.device | str,
    episodes: Sequence[int],
    num_actions: int | None,
    batch_size: int,
    mirror: bool,
) -> dict[str, torch.Tensor]:
    """Stream episodes, and their mirror images if asked for, through the tokenizer into padded tensors."""
    from tqdm import tqdm

    plain: list[dict[str, torch.Tensor]] = []
    images: list[dict[str, torch.Tensor]] = []
    for index in tqdm(episodes, desc="encode", unit="episode", mininterval=5.0, disable=len(episodes) < 64):
        episode = store.episode(index)
        row = _recorded(episode, num_actions)
        plain.append({"latents": encode_frames(tokenizer, episode.frames, device, batch_size), **row})
        if mirror:
            flipped = mirror_frames(torch.as_tensor(episode.frames))
            latents = encode_frames(tokenizer, flipped, device, batch_size)
            images.append({"latents": latents, **_mirrored(row)})
    rows = plain + images
    pad = torch.nn.utils.rnn.pad_sequence
    result = {name: pad([row[name] for row in rows], batch_first=True).to(device) for name in rows[0]}
    lengths = [len(row["reward"]) for row in rows]
    result["lengths"] = torch.tensor(lengths, dtype=torch.int64, device=device)
    return result


def _recorded(episode: Episode, num_actions: int | None) -> dict[str, torch.Tensor]:
    """What an episode holds beside its frames: (T, ...) float32 by the names of `LatentDataset`."""
    row = {
        "actions": torch.from_numpy(actions_to_float(episode.actions, num_actions)),
        "reward": torch.from_numpy(np.asarray(episode.rewards, dtype=np.float32)),
        "continuation": torch.from_numpy(1.0 - np.asarray(episode.terminated, dtype=np.float32)),
    }
    if episode.proprio is not None and episode.proprio.shape[-1] > 0:
        row["proprio"] = torch.from_numpy(np.asarray(episode.proprio, dtype=np.float32))
    return row


def _mirrored(row: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same of the episode's mirror image."""
    image = {**row, "actions": mirror_actions(row["actions"])}
    if "proprio" in row:
        image["proprio"] = mirror_odometry(row["proprio"])
    return image


def _store_identity(store: EpisodeStore) -> str:
    """What tells one store's content from another's: its specification, and the checksums in its index."""
    digest = hashlib.sha256(json.dumps(asdict(store.spec), sort_keys=True, default=str).encode())
    digest.update((Path(store.path) / "index.npy").read_bytes())
    return f"{digest.hexdigest()}/{store.num_episodes}"
