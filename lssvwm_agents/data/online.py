"""Episodes rendered on the training device: thousands of mazes are stepped, drawn and encoded at once.

Shapes: ``B`` mazes, ``E`` episodes, ``T`` frames, ``H W`` pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        policy_name: ``random``, ``held_random``, ``explorer``, ``forager`` or ``oracle``.
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


def _groups(
    configs: Sequence[MazeConfig], policies: Sequence[str], total: int
) -> Iterator[tuple[MazeConfig, str, int]]:
    """Share ``total`` mazes among all pairs of configuration and policy."""
    if not configs or not policies:
        raise ValueError(
            f"at least one maze and one policy are needed, got {len(configs)} and {len(policies)}."
        )
    pairs = [(config, policy) for config in configs for policy in policies]
    for (config, policy), count in zip(pairs, split_evenly(total, len(pairs)), strict=True):
        if count:
            yield config, policy, count


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
    maze_config: MazeConfig | Sequence[MazeConfig],
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

    Args:
        maze_config: One maze, or several whose episodes are mixed in equal shares.
        num_envs: Episodes ``E``; each has its own maze.
        length: Frames ``T`` of an episode; one that terminates earlier is shorter.
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

    configs = [maze_config] if not isinstance(maze_config, Sequence) else list(maze_config)
    policies = [policy_name] if isinstance(policy_name, str) else list(policy_name)
    seeds = maze_seeds(seed, num_envs, device)
    parts: list[tuple[MazeConfig, str, torch.Tensor]] = []
    for config, policy, count in _groups(configs, policies, num_envs):
        group, seeds = seeds[:count], seeds[count:]
        parts += [(config, policy, chunk) for chunk in group.split(envs_at_once)]
    recorded: dict[str, torch.Tensor] = {}
    row = 0
    bar = tqdm(total=len(parts) * length, desc="render", unit="step", mininterval=5.0, disable=not progress)
    for config, policy, chunk in parts:
        rows = slice(row, row + len(chunk))
        for t, now in enumerate(rollout(config, chunk, length, policy, compile_render)):
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
        row += len(chunk)
    bar.close()
    terminated = recorded.pop("terminated")
    # An episode ends at its first termination; what the maze did afterwards is padding.
    first = torch.where(
        terminated.any(1),
        terminated.to(torch.int8).argmax(1),
        torch.full_like(terminated[:, 0].long(), length - 1),
    )
    return make_dataset(
        **recorded,
        continuation=1.0 - terminated.to(torch.float32),
        lengths=first + 1,
        value_discount=value_discount,
    )


@torch.no_grad()
def render_frames(
    maze_config: MazeConfig | Sequence[MazeConfig],
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
        maze_config: One maze, or several in equal shares.
        num_frames: Frames in all.
        seed: Names the mazes.
        device: Where they are drawn.
        policy_name: One scripted policy, or several in equal shares.
        frames_per_maze: Frames taken from one maze ...
        stride: ... so many steps apart.
        envs_at_once: Mazes stepped together.

    Returns:
        (num_frames, H, W, 3) uint8.
    """
    configs = [maze_config] if not isinstance(maze_config, Sequence) else list(maze_config)
    policies = [policy_name] if isinstance(policy_name, str) else list(policy_name)
    num_mazes = -(-num_frames // frames_per_maze)
    seeds = maze_seeds(seed, num_mazes, device, salt=1)
    length = (frames_per_maze - 1) * stride + 1
    frames = []
    for config, policy, count in _groups(configs, policies, num_mazes):
        group, seeds = seeds[:count], seeds[count:]
        for chunk in group.split(envs_at_once):
            for t, now in enumerate(rollout(config, chunk, length, policy, draw=lambda t: t % stride == 0)):
                if t % stride == 0:
                    frames.append(now.frame)
    return torch.cat(frames)[:num_frames]
