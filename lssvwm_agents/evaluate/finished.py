"""Keep what is finished of a long evaluation, so that one that was killed goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lssvwm_agents.errors import UserError
from lssvwm_agents.files import write_json
from lssvwm_agents.trainers.run_folder import differences, flatten


class Finished:
    """The finished parts of an evaluation, in a JSON file beside its record to be.

    Args:
        path: The file; None keeps nothing.
        settings: What decides the results, of JSON's kinds: parts made by others are refused.

    Raises:
        UserError: If the file holds parts of an evaluation with other settings, or is no JSON.
    """

    def __init__(self, path: Path | None = None, settings: dict[str, Any] | None = None) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings or {}, default=str))
        self.parts: dict[str, Any] = {}
        if path is None or not path.is_file():
            return
        try:
            before = json.loads(path.read_text())
            old, self.parts = flatten(before["settings"]), before["parts"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"`{path}` holds no finished parts of an evaluation: remove it.") from error
        different = differences(old, flatten(self.settings))
        if different:
            raise UserError(
                f"`{path}` holds parts of an evaluation with other settings: {different}. Go "
                "on with the settings it began with, remove it, or choose another file with --json."
            )

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The part of that name: as it was kept, or made now, of JSON's kinds, and kept."""
        if name not in self.parts:
            self.parts[name] = make()
            if self.path is not None:
                write_json(self.path, {"settings": self.settings, "parts": self.parts})
        part: dict[str, Any] = self.parts[name]
        return part

    def remove(self) -> None:
        """Forget the file, when the record is written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
