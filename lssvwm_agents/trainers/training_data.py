"""What a world model is trained on and scored by: episodes rendered on the device, or those of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lssvwm_agents.data.latents import LatentDataset, encode_store, make_dataset
from lssvwm_agents.data.online import maze_seeds, render_episodes, rollout, tokenizer_encoder
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.envs.mirror import mirror_frames
from lssvwm_agents.recipes import Experiment
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers.data_source import DataSource, FixedData, RefreshedData
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.store_fit import split_episodes
from lssvwm_agents.trainers.validation import ValidationSet
from lssvwm_agents.worldmodel import Tokenizer

_VALUE_FRAMES = 128
POOL_EPISODES = 1024
"""Of a store with at least twice as many episodes, the tokenizer's frames come from about so many."""


def stored_frames(
    store: EpisodeStore, episodes: Sequence[int], count: int, seed: int, mirror: bool = False
) -> torch.Tensor:
    """(about count, H, W, 3) uint8 frames, spread over the episodes, or over some of very many.

    With ``mirror`` a random half of them is flipped left to right.
    """
    episodes = episodes[:: max(1, len(episodes) // POOL_EPISODES)]
    each = -(-count // len(episodes))
    draw = np.random.default_rng(fold_in(seed, 12))
    frames = []
    for index in episodes:
        episode = store.episode(index)
        frames.append(episode.frames[np.sort(draw.permutation(len(episode))[:each])])
    chosen = torch.from_numpy(np.concatenate(frames)[:count])
    if mirror:
        half = torch.from_numpy(draw.permutation(len(chosen))[: len(chosen) // 2])
        chosen[half] = mirror_frames(chosen[half])
    return chosen


def rendered_data(experiment: Experiment, tokenizer: Tokenizer, process: Process) -> DataSource:
    """Episodes rendered on the device, the same by every process."""
    data, training, device = experiment.data, experiment.training, process.device
    encode = tokenizer_encoder(tokenizer, device)

    def render(count: int, rendering: int) -> LatentDataset:
        return render_episodes(
            experiment.mazes,
            count,
            data.episode_length,
            data.policies,
            fold_in(training.seed, 13, rendering),
            device,
            encode,
            value_discount=experiment.model.value_discount,
            envs_at_once=data.envs_at_once,
            compile_render=data.compile_render,
            progress=process.is_main and rendering == 0,
        )

    return RefreshedData(render, data.num_envs, data.refresh_every, data.refresh_share)


def rendered_validation(
    experiment: Experiment, tokenizer: Tokenizer, process: Process
) -> ValidationSet | None:
    """Rendered episodes of mazes never trained on, scored with their values; None if none are asked for."""
    training, device = experiment.training, process.device
    if training.num_validation_episodes == 0:
        return None
    latent_shape = experiment.model.tokenizer.latent_shape
    length = training.validation_context + training.validation_horizon
    seeds = maze_seeds(fold_in(training.seed, 14), training.num_validation_episodes, device, salt=2)
    # The value targets need the future: played on without being drawn, and then cut off.
    played = list(
        rollout(
            experiment.maze,
            seeds,
            length + _VALUE_FRAMES,
            experiment.data.policies[0],
            draw=lambda t: t < length,
        )
    )
    frames = torch.stack([now.frame for now in played[:length]], dim=1)
    actions, proprio, reward, terminated = (
        torch.stack([getattr(now, name) for now in played], dim=1)
        for name in ("action", "proprio", "reward", "terminated")
    )
    latents = tokenizer_encoder(tokenizer, device)(frames.flatten(0, 1)).reshape(
        *frames.shape[:2], *latent_shape
    )
    whole = make_dataset(
        torch.zeros(len(seeds), len(played), 1, device=device),
        actions,
        proprio,
        reward,
        1.0 - terminated.to(torch.float32),
        torch.full((len(seeds),), len(played), dtype=torch.int64, device=device),
        experiment.model.value_discount,
    )
    dataset = replace(first_frames(whole, length), latents=latents)
    return ValidationSet(dataset, frames, training.validation_context)


def stored_data(
    experiment: Experiment, store: EpisodeStore, tokenizer: Tokenizer, process: Process, cache: Path
) -> tuple[DataSource, ValidationSet | None]:
    """A store's episodes, encoded or read from ``cache``, and those held out, None if none are asked for.

    Where the experiment asks for mirror images, those follow the episodes to train on.
    """
    training, device = experiment.training, process.device
    played, kept = split_episodes(store, experiment.data)
    scored_at_most = experiment.data.num_validation_store_episodes
    kept = kept[:: -(-len(kept) // scored_at_most)]
    discount = experiment.model.value_discount

    def encode(episodes: Sequence[int], mirror: bool = False) -> LatentDataset:
        return encode_store(
            store, tokenizer, device, discount, episodes=episodes, cache_dir=cache, mirror=mirror
        )

    def encode_both() -> tuple[LatentDataset, LatentDataset]:
        return encode(played, experiment.data.mirror), encode(kept)

    # One process fills the cache, the others then read it.
    if process.is_main:
        dataset, held_out = encode_both()
    process.wait()
    if not process.is_main:
        dataset, held_out = encode_both()
    length = training.validation_context + training.validation_horizon
    if training.num_validation_episodes == 0:
        return FixedData(dataset), None
    frames = np.stack([store.episode(index).frames[:length] for index in kept])
    scored = first_frames(held_out, length)
    return FixedData(dataset), ValidationSet(
        scored, torch.from_numpy(frames).to(device), training.validation_context
    )


def first_frames(dataset: LatentDataset, length: int) -> LatentDataset:
    """The first ``length`` frames of every episode; their values still know what came after."""
    cut = dataset.map(lambda tensor: tensor[:, :length] if tensor.ndim > 1 else tensor.clamp(max=length))
    return replace(cut, min_length=min(length, dataset.min_length))
