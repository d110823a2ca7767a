"""Runs and their measurements as one HTML page that needs nothing else: pictures are inside it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lssvwm_agents.report.run_charts import (
    Chart,
    comparison_chart,
    drift_chart,
    planning_chart,
    recall_chart,
    training_charts,
)
from lssvwm_agents.report.run_records import RunRecords

_STYLE = Path(__file__).with_suffix(".css")


def report_page(runs: Sequence[RunRecords], command: str) -> str:
    """The page.

    Args:
        runs: One to show, or several to compare.
        command: The command that makes it, for its foot.

    Returns:
        HTML that loads nothing.
    """
    parts = {
        "Overview": _overview(runs),
        "Training": _charts(training_charts(runs)) or _missing("training log", "lssvwm train --out RUN"),
        "Recall": _recall(runs)
        or _missing("memory record", "lssvwm evaluate memory --model RUN --out RUN/memory"),
        "Drift": _drift(runs)
        or _missing("drift", "lssvwm evaluate memory --model RUN --tests drift --out RUN/memory"),
        "Planning": _planning(runs)
        or _missing("planning record", "lssvwm evaluate planning --model RUN --json RUN/planning.json"),
        "Film strips": _pictures(runs)
        or _missing("film strips", "lssvwm evaluate memory --model RUN --out RUN/memory"),
        "Versions and seeds": _provenance(runs),
    }
    names = ", ".join(run.name for run in runs)
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in parts)
    body = "".join(
        f'<section><h2 id="{_anchor(title)}">{title}</h2>{text}</section>' for title, text in parts.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(names)}: report</title><style>{_STYLE.read_text()}</style></head><body><main>"
        f"<h1>{_text(names)}</h1><p>Made by <code>{_text(command)}</code></p><nav>{links}</nav>{body}"
        "</main></body></html>\n"
    )


# --- sections ---------------------------------------------------------------------------------------


def headline(run: RunRecords) -> dict[str, Any]:
    """What the overview says of a run, as JSON values; None where it has no such record.

    ``recall_far_db`` and ``targets_found`` are a mean and both ends of its 95 % interval.
    """
    last = next((line for line in reversed(run.log) if line.get("phase") == "world_model"), {})
    memory = run.memory[-1] if run.memory else {}
    whole = [record["planner"] for record in run.planning if not record.get("memory_cut")]
    return {
        "run": run.name,
        "recipe": (run.experiment or {}).get("experiment", {}).get("name"),
        "updates": last.get("update"),
        "seconds": max((line.get("elapsed") or 0.0 for line in run.log), default=None),
        "parameters": memory.get("parameters"),
        "recall_far_db": _far(memory),
        "targets_found": [whole[-1]["mean"], *whole[-1]["ci95"]] if whole else None,
    }


def _overview(runs: Sequence[RunRecords]) -> str:
    rows = [
        [
            one["run"],
            one["recipe"] or "-",
            _count(one["updates"]),
            f"{one['seconds']:,.0f}" if one["seconds"] else "-",
            _count(one["parameters"]),
            _interval(one["recall_far_db"]),
            _interval(one["targets_found"], 2),
        ]
        for one in map(headline, runs)
    ]
    head = ["run", "recipe", "updates", "seconds", "parameters", "recall far, dB", "targets found"]
    note = (
        "Recall far: PSNR of places last seen long ago, on loops; targets: the planner's; "
        "both with 95 % intervals."
    )
    return _table(head, rows, numbers=range(2, 7)) + f'<p class="note">{note}</p>'


def _recall(runs: Sequence[RunRecords]) -> str:
    found = [(run, record) for run in runs for record in run.memory if "retrieval" in record]
    charts = []
    for path, words in (("loop", "second rounds of loops"), ("backwards", "the way walked backwards")):
        with_path = [(run, record["retrieval"][path]) for run, record in found if path in record["retrieval"]]
        if not with_path:
            continue
        distances = found[0][1]["distances"]
        if len(with_path) == 1:
            conditions = with_path[0][1]["conditions"]
            curves = {name: metrics["psnr"] for name, metrics in conditions.items()}
        else:
            curves = {}
            for run, record in with_path:
                name = run.name if run.name not in curves else f"{run.name} ({len(curves) + 1})"
                curves[name] = record["conditions"]["ours"]["psnr"]
            curves["tokenizer"] = with_path[0][1]["conditions"]["tokenizer"]["psnr"]
        charts.append(recall_chart(f"recall: {words}", distances, curves))
    charts += [comparison_chart(run.comparison) for run in runs if run.comparison]
    return _charts(charts)


def _drift(runs: Sequence[RunRecords]) -> str:
    drifts = {run.name: record["drift"] for run in runs for record in run.memory if "drift" in record}
    return _charts([drift_chart(drifts)]) if drifts else ""


def _planning(runs: Sequence[RunRecords]) -> str:
    scores: dict[str, tuple[float, float, float]] = {}
    rows = []
    several = sum(len(run.planning) for run in runs) > 1
    for run in runs:
        for number, record in enumerate(run.planning, 1):
            cut = f", memory cut to {record['memory_cut']}" if record.get("memory_cut") else ""
            label = f"{run.name}{f' #{number}' if len(run.planning) > 1 else ''}{cut}"
            for policy in ("planner", "random", "random_repeat", "explorer", "oracle"):
                if policy not in record:
                    continue
                score = (record[policy]["mean"], *record[policy]["ci95"])
                rows.append(
                    [
                        label,
                        policy,
                        _interval(score, 2),
                        _count(record[policy]["num_episodes"]),
                        _count(record.get("seed")),
                    ]
                )
                if policy == "planner":
                    scores[f"planner, {label}" if several else "planner"] = score
                else:
                    scores.setdefault(policy, score)
    for run in runs:
        for record in run.episodes:
            for policy, mean in (record.get("mean") or {}).items():
                rows.append(
                    [
                        f"{run.name} (demo)",
                        policy,
                        f"{mean:.2f}",
                        _count(len(record["episodes"])),
                        _count(record.get("seed")),
                    ]
                )
    if not rows:
        return ""
    table = _table(["run", "policy", "targets found, 95 % interval", "mazes", "seed"], rows, numbers=(3, 4))
    ordered = dict(sorted(scores.items(), key=lambda item: not item[0].startswith("planner")))
    return (_charts([planning_chart(ordered)]) if ordered else "") + f"<br>{table}"


def _pictures(runs: Sequence[RunRecords]) -> str:
    figures = []
    for run in runs:
        for path in run.pictures:
            where = path.relative_to(run.path) if run.path.is_dir() else path.name
            data = base64.b64encode(path.read_bytes()).decode()
            caption = _text(f"{run.name}: {where}")
            figures.append(
                f'<figure><figcaption>{caption}</figcaption><img alt="{caption}" '
                f'src="data:image/png;base64,{data}"></figure>'
            )
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _provenance(runs: Sequence[RunRecords]) -> str:
    rows = []
    for run in runs:
        training = ((run.experiment or {}).get("experiment") or {}).get("training") or {}
        if run.experiment:
            rows.append([run.name, "training", _count(training.get("seed")), "-", "-", "-", "-"])
        for record in run.records:
            versions = ", ".join(f"{name} {value}" for name, value in (record.get("versions") or {}).items())
            rows.append(
                [
                    run.name,
                    str(record.get("command", "-")),
                    _count(record.get("seed")),
                    str(record.get("commit") or "-")[:12],
                    str(record.get("model_sha256") or "-")[:12],
                    str(record.get("device", "-")),
                    versions or "-",
                ]
            )
    text = _table(["run", "made by", "seed", "commit", "weights", "device", "versions"], rows, code=(1, 3, 4))
    for run in runs:
        if run.experiment:
            settings = _text(json.dumps(run.experiment, indent=1))
            summary = f"<summary>Settings of {_text(run.name)}</summary>"
            text += f"<details>{summary}<pre><code>{settings}</code></pre></details>"
    return text


# --- pieces -----------------------------------------------------------------------------------------


def _far(memory: dict[str, Any]) -> Any:
    loop = memory.get("retrieval", {}).get("loop")
    return loop["far"]["conditions"]["ours"]["psnr"] if loop else None


def _interval(value: Sequence[float] | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    mean, low, high = value
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int] = (), code: Iterable[int] = ()
) -> str:
    right, mono = set(numbers), set(code)

    def cell(index: int, text: str) -> str:
        shown = f"<code>{_text(text)}</code>" if index in mono else _text(text)
        return f'<td class="number">{shown}</td>' if index in right else f"<td>{shown}</td>"

    top = "".join(f"<th>{_text(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(cell(i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _charts(charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    wide = " wide" if len(charts) == 1 else ""
    figures = []
    for chart in charts:
        data = base64.b64encode(chart.svg.encode()).decode()
        title = _text(chart.title)
        figures.append(
            f"<figure><figcaption>{title}</figcaption>"
            f'<img alt="{title}" src="data:image/svg+xml;base64,{data}"></figure>'
        )
    return f'<div class="charts{wide}">{"".join(figures)}</div>'


def _missing(what: str, command: str) -> str:
    return f'<p class="note">No {what} here. Make one with <code>{_text(command)}</code>.</p>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _text(text: str) -> str:
    return html.escape(text)


def write_report(path: Path, runs: Sequence[RunRecords], command: str) -> None:
    """Write the page, whole or not at all."""
    from lssvwm_agents.files import write_bytes

    write_bytes(path, report_page(runs, command).encode())
