"""Put the episodes of several stores into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.formats.convert import write_store
from lssvwm_agents.data.formats.source import Source, with_progress
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.errors import UserError

_MAY_DIFFER = ("policy", "seed", "extra", "env_kwargs")


def merge(paths: Sequence[str | Path], out: str | Path, progress: bool = False) -> StoreSpec:
    """Write the episodes of ``paths``, in that order, to a new store at ``out``.

    Policies, seeds and keyword arguments of the environment may differ; where they do, the new store says
    what each part had under ``extra["parts"]``.

    Returns:
        The new store's specification.

    Raises:
        UserError: If fewer than two are given, or frames, actions, proprio or environment differ.
    """
    if len(paths) < 2:
        raise UserError(f"There must be at least 2 stores to merge, got {len(paths)}.")
    stores = [EpisodeStore.open(path) for path in paths]
    first = asdict(stores[0].spec)
    for path, store in zip(paths[1:], stores[1:], strict=True):
        for name, value in asdict(store.spec).items():
            if name not in _MAY_DIFFER and value != first[name]:
                raise UserError(
                    f"`{path}` has {name}={value!r}, but `{paths[0]}` has {first[name]!r}: "
                    "they do not fit together."
                )
    spec = _merged_spec(stores)

    def episodes() -> Iterator[Episode]:
        for store in stores:
            yield from store

    source = Source("store", spec, sum(map(len, stores)), episodes)
    write_store(with_progress(source) if progress else source, out)
    return spec


def _merged_spec(stores: Sequence[EpisodeStore]) -> StoreSpec:
    specs = [store.spec for store in stores]
    parts = [
        {
            "episodes": len(store),
            **{name: asdict(store.spec)[name] for name in _MAY_DIFFER},
        }
        for store in stores
    ]
    same_kwargs = all(spec.env_kwargs == specs[0].env_kwargs for spec in specs)
    policies = list(dict.fromkeys(spec.policy for spec in specs))
    return replace(
        specs[0],
        env_kwargs=specs[0].env_kwargs if same_kwargs else {},
        policy="+".join(policies),
        extra={"parts": parts},
    )
