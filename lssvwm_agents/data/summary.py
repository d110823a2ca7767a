"""What a source of episodes holds, in numbers; of a store without reading a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lssvwm_agents.data.formats.convert import open_source
from lssvwm_agents.data.formats.source import ImportOptions
from lssvwm_agents.data.store import EpisodeStore


def summarize(path: str | Path, check: bool = False, options: ImportOptions | None = None) -> dict[str, Any]:
    """Facts about the episodes at ``path``, as JSON values.

    Args:
        path: An episode store, or anything that :func:`open_source` takes.
        check: Read all of it: a store's checksums, and of any source returns and ends. Without it a store is
            asked for its index alone, and of another format only the number of episodes is told.
        options: How to read what is not ours.

    Raises:
        UserError: If it cannot be read, or, with ``check``, is damaged.
    """
    source = open_source(path, options)
    spec = source.spec
    facts: dict[str, Any] = {
        "path": str(path),
        "format": source.format,
        "episodes": source.num_episodes,
        "env_id": spec.env_id,
        "env_kwargs": spec.env_kwargs,
        "policy": spec.policy,
        "frame_shape": list(spec.frame_shape),
        "actions": f"{spec.num_actions} discrete"
        if spec.num_actions
        else f"{spec.action_dim} continuous ({spec.action_dtype})",
        "proprio_dim": spec.proprio_dim,
        "extra": spec.extra,
    }
    if source.format == "store":
        store = EpisodeStore.open(path)
        facts |= _of_lengths(store.lengths)
        known = store.seeds[store.seeds >= 0]
        facts["seeds"] = [int(known.min()), int(known.max())] if len(known) else None
    if check:
        lengths, returns, terminated, truncated = [], [], 0, 0
        for episode in source.episodes():
            lengths.append(len(episode))
            returns.append(float(episode.rewards.sum()))
            terminated += bool(episode.terminated.any())
            truncated += bool(episode.truncated.any())
        facts |= _of_lengths(np.array(lengths, np.int64))
        facts |= {
            "mean_return": float(np.mean(returns)) if returns else None,
            "terminated": terminated,
            "truncated": truncated,
            "bytes_on_disk": _bytes_on_disk(Path(path)) if Path(path).is_dir() else None,
            "checked": True,
        }
    return facts


def _of_lengths(lengths: np.ndarray) -> dict[str, Any]:
    if not len(lengths):
        return {"frames": 0, "shortest": None, "median": None, "longest": None}
    return {
        "frames": int(lengths.sum()),
        "shortest": int(lengths.min()),
        "median": float(np.median(lengths)),
        "longest": int(lengths.max()),
    }


def _bytes_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
