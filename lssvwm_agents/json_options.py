"""Options that are JSON objects, such as the keyword arguments of an environment."""

from __future__ import annotations

import json
from typing import Any

from lssvwm_agents.errors import UserError


def json_object(text: str, option: str) -> dict[str, Any]:
    """Read a JSON object that a user typed.

    Args:
        text: Such as ``{"size": 9}``.
        option: What the user calls it, such as ``--env-kwargs``.

    Raises:
        UserError: If it is no JSON, or no object.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"`{option}` must be JSON, got `{text}` ({error}).") from error
    if not isinstance(value, dict):
        raise UserError(f"`{option}` must be a JSON object, got `{text}`.")
    return value
