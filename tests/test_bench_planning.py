"""The benchmark of plans in a world model, at toy size."""

import json
from pathlib import Path

import pytest
import torch

from lssvwm_agents import cli
from lssvwm_agents.evaluate.bench_planning import PlanningBench, _spread, bench_planning, random_model
from lssvwm_agents.evaluate.kernel_work import count_work

TOY = "--preset debug --contexts 6 20 --samples 16 --horizon 2 --iterations 2 --repeats 2".split()


def test_the_command_writes_the_result_of_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "planning.json"
    assert cli.main(["bench", "planning", *TOY, "--planners", "cem", "icem", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["weights"] == "random" and result["preset"] == "debug"
    assert [(e["planner"], e["context"]) for e in result["entries"]] == [
        (name, frames) for name in ("cem", "icem") for frames in (6, 20)
    ]
    for entry in result["entries"]:
        low, high = entry["ci95_ms"]
        assert 0 < low <= entry["median_ms"] <= high and entry["rollouts"] == "eager"
        assert entry["imagined_frames"] <= 2 * 2 * 16
    assert result["entries"][0]["imagined_frames"] == 2 * 2 * 16
    assert len(result["ratios"]) == 2 and result["ratios"][0]["contexts"] == [20, 6]
    cem, icem = result["work"]
    assert cem["flops"] > icem["flops"] > 0 and cem["operations"] > 1000
    state = result["state"]
    assert 0 < state["bytes_per_candidate"] < state["bytes_of_a_private_copy"]
    assert result["command"] and result["versions"]
    assert "random weights" in capsys.readouterr().out


def test_work_of_a_known_product() -> None:
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    work = count_work(lambda: (a @ b).view(4, 8))
    assert work.operations == 1 and work.flops == 2 * 8 * 16 * 4
    assert work.bytes_touched == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert count_work(lambda: a[:, :1].expand(8, 1000) + 1.0).bytes_touched == 4 * (8 * 16 + 8000)


def test_the_interval_of_a_median() -> None:
    spread = _spread([float(i) for i in range(1, 21)])
    assert spread["median_ms"] == 10.5 and spread["ci95_ms"] == [6.0, 15.0]  # covers 95.9 % at 20 values
    assert _spread([3.0, 1.0, 2.0])["ci95_ms"] == [1.0, 3.0]


def test_random_models_are_named_by_their_seed() -> None:
    before = torch.get_rng_state()
    one, same, other = (random_model("debug", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.backbone.position, same.backbone.position)
    assert not torch.equal(one.backbone.position, other.backbone.position)
    assert all(bool(parameter.any()) for parameter in one.parameters())


def test_mistakes_get_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        ("--repeats 0", "`repeats` must be at least 1, got 0"),
        ("--rollouts cuda_graph", "CUDA graphs need the world model on a CUDA device, got it on cpu"),
        ("--precision bf16", "`precision` must be fp32 on cpu, got bf16"),
    ):
        assert cli.main(["bench", "planning", *TOY, *words.split()]) == 2
        error = capsys.readouterr().err
        assert sentence in error and "Traceback" not in error
    with pytest.raises(ValueError, match="`planners` must be of cem, .*, got gradient"):
        PlanningBench(planners=("gradient",))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_all_ways_are_timed_on_a_gpu(precision: str) -> None:
    bench = PlanningBench(
        planners=("cem",),
        rollouts=("eager", "cuda_graph"),
        contexts=(6, 20),
        num_samples=16,
        horizon=2,
        num_iterations=2,
        repeats=2,
        precision=precision,  # type: ignore[arg-type]
    )
    result = bench_planning(random_model("debug", "cuda"), bench, say=lambda text: None)
    assert len(result["entries"]) == 4
    for entry in result["entries"]:
        assert entry["median_ms"] > 0 and entry["peak_memory_bytes_of_all"] > 0
        assert entry["largest_return_difference"] < (1e-4 if precision == "fp32" else 0.05)
