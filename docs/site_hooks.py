"""Hooks of the documentation site (mkdocs): where the package's source is, and links that leave the pages."""

from __future__ import annotations

import posixpath
import re
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parent.parent
_kept: list[tempfile.TemporaryDirectory[str]] = []


@event_priority(100)  # before mkdocstrings reads it
def on_config(config: Any, **_: Any) -> Any:
    """Show mkdocstrings the package as it is when installed: the top-level folders inside `lssvwm_agents`."""
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    package = Path(folder.name) / "lssvwm_agents"
    package.mkdir()
    for entry in (ROOT / "lssvwm_agents").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for name in ("worldmodel", "planners", "envs"):
        (package / name).symlink_to(ROOT / name)
    config.plugins["mkdocstrings"].config.handlers.setdefault("python", {})["paths"] = [folder.name]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name files of the repository instead of linking to them: they are no pages of this site."""
    here = posixpath.dirname(page.file.src_uri)

    def unlinked(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", here, match[2]))
        if target.startswith("docs/"):
            return match[0]
        if not (ROOT / target).exists():
            raise ValueError(f"{page.file.src_uri} links to {match[2]}, which is not there.")
        label = match[1].strip("`")
        return f"`{target}`" if target.endswith(label) else f"{match[1]} (`{target}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s#]+)\)", unlinked, markdown)
