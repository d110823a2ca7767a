"""Register the adapters with Gymnasium; nothing of their packages is imported before one is made."""

from __future__ import annotations

from typing import Any

import gymnasium

MEMORY_MAZE_STEPS = {9: 1000, 11: 2000, 13: 3000, 15: 4000}
"""Interior cells of a Memory Maze per side, and the steps of an episode, 4 a second."""
POINT_MAZE_STEPS = {"UMaze": 300, "Open": 300, "Medium": 600, "Large": 800}
ANT_MAZE_STEPS = {"UMaze": 700, "Open": 700, "Medium": 1000, "Large": 1000}
MINIWORLDS = (
    *("Maze", "MazeS2", "MazeS3", "MazeS3Fast", "FourRooms", "ThreeRooms", "Hallway", "OneRoom", "OneRoomS6"),
    *("TMaze", "TMazeLeft", "TMazeRight", "YMaze", "YMazeLeft", "YMazeRight", "WallGap", "Sidewalk"),
    *("PickupObjects", "PutNext", "RoomObjects", "CollectHealth"),
)
MINIGRIDS = (
    *("MemoryS7", "MemoryS9", "MemoryS11", "MemoryS13", "MemoryS13Random", "MemoryS17Random", "FourRooms"),
    *("MultiRoom-N2-S4", "MultiRoom-N4-S5", "MultiRoom-N6", "SimpleCrossingS9N1", "SimpleCrossingS11N5"),
    *("Empty-8x8", "Empty-16x16", "DoorKey-6x6", "DoorKey-8x8", "KeyCorridorS3R3", "LockedRoom"),
)
RENDERED_ID = "lssvwm/Rendered-v0"


def _all_ids() -> dict[str, tuple[str, int | None, dict[str, Any]]]:
    """Entry point, steps of an episode (None: the environment's own) and keyword arguments by id."""
    here = "lssvwm_agents.envs.adapters"
    ids: dict[str, tuple[str, int | None, dict[str, Any]]] = {}
    for size, steps in MEMORY_MAZE_STEPS.items():
        for name, more in (
            ("", {}),
            ("-ExtraObs", {"observation": "extra"}),
            ("-Continuous", {"continuous": True}),
        ):
            ids[f"lssvwm/MemoryMaze-{size}x{size}{name}-v0"] = (
                f"{here}.memory_maze:MemoryMazeEnv",
                steps,
                {"size": size, **more},
            )
    for robot, mazes, version in (("Point", POINT_MAZE_STEPS, 3), ("Ant", ANT_MAZE_STEPS, 5)):
        for maze, steps in mazes.items():
            ids[f"lssvwm/{robot}Maze-{maze}-v0"] = (
                f"{here}.robotics:RoboticsMazeEnv",
                steps,
                {"env": f"{robot}Maze_{maze}-v{version}"},
            )
    for world in MINIWORLDS:
        ids[f"lssvwm/MiniWorld-{world}-v0"] = (f"{here}.miniworld:MiniWorldEnv", None, {"world": world})
    for grid in MINIGRIDS:
        ids[f"lssvwm/MiniGrid-{grid}-v0"] = (f"{here}.minigrid:MiniGridEnv", None, {"grid": grid})
    ids[RENDERED_ID] = (f"{here}.rendered:RenderedEnv", None, {})
    return ids


_IDS = _all_ids()
ADAPTER_IDS = tuple(_IDS)
"""Ids of all adapters."""


def register_adapters() -> None:
    """Register all ids; safe to call twice."""
    for name, (entry_point, steps, kwargs) in _IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point, max_episode_steps=steps, kwargs=kwargs)
