r"""How recall grows with training: what `lssvwm evaluate memory` says of runs of one recipe, short to long.

For every number of updates N, into one folder:

    lssvwm compare --recipe memory-small --tokenizer tiny --out runs/growth-N --device cuda --train-only \
        --baselines ours --training.updates N
    lssvwm evaluate memory --model runs/growth-N/runs/ours-seed0 \
        --window-only runs/memory/runs/window_only-seed0 \
        --device cuda --episodes 24 --tests retrieval --options.strips 1 \
        --out runs/growth-N/odometry --json runs/growth-N/odometry.json
    (and with --options.no-odometry, into runs/growth-N/actions and actions.json)

Then

    python benchmarks/memory_growth.py runs/growth-* --json benchmarks/results/memory_growth.json

lines them up: PSNR in dB of loops walked twice, places last seen more than `far_frames` frames ago.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lssvwm_agents.files import write_json
from lssvwm_agents.report import run_info

SETTINGS = ("odometry", "actions")
KEPT = ("model_sha256", "window_only_sha256", "seeds", "command", "commit", "device")


def line_up(folders: list[Path]) -> list[dict[str, Any]]:
    """One entry per folder, by updates: PSNR and gap with their intervals over mazes."""
    entries = []
    for folder in folders:
        settings = json.loads((folder / "runs" / "ours-seed0" / "experiment.json").read_text())
        entry: dict[str, Any] = {"updates": settings["experiment"]["training"]["updates"]}
        for setting in SETTINGS:
            record = json.loads((folder / f"{setting}.json").read_text())
            loop = record["retrieval"]["loop"]
            entry[setting] = {
                "psnr": loop["conditions"]["ours"]["psnr"],
                "psnr_far": {name: found["psnr"] for name, found in loop["far"]["conditions"].items()},
                "gap_closed": loop["far"]["gap_closed"],
                **{key: record.get(key) for key in KEPT},
            }
            entry["distances"], entry["far_frames"] = record["distances"], record["far_frames"]
        entries.append(entry)
    asked = {(str(e[s]["seeds"]), e[s]["window_only_sha256"]) for e in entries for s in SETTINGS}
    if len(asked) > 1:
        raise SystemExit(
            "the evaluations are of different mazes or have different rivals: evaluate all alike"
        )
    return sorted(entries, key=lambda entry: entry["updates"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    entries = line_up(args.folders)
    write_json(args.json, {"entries": entries, **run_info("cpu")})
    print("| updates | odometry given | gap closed | actions alone | gap closed |\n|---:|---|---|---|---|")
    for entry in entries:
        cells = [f"{entry[s]['psnr_far']['ours'][0]:.1f} | {entry[s]['gap_closed'][0]:.2f}" for s in SETTINGS]
        print(f"| {entry['updates']:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
