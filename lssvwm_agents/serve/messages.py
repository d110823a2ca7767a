"""What goes over the wire: JSON objects with a ``type``; pixels as base64 of RGB bytes, row by row."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from lssvwm_agents.serve.memory_meter import SEEN_SHARE, Recall
from lssvwm_agents.serve.plan_to import SearchView
from lssvwm_agents.serve.walk import Branch, Fork, Pose, Walk

_SHEET_COLUMNS = 16
_PATH_STRIDE = 2


def scene(walk: Walk, session: str, resumed: bool) -> dict[str, Any]:
    """Everything about a walk: for a page that opens, or comes back."""
    real = walk.moment.real
    return {
        "type": "scene",
        "session": session,
        "resumed": resumed,
        "seed": walk.seed,
        "grid": walk.dream.maze.grid_size,
        "frame_size": walk.moment.frame.shape[0],
        "map": _picture(walk.dream.map_picture(real)),
        "walls": real.walls[0].int().tolist(),
        "looked": [_rounded(pose) for pose in walk.looked_path],
        "sheet": {
            "columns": _SHEET_COLUMNS,
            "count": len(walk.look.frames),
            "image": _sheet(walk.look.frames),
        },
        "typical_db": round(walk.look.typical, 2),
        "ceiling_db": round(walk.look.ceiling, 2),
        "state_bytes": walk.moment.world.nbytes,
        "branches": [branch_message(branch) for branch in walk.branches],
        "branch": walk.branch.number,
        "forks": [fork_message(walk, fork) for fork in walk.forks.values()],
    }


def moment_message(walk: Walk, real: bool, by: str = "you") -> dict[str, Any]:
    """The moment that a walk is in; with ``real`` also what its real twin sees."""
    moment = walk.moment
    message = {
        "type": "moment",
        "by": by,
        "index": moment.index,
        "imagined": moment.index - walk.dream.context_frames + 1,
        "branch": walk.branch.number,
        "frame": _pixels(moment.frame),
        "pose": _rounded(walk.pose),
        "reward": round(moment.reward, 3),
        "found": round(moment.found, 2),
        "recall": _recall(walk.recall()),
    }
    if real:
        message["real"] = {
            "frame": _pixels(walk.dream.real_frame(moment.real)),
            "pose": _rounded(walk.dream.real_pose(moment.real)),
            "found": int(moment.real.targets_reached),
        }
    return message


def fork_message(walk: Walk, fork: Fork) -> dict[str, Any]:
    """A kept moment."""
    return {
        "number": fork.number,
        "branch": fork.branch,
        "index": fork.moment.index,
        "frame": _pixels(fork.moment.frame),
        "pose": _rounded(walk.dream.pose(fork.moment)),
    }


def branch_message(branch: Branch) -> dict[str, Any]:
    """The path of one future."""
    return {
        "number": branch.number,
        "parent": branch.parent,
        "fork": branch.fork,
        "path": [_rounded(pose) for pose in branch.poses],
    }


def search_message(walk: Walk, view: SearchView, round_number: int) -> dict[str, Any]:
    """The candidates of one iteration of a search, the best of them first."""
    order = view.returns.argsort()[::-1]
    paths = []
    for proprio in view.proprio[order]:
        poses = walk.dream.maze_poses(walk.moment.real, proprio)
        paths.append([_rounded(pose)[:2] for pose in poses[_PATH_STRIDE - 1 :: _PATH_STRIDE]])
    return {"type": "candidates", "round": round_number, "iteration": view.iteration + 1, "paths": paths}


def _recall(recall: Recall) -> dict[str, Any]:
    return {
        "seen_share": round(recall.seen_share, 3),
        "enough": SEEN_SHARE,
        "revisit": recall.revisit,
        "age": recall.age,
        "db": None if recall.psnr is None else round(recall.psnr, 2),
        "match": None if recall.match is None else round(recall.match, 3),
        "then": recall.then,
    }


def _rounded(pose: Pose) -> list[float]:
    return [round(number, 3) for number in pose]


def _pixels(frame: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(frame).tobytes()).decode()


def _picture(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sheet(frames: np.ndarray) -> str:
    """Frames (T, S, S, 3) as one picture, in rows of 16."""
    count, size = frames.shape[:2]
    rows = -(-count // _SHEET_COLUMNS)
    sheet = np.zeros((rows * size, _SHEET_COLUMNS * size, 3), np.uint8)
    for index, frame in enumerate(frames):
        y, x = divmod(index, _SHEET_COLUMNS)
        sheet[y * size : (y + 1) * size, x * size : (x + 1) * size] = frame
    return _picture(sheet)
