"""Drawing without a screen: which OpenGL there is, and one sentence where there is none."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gymnasium import error

_APT = "`apt-get install libegl1 libegl-mesa0 libgl1 libglu1-mesa`"


def choose_mujoco_renderer() -> str:
    """Set ``MUJOCO_GL`` where nobody has: EGL before OSMesa; gives what it is (empty: MuJoCo's own choice).

    EGL draws on a GPU, or on a CPU through Mesa. Call it before dm_control is imported, which reads the
    variable once.
    """
    chosen = os.environ.get("MUJOCO_GL", "")
    if not chosen and sys.platform.startswith("linux"):
        for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
            if ctypes.util.find_library(library):
                os.environ["MUJOCO_GL"] = chosen = name
                break
    return chosen


def make_pyglet_headless() -> None:
    """Let pyglet draw through EGL where there is no screen; call it before ``import miniworld``."""
    import pyglet

    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pyglet.options["headless"] = True


@contextmanager
def explained_renderer(package: str) -> Iterator[None]:
    """Turn the many errors of a missing renderer into one that says what to install.

    Raises:
        gymnasium.error.DependencyNotInstalled: In place of whatever the drawing package raised.
    """
    try:
        yield
    except Exception as cause:
        if not _is_about_drawing(cause):
            raise
        said = "EGL refused" if type(cause).__name__ == "EGLError" else " ".join(str(cause).split())
        raise error.DependencyNotInstalled(
            f"{package} could not draw ({said}). Without a screen it needs OpenGL by EGL: on Debian or "
            f"Ubuntu {_APT}. MuJoCo can also draw by OSMesa: `apt-get install libosmesa6`, MUJOCO_GL=osmesa."
        ) from cause


def _is_about_drawing(cause: Exception) -> bool:
    """Whether an error may come from a missing OpenGL; packages raise whatever they stumble on."""
    if isinstance(cause, error.Error | ModuleNotFoundError):
        return False
    if type(cause).__module__.split(".")[0] in ("OpenGL", "pyglet", "mujoco", "glfw", "dm_control"):
        return True
    about_gl = isinstance(cause, AttributeError) and any(
        word in str(cause) for word in ("gl", "EGL", "osmesa")
    )
    return about_gl or isinstance(cause, ImportError | RuntimeError | OSError)


def missing_extra(family: str, extra: str) -> str:
    """What to install for a family of environments."""
    return f"{family} needs the extra `{extra}`: pip install 'lssvwm-agents[{extra}]'."
