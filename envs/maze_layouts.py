"""Batched maze layouts: a random spanning tree with some loops, and the cue corridor.

Shapes: B mazes, G grid cells per side (outer walls included), M lattice nodes per side, N = M * M nodes.
Grids are indexed [y, x] with y pointing up. Lattice nodes are the cells with odd coordinates; they are always
free.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from lssvwm_agents.envs.hashing import below, chance, hash_bits
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.palette import cue_material, gate_material, num_materials

_GROW, _DIRECTION, _LOOP, _DECK = 11, 12, 13, 14
_RANDOM_GROWTH = 0.15
_REGION = 3


def unique_keys(bits: Tensor) -> Tensor:
    """Make random keys (..., K) distinct along the last dimension, so that no device has a tie to break."""
    count = bits.shape[-1]
    return bits * count + torch.arange(count, device=bits.device)


@lru_cache(maxsize=64)
def _lattice(nodes_per_side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Neighbours (N, 4) with N for none, node cells (N,), steps to edge cells (4,), edge cells (E,)."""
    side, grid = nodes_per_side, 2 * nodes_per_side + 1
    offsets = ((1, 0), (0, 1), (-1, 0), (0, -1))  # (dx, dy)
    neighbours, cells, edges = [], [], []
    for y in range(side):
        for x in range(side):
            cells.append((2 * y + 1) * grid + 2 * x + 1)
            row = []
            for dx, dy in offsets:
                inside = 0 <= x + dx < side and 0 <= y + dy < side
                row.append((y + dy) * side + x + dx if inside else side * side)
            neighbours.append(row)
            if x + 1 < side:
                edges.append(cells[-1] + 1)
            if y + 1 < side:
                edges.append(cells[-1] + grid)
    steps = [dy * grid + dx for dx, dy in offsets]
    neighbour_N4, cell_N, step_4, edge_E = (
        torch.tensor(v, device=device) for v in (neighbours, cells, steps, edges)
    )
    return neighbour_N4, cell_N, step_4, edge_E


def lattice_maze(seed: Tensor, size: int, loop_fraction: float) -> Tensor:
    """Carve mazes by growing a tree from its newest open node (sometimes from a random one), then open loops.

    The growing tree with "newest first" is the recursive backtracker: long winding corridors. Every step of
    the loop adds one node in every maze of the batch.

    Args:
        seed: (B,) int64.
        size: Interior cells per side, odd.
        loop_fraction: Share of the walls between neighbouring nodes left by the tree that is opened (at least
            one unless it is 0).

    Returns:
        (B, G, G) bool, True where there is a wall.
    """
    device, batch, side, grid = seed.device, seed.shape[0], (size + 1) // 2, size + 2
    nodes = side * side
    neighbour_N4, cell_N, step_4, edge_E = _lattice(side, device)
    rows = torch.arange(batch, device=device)
    walls = torch.ones(batch, grid * grid, dtype=torch.bool, device=device)
    walls[:, cell_N] = False
    order = torch.full((batch, nodes + 1), -1, dtype=torch.int64, device=device)
    order[:, nodes] = 0  # the sentinel neighbour counts as visited
    root = below(hash_bits(seed, _GROW, 0), nodes)
    order[rows, root] = 0
    node_index = torch.arange(nodes, device=device)
    direction_index = torch.arange(4, device=device)
    for count in range(1, nodes):
        unvisited = order[:, neighbour_N4] < 0
        growable = unvisited.any(-1) & (order[:, :nodes] >= 0)
        pick_random = chance(hash_bits(seed, _GROW, count), _RANDOM_GROWTH)
        random_key = unique_keys(hash_bits(seed[:, None], _GROW, count, node_index + 1))
        score = torch.where(pick_random[:, None], random_key, order[:, :nodes])
        current = torch.where(growable, score, -1).argmax(1)
        key = unique_keys(hash_bits(seed[:, None], _DIRECTION, count, direction_index))
        direction = torch.where(unvisited[rows, current], key, -1).argmax(1)
        walls[rows, cell_N[current] + step_4[direction]] = False
        order[rows, neighbour_N4[current, direction]] = count
    closed = edge_E.shape[0] - (nodes - 1)
    num_loops = 0 if loop_fraction == 0 else max(1, round(loop_fraction * closed))
    if num_loops:
        key = unique_keys(hash_bits(seed[:, None], _LOOP, torch.arange(edge_E.shape[0], device=device)))
        key = torch.where(walls[:, edge_E], key, -1)
        opened = edge_E[key.topk(num_loops, dim=1).indices]
        walls.scatter_(1, opened, torch.zeros_like(opened, dtype=torch.bool))
    return walls.view(batch, grid, grid)


def wall_materials(seed: Tensor, config: MazeConfig) -> Tensor:
    """Choose what every wall face is made of.

    Calm: one material per region of 3 x 3 cells and face direction, dealt from shuffled decks so that all of
        them
    occur before one repeats: places can be told apart. Rich: one per wall cell and face direction.

    Args:
        seed: (B,) int64.
        config: Grid size and texture.

    Returns:
        (B, 2, G, G) uint8 material indices; channel 0 for faces across x, channel 1 for faces across y.
    """
    device, grid, count = seed.device, config.grid_size, num_materials(config.texture)
    cell = torch.arange(grid, device=device)
    axis = torch.arange(2, device=device)[:, None, None]
    if config.texture == "rich":
        index = (axis * grid + cell[:, None]) * grid + cell
        return below(hash_bits(seed[:, None, None, None], _DECK, index), count).to(torch.uint8)
    region = (cell - 1).clamp(min=0) // _REGION
    per_side = (grid - 2 + _REGION - 1) // _REGION
    region = region.clamp(max=per_side - 1)
    place = (region[:, None] * per_side + region) * 2 + axis
    decks = (2 * per_side * per_side + count - 1) // count
    slots = torch.arange(decks * count, device=device).view(decks, count)
    deck = unique_keys(hash_bits(seed[:, None, None], _DECK, slots)).argsort(-1)
    return deck.flatten(1)[:, place].to(torch.uint8)


def cue_geometry(config: MazeConfig) -> dict[str, tuple[int, int]]:
    """Name the cells (x, y) of the cue corridor: start, cue wall, gate, junction, left and right end."""
    length, center = config.cue_corridor_cells, 4
    return {
        "start": (center, 1),
        "alcove": (center - 1, 1),
        "cue": (center - 2, 1),
        "gate": (center, length),
        "junction": (center, length + 1),
        "left": (1, length + 1),
        "right": (7, length + 1),
    }


def cue_corridor(config: MazeConfig, device: torch.device) -> Tensor:
    """Lay out the cue corridor, gate closed: (G, G) bool.

    The agent starts at the south end, looking west into an alcove whose end wall carries the cue. The
    corridor leads north to a gate and, behind it, a junction with two arms. From the corridor's third cell
    on, walls hide the cue.
    """
    where = cue_geometry(config)
    walls = torch.ones(config.grid_size, config.grid_size, dtype=torch.bool, device=device)
    (center, south), (_, junction) = where["start"], where["junction"]
    walls[south:junction, center] = False
    walls[where["alcove"][1], where["alcove"][0]] = False
    walls[junction, where["left"][0] : where["right"][0] + 1] = False
    walls[where["gate"][1], where["gate"][0]] = True
    return walls


def paint_cue(materials: Tensor, cue: Tensor, config: MazeConfig) -> Tensor:
    """Paint the cue wall and the gate: (B, 2, G, G) uint8 and cue (B,) in {0, 1} give (B, 2, G, G) uint8."""
    where = cue_geometry(config)
    materials = materials.clone()
    materials[:, 0, where["cue"][1], where["cue"][0]] = (cue + cue_material(config.texture, 0)).to(
        torch.uint8
    )
    materials[:, :, where["gate"][1], where["gate"][0]] = gate_material(config.texture)
    return materials
