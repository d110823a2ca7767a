"""A behaviour prior: an actor that does what was done in recorded episodes, cloned from them.

A policy begins as it, and is held near it while it is improved in imagination (behaviour-regularised offline
reinforcement learning: BRAC, Wu et al. 2019, arXiv 1911.11361): where nobody went, the world model knows
nothing, and may promise anything.

Legend: ``N`` choices, ``F`` features, ``A`` width of a float action, ``T`` frames.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from lssvwm_agents.data.latents import actions_to_float
from lssvwm_agents.errors import UserError
from lssvwm_agents.files import write_json, write_tensors
from lssvwm_agents.planners import ContinuousActions
from lssvwm_agents.policies.actor_critic import WEIGHTS, PolicyConfig, make_actor
from lssvwm_agents.policies.actors import Actor
from lssvwm_agents.policies.inputs import FEATURES, input_width, read_inputs
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.worldmodel import WorldModel

if TYPE_CHECKING:
    from lssvwm_agents.data.episode import Episode
    from lssvwm_agents.data.store import EpisodeStore

SUMMARY = "behaviour.json"
HELD_OUT = 0.05
"""Share of the choices that the clone is scored on, and does not learn from."""
INSIDE = 0.99
"""Continuous choices are cloned as if they were at most so far from the box's centre, in half widths: at its
faces, a squashed normal would have to have its mean at infinity, and could not be improved from there."""


# --- what was done ------------------------------------------------------------------------------------


@torch.no_grad()
def recorded_choices(
    model: WorldModel,
    store: EpisodeStore,
    max_frames: int,
    seed: int,
    inputs: Sequence[str] = FEATURES,
    episodes_at_once: int = 32,
    frames_at_once: int = 64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a policy reads of recorded frames, memory included, and what was done then.

    Whole episodes are streamed through the world model, so that each frame's features are those that a policy
    would have met there. What is done in a frame is the action with the index of the next.

    Args:
        model: The world model.
        store: Recorded episodes.
        max_frames: Episodes are drawn until they have so many frames.
        seed: Of the draw.
        inputs: What is read (`lssvwm_agents.policies.inputs`).
        episodes_at_once: Episodes streamed side by side.
        frames_at_once: Frames of each that are observed in parallel.

    Returns:
        What is read (N, I) and actions (N, A) on the model's device, episode by episode in the order drawn;
        nothing of an episode's last frame, of one that is terminated, or after that.

    Raises:
        UserError: If the episodes do not fit the model, or nothing was done in them.
    """
    check_fits(model, store)
    lengths = store.lengths
    order = np.random.default_rng(fold_in(seed, 0)).permutation(store.num_episodes)
    enough = int(np.searchsorted(np.cumsum(lengths[order]), max_frames)) + 1
    drawn: list[int] = order[:enough].tolist()
    by_length = sorted(drawn, key=lambda index: -int(lengths[index]))  # little padding in a group
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    groups = [by_length[i : i + episodes_at_once] for i in range(0, len(by_length), episodes_at_once)]
    with ThreadPoolExecutor(1) as reader:  # the next group is read while this one is streamed
        coming = reader.submit(_read, store, groups[0])
        for number, group in enumerate(tqdm(groups, desc="behaviour", unit="group", mininterval=5.0)):
            episodes = coming.result()
            if number + 1 < len(groups):
                coming = reader.submit(_read, store, groups[number + 1])
            choices = _stream(model, episodes, store.spec.num_actions or None, frames_at_once, inputs)
            found |= dict(zip(group, choices, strict=True))
    if not sum(len(found[index][0]) for index in drawn):
        raise UserError(
            f"nothing was done in the {len(drawn)} episodes of `{store.path}`: collect longer ones."
        )
    return torch.cat([found[index][0] for index in drawn]), torch.cat([found[index][1] for index in drawn])


def _read(store: EpisodeStore, indices: list[int]) -> list[Episode]:
    """The episodes of these indices."""
    return [store.episode(index) for index in indices]


def _stream(
    model: WorldModel,
    episodes: list[Episode],
    num_actions: int | None,
    frames_at_once: int,
    inputs: Sequence[str],
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What is read (n, I) and actions (n, A) of each of the episodes, from their first frames on."""
    device, dtype = model.device, model.backbone.position.dtype
    actions = [actions_to_float(episode.actions, num_actions) for episode in episodes]
    counts = [_num_choices(episode) for episode in episodes]
    with_odometry = model.config.proprio_dim > 0 and episodes[0].proprio.shape[1] > 0
    width = input_width(inputs, model.feature_dim, model.config)
    parts = [[torch.zeros(0, width, device=device, dtype=dtype)] for _ in episodes]
    rows, state = list(range(len(episodes))), model.initial_state(len(episodes))
    for start in range(0, max(counts), frames_at_once):
        going_on = [place for place, row in enumerate(rows) if counts[row] > start]
        if len(going_on) < len(rows):
            state = state.select(torch.tensor(going_on, device=device))
            rows = [rows[place] for place in going_on]
        time_T = np.arange(start, min(start + frames_at_once, max(counts[row] for row in rows)))
        # Shorter episodes repeat their last frame; a frame changes nothing of what was before it.
        times = [np.minimum(time_T, len(episodes[row]) - 1) for row in rows]

        def stacked(arrays: list[np.ndarray], times: list[np.ndarray] = times) -> torch.Tensor:
            taken = [array[time] for array, time in zip(arrays, times, strict=True)]
            return torch.from_numpy(np.stack(taken)).to(device)

        frames = stacked([episodes[row].frames for row in rows])
        known_T = torch.as_tensor(time_T > 0, device=device)
        latents = model.tokenizer.encode(frames.permute(0, 1, 4, 2, 3).to(dtype) / 255)
        led = stacked([actions[row] for row in rows]).to(dtype)
        proprio = stacked([episodes[row].proprio for row in rows]).to(dtype) if with_odometry else None
        if proprio is None and model.config.sees_motion:
            proprio = model.see_motion(state, latents, led)
        known_BT = known_T.to(dtype).expand(len(rows), -1)
        state, features = model.observe_latents(state, latents, led, proprio, known_BT)
        read = read_inputs(SimpleNamespace(features=features, proprio=proprio, latent=latents), inputs)
        for row, seen in zip(rows, read, strict=True):
            parts[row].append(seen[: counts[row] - start].to(dtype))
    return [
        (torch.cat(part), torch.from_numpy(led[1 : count + 1]).to(device, dtype))
        for part, led, count in zip(parts, actions, counts, strict=True)
    ]


def _num_choices(episode: Episode) -> int:
    """Frames before the last, and before any that is terminated."""
    ends = np.flatnonzero(episode.terminated)
    return min(len(episode) - 1, int(ends[0]) if len(ends) else len(episode))


def check_fits(model: WorldModel, store: EpisodeStore) -> None:
    """Refuse episodes that the model cannot see.

    Raises:
        UserError: If there are none, or their frames, actions or odometry are of another size or kind.
    """
    config, spec = model.config, store.spec
    if store.num_episodes == 0:
        raise UserError(f"a behaviour is cloned from at least 1 episode, but `{store.path}` holds none.")
    if tuple(spec.frame_shape[:2]) != (config.tokenizer.frame_size,) * 2:
        raise UserError(
            f"this model sees frames of {config.tokenizer.frame_size}x{config.tokenizer.frame_size}, but "
            f"those of `{store.path}` are of {'x'.join(map(str, spec.frame_shape[:2]))}."
        )
    if (spec.action_dim, bool(spec.num_actions)) != (config.action_dim, config.discrete_actions):
        kinds = ("continuous", "discrete")
        raise UserError(
            f"this model's actions are {kinds[config.discrete_actions]} of {config.action_dim} numbers, but "
            f"those of `{store.path}` are {kinds[bool(spec.num_actions)]} of {spec.action_dim}."
        )
    blind = spec.proprio_dim == 0 and config.sees_motion
    if config.proprio_dim not in (0, spec.proprio_dim) and not blind:
        raise UserError(
            f"this model needs odometry of {config.proprio_dim} values, but the episodes of `{store.path}` "
            f"have {spec.proprio_dim}."
        )


# --- its clone ----------------------------------------------------------------------------------------


def clone(
    actor: Actor,
    features: torch.Tensor,
    actions: torch.Tensor,
    updates: int,
    batch: int = 512,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """Fit an actor to choices by their likelihood (behaviour cloning).

    Args:
        actor: Fresh; how features are spread is measured too.
        features: (N, F); the last 5% are held out: other episodes, but for one that may be cut.
        actions: (N, A) what was done.
        updates: Of Adam.
        batch: Choices of each update.
        learning_rate: Of Adam; it falls to 0 in a straight line.
        seed: Names the batches.

    Returns:
        The mean negative log-likelihood of the choices held out, in nats.

    Raises:
        UserError: If there are fewer than 3 choices.
    """
    if len(features) < 3:
        raise UserError(f"a behaviour is cloned from at least 3 choices, got {len(features)}: record more.")
    actions = _inside(actor, actions)
    held = max(1, round(HELD_OUT * len(features)))
    (seen, unseen), (done, to_do) = ((all_[:-held], all_[-held:]) for all_ in (features, actions))
    actor.mlp.fit(seen)
    optimizer = torch.optim.Adam(actor.parameters(), lr=learning_rate)
    noise = generator(features.device, seed)
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - update / updates)
        rows = torch.randint(len(seen), (batch,), generator=noise, device=features.device)
        loss = -actor(seen[rows]).log_prob(done[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        pairs = zip(unseen.split(8192), to_do.split(8192), strict=True)
        return -sum(float(actor(one).log_prob(two).sum()) for one, two in pairs) / held


def _inside(actor: Actor, actions: torch.Tensor) -> torch.Tensor:
    """Continuous actions (N, A) a little away from the faces of their box."""
    spec = actor.action_spec
    if not isinstance(spec, ContinuousActions):
        return actions
    low, high = actions.new_tensor(spec.low), actions.new_tensor(spec.high)
    centre, half = (high + low) / 2, INSIDE * (high - low) / 2
    return torch.minimum(torch.maximum(actions, centre - half), centre + half)


def behaviour_prior(
    folder: Path,
    iteration: int,
    config: PolicyConfig,
    model: WorldModel,
    store: EpisodeStore,
    frames: int,
    updates: int,
    seed: int,
) -> Actor:
    """The prior of an iteration, frozen; cloned, unless a folder keeps it or has one of the same data.

    Args:
        folder: Holds a folder for each iteration that cloned one, with weights and a summary.
        iteration: From 0.
        config: Sizes of the actor.
        model: The world model whose features it reads.
        store: Recorded episodes.
        frames: Recorded frames that it is cloned from, about.
        updates: Of the clone.
        seed: Names episodes, weights and batches.

    Raises:
        UserError: If there is nothing to clone, or the episodes do not fit the model.
    """
    from safetensors.torch import load_file

    source = {"features_of": config.features_of, "episodes": store.num_episodes}
    folders = [folder / f"{index:03d}" for index in range(iteration, -1, -1)]
    kept = next((one for one in folders if _source(one) == source), None)
    if kept is None:
        kept, seed = folders[0], fold_in(seed, iteration)
        torch.manual_seed(fold_in(seed, 1))
        fresh = make_actor(config).to(model.device)
        features, actions = recorded_choices(model, store, frames, fold_in(seed, 2), config.inputs)
        nats = clone(fresh, features.float(), actions.float(), updates, seed=fold_in(seed, 3))
        _tell(len(features), updates, nats, fresh.max_entropy)
        told = {"choices": len(features), "updates": updates, "nats": nats, "uniform_nats": fresh.max_entropy}
        write_json(kept / SUMMARY, {**source, **told})
        write_tensors(kept / WEIGHTS, fresh.state_dict())  # last: where it is, all is
    prior = make_actor(config)
    prior.load_state_dict(load_file(kept / WEIGHTS))
    return prior.to(model.device).eval().requires_grad_(False)


def _tell(choices: int, updates: int, nats: float, uniform: float) -> None:
    """Say how good a clone is, and warn of one that is worse than none."""
    tqdm.write(
        f"behaviour prior: cloned from {choices} recorded choices; {nats:.3f} nats for each of those held "
        f"out (uniform choices: {uniform:.3f})"
    )
    if nats >= uniform:
        tqdm.write(
            "warning: the behaviour prior finds choices that it did not learn from no likelier than uniform "
            f"ones: it learnt {choices} by heart in {updates} updates, or they are random. Take fewer "
            "--training.clone-updates, or record more episodes."
        )


def _source(folder: Path) -> dict[str, Any] | None:
    """What a kept prior was cloned from; None where there is none."""
    if not (folder / WEIGHTS).is_file():
        return None
    summary = json.loads((folder / SUMMARY).read_text())
    return {name: summary.get(name) for name in ("features_of", "episodes")}
