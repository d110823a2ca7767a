"""`lssvwm doctor`: what is installed here, what works, and how to get the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lssvwm_agents.errors import UserError


@dataclass(frozen=True)
class DoctorArgs:
    """Try every part of this installation, and say how to get or mend what does not work."""

    json: Path | None = None
    """File for the findings."""
    device: str = "cpu"
    """Where the world model is tried: cpu or cuda."""


def run(args: DoctorArgs) -> None:
    """Examine, print, and fail where a required part does not work."""
    import dataclasses

    from lssvwm_agents.doctor import examine, machine

    described = machine()
    for name, value in described.items():
        print(f"  {name:<22}{value}")
    print()
    findings = examine(args.device)
    marks = {"works": "+", "missing": "-", "broken": "!"}
    for finding in findings:
        print(f"{marks[finding.status]} {finding.name:<22}{finding.detail}")
        if finding.get:
            print(f"{'':<24}get it: {finding.get}")
    print("\n+ works   - not here   ! here, but fails")
    if args.json is not None:
        from lssvwm_agents.files import write_json
        from lssvwm_agents.report.run_info import command_line, commit

        found = [dataclasses.asdict(one) for one in findings]
        about = {"command": command_line(), "commit": commit(), "device": args.device}
        write_json(args.json, {"machine": described, "findings": found, **about})
        print(f"Written to {args.json}.")
    failed = [one.name for one in findings if one.required and one.status != "works"]
    if failed:
        raise UserError(f"required, and not working: {', '.join(failed)}.")
    print("All that is required works. Next: `lssvwm demo`, or `lssvwm play` in a browser.")
