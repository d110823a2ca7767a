"""Benchmarks of what memory does for a plan: the corridor, and differences read from records."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_contenders_take_over_at_the_gate_and_are_scored(load, tmp_path):
    bench = load("cue_planning")
    planner = bench.PlannerOptions(horizon=2, action_repeat=2, num_samples=6, num_elites=2, num_iterations=1)
    bench.main(bench.Args(episodes=2, moves=3, cue_delay=20, json=tmp_path / "cue.json", planner=planner))
    record = json.loads((tmp_path / "cue.json").read_text())
    assert list(record["contenders"]) == ["tiny-cue", "tiny-cue/last 12"]
    for one in record["contenders"].values():
        assert len(one["episodes"]) == 2 and one["right"] == sum(one["episodes"]) / 2 <= one["either"]
    assert record["cue_delay"] == 20 and len(set(record["seeds"])) == 2


def test_differences_are_paired_by_episode(load, tmp_path):
    paired = load("paired_differences")
    scores = {"a": [1.0, 5.0, 9.0], "b": [0.0, 4.0, 8.0], "c": [3.0, 7.0, 11.0]}
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"planners": {name: {"episodes": one} for name, one in scores.items()}}))
    found = paired.differences(paired.Args(path, ("a", "c"), ("b", "b")))
    assert found["a - b"] == (1.0, 1.0, 1.0)  # every episode alike: no width
    assert found["c - b"] == (3.0, 3.0, 3.0)
    assert found["mean of ours - mean of theirs"] == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="holds a, b, c, got 'd'"):
        paired.differences(paired.Args(path, ("a",), ("d",)))
    with pytest.raises(ValueError, match="must be as many, got 1 and 2"):
        paired.differences(paired.Args(path, ("a",), ("b", "c")))


def test_recall_is_compared_across_records(load, tmp_path):
    paired = load("paired_differences")
    touches = {"ours": [40, 0, 90, 20], "theirs": [50, 0, 0, 80]}
    cases = {"seeds": [1, 2, 3, 4], "shortest": [40, 40, 45, 20]}
    for name, moves in touches.items():
        record = {"contenders": {"cem": {"first_touch": moves}}, "cases": cases}
        (tmp_path / name).write_text(json.dumps(record))

    def found(within=None, spl=False):
        args = paired.Args(tmp_path / "ours", ("cem",), ("cem",), tmp_path / "theirs", within, spl)
        return paired.differences(args)["cem - cem"][0]

    assert found() == 0.25  # of four targets three were touched, and two
    assert found(45) == 0.5
    assert found(spl=True) == pytest.approx((1 - 0.8 + 0.5 + 1 - 0.25) / 4)
    with pytest.raises(ValueError, match="give one of the two"):
        found(45, spl=True)
    with pytest.raises(ValueError, match="`within` must be at least 1 move, got 0"):
        found(0)
    for changed, named in (({"cases": {"seeds": [5]}}, "cases"), ({"steps": 100}, "steps")):
        (tmp_path / "theirs").write_text(json.dumps({**record, **changed}))
        with pytest.raises(ValueError, match=f"is of other episodes than .*: {named} differ"):
            found()
    path = tmp_path / "scores"
    path.write_text(json.dumps({"planners": {"cem": {"episodes": [1.0]}}, "random": {"episodes": [0.0]}}))
    assert paired.differences(paired.Args(path, ("cem",), ("random",)))["cem - random"][0] == 1.0
    with pytest.raises(ValueError, match="holds no `first_touch`"):
        paired.differences(paired.Args(path, ("cem",), ("cem",), within=60))
