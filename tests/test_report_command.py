"""`lssvwm report`: one page of a run, or of several."""

import json
import re
from pathlib import Path

import pytest

from lssvwm_agents import cli
from lssvwm_agents.report.drawing import write_png
from lssvwm_agents.report.run_records import read_runs

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the records that are kept in the repository."""
    import numpy as np

    folder = tmp_path / "tiny"
    (folder / "memory").mkdir(parents=True)
    log = (RESULTS / "tiny_training_log.jsonl").read_text()
    (folder / "log.jsonl").write_text(log + '{"phase": "world_model", "upd')  # cut by a kill
    (folder / "memory" / "memory.json").write_bytes((RESULTS / "memory_tiny.json").read_bytes())
    for name in ("planning_seed0.json", "planning_seed0_memory_cut.json"):
        (folder / name).write_bytes((RESULTS / name).read_bytes())
    write_png(folder / "memory" / "strip.png", np.full((8, 8, 3), 200, np.uint8))
    settings = {"experiment": {"name": "maze-<tiny>", "training": {"seed": 7}}}
    (folder / "experiment.json").write_text(json.dumps(settings))
    return folder


def test_one_run_on_one_page_that_loads_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert str(run / "report.html") in capsys.readouterr().out
    memory = json.loads((run / "memory" / "memory.json").read_text())
    far = memory["retrieval"]["loop"]["far"]["conditions"]["ours"]["psnr"]
    assert f"{far[0]:.1f} ({far[1]:.1f} to {far[2]:.1f})" in page
    planning = json.loads((run / "planning_seed0.json").read_text())
    low, high = planning["planner"]["ci95"]
    shown = f"{planning['planner']['mean']:.2f} ({low:.2f} to {high:.2f})"
    assert (
        page.count(shown) == 2
    )  # in the overview, though the record with cut memory is read later, and below
    assert "6,930" in page and memory["model_sha256"][:12] in page and "maze-&lt;tiny&gt;" in page
    assert "No " not in re.sub(r"<pre>.*?</pre>|base64,[^\"]*", "", page, flags=re.DOTALL)
    assert page.count("data:image/png") == 1 and page.count("data:image/svg+xml") == 10
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_several_runs_are_compared(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "tiny"
    other.mkdir(parents=True)
    line = {"phase": "world_model", "update": 5, "loss/denoising": 0.5, "gradient_norm": None, "elapsed": 3.0}
    (other / "log.jsonl").write_text(json.dumps(line) + "\n")
    record = json.loads((run / "memory" / "memory.json").read_text())
    comparison = {
        "distances": record["distances"],
        "far_frames": 64,
        "psnr": {"ours": [[20.0, None] + [19.0] * 8], "window_only": [[18.0] * 10, [17.0] * 10]},
        "psnr_far": {},
        "by_baseline": {},
    }
    (other / "memory.json").write_text(json.dumps(comparison))
    runs = read_runs([run, other])
    assert [one.name for one in runs] == [f"{tmp_path.name}/tiny", "other/tiny"]
    assert runs[1].logged("gradient_norm") == ([], []) and runs[1].logged("loss/denoising") == ([5], [0.5])
    out = tmp_path / "both.html"
    single = RESULTS / "memory_tiny_without_places.json"
    assert (
        cli.main(
            [
                "report",
                str(run),
                str(other),
                str(single),
                "--out",
                str(out),
                "--json",
                str(tmp_path / "both.json"),
            ]
        )
        == 0
    )
    told = json.loads((tmp_path / "both.json").read_text())["runs"]
    assert [one["run"] for one in told] == [f"{tmp_path.name}/tiny", "other/tiny", f"results/{single.name}"]
    assert told[1]["updates"] == 5 and told[1]["targets_found"] is None and len(told[2]["recall_far_db"]) == 3
    page = out.read_text()
    assert all(f"<td>{name}</td>" in page for name in ("other/tiny", f"results/{single.name}"))
    assert "recall of every baseline" in page


def test_what_is_missing_is_told_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"phase": "world_model", "update": 1, "loss/denoising": 1.0}\n')
    assert cli.main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "No memory record here" in page and "lssvwm evaluate planning --model RUN" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name at least one run"),
        (["nowhere"], "There is no run at `nowhere`"),
        (["{folder}"], "holds nothing to report on"),
        (["{folder}/x.json"], "is not JSON"),
        (["{folder}", "--out", "x.pdf"], "`--out` must end in .html, got `x.pdf`"),
    ],
)
def test_wrong_arguments_get_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text("{")
    assert cli.main(["report", *(one.format(folder=tmp_path) for one in arguments)]) == 2
    assert words in capsys.readouterr().err
