"""Rules: determinism, layouts, movement, targets, odometry."""

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lssvwm_agents.envs import MazeConfig, MazeState, make_policy, odometry, render, reset, step, truncated
from lssvwm_agents.envs.hashing import derive_seeds, hash_bits
from lssvwm_agents.envs.maze_config import AGENT_RADIUS, HEADING_UNITS, TOUCH_RADIUS
from lssvwm_agents.envs.raycast_maze import heading_vectors


def rows_equal(one: MazeState, other: MazeState) -> bool:
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(MazeState))


def components(walls: torch.Tensor) -> int:
    """Connected regions of free cells of one grid, by plain depth-first search."""
    free = {(y, x) for y, x in (~walls).nonzero().tolist()}
    count = 0
    while free:
        count += 1
        stack = [free.pop()]
        while stack:
            y, x = stack.pop()
            for cell in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if cell in free:
                    free.remove(cell)
                    stack.append(cell)
    return count


def open_square(size: int = 7) -> tuple[MazeConfig, MazeState]:
    """A maze without inner walls, the agent in its middle looking east, targets in three corners."""
    config = MazeConfig(size=size)
    state = reset(config, torch.tensor([0]))
    state.walls[:, 1:-1, 1:-1] = False
    middle = torch.tensor([[size / 2 + 1, size / 2 + 1]])
    state.position[:], state.heading[:] = middle, 0
    state.start_position[:], state.start_heading[:] = middle, 0
    far = size + 0.5
    state.target_position[:] = torch.tensor([[[1.5, 1.5], [far, 1.5], [far, far]]])
    state.current_target[:] = 0
    return config, state.clone()


@pytest.mark.parametrize(
    "config",
    [
        MazeConfig(size=7),
        MazeConfig(size=15, texture="rich"),
        MazeConfig(size=9, continuous=True),
        MazeConfig(task="cue", cue_delay=16),
    ],
    ids=["7", "15-rich", "9-continuous", "cue"],
)
def test_one_environment_equals_its_row_among_64(config: MazeConfig) -> None:
    seeds = torch.arange(64) * 977 + (1 << 40)
    picked = torch.tensor([0, 17, 63])
    batch, alone = reset(config, seeds), [reset(config, seeds[i : i + 1]) for i in picked]
    policy = make_policy("explorer", config)
    carry = policy.initial_carry(seeds)
    carries = [policy.initial_carry(seeds[i : i + 1]) for i in picked]
    for count in range(25):
        action, carry = policy.act(batch, carry)
        batch, reward, terminated = step(config, batch, action)
        frames = render(config, batch) if count % 8 == 0 else None
        for place, row in enumerate(picked):
            own, carries[place] = policy.act(alone[place], carries[place])
            alone[place], own_reward, own_end = step(config, alone[place], own)
            assert torch.equal(own[0], action[row])
            assert own_reward[0] == reward[row] and own_end[0] == terminated[row]
            if frames is not None:
                assert torch.equal(render(config, alone[place])[0], frames[row])
    for place, row in enumerate(picked):
        assert rows_equal(alone[place], batch.select(row[None]))


def test_same_seed_same_maze_and_other_seed_another_one() -> None:
    config = MazeConfig(size=9)
    first, again = reset(config, torch.tensor([5, 6])), reset(config, torch.tensor([5, 6]))
    assert rows_equal(first, again)
    assert not torch.equal(first.walls[0], first.walls[1])
    assert torch.equal(render(config, first), render(config, again))


def test_hashes_are_uniform_and_use_all_64_bits_of_the_seed() -> None:
    bits = hash_bits(torch.arange(20_000), 3, 7)
    assert bits.min() >= 0 and bits.max() < 1 << 32
    share = torch.stack([((bits >> k) & 1).float().mean() for k in range(32)])
    assert (share - 0.5).abs().max() < 0.02
    seeds = torch.tensor([1, 1 + (1 << 32), 1 + (1 << 61), -1])
    assert hash_bits(seeds, 3).unique().numel() == 4
    assert derive_seeds(seeds, 0).tolist() == seeds.tolist()
    assert derive_seeds(torch.arange(1000), 1).unique().numel() == 1000


@pytest.mark.parametrize("size", [5, 7, 9, 15])
def test_mazes_are_connected_and_have_loops(size: int) -> None:
    state = reset(MazeConfig(size=size), torch.arange(12))
    nodes = ((size + 1) // 2) ** 2
    for walls in state.walls:
        assert walls[0].all() and walls[-1].all() and walls[:, 0].all() and walls[:, -1].all()
        assert components(walls) == 1
        # A tree over the lattice opens nodes - 1 cells between its nodes; every further one closes a loop.
        assert int((~walls).sum()) - nodes > nodes - 1


def test_loop_fraction_zero_makes_a_perfect_maze() -> None:
    state = reset(MazeConfig(size=9, loop_fraction=0.0), torch.arange(8))
    assert ((~state.walls).flatten(1).sum(1) == 25 + 24).all()
    assert all(components(walls) == 1 for walls in state.walls)


@pytest.mark.parametrize(("size", "number"), [(7, 3), (9, 3), (11, 4), (13, 5), (15, 6)])
def test_targets_follow_memory_maze_and_lie_in_free_cells_away_from_the_start(size: int, number: int) -> None:
    config = MazeConfig(size=size)
    assert config.num_targets == number
    state = reset(config, torch.arange(32))
    cell = state.target_position.floor().long()
    rows = torch.arange(32)[:, None]
    assert not state.walls[rows, cell[..., 1], cell[..., 0]].any()
    assert (state.target_position - state.start_position[:, None]).abs().sum(-1).min() >= 3
    assert all(colors.unique().numel() == number for colors in state.target_color)
    assert all(cells.unique(dim=0).shape[0] == number for cells in cell)
    assert (state.heading % (HEADING_UNITS // 4) == 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), continuous=st.booleans(), pace=st.sampled_from([0.2, 0.5, 0.75]))
def test_nobody_walks_through_walls(seed: int, continuous: bool, pace: float) -> None:
    config = MazeConfig(size=7, continuous=continuous, move_per_step=pace)
    state = reset(config, torch.arange(32) + seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(32)
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]) * (AGENT_RADIUS - 1e-4)
    for _ in range(40):
        action = torch.rand(32, 2, generator=generator) * 2 - 1
        if not continuous:
            action = torch.randint(1, 6, (32,), generator=generator)
        before = state.position
        state, _, _ = step(config, state, action)
        cell = (state.position[:, None] + corners).floor().long()
        assert not state.walls[rows[:, None], cell[..., 1], cell[..., 0]].any()
        assert ((state.position - before).abs() <= pace + 1e-3).all()
        assert torch.equal((state.position * 1024).round() / 1024, state.position)


def test_sliding_along_a_wall_keeps_the_free_part_of_the_move() -> None:
    config, state = open_square()
    state.heading[:] = 45 * 16
    state.position[:] = torch.tensor([[8 - AGENT_RADIUS, 3.0]])  # touching the east wall
    moved, _, _ = step(config, state, torch.tensor([1]))
    assert moved.position[0, 0] == 8 - AGENT_RADIUS
    assert moved.position[0, 1].item() == pytest.approx(3 + 0.5 * math.sqrt(0.5), abs=1e-3)


def test_turning_and_moving_are_what_they_say() -> None:
    config, state = open_square()
    for action, moved, turned in (
        (0, 0, 0),
        (1, 0.5, 0),
        (2, 0, 15),
        (3, 0, -15),
        (4, 0.5, 15),
        (5, 0.5, -15),
    ):
        after, _, _ = step(config, state, torch.tensor([action]))
        angle = math.radians(turned)
        expected = [4.5 + moved * math.cos(angle), 4.5 + moved * math.sin(angle)]
        assert after.position[0].tolist() == pytest.approx(expected, abs=1e-3)
        assert after.heading.item() == turned * 16 % HEADING_UNITS


def test_continuous_actions_scale_and_go_backwards_slowly() -> None:
    config, state = open_square()
    config = MazeConfig(size=7, continuous=True)
    half, _, _ = step(config, state, torch.tensor([[0.5, 1.0]]))
    assert half.heading.item() == 15 * 16
    assert (half.position - state.position).norm().item() == pytest.approx(0.25, abs=2e-3)
    back, _, _ = step(config, state, torch.tensor([[-1.0, 0.0]]))
    assert (back.position - state.position)[0].tolist() == [-0.125, 0]
    same, _, _ = step(config, state, torch.tensor([[0.0, 0.0]]))
    assert torch.equal(same.position, state.position)


def test_only_the_current_target_pays_and_then_another_one_is_current() -> None:
    config, state = open_square()
    beside = state.clone()
    beside.position[:] = beside.target_position[:, 1] - torch.tensor([TOUCH_RADIUS + 0.1, 0])
    after, reward, terminated = step(config, beside, torch.tensor([1]))
    assert reward.item() == 0 and after.current_target.item() == 0 and not terminated
    beside.current_target[:] = 1
    after, reward, terminated = step(config, beside, torch.tensor([1]))
    assert reward.item() == 1 and after.current_target.item() != 1 and not terminated
    assert after.targets_reached.item() == 1
    assert torch.equal(after.target_position, beside.target_position)
    again, reward, _ = step(config, after, torch.tensor([0]))
    assert reward.item() == 0 and again.current_target.item() == after.current_target.item()


def test_the_next_target_is_random_but_never_the_same() -> None:
    config = MazeConfig(size=9)
    state = reset(config, torch.arange(400))
    rows = torch.arange(400)
    state.position[:] = state.target_position[rows, state.current_target]
    before = state.current_target
    after, reward, _ = step(config, state, torch.zeros(400, dtype=torch.int64))
    assert (reward == 1).all() and (after.current_target != before).all()
    assert 120 < ((after.current_target - before) % 3 == 1).sum() < 280


def test_odometry_equals_the_integrated_pose() -> None:
    config = MazeConfig(size=9)
    state = reset(config, torch.arange(16))
    assert torch.equal(odometry(config, state), torch.tensor([[0.0, 0, 0, 1]]).expand(16, 4))
    generator = torch.Generator().manual_seed(0)
    x, y, heading = torch.zeros(16), torch.zeros(16), torch.zeros(16)
    for _ in range(60):
        before, start = state, heading_vectors(state.start_heading)
        state, _, _ = step(config, state, torch.randint(0, 6, (16,), generator=generator))
        moved = state.position - before.position
        x += moved[:, 0] * start[:, 0] + moved[:, 1] * start[:, 1]
        y += moved[:, 1] * start[:, 0] - moved[:, 0] * start[:, 1]
        turned = (state.heading - before.heading + HEADING_UNITS // 2) % HEADING_UNITS - HEADING_UNITS // 2
        heading += turned / 16
    expected = torch.stack([x, y, torch.sin(torch.deg2rad(heading)), torch.cos(torch.deg2rad(heading))], 1)
    assert torch.allclose(odometry(config, state), expected, atol=1e-4)


def test_walking_ahead_and_to_the_left_has_positive_odometry() -> None:
    config, state = open_square()
    ahead, _, _ = step(config, state, torch.tensor([1]))
    assert odometry(config, ahead)[0].tolist() == [0.5, 0, 0, 1]
    left, _, _ = step(config, state, torch.tensor([4]))
    assert (odometry(config, left)[0] > 0).all()


def test_truncation_comes_after_max_episode_steps() -> None:
    config = MazeConfig(max_episode_steps=3)
    state = reset(config, torch.tensor([0]))
    flags = []
    for _ in range(4):
        state, _, _ = step(config, state, torch.tensor([0]))
        flags.append(bool(truncated(config, state)))
    assert flags == [False, False, True, True]


def test_step_leaves_the_old_state_alone_and_rows_can_be_replaced() -> None:
    config = MazeConfig(task="cue", cue_delay=16)
    state = reset(config, torch.arange(4))
    kept = state.clone()
    after, _, _ = step(config, state, torch.tensor([1, 2, 3, 4]))
    assert rows_equal(state, kept)
    mixed = after.replace_rows(torch.tensor([2]), state.select(torch.tensor([2])))
    assert rows_equal(mixed.select(torch.tensor([2])), state.select(torch.tensor([2])))
    assert rows_equal(mixed.select(torch.tensor([0, 1, 3])), after.select(torch.tensor([0, 1, 3])))


@pytest.mark.parametrize(
    ("fields_", "words"),
    [
        ({"size": 8}, "`size` must be odd"),
        ({"texture": "shiny"}, "`texture`"),
        ({"num_targets": 1}, "`num_targets`"),
        ({"task": "cue", "cue_delay": 8}, "`cue_delay`"),
        ({"turn_degrees": 0.01}, "`turn_degrees`"),
        ({"move_per_step": 1.0}, "`move_per_step`"),
        ({"image_size": 8}, "`image_size`"),
    ],
)
def test_bad_settings_are_named(fields_: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MazeConfig(**fields_)


def test_bad_seeds_and_actions_are_named() -> None:
    config = MazeConfig()
    with pytest.raises(ValueError, match="`seeds`"):
        reset(config, torch.zeros(2))
    state = reset(config, torch.arange(2))
    with pytest.raises(ValueError, match="`action`"):
        step(config, state, torch.zeros(2))
    with pytest.raises(ValueError, match="2 rows"):
        step(config, state, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(B, 2\) float"):
        step(MazeConfig(continuous=True), state, torch.zeros(2, dtype=torch.int64))
