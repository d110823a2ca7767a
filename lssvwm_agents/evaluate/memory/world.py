"""The benchmark's world."""

from lssvwm_agents.envs import MazeConfig

MAZE = MazeConfig(size=7)
"""RaycastMaze-7x7 in its default look, with Discrete(6) actions."""
