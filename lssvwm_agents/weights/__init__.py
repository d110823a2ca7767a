"""World models by name: shipped with the package, trained here, or on the Hugging Face hub."""

from __future__ import annotations

import re
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from lssvwm_agents.errors import UserError

if TYPE_CHECKING:
    import torch

    from lssvwm_agents.worldmodel import WorldModel

_FOLDER = Path(__file__).resolve().parent
_shared: weakref.WeakValueDictionary[tuple[object, ...], WorldModel] = weakref.WeakValueDictionary()
_sharing = threading.Lock()
_HUB_SECONDS = 5.0
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
    if path.exists():
        raise UserError(
            f"`{text}` is there but holds no world model (config.json and model.safetensors): give a folder "
            f"made by `lssvwm train`, or a shipped model ({_shipped()})."
        )
    local = path.parent.exists() or path.parts[:1] == ("runs",)  # runs/... is where runs are kept
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(text) and not local:
        return text
    raise UserError(
        f"There is no world model `{text}`: give a folder made by `lssvwm train`, "
        f"a shipped model ({_shipped()}), or a Hugging Face id such as org/name."
    )


def load_model(name_or_path: str | Path, device: torch.device | str = "cpu") -> WorldModel:
    """Load a world model by folder, shipped name or hub id, ready for use.

    Args:
        name_or_path: See `find_model`.
        device: Where to put it.

    Raises:
        UserError: If there is no such model, or its files cannot be read.
    """
    found = find_model(name_or_path)
    only_cached = isinstance(found, str) and not _hub_answers(found)
    from lssvwm_agents.worldmodel import WorldModel  # slow to import: a wrong name is told before

    try:
        model = WorldModel.from_pretrained(str(found), local_files_only=only_cached)
    except ImportError as error:  # its sentence names the package that this model needs
        raise UserError(f"`{found}`: {error}") from error
    except Exception as error:  # damaged JSON or tensors raise many kinds
        if only_cached and isinstance(error, OSError):
            raise UserError(
                f"The Hugging Face hub could not be reached, and `{found}` was not downloaded before: check "
                f"the network, or use a shipped model ({_shipped()})."
            ) from error
        raise UserError(
            f"`{found}` cannot be read as a world model; its files may be damaged or of another version "
            f"({type(error).__name__}: {_one_line(error)})."
        ) from error
    try:
        loaded: WorldModel = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA fails by an assertion
        raise UserError(
            f"The device `{device}` cannot be used ({_one_line(error)}): say cpu, or cuda with a GPU."
        ) from error
    return loaded


def shared_model(name_or_path: str | Path, device: torch.device | str = "cpu") -> WorldModel:
    """As `load_model`, but the same object as long as somebody holds it and its files do not change.

    For reading only: whoever trains it changes it for all.
    """
    import torch

    found = find_model(name_or_path)
    files = [Path(found) / name for name in ("config.json", "model.safetensors")]
    stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    key = (str(found), *stamps, str(torch.device(device)))
    with _sharing:
        model = _shared.get(key)
        if model is None:
            model = _shared[key] = load_model(name_or_path, device)
        return model


def _hub_answers(hub_id: str) -> bool:
    """Whether the hub has such a world model; False where it cannot be reached.

    The hub's own client tries for half a minute before it gives up; one short question tells as much.

    Raises:
        UserError: If the hub answers that it has none.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(hub_id, "config.json"), timeout=_HUB_SECONDS)
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise UserError(
            f"The Hugging Face hub has no world model `{hub_id}`, or not for you: check the id, or use a "
            f"shipped model ({_shipped()})."
        ) from error
    except Exception:  # the HTTP library's own errors, which differ from version to version
        return False
    return True


def _shipped() -> str:
    """The shipped names, for an error's sentence."""
    return ", ".join(shipped_names()) or "none yet"


def _one_line(error: Exception) -> str:
    """What an error says, on one line of bearable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " ..."
