"""Random windows of latents, gathered on the device: the batches of training.

A window lies inside its episode. Only an episode that is shorter than the window, and of which frames were
recorded after its end, gives a window from its first frame on that goes past the end: rewards, ends and
values do not count there.

Shapes: ``B`` windows of ``T`` frames; ``E`` episodes; ``K`` candidate windows of one row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from lssvwm_agents.data.latents import LatentDataset
from lssvwm_agents.worldmodel.batch import WindowBatch

ReplayMode = Literal["backwards", "forwards", "shuffled", "mixed"]
REVISIT_DISTANCE = 0.75
"""Two frames show the same place if their positions are less than this far apart, in cells ..."""
REVISIT_COSINE = math.cos(math.radians(30.0))
"""... and their headings less than 30 degrees."""


@dataclass(frozen=True)
class WindowIndex:
    """Which frames make the windows.

    Attributes:
        episode_B: (B,) int64 episode of each window.
        frame_BT: (B, T) int64 frame within the episode.
        replayed_BT: (B, T) bool; True where the frame is shown a second time by memory replay.
    """

    episode_B: torch.Tensor
    frame_BT: torch.Tensor
    replayed_BT: torch.Tensor


def _uniform_index(uniform: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """Integers in [0, count) from float64 uniforms in [0, 1)."""
    index = (uniform * count).to(torch.int64)
    return torch.minimum(index, torch.as_tensor(count, device=index.device) - 1)


def revisit_share(proprio_NTP: torch.Tensor) -> torch.Tensor:
    """Share of the first half's frames whose place is seen again in the second half.

    Pairs closer in time than a quarter of the window do not count: standing still is no revisit. Position is
    ``proprio[..., :2]`` in cells, heading ``proprio[..., 2:4]`` as sine and cosine.

    Args:
        proprio_NTP: (N, T, P) odometry, P >= 4.

    Returns:
        (N,) share in [0, 1].

    Raises:
        ValueError: If P is below 4: then these are no poses.
    """
    if proprio_NTP.shape[-1] < 4:
        raise ValueError(
            "`priority` needs odometry that begins with x, y, sine and cosine of the heading, got "
            f"{proprio_NTP.shape[-1]} values."
        )
    length = proprio_NTP.shape[1]
    stride = max(1, length // 64)
    time_T = torch.arange(0, length, stride, device=proprio_NTP.device)
    pose_NTP = proprio_NTP[:, ::stride, :4].to(torch.float32)
    half = (len(time_T) + 1) // 2
    first, second = pose_NTP[:, :half, None], pose_NTP[:, None, half:]
    near = (first[..., :2] - second[..., :2]).square().sum(-1) < REVISIT_DISTANCE**2
    aligned = (first[..., 2:] * second[..., 2:]).sum(-1) > REVISIT_COSINE
    apart = time_T[None, half:] - time_T[:half, None] >= length // 4
    return (near & aligned & apart).any(2).to(torch.float32).mean(1)


def draw_windows(
    dataset: LatentDataset,
    batch_size: int,
    length: int,
    generator: torch.Generator,
    *,
    memory_replay: float = 0.0,
    replay_mode: ReplayMode = "backwards",
    priority: float = 0.0,
    num_candidates: int = 4,
) -> WindowIndex:
    """Draw which frames make the windows; the arguments are those of `sample_windows`."""
    if length < 1 or batch_size < 1:
        raise ValueError(f"`batch_size` and `length` must be at least 1, got {batch_size} and {length}.")
    if dataset.min_length < length:
        raise ValueError(
            f"every episode must have at least the window's {length} frames, got one of {dataset.min_length}."
        )
    for name, share in (("memory_replay", memory_replay), ("priority", priority)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"`{name}` must be in [0, 1], got {share}.")
        if share > 0.0 and dataset.proprio is None:
            raise ValueError(f"`{name}`={share} needs odometry, and these episodes have none.")
    if replay_mode not in get_args(ReplayMode):
        raise ValueError(f"`replay_mode` must be one of {get_args(ReplayMode)}, got {replay_mode!r}.")
    device = dataset.device
    uniform = torch.rand(
        batch_size, 3 + 2 * num_candidates, generator=generator, device=generator.device, dtype=torch.float64
    ).to(device)
    candidates = num_candidates if priority > 0.0 else 1
    episode_BK = _uniform_index(uniform[:, 2 : 2 + candidates], dataset.num_episodes)
    room_BK = (dataset.lengths[episode_BK] - length).clamp(min=0) + 1
    start_BK = _uniform_index(uniform[:, 2 + num_candidates : 2 + num_candidates + candidates], room_BK)
    time_T = torch.arange(length, device=device)
    if priority > 0.0:
        assert dataset.proprio is not None
        flat = (episode_BK * dataset.max_length + start_BK)[..., None] + time_T
        proprio = dataset.proprio.flatten(0, 1)[flat.flatten(0, 1)]
        best_B = revisit_share(proprio).view(batch_size, candidates).argmax(1)
        pick_B1 = torch.where(uniform[:, 0] < priority, best_B, torch.zeros_like(best_B))[:, None]
        episode_B, start_B = episode_BK.gather(1, pick_B1)[:, 0], start_BK.gather(1, pick_B1)[:, 0]
    else:
        episode_B, start_B = episode_BK[:, 0], start_BK[:, 0]
    half = (length + 1) // 2
    again_BT = _again(replay_mode, uniform[:, -1], length, generator)
    replayed_BT = (uniform[:, 1] < memory_replay)[:, None] & (time_T >= half)
    offset_BT = torch.where(replayed_BT, again_BT, time_T)
    return WindowIndex(episode_B, start_B[:, None] + offset_BT, replayed_BT)


def _again(mode: ReplayMode, choice_B: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """Which frame of the window is shown at each of its times, where its second half replays: (B, T)."""
    half, device = (length + 1) // 2, choice_B.device
    time_T = torch.arange(length, device=device)
    ways = {
        "backwards": (2 * half - 1 - time_T).clamp(min=0).expand(len(choice_B), -1),
        "forwards": (time_T - half).expand(len(choice_B), -1),
    }
    if mode in ("shuffled", "mixed"):
        draws = torch.rand(len(choice_B), half, generator=generator, device=generator.device).to(device)
        ways["shuffled"] = draws.argsort(1)[:, (time_T - half) % half]
    if mode != "mixed":
        return ways[mode]
    choice_B1 = _uniform_index(choice_B, len(ways))[:, None]
    return torch.where(
        choice_B1 == 0,
        ways["backwards"],
        torch.where(choice_B1 == 1, ways["forwards"], ways["shuffled"]),
    )


def gather_windows(dataset: LatentDataset, index: WindowIndex) -> WindowBatch:
    """Gather the frames of the windows, one indexing operation per tensor."""
    flat_BT = index.episode_B[:, None] * dataset.max_length + index.frame_BT
    inside_BT = index.frame_BT < dataset.lengths[index.episode_B][:, None]
    scored_BT = ~index.replayed_BT & inside_BT

    def take(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flatten(0, 1)[flat_BT]

    # An action is known where a frame follows the one before it, as it did when it was recorded.
    follows_BT = torch.ones_like(scored_BT)
    follows_BT[:, 1:] = index.frame_BT[:, 1:] == index.frame_BT[:, :-1] + 1
    action_known_BT = follows_BT & (index.frame_BT > 0)
    actions = take(dataset.actions)
    reward = take(dataset.reward)
    return WindowBatch(
        latents=take(dataset.latents),
        actions=actions * action_known_BT[..., None].to(actions.dtype),
        action_known=action_known_BT,
        proprio=None if dataset.proprio is None else take(dataset.proprio),
        proprio_known=torch.full_like(scored_BT, dataset.proprio is not None),
        reward=reward * scored_BT.to(reward.dtype),
        continuation=take(dataset.continuation),
        reward_mask=scored_BT,
        value=take(dataset.value),
        value_mask=scored_BT & take(dataset.value_valid),
    )


def sample_windows(
    dataset: LatentDataset,
    batch_size: int,
    length: int,
    generator: torch.Generator,
    memory_replay: float = 0.0,
    priority: float = 0.0,
    *,
    replay_mode: ReplayMode = "backwards",
    num_candidates: int = 4,
    rows: tuple[int, int] | None = None,
) -> WindowBatch:
    """Sample random windows, some of which return to where they have been.

    *Memory replay* makes the second half of a window the first half once more: backwards, forwards, or in a
    random order. In a static world that is a valid sequence when the odometry is given, and each of its
    frames has an exact match far back in memory. Actions are known where a frame follows the one before it
    as it did when it was recorded. Walking, most of a frame is known from the one before; in random order
    only memory knows it. Rewards are not asked for there: they were spent.
    *Priority* picks, among a few random windows, the one that revisits most of its own places.

    Args:
        dataset: The episodes.
        batch_size: Windows ``B`` of the whole batch.
        length: Frames ``T`` of a window.
        generator: Draws for the whole batch, so that processes sharing it agree.
        memory_replay: Probability, per window, that its second half replays its first.
        priority: Probability, per window, that the most revisiting of the candidates is taken.
        replay_mode: ``backwards``, ``forwards``, ``shuffled``, or ``mixed``: each in a third of the cases.
        num_candidates: Windows compared for ``priority``.
        rows: Gather only rows (start, stop) of the batch: one process's share.

    Raises:
        ValueError: If fewer than ``length`` frames of an episode were recorded, or odometry is needed and
            missing.
    """
    index = draw_windows(
        dataset,
        batch_size,
        length,
        generator,
        memory_replay=memory_replay,
        replay_mode=replay_mode,
        priority=priority,
        num_candidates=num_candidates,
    )
    if rows is not None:
        start, stop = rows
        index = WindowIndex(
            index.episode_B[start:stop], index.frame_BT[start:stop], index.replayed_BT[start:stop]
        )
    return gather_windows(dataset, index)
