"""Many MuJoCo environments in one process, each drawing in its own OpenGL context.

Gymnasium's renderer makes a context current when it is made, and frees what it holds in whichever context is
current later: a second environment then draws into the first one's, and one that is closed or forgotten takes
another one's pictures with it. Here the right context is current at both times.
"""

from __future__ import annotations

import atexit
import weakref
from typing import Any

import gymnasium

_drawn: weakref.WeakSet[Any] = weakref.WeakSet()


def renderer_of(env: gymnasium.Env[Any, Any]) -> Any | None:
    """Gymnasium's MuJoCo renderer of an environment, or of the robot inside it; None of any other."""
    bare: Any = env.unwrapped
    owners = (bare, getattr(bare, "point_env", None), getattr(bare, "ant_env", None))
    return next((owner.mujoco_renderer for owner in owners if hasattr(owner, "mujoco_renderer")), None)


def make_current(renderer: Any) -> None:
    """Let the next picture be drawn in the renderer's own context; nothing to do before the first one."""
    if renderer.viewer is not None:
        renderer.viewer.make_context_current()


def remember(renderer: Any) -> None:
    """After a picture: free the renderer at the end of the process, if not before, while EGL is there."""
    if not _drawn:
        # Only now: what is registered last is called first, and the first picture registered EGL's own end.
        atexit.register(_free_all)
    _drawn.add(renderer)


def free(renderer: Any) -> None:
    """Free what the renderer holds, in its own context; twice is no mistake."""
    if renderer in _drawn and renderer.viewer is not None:
        _drawn.discard(renderer)
        renderer.viewer.make_context_current()
        renderer.viewer.con.free()


def _free_all() -> None:
    for renderer in list(_drawn):
        free(renderer)
        renderer.viewer.free()
