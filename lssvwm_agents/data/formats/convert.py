"""Open episodes in any format, and write them in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lssvwm_agents.data.formats.folder import open_folder, videos_of, write_folder
from lssvwm_agents.data.formats.lerobot import is_lerobot, open_lerobot
from lssvwm_agents.data.formats.minari_format import is_minari, open_minari, write_minari
from lssvwm_agents.data.formats.source import ImportOptions, Source, finished_folder, with_progress
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.errors import UserError

FORMATS = ("store", "minari", "folder")
"""What can be written; LeRobot's can be read too."""


def open_store(path: str, options: ImportOptions | None = None) -> Source:
    """Our own episode store as a source.

    Raises:
        UserError: If options are given, which have no meaning here.
    """
    if options not in (None, ImportOptions()):
        raise UserError(
            "An episode store is read as it is: it takes no frame key, size or number of actions."
        )
    store = EpisodeStore.open(path)
    return Source("store", store.spec, store.num_episodes, lambda: iter(store))


def open_source(path: str | Path, options: ImportOptions | None = None) -> Source:
    """Open a store, a Minari dataset, a LeRobot dataset, or a folder of videos and tables.

    Args:
        path: The folder, or ``minari:NAME``.
        options: How to read what is not ours.

    Raises:
        UserError: If it is none of these.
    """
    name = str(path)
    if is_minari(name):
        return open_minari(name, options)
    if not Path(name).is_dir():
        raise UserError(f"There is no folder `{name}`.")
    if (Path(name) / "zarr.json").is_file():
        return open_store(name, options)
    if is_lerobot(name):
        return open_lerobot(name, options)
    if videos_of(name):
        return open_folder(name, options)
    raise UserError(
        f"`{name}` is no episode store, no Minari or LeRobot dataset, and no folder of videos with tables."
    )


def write_store(source: Source, out: str | Path, on_episode: Callable[[], object] = lambda: None) -> None:
    """Write a new store; it is there when all of it is.

    Raises:
        StoreError: If the folder is there already, or an episode does not fit the first.
    """
    with finished_folder(out) as folder:
        with EpisodeStore.create(folder, source.spec) as store:
            for episode in source.episodes():
                store.append(episode)
                on_episode()


def convert(
    path: str | Path,
    out: str | Path,
    to: str = "store",
    options: ImportOptions | None = None,
    progress: bool = False,
) -> Source:
    """Read episodes in whatever format they are, and write them as ``to``.

    Args:
        path: What :func:`open_source` takes.
        out: A new folder.
        to: One of :data:`FORMATS`.
        options: How to read what is not ours.
        progress: Whether to show a progress bar.

    Returns:
        What was read.

    Raises:
        UserError: If it cannot be read, or ``to`` is no format.
    """
    if to not in FORMATS:
        raise UserError(f"`to` must be one of {', '.join(FORMATS)}, got `{to}`.")
    source = open_source(path, options)
    writers = {"store": write_store, "minari": write_minari, "folder": write_folder}
    writers[to](with_progress(source) if progress else source, out)
    return source
