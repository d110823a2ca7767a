"""Episodes rendered on the training device: thousands of mazes are stepped, drawn and encoded at once.

Shapes: ``B`` mazes, ``E`` episodes, ``T`` frames, ``H W`` pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import torch

from lssvwm_agents.data.latents import LatentDataset, encode_frames, latent_dtype, make_dataset
from lssvwm_agents.seeding import fold_in

if TYPE_CHECKING:
    from lssvwm_agents.envs.raycast_maze import MazeConfig

FIRST_TRAINING_SEED = 2**40
"""Training and validation mazes have seeds from here on; anything below is never seen in training."""

EncodeFunction = Callable[[torch.Tensor], torch.Tensor]
"""(B, H, W, 3) uint8 frames to (B, C, h, w) latents."""


@dataclass(frozen=True)
class MazeShare:
    """Mazes that make a share of what is rendered.

    Attributes:
        maze: The mazes.
        share: Their share, of 1 in all.
        policies: Scripted policies that play them, in equal shares; empty for those of the caller.
    """

    maze: MazeConfig
    share: float
    policies: tuple[str, ...] = ()


Mazes: TypeAlias = "MazeConfig | Sequence[MazeConfig] | Sequence[MazeShare]"
"""One maze, several in equal shares, or several in shares of their own."""


@dataclass(frozen=True)
class RolloutFrame:
    """One frame of ``B`` episodes, with what came with it.

    Attributes:
        frame: (B, H, W, 3) uint8.
        action: (B, A) float; the action that led here, zeros at frame 0.
        reward: (B,).
        terminated: (B,) bool.
        proprio: (B, 4) odometry.
    """

    frame: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    proprio: torch.Tensor


def maze_seeds(seed: int, count: int, device: torch.device | str, salt: int = 0) -> torch.Tensor:
    """(count,) int64 seeds of training mazes, none below `FIRST_TRAINING_SEED`."""
    base = FIRST_TRAINING_SEED + fold_in(seed, salt, 0x6D617A65) % 2**60
    return base + torch.arange(count, dtype=torch.int64, device=device)


def float_actions(config: MazeConfig, action: torch.Tensor) -> torch.Tensor:
    """A maze's own actions as the model's floats: one-hot (B, A) for discrete, the values for continuous."""
    if config.continuous:
        return action.to(torch.float32)
    return torch.nn.functional.one_hot(action, config.action_size).to(torch.float32)


@torch.no_grad()
def rollout(
    config: MazeConfig,
    seeds_B: torch.Tensor,
    length: int,
    policy_name: str,
    compile_render: bool = False,
    draw: Callable[[int], bool] | None = None,
) -> Iterator[RolloutFrame]:
    """Play ``B`` mazes for ``length`` frames with a scripted policy, never waiting for the device.

    Args:
        config: The maze.
        seeds_B: (B,) int64 seeds, on the device to play on.
        length: Frames, the first one included.
        policy_name: One of `lssvwm_agents.envs.POLICY_NAMES`.
        compile_render: Draw through `torch.compile`.
        draw: Says whether frame t is to be drawn; where not, its ``frame`` is empty (B, 0, 0, 3).
    """
    from lssvwm_agents.envs.raycast_maze import odometry, reset, step
    from lssvwm_agents.envs.raycast_render import render
    from lssvwm_agents.envs.scripted_policies import make_policy

    device = seeds_B.device
    render_state = functools.partial(render, config)
    if compile_render:
        render_state = torch.compile(render_state, dynamic=False)  # type: ignore[assignment]
    policy = make_policy(policy_name, config)
    state = reset(config, seeds_B, device=device)
    carry = policy.initial_carry(seeds_B, device)
    rows = len(seeds_B)
    action = torch.zeros(rows, config.action_size, device=device)
    reward = torch.zeros(rows, device=device)
    terminated = torch.zeros(rows, dtype=torch.bool, device=device)
    nothing = torch.empty(rows, 0, 0, 3, dtype=torch.uint8, device=device)
    for t in range(length):
        if t > 0:
            chosen, carry = policy.act(state, carry)
            state, reward, terminated = step(config, state, chosen)
            action = float_actions(config, chosen)
        frame = render_state(state) if draw is None or draw(t) else nothing
        yield RolloutFrame(frame, action, reward.to(torch.float32), terminated, odometry(config, state))


def split_evenly(total: int, parts: int) -> list[int]:
    """Sizes of ``parts`` nearly equal shares of ``total``."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def interleaved(counts: Sequence[int]) -> list[torch.Tensor]:
    """Rows of groups of these sizes, (count,) int64 each; every stretch of rows has about all groups' shares.

    A stretch of episodes can then be rendered anew without changing what is mixed.
    """
    count = torch.tensor(counts)
    group = torch.repeat_interleave(torch.arange(len(count)), count)
    number = torch.arange(len(group)) - (count.cumsum(0) - count)[group]
    order = ((number + 0.5) / count[group]).argsort(stable=True)
    mixed = group[order]
    return [(mixed == index).nonzero()[:, 0] for index in range(len(count))]


def _groups(
    mazes: Mazes, policy_name: str | Sequence[str], total: int, own_policies: bool = True
) -> list[tuple[MazeConfig, str, torch.Tensor]]:
    """Share ``total`` rows among all pairs of maze and policy: pairs with their rows, (count,) int64.

    Args:
        mazes: What is mixed; rows of mazes in equal shares lie together, those in shares of their own are
            `interleaved`.
        policy_name: One policy, or several in equal shares.
        total: Rows in all.
        own_policies: Whether the policies of a `MazeShare` play its mazes, or the given ones everywhere.
    """
    policies = (policy_name,) if isinstance(policy_name, str) else tuple(policy_name)
    mixed = list(mazes) if isinstance(mazes, Sequence) else [mazes]
    if not mixed or not policies:
        raise ValueError(
            f"at least one maze and one policy are needed, got {len(mixed)} and {len(policies)}."
        )
    plain = [part for part in mixed if not isinstance(part, MazeShare)]
    shares = [part for part in mixed if isinstance(part, MazeShare)]
    if not shares:
        pairs = [(maze, policy) for maze in plain for policy in policies]
        rows = list(torch.arange(total).split(split_evenly(total, len(pairs))))
    else:
        bounds = [sum(part.share for part in shares[:index]) for index in range(len(shares) + 1)]
        if plain or min(part.share for part in shares) < 0 or abs(bounds[-1] - 1.0) > 1e-6:
            raise ValueError(
                "the shares of all mazes must be at least 0 and add up to 1, got "
                f"{[part.share for part in shares]} for {len(mixed)} of them."
            )
        pairs, counts = [], []
        for part, low, high in zip(shares, bounds[:-1], bounds[1:], strict=True):
            played_by = part.policies if own_policies and part.policies else policies
            pairs += [(part.maze, policy) for policy in played_by]
            counts += split_evenly(round(total * high) - round(total * low), len(played_by))
        rows = interleaved(counts)
    return [(maze, policy, row) for (maze, policy), row in zip(pairs, rows, strict=True) if len(row)]


def tokenizer_encoder(
    tokenizer: torch.nn.Module, device: torch.device | str, batch_size: int = 1024
) -> EncodeFunction:
    """Encode uint8 frames with a tokenizer, in batches, in bfloat16 on CUDA."""
    kind = torch.device(device).type

    def encode(frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            return encode_frames(tokenizer, frames, device, batch_size)

    return encode


@torch.no_grad()
def render_episodes(
    maze_config: Mazes,
    num_envs: int,
    length: int,
    policy_name: str | Sequence[str],
    seed: int,
    device: torch.device | str,
    encode_fn: EncodeFunction,
    *,
    value_discount: float = 0.97,
    envs_at_once: int = 4096,
    compile_render: bool = False,
    progress: bool = False,
) -> LatentDataset:
    """Play, draw and encode ``num_envs`` episodes of ``length`` frames on a device.

    All are played and recorded for ``length`` frames. Where one terminates earlier, ``lengths`` tells its
    end, and windows may show what the maze did afterwards, without rewards: ``min_length`` is ``length``.

    Args:
        maze_config: One maze, or several whose episodes are mixed.
        num_envs: Episodes ``E``; each has its own maze.
        length: Frames ``T`` that are played.
        policy_name: One scripted policy, or several mixed in equal shares.
        seed: Names the mazes and the policies' choices.
        device: Where everything happens.
        encode_fn: (B, H, W, 3) uint8 to (B, C, h, w).
        value_discount: Discount of the value targets, per frame.
        envs_at_once: Mazes stepped together; bounds the memory that drawing needs.
        compile_render: Draw through `torch.compile`.
        progress: Whether to show a progress bar.
    """
    from tqdm import tqdm

    seeds = maze_seeds(seed, num_envs, device)
    parts = [
        (config, policy, chunk.to(device))
        for config, policy, rows in _groups(maze_config, policy_name, num_envs)
        for chunk in rows.split(envs_at_once)
    ]
    recorded: dict[str, torch.Tensor] = {}
    bar = tqdm(total=len(parts) * length, desc="render", unit="step", mininterval=5.0, disable=not progress)
    for config, policy, rows in parts:
        for t, now in enumerate(rollout(config, seeds[rows], length, policy, compile_render)):
            values = {
                "latents": encode_fn(now.frame),
                "actions": now.action,
                "proprio": now.proprio,
                "reward": now.reward,
                "terminated": now.terminated,
            }
            for name, value in values.items():
                if name not in recorded:
                    dtype = latent_dtype(device) if name == "latents" else value.dtype
                    shape = (num_envs, length, *value.shape[1:])
                    recorded[name] = torch.zeros(shape, dtype=dtype, device=device)
                recorded[name][rows, t] = value.to(recorded[name].dtype)
            bar.update()
    bar.close()
    terminated = recorded.pop("terminated")
    # An episode ends at its first termination; what the maze did afterwards can be seen, but does not count.
    first = torch.where(
        terminated.any(1),
        terminated.to(torch.int8).argmax(1),
        torch.full_like(terminated[:, 0].long(), length - 1),
    )
    dataset = make_dataset(
        **recorded,
        continuation=1.0 - terminated.to(torch.float32),
        lengths=first + 1,
        value_discount=value_discount,
    )
    return replace(dataset, min_length=length)


@torch.no_grad()
def render_frames(
    maze_config: Mazes,
    num_frames: int,
    seed: int,
    device: torch.device | str,
    *,
    policy_name: str | Sequence[str] = "explorer",
    frames_per_maze: int = 16,
    stride: int = 8,
    envs_at_once: int = 4096,
) -> torch.Tensor:
    """Draw frames that are far apart, for training a tokenizer.

    Args:
        maze_config: One maze, or several that are mixed.
        num_frames: Frames in all.
        seed: Names the mazes.
        device: Where they are drawn.
        policy_name: One scripted policy, or several in equal shares; they play all mazes.
        frames_per_maze: Frames taken from one maze ...
        stride: ... so many steps apart.
        envs_at_once: Mazes stepped together.

    Returns:
        (num_frames, H, W, 3) uint8.
    """
    num_mazes = -(-num_frames // frames_per_maze)
    seeds = maze_seeds(seed, num_mazes, device, salt=1)
    length = (frames_per_maze - 1) * stride + 1
    frames = []
    for config, policy, rows in _groups(maze_config, policy_name, num_mazes, own_policies=False):
        for chunk in rows.split(envs_at_once):
            mazes = seeds[chunk.to(device)]
            for t, now in enumerate(rollout(config, mazes, length, policy, draw=lambda t: t % stride == 0)):
                if t % stride == 0:
                    frames.append(now.frame)
    return torch.cat(frames)[:num_frames]
