"""`lssvwm evaluate memory`: how far back a world model remembers, shown against controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lssvwm_agents.evaluate.memory.options import TESTS, MemoryOptions, parse_tests

if TYPE_CHECKING:
    from lssvwm_agents.evaluate.memory.curves import Interval


@dataclass(frozen=True)
class EvaluateMemoryArgs:
    """Measure how far back a world model remembers, in mazes never seen in training, against controls."""

    out: Path
    """Folder for curves and film strips."""
    model: str = "tiny"
    """A shipped model's name, a run's folder, or a Hugging Face id."""
    window_only: str | None = None
    """A model without memory, for the share of the gap to the tokenizer's ceiling that memory closes."""
    json: Path | None = None
    """File for the result; memory.json in the folder by default."""
    episodes: int = 64
    """Mazes."""
    seed: int = 0
    """Names the mazes and all choices."""
    tests: str = ",".join(TESTS)
    """What to measure, separated by commas."""
    device: str = "cpu"
    """cpu or cuda."""
    options: MemoryOptions = field(default_factory=MemoryOptions)
    """How large the benchmark is."""


def run(args: EvaluateMemoryArgs) -> None:
    """Measure, print a summary, and write JSON and pictures."""
    tests = parse_tests(args.tests)
    from lssvwm_agents.weights import load_model

    model = load_model(args.model, args.device)
    window_only = None if args.window_only is None else load_model(args.window_only, args.device)
    from lssvwm_agents.evaluate.memory.benchmark import evaluate_memory
    from lssvwm_agents.report import model_sha256, run_info, write_json

    result = evaluate_memory(
        model, window_only, args.episodes, args.seed, tests=tests, options=args.options, out=args.out
    )
    names = {"model": args.model, "model_sha256": model_sha256(args.model), "window_only": args.window_only}
    if args.window_only is not None:
        names["window_only_sha256"] = model_sha256(args.window_only)
    result = {**names, **result, "out": str(args.out), **run_info(args.device)}
    path = args.json or args.out / "memory.json"
    write_json(path, result)
    for line in summary(result):
        print(line)
    print(f"Written to {path}; pictures in {args.out}.")
    print(f"Next: `lssvwm report {args.out}` puts it on one page.")


def summary(result: dict[str, Any]) -> list[str]:
    """The result in a few lines."""
    lines = []
    paths = {**result.get("retrieval", {}), **result.get("reasoning", {})}
    for name, path in paths.items():
        far, unseen = path["far"]["conditions"], path["unseen"]["conditions"]
        lines.append(f"{name}: PSNR in dB, 95 % interval; far is more than {result['far_frames']} frames ago")
        for condition, metrics in far.items():
            line = f"  {condition:<18}far {_shown(metrics['psnr'])}"
            if path["unseen"]["frames"]:
                line += f"   never seen {_shown(unseen[condition]['psnr'])}"
            lines.append(line)
        for rival, gain in path["far"]["gain_db"].items():
            lines.append(f"  ours less {rival}, far: {_shown(gain, 2)} dB")
        if path["far"].get("gap_closed") is not None:
            lines.append(f"  gap closed, far: {_shown(path['far']['gap_closed'], 2)}")
    if "events" in result:
        for condition, by_delay in result["events"]["accuracy"].items():
            shown = ", ".join(f"{100 * value[0]:.0f} % at {delay}" for delay, value in by_delay.items())
            lines.append(f"events, {condition}: {shown}")
    if "drift" in result:
        for when, turn in result["drift"]["full_turn"].items():
            same, opposite = _shown(turn["same_view"]), _shown(turn["opposite_view"])
            lines.append(f"full turn {when}: same view {same}, opposite view {opposite}")
    for name, stream in result.get("streaming", {}).items():
        shown = ", ".join(
            f"{ms:.2f} ms and {size} bytes after {frames}"
            for frames, ms, size in zip(
                stream["frames"], stream["ms_per_frame"], stream["state_bytes"], strict=True
            )
        )
        lines.append(f"streaming, {name}: {shown}")
    return lines


def _shown(value: Interval | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    mean, low, high = value
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
