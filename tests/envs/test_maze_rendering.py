"""Frames and maps: scenes worked out by hand, borders, independence of rows."""

import math

import pytest
import torch

from lssvwm_agents.envs import (
    MazeConfig,
    make_policy,
    render,
    render_top_down,
    reset,
    step,
    wall_color_at_center,
)
from lssvwm_agents.envs.maze_config import TOUCH_RADIUS
from lssvwm_agents.envs.palette import CUE_COLORS, TARGET_COLORS
from lssvwm_agents.envs.ray_casting import cast_rays
from lssvwm_agents.envs.raycast_maze import heading_vectors
from lssvwm_agents.envs.raycast_render import border_pixels, ray_directions
from lssvwm_agents.envs.render_tables import BALL_HEIGHT, BALL_RADIUS, EYE_HEIGHT, WALL_HEIGHT, render_tables

SIZE = 64
PLAIN = 3  # sand, without a pattern


def hall(distance: float, heading_degrees: int = 0, image_size: int = SIZE):
    """An empty hall of one plain material; the agent stands ``distance`` cells west of its east wall."""
    config = MazeConfig(size=15, num_targets=3, image_size=image_size)
    state = reset(config, torch.tensor([0])).clone()
    state.walls[:, 1:-1, 1:-1] = False
    state.materials[:] = PLAIN
    state.position[:] = torch.tensor([[16 - distance, 8.5]])
    state.heading[:] = heading_degrees * 16
    state.target_position[:] = torch.tensor([1.5, 1.5])
    return config, state


@pytest.mark.parametrize("distance", [1.0, 2.0, 4.0])
def test_a_wall_at_a_known_distance_has_the_height_of_perspective(distance: float) -> None:
    config, state = hall(distance)
    column = render(config, state)[0, :, SIZE // 2].int()
    focal = SIZE / 2 / math.tan(math.radians(config.field_of_view_degrees) / 2)
    top = SIZE / 2 - focal * (WALL_HEIGHT - EYE_HEIGHT) / distance
    bottom = SIZE / 2 + focal * EYE_HEIGHT / distance
    # The wall is sand: much more red than blue; ceiling and floor are not.
    wall = (column[:, 0] - column[:, 2] > 30).nonzero().flatten()
    wall = wall[(wall > 3) & (wall < SIZE - 3)]
    assert abs(wall.min().item() - top) <= 1.5
    assert abs(wall.max().item() + 1 - bottom) <= 1.5
    assert wall_color_at_center(config, state).item() == PLAIN


def test_rays_meet_walls_where_geometry_says() -> None:
    config, state = hall(2.5)
    slope = torch.tensor([0.0, 0.5, -0.5])
    hits = cast_rays(state.walls, state.position, ray_directions(heading_vectors(state.heading), slope))
    assert hits.depth[0].tolist() == [2.5, 2.5, 2.5]
    assert hits.axis[0].tolist() == [0, 0, 0]
    assert hits.offset[0].tolist() == pytest.approx([0.5, 0.25, 0.75])
    assert hits.cell[0].tolist() == [8 * 17 + 16, 7 * 17 + 16, 9 * 17 + 16]


def test_rays_agree_with_marching_in_small_steps() -> None:
    config = MazeConfig(size=9)
    state = reset(config, torch.arange(6))
    policy = make_policy("explorer", config)
    carry = policy.initial_carry(torch.arange(6))
    for _ in range(15):
        action, carry = policy.act(state, carry)
        state, _, _ = step(config, state, action)
    direction = ray_directions(heading_vectors(state.heading), render_tables(config, "cpu").slope)[:, :, ::9]
    hits = cast_rays(state.walls, state.position, direction)
    depth = torch.arange(0, 12, 1e-3, dtype=torch.float64)[:, None, None, None]
    points = state.position[:, :, None] + direction * depth
    cell = points.floor().long().clamp(0, 10)
    inside = state.walls[torch.arange(6)[:, None], cell[:, :, 1], cell[:, :, 0]]
    marched = inside.to(torch.uint8).argmax(0) * 1e-3
    assert (marched - hits.depth).abs().max() < 5e-3


def test_a_ball_ahead_has_the_size_of_perspective_and_hides_the_wall() -> None:
    config, state = hall(6.0)
    state.target_position[:, 0] = state.position + torch.tensor([2.0, 0.0])
    state.target_color[:] = torch.tensor([0, 1, 2])
    state.current_target[:] = 2
    frame = render(config, state)[0].int()
    red = (frame[..., 0] > 120) & (frame[..., 1] < 90) & (frame[..., 2] < 90)
    focal = SIZE / 2 / math.tan(math.radians(config.field_of_view_degrees) / 2)
    diameter = 2 * BALL_RADIUS * focal / 2
    rows, columns = red.any(1).nonzero().flatten(), red.any(0).nonzero().flatten()
    assert abs(rows.numel() - diameter) <= 2 and abs(columns.numel() - diameter) <= 2
    middle = SIZE / 2 + focal * (EYE_HEIGHT - BALL_HEIGHT) / 2
    assert abs(rows.float().mean().item() + 0.5 - middle) <= 1
    assert wall_color_at_center(config, state).item() == -1
    state.walls[:, :, 11] = True  # a wall between agent and ball
    hidden = render(config, state)[0].int()
    assert not ((hidden[..., 0] > 120) & (hidden[..., 1] < 90) & (hidden[..., 2] < 90)).any()
    assert wall_color_at_center(config, state).item() == PLAIN


def test_left_of_the_agent_is_left_in_the_frame() -> None:
    config, state = hall(6.0)
    state.target_position[:, 0] = state.position + torch.tensor([3.0, 1.5])  # facing east, north is left
    state.target_color[:] = torch.tensor([0, 1, 2])
    state.current_target[:] = 2
    frame = render(config, state)[0].int()
    red = (frame[..., 0] > 120) & (frame[..., 1] < 90) & (frame[..., 2] < 90)
    assert red.any() and red.nonzero()[:, 1].max() < SIZE // 2


@pytest.mark.parametrize("texture", ["calm", "rich"])
@pytest.mark.parametrize("turn", [2, 3])
def test_a_full_turn_gives_the_identical_frame(texture: str, turn: int) -> None:
    config = MazeConfig(size=9, texture=texture)
    state = reset(config, torch.arange(8))
    first = render(config, state)
    differs = torch.zeros(8, dtype=torch.bool)
    for _ in range(24):
        state, _, _ = step(config, state, torch.full((8,), turn))
        differs |= (render(config, state) != first).flatten(1).any(1)
    assert differs.all()
    assert torch.equal(render(config, state), first)


def test_the_border_shows_the_current_target_also_after_it_changes() -> None:
    config = MazeConfig(size=7)
    state = reset(config, torch.arange(12))
    rows, width = torch.arange(12), border_pixels(config)
    colors = torch.tensor(TARGET_COLORS, dtype=torch.uint8)
    for _ in range(3):
        frame = render(config, state)
        expected = colors[state.target_color[rows, state.current_target]]
        for strip in (
            frame[:, :width].flatten(1, 2),
            frame[:, -width:].flatten(1, 2),
            frame[:, :, :width].flatten(1, 2),
            frame[:, :, -width:].flatten(1, 2),
        ):
            assert torch.equal(strip, expected[:, None].expand_as(strip))
        inside = frame[:, width : 2 * width, width:-width]
        assert not (inside == expected[:, None, None]).all(-1).any()
        position = state.target_position[rows, state.current_target] - torch.tensor([TOUCH_RADIUS / 2, 0])
        state.position[:] = position
        state, reward, _ = step(config, state, torch.zeros(12, dtype=torch.int64))
        assert (reward == 1).all()


@pytest.mark.parametrize("image_size", [32, 96])
def test_other_image_sizes(image_size: int) -> None:
    config, state = hall(2.0, image_size=image_size)
    assert render(config, state).shape == (1, image_size, image_size, 3)


def test_rows_are_independent_and_chunks_do_not_show() -> None:
    config = MazeConfig(size=7)
    state = reset(config, torch.arange(130))
    frames = render(config, state)
    other = state.replace_rows(torch.arange(64), reset(config, torch.arange(500, 564)))
    assert torch.equal(render(config, other)[64:], frames[64:])
    order = torch.randperm(130, generator=torch.Generator().manual_seed(0))
    assert torch.equal(render(config, state.select(order)), frames[order])


def test_calm_regions_are_told_apart_and_rich_cells_vary() -> None:
    calm = reset(MazeConfig(size=9), torch.arange(16)).materials
    assert all(m.unique().numel() == 8 for m in calm)  # every colour occurs
    inside = calm[:, :, 1:-1, 1:-1]
    assert (inside[..., 0] == inside[..., 1]).all() and (inside[..., 2] != inside[..., 3]).any()
    rich = reset(MazeConfig(size=9, texture="rich"), torch.arange(16)).materials
    assert all(m.unique().numel() > 20 for m in rich)


@pytest.mark.parametrize("delay", [16, 64])
def test_the_cue_is_seen_at_the_start_and_nowhere_near_the_junction(delay: int) -> None:
    config = MazeConfig(task="cue", cue_delay=delay)
    state = reset(config, torch.arange(8))
    cue = wall_color_at_center(config, state) - 8
    assert torch.equal(cue, state.current_target) and cue.unique().numel() == 2
    wanted = torch.tensor(CUE_COLORS)[cue][:, None, None]
    orange_or_violet = (render(config, state).int() - wanted).abs().sum(-1) < 60
    assert orange_or_violet.flatten(1).sum(1).min() > 200
    # From the corridor's third cell on, in the arms, in all directions, gate open: the cue must not show.
    length = config.cue_corridor_cells
    spots = [(x, y / 4) for y in range(12, 4 * (length + 1)) for x in (4.25, 4.5, 4.75)]
    spots += [(x / 4, length + 1.5) for x in range(5, 32)]
    position = torch.tensor([spot for spot in spots for _ in range(24)])
    place = reset(config, torch.zeros(len(position), dtype=torch.int64)).clone()
    place.position[:] = position
    place.heading[:] = torch.arange(24).repeat(len(spots)) * 15 * 16
    place.walls[:, length, 4] = False
    swapped = place.clone()
    swapped.materials[place.materials == 8], swapped.materials[place.materials == 9] = 9, 8
    swapped.current_target[:] = 1 - place.current_target
    assert not torch.equal(swapped.materials, place.materials)
    assert torch.equal(render(config, place), render(config, swapped))


def test_top_down_maps_show_walls_targets_agent_and_path() -> None:
    config = MazeConfig(size=7)
    state = reset(config, torch.arange(3))
    path = torch.full((3, 4, 2), float("nan"))
    path[:, 0], path[:, 1] = state.position, state.target_position[:, 0]
    plain, drawn = render_top_down(config, state, 128), render_top_down(config, state, 128, path)
    assert plain.shape == (3, 128, 128, 3) and plain.dtype == torch.uint8
    assert not torch.equal(plain, drawn)
    for row in range(3):
        for number in range(3):
            x, y = state.target_position[row, number].tolist()
            pixel = plain[row, int(128 - y / 9 * 128), int(x / 9 * 128)]
            assert pixel.tolist() == list(TARGET_COLORS[state.target_color[row, number]])
    moved, _, _ = step(config, state, torch.full((3,), 2))
    assert not torch.equal(render_top_down(config, moved, 128), plain)
    assert torch.equal(render_top_down(config, state.select(slice(1, 2)), 128)[0], plain[1])
    with pytest.raises(ValueError, match="`path`"):
        render_top_down(config, state, 128, path[:2])
    with pytest.raises(ValueError, match="`size`"):
        render_top_down(config, state, 4)
