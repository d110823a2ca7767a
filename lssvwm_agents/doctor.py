"""What is installed on this machine, what of it works, and how to get the rest.

Each check tries its part: it computes, renders or writes something small, and never trusts that a package
which can be imported also works.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["works", "missing", "broken"]

_RENDER = """
import mujoco
world = "<worldbody><light pos='0 0 2'/><geom size='.2'/></worldbody>"
model = mujoco.MjModel.from_xml_string(f"<mujoco>{world}</mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().std() > 0, "the picture is blank"
"""
_SECONDS = 60.0
_SCAN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Finding:
    """One part of the installation.

    Attributes:
        name: In a few words.
        status: ``works``; ``missing``, where it is not there; ``broken``, where it is there and fails.
        detail: Versions or speeds, or what went wrong.
        get: How to get or mend it; empty where there is nothing to do.
        required: Whether the package is of no use without.
    """

    name: str
    status: Status
    detail: str
    get: str = ""
    required: bool = False


def examine(device: str = "cpu") -> list[Finding]:
    """Try all parts, the required ones first.

    Args:
        device: Where the world model is tried: cpu or cuda.
    """
    checks: list[tuple[str, bool, str, Callable[[], str]]] = [
        ("world model", True, "", lambda: _imagine(device)),
        ("scan backend chunked", True, "", lambda: _scan_agrees("chunked", "cpu")),
        ("ffmpeg", True, "pip install --force-reinstall imageio-ffmpeg", _ffmpeg),
        ("play page", True, "pip install starlette uvicorn websockets", _play_page),
        ("CUDA", False, "make demo TORCH=cuda VENV=.venv-gpu, on a machine with an NVIDIA driver", _cuda),
        ("Triton", False, "comes with PyTorch's CUDA build", _triton),
        ("scan backend mamba", False, _EXTRA.format("mamba"), lambda: _scan_agrees("mamba", "cuda")),
        ("C++ compiler", False, "apt install g++, for torch.compile on a CPU", _compiler),
        ("MuJoCo rendering", False, _EXTRA.format("memory-maze"), _mujoco_rendering),
    ]
    findings = [_try(name, required, get, check) for name, required, get, check in checks]
    return findings + [_extra(name, *packages) for name, packages in EXTRAS.items()]


_EXTRA = "pip install 'lssvwm-agents[{}]'"

EXTRAS = {
    "sb3": ("stable-baselines3",),
    "memory-maze": ("memory-maze", "dm-control", "mujoco"),
    "robotics": ("gymnasium-robotics",),
    "miniworld": ("miniworld",),
    "minigrid": ("minigrid",),
    "diffusers": ("diffusers",),
    "bench": ("torchrl", "tensordict", "pytorch-mppi"),
    "notebooks": ("jupyterlab", "nbmake"),
}
"""Optional parts of ``setup.cfg``, and the packages that each brings."""


class _MissingError(Exception):
    """A part is not there."""


def _try(name: str, required: bool, get: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "works", check(), required=required)
    except (_MissingError, ImportError) as error:
        return Finding(name, "missing", _line(error), get, required)
    except Exception as error:  # whatever a broken installation raises
        return Finding(name, "broken", f"{type(error).__name__}: {_line(error)}", get, required)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else text[:117] + "..."


def _extra(name: str, *packages: str) -> Finding:
    found, absent = [], []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    if absent:
        return Finding(f"extra {name}", "missing", "without " + ", ".join(absent), _EXTRA.format(name))
    return Finding(f"extra {name}", "works", ", ".join(found))


def _imagine(device: str) -> str:
    import torch

    from lssvwm_agents.weights import load_model

    model, frames = load_model("tiny", device), 20
    state, action = model.initial_state(1), torch.zeros(1, model.config.action_dim, device=device)
    with torch.no_grad():
        state, predicted = model.step(state, action)
        began = time.perf_counter()
        for _ in range(frames):
            state, predicted = model.step(state, action)
        frame = model.decode(predicted.latent)
    if not bool(torch.isfinite(frame).all()):
        raise ValueError("an imagined frame is not finite")
    return f"tiny imagines {frames / (time.perf_counter() - began):.0f} frames/s, one at a time, on {device}"


def _scan_agrees(backend: Literal["chunked", "mamba"], device: str) -> str:
    import torch

    from lssvwm_agents.worldmodel.scan import Writes, scan
    from lssvwm_agents.worldmodel.scan_mamba import mamba_is_available

    if backend == "mamba" and not mamba_is_available():
        raise _MissingError("needs mamba-ssm and a CUDA device")
    noise = torch.Generator().manual_seed(0)
    rows, length, heads, head, size = 2, 64, 2, 32, 32

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=noise).to(device)

    writes = Writes(
        draw(rows, length, heads, head),
        draw(rows, length, heads).sigmoid(),
        draw(rows, length, 1, size),
        draw(rows, length, 1, size),
    )
    a, state = -draw(heads).exp(), draw(rows, heads, head, size)
    truth, found = (scan(writes, a, state, backend=b).y for b in ("reference", backend))
    apart = float((truth - found).abs().max() / truth.abs().max())
    if not apart < _SCAN_TOLERANCE:
        raise ValueError(f"differs from the reference by {apart:.1e} of its largest value")
    return f"agrees with the reference to {apart:.0e}"


def _ffmpeg() -> str:
    import imageio.v2 as imageio
    import imageio_ffmpeg
    import numpy as np

    from lssvwm_agents.report.video import write_mp4

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "try.mp4"
        write_mp4(path, [np.full((32, 32, 3), shade, np.uint8) for shade in (0, 80, 160, 240)])
        count = len(imageio.mimread(path))
    if count != 4:
        raise ValueError(f"wrote 4 frames and read {count}")
    return f"wrote and read a video, version {imageio_ffmpeg.get_ffmpeg_version()}"


def _play_page() -> str:
    import starlette
    import uvicorn

    from lssvwm_agents.serve.app import STATIC

    if not (STATIC / "index.html").is_file():
        raise _MissingError(f"no page in {STATIC}")
    return f"starlette {starlette.__version__}, uvicorn {uvicorn.__version__}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        built = "for CUDA " + torch.version.cuda if torch.version.cuda else "without CUDA"
        raise _MissingError(f"no device; this PyTorch was built {built}")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    for index in range(len(names)):
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        if float((ones @ ones).sum()) != 64.0**3:
            raise ValueError(f"{names[index]} multiplies wrongly")
    return f"{', '.join(names)}, CUDA {torch.version.cuda}"


def _triton() -> str:
    import torch

    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError as error:
        raise _MissingError("Triton is not installed") from error
    if not torch.cuda.is_available():
        raise _MissingError(f"{version} is installed, but there is no device for it")
    squares = torch.compile(lambda x: (x * x).sum())
    if float(squares(torch.ones(256, device="cuda"))) != 256.0:
        raise ValueError("a compiled sum is wrong")
    return f"{version} compiles"


def _compiler() -> str:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise _MissingError("neither g++ nor clang++")
    return compiler


def _mujoco_rendering() -> str:
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError as error:
        raise _MissingError("MuJoCo is not installed") from error
    works = []
    for backend in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": backend}
        done = subprocess.run(
            [sys.executable, "-c", _RENDER], env=environment, capture_output=True, timeout=_SECONDS
        )
        if done.returncode == 0:
            works.append(backend)
    if not works:
        raise ValueError(
            f"mujoco {version} renders by neither egl nor osmesa: apt install libegl1 libosmesa6"
        )
    return f"mujoco {version}, with MUJOCO_GL={' or '.join(works)}"


def machine() -> dict[str, str]:
    """Versions of Python, PyTorch and this package; processor and memory."""
    import torch

    from lssvwm_agents.report.run_info import versions

    described = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        described["memory"] = f"{gibibytes:.1f} GiB"
    return described | versions()
