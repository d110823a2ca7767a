"""The colours of the mazes: muted walls, saturated targets, and which material is which.

A material is what a wall face is made of: a colour and a pattern, named by one index.
"""

from __future__ import annotations

from lssvwm_agents.envs.maze_config import Texture

WALL_COLORS: tuple[tuple[int, int, int], ...] = (
    (178, 102, 88),  # brick
    (112, 148, 98),  # sage
    (92, 116, 164),  # slate blue
    (212, 186, 128),  # sand
    (138, 94, 140),  # plum
    (86, 158, 154),  # teal
    (176, 176, 172),  # stone
    (112, 86, 62),  # umber
)
TARGET_COLORS: tuple[tuple[int, int, int], ...] = (
    (235, 40, 40),  # red
    (40, 210, 60),  # green
    (50, 80, 250),  # blue
    (250, 220, 30),  # yellow
    (235, 50, 220),  # magenta
    (30, 225, 235),  # cyan
    (245, 245, 245),  # white: the two ends of the cue corridor
)
WHITE_TARGET = 6
CUE_COLORS: tuple[tuple[int, int, int], ...] = ((250, 120, 20), (120, 50, 230))
GATE_COLOR: tuple[int, int, int] = (70, 74, 82)
CEILING_COLOR: tuple[int, int, int] = (150, 184, 214)
FLOOR_COLOR: tuple[int, int, int] = (124, 116, 108)
NEUTRAL_BORDER: tuple[int, int, int] = (40, 40, 44)

# Patterns: plain, bricks, vertical stripes, checkers, horizontal bands, diamonds.
PLAIN, BRICKS, STRIPES, CHECKERS, BANDS, DIAMONDS = range(6)
_CALM_PATTERNS = (BRICKS, PLAIN, PLAIN, PLAIN, PLAIN, STRIPES, PLAIN, BANDS)
_RICH_PATTERNS = ((BRICKS, STRIPES, DIAMONDS), (CHECKERS, BANDS, DIAMONDS))


def materials(texture: Texture) -> tuple[tuple[int, int], ...]:
    """List (wall colour, pattern) of every ordinary material; its first eight have the eight wall colours."""
    if texture == "calm":
        return tuple(enumerate(_CALM_PATTERNS))
    return tuple(
        (color, _RICH_PATTERNS[color % 2][variant])
        for variant in range(3)
        for color in range(len(WALL_COLORS))
    )


def num_materials(texture: Texture) -> int:
    """Count the ordinary materials; cue left, cue right and the gate come after them, in this order."""
    return len(materials(texture))


def cue_material(texture: Texture, branch: int) -> int:
    """Material of the cue wall that announces branch 0 (left) or 1 (right)."""
    return num_materials(texture) + branch


def gate_material(texture: Texture) -> int:
    """Material of the gate in front of the junction."""
    return num_materials(texture) + 2
