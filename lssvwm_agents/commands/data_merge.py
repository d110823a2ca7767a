"""``lssvwm data merge``: the episodes of several stores in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class DataMergeArgs:
    """Write the episodes of several stores to a new one; policies, seeds and settings may differ."""

    paths: Positional[tuple[Path, ...]]
    """The stores, two or more."""
    out: Path
    """A new folder."""
    json: Path | None = None
    """File for the result: what the new store holds."""


def run(args: DataMergeArgs) -> None:
    """Merge, and say what came out."""
    from lssvwm_agents.data.merge import merge
    from lssvwm_agents.data.store import EpisodeStore

    merge(args.paths, args.out, progress=True)
    store = EpisodeStore.open(args.out)
    print(f"{store.num_episodes:,} episodes, {store.num_frames:,} frames in {args.out}.")
    if args.json is not None:
        from lssvwm_agents.data.summary import summarize
        from lssvwm_agents.report import run_info, write_json

        about = {"out": str(args.out), **run_info("cpu")}
        write_json(args.json, {**summarize(args.out), **about})
        print(f"Written to {args.json}.")
    from lssvwm_agents.trainers.suggestion import suggest_next

    print(f"Next: {suggest_next(store)}")
