"""The benchmark's world, what is far in it, and which models can be asked about it."""

from __future__ import annotations

from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.errors import UserError
from lssvwm_agents.evaluate.memory.controls import window_reach
from lssvwm_agents.worldmodel import WorldModel

MAZE = MazeConfig(size=7)
"""RaycastMaze-7x7 in its default look, with Discrete(6) actions."""
ODOMETRY = 4
_FAR = 64


def far_frames(model: WorldModel) -> int:
    """A place is far if it was last seen more than max(64, 2 L k) frames ago."""
    return max(_FAR, 2 * window_reach(model))


def check_model(model: WorldModel, name: str, give_odometry: bool = True) -> None:
    """Refuse a model that cannot be asked the benchmark's questions.

    Raises:
        UserError: If its frames, actions or odometry are of another kind, or it needs odometry and none is
            given.
    """
    config = model.config
    if not give_odometry and config.proprio_dim and not config.sees_motion:
        raise UserError(
            "without odometry (`odometry` false) a model must see its own motion (`visual_odometry`) or have "
            f"been trained from actions alone, and `{name}` needs odometry of {config.proprio_dim} values."
        )
    size, width = config.tokenizer.frame_size, config.proprio_dim
    fits = config.discrete_actions and config.action_dim == MAZE.action_size and size == MAZE.image_size
    if not fits or width not in (0, ODOMETRY):
        raise UserError(
            f"the memory benchmark needs a model of {MAZE.image_size}x{MAZE.image_size} frames, Discrete(6) "
            f"actions and odometry of 0 or {ODOMETRY} values, and `{name}` has {size}x{size} frames, "
            f"{config.action_dim} action values and {width} of odometry."
        )
