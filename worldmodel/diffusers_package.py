"""The one place that imports `diffusers`, an optional package."""

from __future__ import annotations

from typing import Any


def diffusers_package(wanted_by: str) -> Any:
    """The module `diffusers`, imported when it is asked for.

    Args:
        wanted_by: What cannot be had without it, for the error's sentence.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import diffusers  # type: ignore[import-not-found,import-untyped]
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        raise ImportError(
            f'{wanted_by} needs the package diffusers: pip install "lssvwm-agents[diffusers]".'
        ) from error
    return diffusers
