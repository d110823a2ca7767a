"""``lssvwm data info``: what a store, or a dataset of another format, holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class DataInfoArgs:
    """Say what is in a store, a Minari or LeRobot dataset, or a folder of videos with tables."""

    path: Positional[str]
    """The folder, or minari:NAME."""
    check: bool = False
    """Read everything: checksums, returns, ends, bytes on disk."""
    json: Path | None = None
    """File for the result: the same facts, and what read them."""


def run(args: DataInfoArgs) -> None:
    """Print the facts, one a line."""
    from lssvwm_agents.data.summary import summarize

    facts = summarize(args.path, args.check)
    for name, value in facts.items():
        if value not in (None, "", {}):
            shown = f"{value:,}" if type(value) is int else str(value)
            print(f"{name.replace('_', ' '):<16}{shown}")
    if args.json is not None:
        from lssvwm_agents.report import run_info, write_json

        write_json(args.json, {**facts, **run_info("cpu")})
        print(f"Written to {args.json}.")
    if facts["format"] == "store" and facts["episodes"]:
        from lssvwm_agents.data.store import EpisodeStore
        from lssvwm_agents.trainers.suggestion import suggest_next

        print(f"Next: {suggest_next(EpisodeStore.open(args.path))}")
    else:
        print(f"Next: `lssvwm data convert {args.path} --out runs/store` makes a store to train on.")
