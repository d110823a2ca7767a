"""Scripted policies: who beats whom, nobody gets stuck, paths are shortest."""

import pytest
import torch

from lssvwm_agents.envs import POLICY_NAMES, MazeConfig, make_policy, reset, step
from lssvwm_agents.envs.grid_paths import next_cell
from lssvwm_agents.evaluate.memory.events import cue_paths

BATCH = 24


def play(config: MazeConfig, name: str, steps: int, first_seed: int = 0):
    """Returns (B,), positions (steps, B, 2), actions (steps, B, ...) of one batch of episodes."""
    seeds = torch.arange(BATCH) + first_seed
    state, policy = reset(config, seeds), make_policy(name, config)
    carry = policy.initial_carry(seeds + 10_000)
    returns, alive = torch.zeros(BATCH), torch.ones(BATCH, dtype=torch.bool)
    positions, actions = [], []
    for _ in range(steps):
        action, carry = policy.act(state, carry)
        state, reward, terminated = step(config, state, action)
        returns += reward * alive
        alive &= ~terminated
        positions.append(state.position)
        actions.append(action)
    return returns, torch.stack(positions), torch.stack(actions), alive


def distances(free: torch.Tensor, goal: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Breadth-first distances, the plain way."""
    found, queue = {goal: 0}, [goal]
    for y, x in queue:
        for cell in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if free[cell] and cell not in found:
                found[cell] = found[(y, x)] + 1
                queue.append(cell)
    return found


@pytest.mark.parametrize("size", [7, 15])
def test_next_cell_is_one_step_nearer_to_the_goal(size: int) -> None:
    free = ~reset(MazeConfig(size=size), torch.arange(40)).walls
    grid = size + 2
    generator = torch.Generator().manual_seed(0)
    cells = free.flatten(1).float().multinomial(2, generator=generator)
    start, goal = cells[:, 0].clone(), cells[:, 1]
    start[0] = goal[0]
    following = next_cell(free, start, goal)
    assert following[0] == start[0]
    for row in range(1, 40):
        to_goal = distances(free[row], divmod(goal[row].item(), grid))
        near, far = divmod(following[row].item(), grid), divmod(start[row].item(), grid)
        assert to_goal[near] == to_goal[far] - 1
    assert torch.equal(next_cell(free[3:4], start[3:4], goal[3:4]), following[3:4])


def test_next_cell_stays_where_the_goal_cannot_be_reached() -> None:
    free = torch.zeros(1, 7, 7, dtype=torch.bool)
    free[0, 1, 1] = free[0, 5, 5] = True
    assert next_cell(free, torch.tensor([8]), torch.tensor([40])).item() == 8


@pytest.mark.parametrize("size", [7, 9])
@pytest.mark.parametrize("continuous", [False, True])
def test_oracle_beats_forager_beats_explorer_beats_random(size: int, continuous: bool) -> None:
    config = MazeConfig(size=size, continuous=continuous)
    returns = {name: play(config, name, 300)[0] for name in ("oracle", "forager", "explorer", "random")}
    mean = {name: each.mean().item() for name, each in returns.items()}
    assert mean["oracle"] > 1.3 * mean["forager"] > 1.3 * mean["explorer"] > 1.3 * mean["random"], mean
    assert returns["oracle"].min() >= 3


@pytest.mark.parametrize("name", ["explorer", "forager", "oracle"])
@pytest.mark.parametrize("continuous", [False, True])
def test_nobody_gets_stuck(name: str, continuous: bool) -> None:
    config = MazeConfig(size=11, continuous=continuous)
    _, positions, _, _ = play(config, name, 300, first_seed=77)
    # The longest stay on a spot is a turn towards the goal after a look around.
    window = 60
    low = torch.stack([positions[k : k + window].amin(0) for k in range(0, 300 - window, 5)])
    high = torch.stack([positions[k : k + window].amax(0) for k in range(0, 300 - window, 5)])
    assert (high - low).amax(-1).min() > 0.4
    cells = positions.floor()
    if name != "oracle":
        visited = torch.tensor([cells[:, row].unique(dim=0).shape[0] for row in range(BATCH)])
        assert visited.min() >= 12 and visited.float().mean() > 25


def test_the_explorer_makes_random_moves_and_full_turns() -> None:
    config = MazeConfig(size=9)
    _, positions, actions, _ = play(config, "explorer", 400)
    assert 0.005 < (actions == 0).float().mean() < 0.04  # noop comes from noise alone: 12 % / 6
    turns = (actions == 2) | (actions == 3)
    full = torch.stack([turns[k : k + 24].all(0) for k in range(375)])
    assert full.any(0).float().mean() > 0.5
    assert ((actions == 1) | (actions >= 4)).float().mean() > 0.4


def test_the_wanderer_collects_like_a_forager_and_bumps_into_walls_like_random_moves() -> None:
    config = MazeConfig(size=7)

    def played(name: str) -> tuple[float, float]:
        returns, positions, actions, _ = play(config, name, 300)
        ahead = (actions[1:] == 1) | (actions[1:] >= 4)
        stopped = ahead & ((positions[1:] - positions[:-1]).norm(dim=-1) < 0.1)
        return returns.mean().item(), (stopped.sum() / ahead.sum()).item()

    wanderer, forager, random = played("wanderer"), played("forager"), played("held_random")
    assert random[0] < wanderer[0] < forager[0]
    assert 4 * forager[1] < wanderer[1] < random[1]


def test_policies_are_deterministic_and_depend_on_their_seed() -> None:
    config = MazeConfig(size=7)
    state = reset(config, torch.zeros(64, dtype=torch.int64))
    for name in POLICY_NAMES:
        policy = make_policy(name, config)
        carry = policy.initial_carry(torch.arange(64))
        first, again = policy.act(state, carry)[0], policy.act(state, carry)[0]
        assert torch.equal(first, again)
        if name == "random":
            assert first.unique().numel() == 6
    with pytest.raises(ValueError, match="`name`"):
        make_policy("wizard", config)


@pytest.mark.parametrize("delay", [16, 40, 512])
def test_the_oracle_always_solves_the_cue_corridor_and_in_time(delay: int) -> None:
    config = MazeConfig(task="cue", cue_delay=delay)
    returns, positions, _, alive = play(config, "oracle", delay + 30)
    assert (returns == 1).all() and not alive.any()
    junction_row = config.cue_corridor_cells + 1
    in_junction = (positions[..., 1] >= junction_row).any(1).nonzero()[0].item() + 1  # after this many steps
    assert in_junction == delay


def test_the_cue_corridor_ends_with_nothing_at_the_wrong_end_and_is_balanced() -> None:
    config = MazeConfig(task="cue", cue_delay=16)
    cue = reset(config, torch.arange(2000)).current_target.float()
    assert 0.46 < cue.mean() < 0.54
    state = reset(config, torch.arange(BATCH))
    rows = torch.arange(BATCH)
    for branch, pays in ((state.current_target, 1.0), (1 - state.current_target, 0.0)):
        there = state.clone()
        there.position[:] = there.target_position[rows, branch]
        _, reward, terminated = step(config, there, torch.zeros(BATCH, dtype=torch.int64))
        assert (reward == pays).all() and terminated.all()


def test_explorers_reach_the_ends_of_the_cue_corridor() -> None:
    config = MazeConfig(task="cue", cue_delay=16)
    _, _, _, alive = play(config, "explorer", 500)
    assert alive.float().mean() < 0.2


@pytest.mark.parametrize("continuous", [False, True])
def test_guessers_take_either_end_of_the_cue_corridor_whatever_the_cue_said(continuous: bool) -> None:
    config, seeds = MazeConfig(task="cue", cue_delay=16, continuous=continuous), torch.arange(1000)
    state, policy = reset(config, seeds), make_policy("guesser", config)
    cue, carry = state.current_target, policy.initial_carry(seeds)
    ended, paid = torch.full((1000,), -1), torch.zeros(1000)
    for t in range(1, 80):
        action, carry = policy.act(state, carry)
        state, reward, terminated = step(config, state, action)
        first = terminated & (ended < 0)
        paid = torch.where(first, reward, paid)
        ended = torch.where(first, t, ended)
    assert ended.min() >= 22 and ((ended >= 0) & (ended <= 25)).float().mean() > 0.5
    assert (ended < 0).float().mean() < 0.02
    for side in (0, 1):
        assert 0.43 < paid[cue == side].mean() < 0.57


def test_half_of_the_guessers_go_the_way_of_the_event_memory_test() -> None:
    config = MazeConfig(task="cue", cue_delay=32)
    paths = cue_paths(config)
    length = len(paths.approach) - 1
    _, _, actions, _ = play(config, "guesser", 40)
    straight = (actions[:length] == paths.approach[1:, None]).all(0)
    assert 6 <= straight.sum() <= 18
    branches = {tuple(row) for row in actions[length : length + 7, straight].T.tolist()}
    assert branches == {tuple(row[:7]) for row in paths.branches.tolist()}
    assert (actions[:length, ~straight] == 0).any()  # the others pause, too


def test_guessers_collect_on_as_if_they_did_not_know_what_pays() -> None:
    config = MazeConfig(size=7)
    mean = {name: play(config, name, 300)[0].mean().item() for name in ("oracle", "guesser", "random")}
    assert mean["oracle"] > 1.3 * mean["guesser"] > 2 * mean["random"], mean
