"""Ablations of the memory recipe in the small world of recall_small_world.py, one change each.

    python benchmarks/ablations.py --device cuda --updates 1500 --seeds 0 1 2 --workers 8 --json FILE

Every variant is trained by the same number of updates and frames. The table has the error of frames shown a
second time in random order, odometry given, by how many frames ago they were seen, and that of fresh ones.
Two references are ablated: the memory of places with the block scan (names that begin with `places`), and the
block scan alone (`scan`), as in the paper. Finished variants in --json are not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from lssvwm_agents.files import write_json
from lssvwm_agents.report import run_info

PLACES = ["--backbone", "place_features=128", "place_values=64"]
SCAN = ["--backbone", "num_groups=4"]
REPLAY = ["--replay", "0.8", "--replay-mode", "shuffled"]

VARIANTS: dict[str, list[str]] = {
    "no memory": [*REPLAY, "--backbone", "memory=none"],
    "full attention": [*REPLAY, "--backbone", "memory=full_attention"],
    "places and scan": [*REPLAY, *PLACES],
    "places, no scan": [*REPLAY, *PLACES, "memory=none"],
    "places, 64 features": [*REPLAY, "--backbone", "place_features=64", "place_values=64"],
    "places, 32 values": [*REPLAY, "--backbone", "place_features=128", "place_values=32"],
    "places, ridge 0.1 everywhere": [*REPLAY, *PLACES, "place_ridges=(0.1,0.1)"],
    "places, diffusion forcing": [*REPLAY, *PLACES, "--prediction", "diffusion_forcing"],
    "places, no full noise": [*REPLAY, *PLACES, "--objective", "full_noise_share=0.0"],
    "places, full noise alone": [*REPLAY, *PLACES, "--objective", "full_noise_share=1.0"],
    "places, clean stream without noise": [*REPLAY, *PLACES, "--objective", "clean_noise_max=0.0"],
    "places, no replay": ["--replay", "0", *PLACES],
    "places, replay backwards": ["--replay", "0.8", "--replay-mode", "backwards", *PLACES],
    "places, replay forwards": ["--replay", "0.8", "--replay-mode", "forwards", *PLACES],
    "places, no curriculum": [*REPLAY, *PLACES, "--lengths", "64"],
    "places, rollouts": [*REPLAY, *PLACES, "--objective", "rollout_weight=1.0"],
    "places, adamw": [*REPLAY, *PLACES, "--optimizer", "adamw"],
    "scan": [*REPLAY, *SCAN],
    "scan, one group": [*REPLAY],
    "scan, rotary": [*REPLAY, "--backbone", "recurrence=rotary_ssd"],
    "scan, keys normalised": [*REPLAY, *SCAN, "normalise_keys=True"],
    "scan, keys turned by place": [*REPLAY, *SCAN, "place_keys=True"],
    "scan, state 32": [*REPLAY, *SCAN, "state_dim=32"],
    "scan, state 128": [*REPLAY, *SCAN, "state_dim=128"],
    "scan, decay bounded": [*REPLAY, *SCAN, "half_life_factor=4.0"],
    "scan, no replay": ["--replay", "0", *SCAN],
}
"""Name to the flags of recall_small_world.py."""

SCRIPT = Path(__file__).with_name("recall_small_world.py")


def train(name: str, seed: int, shared: list[str], logs: Path) -> dict[str, Any]:
    """One run, in a process of its own; its output goes to a file in ``logs``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [sys.executable, str(SCRIPT), *shared, *VARIANTS[name], "--seed", str(seed)]
        with (logs / f"{name.replace(' ', '_')}-{seed}.txt").open("w") as log:
            subprocess.run([*command, "--json", str(file)], check=True, stdout=log, stderr=log)
        report: dict[str, Any] = json.loads(file.read_text())
    return {key: report[key] for key in ("settings", "updates", "frames", "seconds", "seed", "by_age")}


def table(runs: dict[str, dict[str, Any]], length: str) -> str:
    """Rows of a Markdown table: error by age, mean over seeds, in windows of ``length`` frames."""
    ages = list(next(iter(runs.values()))["0"]["by_age"][length]) if runs else []
    lines = ["| | " + " | ".join(ages) + " |", "|---|" + "---:|" * len(ages)]
    for name, by_seed in runs.items():
        means = [fmean(run["by_age"][length][age] for run in by_seed.values()) for age in ages]
        lines.append(f"| {name} ({len(by_seed)}x) | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--frames", type=int, default=2048, help="frames of an update")
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--workers", type=int, default=1, help="runs side by side")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    shared = [f"--{name}={getattr(args, name)}" for name in ("updates", "frames", "episodes", "device")]
    record = json.loads(args.json.read_text()) if args.json.is_file() else {"shared": shared, "runs": {}}
    if record["shared"] != shared:
        raise SystemExit(f"{args.json} holds runs with {record['shared']}, asked for {shared}: take another")
    runs = record["runs"]
    wanted = [
        (name, seed) for seed in args.seeds for name in args.variants if str(seed) not in runs.get(name, {})
    ]
    logs = args.json.with_suffix(".logs")
    logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.workers) as pool, tqdm(total=len(wanted), unit="run") as bar:
        futures = {(name, seed): pool.submit(train, name, seed, shared, logs) for name, seed in wanted}
        for (name, seed), future in futures.items():
            runs.setdefault(name, {})[str(seed)] = future.result()
            write_json(args.json, {**record, **run_info(args.device)})
            bar.update()
    if runs:
        for length in next(iter(runs.values()))["0"]["by_age"]:
            print(f"\nwindows of {length}\n{table(runs, length)}")


if __name__ == "__main__":
    main()
