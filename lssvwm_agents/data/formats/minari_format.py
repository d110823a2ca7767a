"""Minari (Younis et al. 2024), the Farama Foundation's format for recorded episodes.

A Minari episode has T observations and T - 1 steps between them, which is exactly what we have. Images are
stored as they are (``jpeg_encoding=False``; Minari's own default loses some of each), so that going there
and back changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.formats.source import (
    ImportOptions,
    Source,
    aligned,
    finished_folder,
    scaled,
    spec_from_json,
    spec_of,
    spec_to_json,
)
from lssvwm_agents.data.observations import is_image
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.errors import StoreError, UserError

PREFIX = "minari:"
_SPEC = "lssvwm_spec"


def _minari() -> Any:
    try:
        import minari
    except ModuleNotFoundError as missing:
        raise UserError(
            "Reading and writing Minari needs the extra `minari`: pip install 'lssvwm-agents[minari]'."
        ) from missing
    return minari


def is_minari(path: str) -> bool:
    """Whether ``path`` is a Minari dataset: a folder of one, or ``minari:`` and the name of a local one."""
    return path.startswith(PREFIX) or (Path(path) / "data" / "metadata.json").is_file()


def open_minari(path: str, options: ImportOptions | None = None) -> Source:
    """Open a dataset folder, or ``minari:NAME`` from Minari's own folder of datasets.

    Raises:
        UserError: If it is none, or holds no images, or actions that are neither Discrete nor a Box.
    """
    minari, options = _minari(), options or ImportOptions()
    try:
        if path.startswith(PREFIX):
            dataset = minari.load_dataset(path.removeprefix(PREFIX))
        else:
            dataset = minari.MinariDataset(Path(path).resolve() / "data")
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"There is no Minari dataset `{path}`: {error}") from error
    frame_key, vector_keys = _parts(dataset.observation_space, options.frame_key)
    num_actions = _num_actions(dataset.action_space)
    metadata = dataset.storage.metadata

    def episodes() -> Iterator[Episode]:
        for one in dataset.iterate_episodes():
            seed = dict(next(iter(dataset.storage.get_episode_metadata([one.id])))).get("seed")
            yield aligned(
                frames=scaled(_part(one.observations, frame_key).astype(np.uint8), options.frame_size),
                actions=_actions(one.actions, dataset.action_space),
                rewards=np.asarray(one.rewards),
                terminated=np.asarray(one.terminations),
                truncated=np.asarray(one.truncations),
                proprio=_joined(one.observations, vector_keys),
                seed=-1 if seed is None else int(seed),
            )

    if _SPEC in metadata and options == ImportOptions():
        spec = spec_from_json(str(metadata[_SPEC]))
    else:
        first = next(iter(episodes()), None)
        if first is None:
            raise UserError(f"The Minari dataset `{path}` holds no episode.")
        spec = spec_of(first, num_actions, **_known(dataset))
    return Source("minari", spec, int(dataset.total_episodes), episodes)


def _known(dataset: Any) -> dict[str, Any]:
    env = dataset.spec.env_spec
    known: dict[str, Any] = {
        "env_id": "" if env is None else env.id,
        "extra": {"minari": str(dataset.spec.dataset_id)},
    }
    if isinstance(dataset.action_space, spaces.Box):
        known["action_low"] = dataset.action_space.low.ravel().tolist()
        known["action_high"] = dataset.action_space.high.ravel().tolist()
    return known


def _num_actions(space: gymnasium.Space[Any]) -> int:
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n)
    if isinstance(space, spaces.Box):
        return 0
    raise UserError(f"Actions must be Discrete, counted from 0, or a Box; this dataset has {space}.")


def _actions(actions: Any, space: gymnasium.Space[Any]) -> NDArray[Any]:
    return np.asarray(actions).astype(space.dtype)


def _leaves(space: gymnasium.Space[Any], path: str = "") -> dict[str, gymnasium.Space[Any]]:
    """Parts of nested Dict spaces by path, such as ``robot/camera``."""
    if not isinstance(space, spaces.Dict):
        return {path: space}
    found: dict[str, gymnasium.Space[Any]] = {}
    for key, part in space.items():
        found |= _leaves(part, f"{path}/{key}" if path else key)
    return found


def _parts(space: gymnasium.Space[Any], frame_key: str | None) -> tuple[str, list[str]]:
    leaves = _leaves(space)
    images = [key for key, part in leaves.items() if is_image(part)]
    if not images:
        raise UserError(
            f"No part of the observation is an image (H, W, 3) of uint8, so there are no frames: {space}."
        )
    if frame_key is not None and frame_key not in images:
        raise UserError(f"`frame_key` must be one of {images}, got `{frame_key}`.")
    vectors = [k for k, part in leaves.items() if isinstance(part, spaces.Box) and len(part.shape) == 1]
    return frame_key or images[0], vectors


def _part(observations: Any, path: str) -> NDArray[Any]:
    for key in path.split("/") if path else []:
        observations = observations[key]
    return np.asarray(observations)


def _joined(observations: Any, paths: list[str]) -> NDArray[np.float32] | None:
    if not paths:
        return None
    return np.concatenate([_part(observations, path).astype(np.float32) for path in paths], axis=1)


def write_minari(source: Source, out: str | Path, dataset_id: str = "") -> None:
    """Write a dataset folder that ``minari.MinariDataset(out / "data")`` opens.

    Args:
        source: The episodes; each needs two frames at least.
        out: A new folder.
        dataset_id: Minari's name for it, such as ``maze/forager-v0``; None makes one of the folder's name.

    Raises:
        StoreError: If the folder is there already, or an episode has no step.
    """
    _minari()
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    spec = source.spec
    with finished_folder(Path(out).resolve()) as folder:  # Minari loses its way with relative paths
        storage = MinariStorage.new(
            folder / "data",
            observation_space=_observation_space(spec),
            action_space=_action_space(spec),
            data_format="hdf5",
            jpeg_encoding=False,
        )
        for episode in source.episodes():
            if len(episode) < 2:
                raise StoreError("Minari keeps steps: an episode must have two frames at least, got 1.")
            storage.update_episodes([_buffer(EpisodeBuffer, episode)])
        import minari

        storage.update_metadata(
            {
                "dataset_id": dataset_id or f"lssvwm/{Path(out).name}-v0",
                "minari_version": str(minari.__version__),
                "algorithm_name": spec.policy,
                _SPEC: spec_to_json(spec),
            }
        )


def _observation_space(spec: StoreSpec) -> spaces.Dict:
    parts: dict[str, spaces.Space[Any]] = {"frame": spaces.Box(0, 255, spec.frame_shape, np.uint8)}
    if spec.proprio_dim:
        parts["proprio"] = spaces.Box(-np.inf, np.inf, (spec.proprio_dim,), np.float32)
    return spaces.Dict(parts)


def _action_space(spec: StoreSpec) -> spaces.Space[Any]:
    if spec.num_actions:
        return spaces.Discrete(spec.num_actions, dtype=np.dtype(spec.action_dtype))  # type: ignore[arg-type]
    dtype: Any = np.dtype(spec.action_dtype)
    low = np.array(spec.action_low or [-np.inf] * spec.action_dim, dtype).reshape(spec.action_shape)
    high = np.array(spec.action_high or [np.inf] * spec.action_dim, dtype).reshape(spec.action_shape)
    return spaces.Box(low, high, dtype=dtype)


def _buffer(kind: Any, episode: Episode) -> Any:
    observations: dict[str, Any] = {"frame": episode.frames}
    if episode.proprio.shape[1]:
        observations["proprio"] = episode.proprio
    return kind(
        seed=None if episode.seed < 0 else episode.seed,
        observations=observations,
        actions=episode.actions[1:],
        rewards=episode.rewards[1:],  # float32: theirs are whatever they are given
        terminations=episode.terminated[1:],
        truncations=episode.truncated[1:],
    )
