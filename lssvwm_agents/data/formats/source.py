"""What every format is read as, and how other people's time steps become ours.

Others say: at frame t an action was taken, and it earned a reward. We say: the action led *to* the next
frame, and the reward came with it. A recording of T frames has T - 1 such steps. Where an action and a
reward stand at the last frame too, what they led to was not recorded: the action is left out, the reward and
the end count for the last frame.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.observations import resize
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.errors import StoreError, UserError


@dataclass(frozen=True)
class ImportOptions:
    """How to read what other people recorded.

    Attributes:
        frame_key: Which camera; None takes the first.
        frame_size: Edge of the frames in pixels, scaled by area; None keeps their size.
        num_actions: Number of discrete actions; None reads it where it is written, and takes whole numbers
            in one column for discrete actions, as many as there are.
    """

    frame_key: str | None = None
    frame_size: int | None = None
    num_actions: int | None = None

    def __post_init__(self) -> None:
        for name in ("frame_size", "num_actions"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"`{name}` must be at least 1, got {value}.")


@dataclass(frozen=True)
class Source:
    """Episodes somewhere, read one at a time.

    Attributes:
        format: Name of the format.
        spec: What they have in common.
        num_episodes: How many.
        episodes: Reads them in order.
    """

    format: str
    spec: StoreSpec
    num_episodes: int
    episodes: Callable[[], Iterator[Episode]]


def with_progress(source: Source) -> Source:
    """The same episodes, with a progress bar that has their rate and the time left."""

    def episodes() -> Iterator[Episode]:
        yield from tqdm(source.episodes(), f"read {source.format}", source.num_episodes, unit="episode")

    return replace(source, episodes=episodes)


def aligned(
    frames: NDArray[np.uint8],
    actions: NDArray[Any],
    rewards: NDArray[Any],
    terminated: NDArray[Any],
    truncated: NDArray[Any],
    proprio: NDArray[Any] | None,
    seed: int = -1,
) -> Episode:
    """An episode of ``T`` frames from steps, ``T`` or ``T - 1`` of them, each taken *at* a frame.

    Raises:
        StoreError: If their numbers do not fit.
    """
    count, steps = len(frames), len(actions)
    if steps not in (count, count - 1) or not len(rewards) == len(terminated) == len(truncated) == steps:
        raise StoreError(
            f"An episode of T={count} frames needs T or T - 1 actions, rewards and ends, "
            f"got {steps} actions, {len(rewards)} rewards and {len(terminated)} ends."
        )

    def led_to(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
        result = np.zeros((count, *values.shape[1:]), dtype)
        result[1:] = values[: count - 1]
        return result

    reward, over, cut = led_to(rewards, np.float32), led_to(terminated, bool), led_to(truncated, bool)
    if steps == count:
        reward[-1] += np.float32(rewards[-1])
        over[-1], cut[-1] = over[-1] or bool(terminated[-1]), cut[-1] or bool(truncated[-1])
    return Episode(
        frames=np.ascontiguousarray(frames),
        actions=led_to(actions, actions.dtype),
        rewards=reward,
        terminated=over,
        truncated=cut,
        proprio=np.zeros((count, 0), np.float32) if proprio is None else proprio.astype(np.float32),
        seed=seed,
    )


def scaled(frames: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) with edges of ``size`` pixels, or as they are."""
    if size is None or frames.shape[1:3] == (size, size):
        return frames
    return np.stack([resize(frame, size) for frame in frames])


def spec_of(episode: Episode, num_actions: int, **known: Any) -> StoreSpec:
    """The specification of episodes like this one; ``num_actions`` is 0 for continuous ones."""
    return StoreSpec(
        frame_shape=episode.frames.shape[1:],
        action_shape=episode.actions.shape[1:],
        action_dtype=str(episode.actions.dtype),
        num_actions=num_actions,
        proprio_dim=episode.proprio.shape[1],
        **known,
    )


def spec_to_json(spec: StoreSpec) -> str:
    """One line of JSON that :func:`spec_from_json` reads."""
    return json.dumps(asdict(spec))


def spec_from_json(text: str) -> StoreSpec:
    """The specification that was written.

    Raises:
        StoreError: If it is none.
    """
    try:
        return StoreSpec(**json.loads(text))
    except (json.JSONDecodeError, TypeError) as error:
        raise StoreError(f"What should say what the episodes are says nothing known: {error}.") from error


@contextmanager
def finished_folder(path: str | Path) -> Iterator[Path]:
    """Give a new folder beside ``path`` that becomes ``path`` when all is written; on an error it is removed.

    Raises:
        StoreError: If something is there already.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"`{path}` exists already and is not empty; choose a new folder or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
