"""Write what a planning agent remembers to a file, and read it back: a run goes on as if never stopped.

One safetensors file: the tensors by number, and beside them, as JSON, how they hang together. Only the
classes named here are ever made from a file; nothing in it is run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lssvwm_agents.agents.planning_carry import PlanningCarry, PlanningStats, SeenFrame
from lssvwm_agents.files import atomic_path
from lssvwm_agents.planners import BoundedGaussian, Categorical, Plan, PlanRecord, RememberedElites
from lssvwm_agents.worldmodel import WorldState
from lssvwm_agents.worldmodel.full_attention import FrameCache
from lssvwm_agents.worldmodel.place_regression import PlaceState
from lssvwm_agents.worldmodel.state import LayerState

FORMAT = "lssvwm-agents planning carry 3"
_CLASSES: dict[str, Callable[..., Any]] = {
    cls.__name__: cls
    for cls in (
        BoundedGaussian,
        Categorical,
        FrameCache,
        LayerState,
        PlaceState,
        Plan,
        PlanRecord,
        PlanningCarry,
        PlanningStats,
        RememberedElites,
        SeenFrame,
        WorldState,
    )
}


def save_carry(carry: PlanningCarry, path: str | Path) -> None:
    """Write ``carry`` to ``path``, whole or not at all.

    Raises:
        ValueError: If the carry holds something of an unknown kind, such as a foreign planner's warm start.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(dataclasses.replace(carry, world=carry.world.materialise()), tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "tree": json.dumps(tree)})


def load_carry(path: str | Path, device: torch.device | str = "cpu") -> PlanningCarry:
    """Read a carry that :func:`save_carry` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no carry, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"`{path}` must be a planning carry in a safetensors file, got {error}.") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"`{path}` must have the format `{FORMAT}`, got `{about.get('format')}`.")
    carry = _decode(json.loads(about["tree"]), tensors)
    if not isinstance(carry, PlanningCarry):
        raise ValueError(f"`{path}` must hold a PlanningCarry, got {type(carry).__name__}.")
    return carry


def _encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` as JSON, its tensors put aside under numbers."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # A copy, because safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, tuple):
        return [_encode(one, tensors) for one in value]
    name = type(value).__name__
    if _CLASSES.get(name) is not type(value):
        raise ValueError(f"a carry can be saved if all in it is of {sorted(_CLASSES)}, got {name}.")
    fields = {f.name: _encode(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
    return {"class": name, "fields": fields}


def _decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return tuple(_decode(one, tensors) for one in tree)
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if tree["class"] not in _CLASSES:
        raise ValueError(f"a carry may hold {sorted(_CLASSES)}, got `{tree['class']}`.")
    fields = {name: _decode(one, tensors) for name, one in tree["fields"].items()}
    return _CLASSES[tree["class"]](**fields)
