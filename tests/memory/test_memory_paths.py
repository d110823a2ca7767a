"""Loops come back to the very same frames; places are what a frame shows of the walls."""

import itertools

import pytest
import torch
from memory_builders import hand_made

from lssvwm_agents.envs import MazeConfig, reset, step
from lssvwm_agents.envs.maze_config import HEADING_UNITS
from lssvwm_agents.envs.wall_places import PIECES, place_at_center, visible_places
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.memory.episodes import (
    NEVER,
    age_of_place,
    age_of_pose,
    play_explorer,
    play_moves,
    walked_back,
)
from lssvwm_agents.evaluate.memory.paths import (
    FORWARD,
    LEFT,
    MIN_CELLS,
    RIGHT,
    MoveSizes,
    close_loop,
    loop_moves,
    reachable,
    tour,
    usable_seeds,
)

MAZE = MazeConfig(size=7)
SEEDS = usable_seeds(MAZE, episode_seeds(0, 12), 4)
CONTEXT = 64


def loops(period, horizon=48):
    return loop_moves(MAZE, reset(MAZE, SEEDS), SEEDS, CONTEXT, period, horizon)


@pytest.mark.parametrize("period", [24, 26, 40, 64])
def test_the_second_round_shows_the_very_frames_of_the_first(period):
    moves = loops(period)
    episodes = play_moves(MAZE, SEEDS, moves)
    length = min(period, 48)
    assert moves.shape == (4, CONTEXT + length)
    first = episodes.frames[:, CONTEXT - period : CONTEXT - period + length]
    assert torch.equal(episodes.frames[:, CONTEXT:], first)
    assert torch.equal(episodes.proprio[:, CONTEXT:], episodes.proprio[:, CONTEXT - period :][:, :length])
    age = age_of_pose(episodes, CONTEXT)
    assert bool((age >= 1).all()) and int(age.max()) == period
    assert len(torch.unique(episodes.frames[0, CONTEXT:].flatten(1), dim=0)) > 10  # it does move


def test_a_loop_pays_nothing_and_bumps_into_nothing():
    moves, state = loops(64), reset(MAZE, SEEDS)
    for t in range(1, moves.shape[1]):
        before = state.position
        state, reward, _ = step(MAZE, state, moves[:, t])
        assert not reward.any()
        moved = (state.position - before).abs().sum(1)
        assert torch.equal(moved, torch.where(moves[:, t] == FORWARD, 0.5, 0.0))


def test_neighbouring_rows_turn_in_opposite_directions():
    second_round = loops(24)[:, CONTEXT:]
    assert [set(row.tolist()) for row in second_round] == [{LEFT}, {RIGHT}, {LEFT}, {RIGHT}]


def test_closing_a_loop():
    sizes = MoveSizes(cell=2, quarter=1)
    closed = close_loop([FORWARD, LEFT, FORWARD], sizes, (LEFT, RIGHT))
    assert closed == [FORWARD, LEFT, FORWARD, LEFT, LEFT, FORWARD, RIGHT, FORWARD, RIGHT, RIGHT]
    assert close_loop([], sizes, (LEFT, LEFT)) == [LEFT] * 4


@pytest.mark.parametrize("period", [22, 25, 66])
def test_impossible_loops_are_refused(period):
    with pytest.raises(ValueError, match=f"even, at least 24 moves and at most the context's 64 .* {period}"):
        loops(period)


@pytest.mark.parametrize("options", [{"move_per_step": 0.3}, {"turn_degrees": 25.0}, {"continuous": True}])
def test_mazes_whose_views_do_not_recur_are_refused(options):
    with pytest.raises(ValueError, match="views recur exactly only"):
        MoveSizes.of(MazeConfig(size=7, **options))


def test_reach_stops_at_the_closed_cell():
    walls = torch.ones(3, 6, dtype=torch.bool)
    walls[1, 1:5] = False
    assert reachable(walls.numpy(), (1, 1), None) == {(1, 1), (2, 1), (3, 1), (4, 1)}
    assert reachable(walls.numpy(), (1, 1), (3, 1)) == {(1, 1), (2, 1)}
    stream = tour(walls.numpy(), (1, 1), 0, (3, 1), MoveSizes(2, 6), seed=0)
    # the only way is between two cells: as many moves east as west, never two cells in one direction
    x, facing, visited = 2, 0, set()
    for move in itertools.islice(stream, 400):
        facing = (facing + (move == LEFT) - (move == RIGHT)) % 24
        x += (move == FORWARD) * {0: 1, 12: -1}.get(facing, 0)
        visited.add(x)
    assert visited == {2, 3, 4}


def test_usable_mazes_leave_room():
    state = reset(MAZE, SEEDS)
    for row in range(4):
        x, y = state.start_position[row].int().tolist()
        target = state.target_position[row, int(state.current_target[row])].int().tolist()
        assert len(reachable(state.walls[row].numpy(), (x, y), tuple(target))) >= MIN_CELLS
    with pytest.raises(ValueError, match="5 mazes with 8 cells within reach are needed"):
        usable_seeds(MAZE, SEEDS, 5)


# --- when a place was last seen ---------------------------------------------------------------------


def test_ages_count_from_the_last_time_in_the_context():
    #                  context: 0  1  2  3 | future: 4  5  6
    episodes = hand_made(
        pose=[7, 8, 7, 9, 7, 5, 8],
        center=[1, 2, 3, 4, 2, 9, 6],
        seen=[[1, 5], [2, 6], [3, 2], [4, 5], [2, 9], [9, 9], [6, 9]],
    )
    assert age_of_pose(episodes, 4).tolist() == [[2, NEVER, 5]]
    # 2 was in view in frame 2 last; 9 only in the future; 6 aside in frame 1
    assert age_of_place(episodes, 4).tolist() == [[2, NEVER, 5]]


def test_walking_back_shows_the_frames_backwards_without_actions():
    episodes = hand_made(list(range(6)), [0] * 6, [[0]] * 6)
    back = walked_back(episodes, 4)
    assert back.frames[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 4, 3, 2]
    assert back.action_known[0].tolist() == [False] + [True] * 5 + [False] * 4
    assert not back.actions[0, 6:].any() and torch.equal(back.actions[0, 1:6], episodes.actions[0, 1:6])
    assert back.proprio[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 4, 3, 2]
    assert age_of_pose(back, 6).tolist() == [[1, 3, 5, 7]]
    with pytest.raises(ValueError, match="at most the 6 frames of the way there, got 7"):
        walked_back(episodes, 7)


def test_places_are_pieces_of_wall_faces():
    state = reset(MAZE, SEEDS)
    center, columns = place_at_center(state), visible_places(MAZE, state)
    assert columns.shape == (4, MAZE.image_size - 6)
    assert bool((columns == center[:, None]).any(1).all())
    # going straight ahead the same piece stays in front
    ahead, *_ = step(MAZE, state, torch.full((4,), FORWARD))
    assert torch.equal(place_at_center(ahead), center)
    # the walls of a cell are other places than what stands behind
    around = state
    for _ in range(12):
        around, *_ = step(MAZE, around, torch.full((4,), LEFT))
    assert int((around.heading - state.heading)[0]) % HEADING_UNITS == HEADING_UNITS // 2
    assert not bool((place_at_center(around) == center).any())
    assert int(columns.max()) < MAZE.grid_size**2 * 4 * PIECES


def test_the_two_sides_of_a_wall_are_two_places():
    state = reset(MAZE, SEEDS[:1])
    walls = torch.ones(1, 9, 9, dtype=torch.bool)
    walls[0, 1, 1:8] = False
    walls[0, 1, 4] = True  # a wall across the corridor, seen from both sides
    from dataclasses import replace

    def at(x, heading):
        return replace(state, walls=walls, position=torch.tensor([[x, 1.5]]), heading=torch.tensor([heading]))

    west, east = place_at_center(at(2.5, 0)), place_at_center(at(6.5, HEADING_UNITS // 2))
    assert int(west) // (4 * PIECES) == int(east) // (4 * PIECES) == 1 * 9 + 4
    assert int(west) != int(east) and int(place_at_center(at(1.5, 0))) == int(west)


def test_the_explorer_sees_again_what_it_saw_and_new_places_too():
    episodes = play_explorer(MAZE, SEEDS, 96, "cpu")
    age = age_of_place(episodes, 64)
    assert bool((age == NEVER).any()) and bool((age > 0).any())
    assert int(age.max()) <= 95
