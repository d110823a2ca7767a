"""World models by name: shipped with the package, trained here, or on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lssvwm_agents.errors import UserError

if TYPE_CHECKING:
    import torch

    from lssvwm_agents.worldmodel import WorldModel

_FOLDER = Path(__file__).resolve().parent
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def shipped_names() -> list[str]:
    """Names of the world models that ship with the package."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def find_model(name_or_path: str | Path) -> Path | str:
    """Where a world model's files are: a folder, or the hub id itself.

    Args:
        name_or_path: A run's folder, its ``model`` folder, a shipped name, or a hub id such as ``org/name``.

    Raises:
        UserError: If it is none of these.
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    if text in shipped_names():
        return _FOLDER / text
    shipped = ", ".join(shipped_names()) or "none yet"
    if path.exists():
        raise UserError(
            f"`{text}` is there but holds no world model (config.json and model.safetensors): give a folder "
            f"made by `lssvwm train`, or a shipped model ({shipped})."
        )
    local = path.parent.exists() or path.parts[:1] == ("runs",)  # runs/... is where runs are kept
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(text) and not local:
        return text
    raise UserError(
        f"There is no world model `{text}`: give a folder made by `lssvwm train`, "
        f"a shipped model ({shipped}), or a Hugging Face id such as org/name."
    )


def load_model(name_or_path: str | Path, device: torch.device | str = "cpu") -> WorldModel:
    """Load a world model by folder, shipped name or hub id, ready for use.

    Args:
        name_or_path: See `find_model`.
        device: Where to put it.

    Raises:
        UserError: If there is no such model.
    """
    from lssvwm_agents.worldmodel import WorldModel

    found = find_model(name_or_path)
    try:
        model = WorldModel.from_pretrained(str(found))
    except OSError as error:
        if isinstance(found, Path):
            raise
        shipped = ", ".join(shipped_names()) or "none yet"
        raise UserError(
            f"The Hugging Face hub gave no world model `{found}` ({type(error).__name__}): check the id and "
            f"the network, or use a shipped model ({shipped})."
        ) from error
    loaded: WorldModel = model.to(device).eval()
    return loaded
