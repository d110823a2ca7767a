"""`lssvwm report`: runs and their measurements on one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from lssvwm_agents.errors import UserError


@dataclass(frozen=True)
class ReportArgs:
    """Show runs and their measurements on one HTML page that needs nothing else; several are compared.

    A run is a folder of `lssvwm train`, `compare`, `evaluate memory`, `demo` or `plan`, with whatever records
    lie in it, or a single JSON record.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders or records."""
    out: Path | None = None
    """The page; report.html in the first run's folder by default."""
    json: Path | None = None
    """File for the result: what the page's overview says, run by run."""


def run(args: ReportArgs) -> None:
    """Read, draw, write."""
    if not args.runs:
        raise UserError("Name at least one run: lssvwm report runs/train.")
    if args.out is not None and args.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"`--out` must end in .html, got `{args.out}`.")
    from lssvwm_agents.report.run_page import headline, write_report
    from lssvwm_agents.report.run_records import read_runs

    runs = read_runs(list(args.runs))
    first = args.runs[0]
    out = args.out or (first if first.is_dir() else first.parent) / "report.html"
    write_report(out, runs, "lssvwm report " + " ".join(map(str, args.runs)))
    size = out.stat().st_size / 2**20
    print(f"Written to {out} ({size:.1f} MiB): open it in a browser.")
    if args.json is not None:
        from lssvwm_agents.report import run_info, write_json

        about = {"out": str(out), **run_info("cpu")}
        write_json(args.json, {"runs": [headline(run) for run in runs], **about})
        print(f"Written to {args.json}.")
    if len(runs) == 1:
        print(f"Next: `lssvwm report {first} OTHER_RUN --out compared.html` compares several.")
    else:
        print(f"Next: `lssvwm report {first}` shows the first alone, with all of its curves.")
