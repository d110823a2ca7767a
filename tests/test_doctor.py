import json
from pathlib import Path

import pytest

from lssvwm_agents import cli, doctor


def test_doctor_tries_every_part_and_says_how_to_get_the_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--json", str(tmp_path / "doctor.json")]) == 0
    written = json.loads((tmp_path / "doctor.json").read_text())
    by_name = {finding["name"]: finding for finding in written["findings"]}
    required = {name for name, finding in by_name.items() if finding["required"]}
    assert required == {"world model", "scan backend chunked", "ffmpeg", "play page"}
    assert all(by_name[name]["status"] == "works" for name in required)
    assert "frames/s" in by_name["world model"]["detail"]
    assert {f"extra {name}" for name in doctor.EXTRAS} < set(by_name)
    assert all(finding["get"] for finding in by_name.values() if finding["status"] != "works")
    printed = capsys.readouterr().out
    assert all(name in printed for name in by_name) and "Next: `lssvwm demo`" in printed


def test_what_is_required_and_broken_ends_in_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode() -> str:
        raise OSError("no such codec")

    monkeypatch.setattr(doctor, "_ffmpeg", explode)
    monkeypatch.setattr(doctor, "_mujoco_rendering", lambda: "not tried here")
    assert cli.main(["doctor"]) == 2
    printed = capsys.readouterr()
    assert "! ffmpeg" in printed.out and "OSError: no such codec" in printed.out
    assert "required, and not working: ffmpeg" in printed.err


def test_a_scan_that_differs_is_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import lssvwm_agents.worldmodel.scan as module

    right = module.scan

    def wrong(*arguments, **settings):
        out = right(*arguments, **settings)
        return out if settings["backend"] == "reference" else out._replace(y=out.y * 1.1)

    monkeypatch.setattr(module, "scan", wrong)
    finding = doctor._try("scan", True, "", lambda: doctor._scan_agrees("chunked", "cpu"))
    assert finding.status == "broken" and "differs from the reference by 1.0e-01" in finding.detail


def test_an_extra_without_its_packages_is_missing() -> None:
    finding = doctor._extra("none", "torch", "no-such-package-at-all")
    assert finding.status == "missing" and finding.detail == "without no-such-package-at-all"
    assert finding.get == "pip install 'lssvwm-agents[none]'"
    assert doctor._extra("torch", "torch").status == "works"
