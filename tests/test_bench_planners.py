"""The benchmark of planners: its problem's optimum, its table, and packages that are not installed."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lssvwm_agents.commands.bench_planners import BenchPlannersArgs, run
from lssvwm_agents.evaluate.bench_planners import NAMES, bench_planners
from lssvwm_agents.evaluate.double_integrator import STARTS, closed_loop, cost_to_go, riccati


def test_the_riccati_policy_has_the_optimal_cost() -> None:
    _, gain = riccati()
    cost = closed_loop(lambda state: -state @ gain.float().T)
    assert torch.allclose(cost, cost_to_go(torch.tensor(STARTS)), rtol=1e-5)
    worse = closed_loop(lambda state: -0.8 * state @ gain.float().T)
    assert (worse > cost).all()


def test_a_package_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("torchrl", "tensordict", "pytorch_mppi"):
        monkeypatch.setitem(sys.modules, package, None)
    names = ("mppi", "eager_cem", "torchrl_cem", "pytorch_mppi")
    run(BenchPlannersArgs(json=tmp_path / "result.json", batch=(1, 2), repeats=2, seeds=1, names=names))
    result = json.loads((tmp_path / "result.json").read_text())
    assert [entry["name"] for entry in result["planners"]] == [*names, *names]
    assert [entry["batch"] for entry in result["planners"]] == [1] * 4 + [2] * 4
    by_name = {entry["name"]: entry for entry in result["planners"]}
    assert by_name["torchrl_cem"]["missing"] and by_name["torchrl_cem"]["median_ms"] is None
    assert by_name["torchrl_cem"]["install"] == "pip install torchrl==0.14.1 tensordict==0.14.3"
    assert by_name["mppi"]["median_ms"] > 0 and 1.0 <= by_name["mppi"]["relative_cost"] < 1.02
    assert result["command"] and result["seeds"] == [0] and result["threads"] == 1
    assert result["ratios"][0]["mppi_over_pytorch_mppi"] is None
    assert "missing: pip install pytorch-mppi==0.9.1" in capsys.readouterr().out


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"`repeats` must be at least 1, got \(0,\)"):
        bench_planners(repeats=0)
    with pytest.raises(ValueError, match="`names` must be of cem, icem, .*, got magic"):
        bench_planners(names=("magic",))
    assert len(NAMES) == len(set(NAMES)) == 13
