"""``lssvwm data preview``: look at recorded episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class DataPreviewArgs:
    """Write a contact sheet (sheet.png) and a video (film.mp4) of the first episodes."""

    path: Positional[str]
    """A store, a Minari or LeRobot dataset, or a folder of videos with tables."""
    out: Path
    """Folder for the two files."""
    episodes: int = 6
    """How many episodes."""
    columns: int = 10
    """Frames of each on the sheet."""
    json: Path | None = None
    """File for the result: what the episodes are, and where both files lie."""


def run(args: DataPreviewArgs) -> None:
    """Draw both, and say where they are."""
    from lssvwm_agents.data.formats import open_source
    from lssvwm_agents.data.preview import write_preview

    sheet, film = write_preview(open_source(args.path), args.out, args.episodes, args.columns)
    print(f"Written to {sheet} and {film}.")
    if args.json is not None:
        from lssvwm_agents.data.summary import summarize
        from lssvwm_agents.report import run_info, write_json

        about = {"out": str(args.out), "sheet": str(sheet), "film": str(film), **run_info("cpu")}
        write_json(args.json, {**summarize(args.path), **about})
        print(f"Written to {args.json}.")
    print(f"Next: `lssvwm data info {args.path} --check` reads all of it.")
