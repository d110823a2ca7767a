"""What a maze is: its size, its task, how the agent moves and what it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Texture = Literal["calm", "rich"]
Task = Literal["collect", "cue"]

HEADING_UNITS_PER_DEGREE = 16
HEADING_UNITS = 360 * HEADING_UNITS_PER_DEGREE
POSITION_UNITS = (
    1024  # positions are multiples of 1/1024 cell, so that every device computes the very same ones
)
AGENT_RADIUS = 256 / POSITION_UNITS
TOUCH_RADIUS = 0.45
BACKWARD_SCALE = 0.25
NUM_DISCRETE_ACTIONS = 6
MIN_CUE_DELAY, MAX_CUE_DELAY = 16, 512
MAX_TARGETS = 6

_TARGETS_BY_SIZE = {7: 3, 9: 3, 11: 4, 13: 5, 15: 6}


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{rule}, got {value!r}.")


@dataclass(frozen=True)
class MazeConfig:
    """A family of mazes; one seed picks one maze of it.

    Attributes:
        size: Interior cells per side, odd; outer walls come on top. The cue corridor has its own map.
        num_targets: Coloured targets; 0 picks Memory Maze's number for the size (3, 3, 4, 5, 6 for 7 to 15).
        texture: ``calm`` (plain walls in few colours, a few with a simple pattern) or ``rich`` (patterns per
            cell).
        continuous: Box(2) actions (speed, turn) in [-1, 1] instead of Discrete(6).
        max_episode_steps: Steps before truncation; 0 picks 500, or ``cue_delay + 128`` for the cue task.
        image_size: Height and width of a frame in pixels.
        move_per_step: Cells moved forward by one step; backwards (continuous only) is a quarter of it.
        turn_degrees: Degrees turned by one step, a multiple of 1/16.
        field_of_view_degrees: Horizontal and vertical angle of view; pixels are square.
        loop_fraction: Share of the inner walls left by the spanning tree that is opened to make loops.
        task: ``collect`` (Memory Maze's task) or ``cue`` (the cue corridor).
        cue_delay: Cue task: first frame at which the agent can stand in the junction.
    """

    size: int = 7
    num_targets: int = 0
    texture: Texture = "calm"
    continuous: bool = False
    max_episode_steps: int = 0
    image_size: int = 64
    move_per_step: float = 0.5
    turn_degrees: float = 15.0
    field_of_view_degrees: float = 85.0
    loop_fraction: float = 0.3
    task: Task = "collect"
    cue_delay: int = 64

    def __post_init__(self) -> None:
        _require(self.task in ("collect", "cue"), "`task` must be 'collect' or 'cue'", self.task)
        _require(self.texture in ("calm", "rich"), "`texture` must be 'calm' or 'rich'", self.texture)
        _require(5 <= self.size <= 31 and self.size % 2 == 1, "`size` must be odd and in [5, 31]", self.size)
        if self.task == "cue":
            _require(
                self.num_targets in (0, 2), "`num_targets` of the cue task must be 2 (or 0)", self.num_targets
            )
            object.__setattr__(self, "num_targets", 2)
        elif self.num_targets == 0:
            object.__setattr__(
                self, "num_targets", _TARGETS_BY_SIZE.get(self.size, 3 if self.size < 11 else 6)
            )
        _require(
            2 <= self.num_targets <= MAX_TARGETS,
            f"`num_targets` must be in [2, {MAX_TARGETS}]",
            self.num_targets,
        )
        _require(
            MIN_CUE_DELAY <= self.cue_delay <= MAX_CUE_DELAY,
            f"`cue_delay` must be in [{MIN_CUE_DELAY}, {MAX_CUE_DELAY}]",
            self.cue_delay,
        )
        if self.max_episode_steps == 0:
            object.__setattr__(
                self, "max_episode_steps", 500 if self.task == "collect" else self.cue_delay + 128
            )
        _require(self.max_episode_steps >= 1, "`max_episode_steps` must be positive", self.max_episode_steps)
        _require(16 <= self.image_size <= 256, "`image_size` must be in [16, 256]", self.image_size)
        _require(0 < self.move_per_step <= 0.75, "`move_per_step` must be in (0, 0.75]", self.move_per_step)
        _require(
            0 < self.turn_degrees <= 90 and (self.turn_degrees * HEADING_UNITS_PER_DEGREE) % 1 == 0,
            "`turn_degrees` must be a multiple of 1/16 in (0, 90]",
            self.turn_degrees,
        )
        _require(
            30 <= self.field_of_view_degrees <= 120,
            "`field_of_view_degrees` must be in [30, 120]",
            self.field_of_view_degrees,
        )
        _require(0 <= self.loop_fraction <= 1, "`loop_fraction` must be in [0, 1]", self.loop_fraction)

    @property
    def cue_corridor_cells(self) -> int:
        """Cue task: cells from the start to the junction."""
        return min(9, max(5, (self.cue_delay - 6) // 2))

    @property
    def cue_gate_frame(self) -> int:
        """Cue task: first frame at which the gate before the junction is open."""
        return self.cue_delay - 3

    @property
    def grid_size(self) -> int:
        """Cells per side of the square grid, outer walls included."""
        return self.size + 2 if self.task == "collect" else max(9, self.cue_corridor_cells + 3)

    @property
    def turn_units(self) -> int:
        """Heading units turned by one step."""
        return round(self.turn_degrees * HEADING_UNITS_PER_DEGREE)

    @property
    def action_size(self) -> int:
        """Length of a one-hot (discrete) or plain (continuous) action vector."""
        return 2 if self.continuous else NUM_DISCRETE_ACTIONS
