"""``lssvwm data convert``: episodes from one format to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class DataConvertArgs:
    """Read episodes in whatever format they are, and write a store, a Minari dataset or a folder of videos.

    Read are our store, Minari, LeRobot (versions 2 and 3) and folders of videos, each with a .csv of the same
    name. Frames stay what they are, bit for bit, in all that is written.
    """

    path: Positional[str]
    """What to read: a folder, or minari:NAME."""
    out: Path
    """A new folder."""
    to: Literal["store", "minari", "folder"] = "store"
    """What to write."""
    frame_key: str | None = None
    """Which camera, where there are several; the first without it."""
    frame_size: int | None = None
    """Edge of the frames in pixels; without it they keep their size."""
    num_actions: int | None = None
    """Number of discrete actions, where the format does not say."""
    json: Path | None = None
    """File for the result: what was written."""


def run(args: DataConvertArgs) -> None:
    """Convert, and say what was written."""
    from lssvwm_agents.data.formats import ImportOptions, convert

    options = ImportOptions(args.frame_key, args.frame_size, args.num_actions)
    source = convert(args.path, args.out, args.to, options, progress=True)
    print(f"{source.num_episodes:,} episodes, from {source.format} to {args.to}, in {args.out}.")
    if args.json is not None:
        from lssvwm_agents.data.summary import summarize
        from lssvwm_agents.report import run_info, write_json

        about = {"out": str(args.out), **run_info("cpu")}
        write_json(args.json, {**summarize(args.out), **about})
        print(f"Written to {args.json}.")
    print(f"Next: `lssvwm data preview {args.out} --out {args.out}-preview` draws the first episodes.")
