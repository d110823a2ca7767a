"""The mirror image of an episode is an episode of the mirrored maze."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adapter_builders import made
from hypothesis import given, settings
from hypothesis import strategies as st

from lssvwm_agents.envs import (
    CUE_ID,
    MazeConfig,
    MazeState,
    make_policy,
    maze_id,
    odometry,
    render,
    reset,
    step,
)
from lssvwm_agents.envs.maze_config import HEADING_UNITS, NUM_DISCRETE_ACTIONS
from lssvwm_agents.envs.mirror import check_mirror, mirror_actions, mirror_frames, mirror_odometry

PLAIN_MATERIAL = 1  # of the calm ones; patterns of the others run along a wall in one direction


def mirrored_maze(state: MazeState) -> MazeState:
    """The state with everything at x moved to G - x; what faces east then faces west."""
    grid = state.walls.shape[-1]

    def place(point: torch.Tensor) -> torch.Tensor:
        return torch.stack([grid - point[..., 0], point[..., 1]], dim=-1)

    def heading(units: torch.Tensor) -> torch.Tensor:
        return (HEADING_UNITS // 2 - units) % HEADING_UNITS

    return replace(
        state,
        walls=state.walls.flip(-1),
        materials=state.materials.flip(-1),
        position=place(state.position),
        heading=heading(state.heading),
        start_position=place(state.start_position),
        start_heading=heading(state.start_heading),
        target_position=place(state.target_position),
    )


def without_balls(state: MazeState) -> MazeState:
    """Nobody sees a target inside the outer wall."""
    return replace(state, target_position=torch.full_like(state.target_position, 0.5))


@pytest.mark.parametrize("continuous", [False, True])
def test_mirrored_actions_in_the_mirrored_maze_lead_to_mirrored_odometry_and_frames(continuous: bool) -> None:
    config = MazeConfig(size=7, continuous=continuous)
    here = reset(config, torch.arange(8))
    here = replace(here, materials=torch.full_like(here.materials, PLAIN_MATERIAL))
    there = mirrored_maze(here)
    policy = make_policy("wanderer", config)
    carry = policy.initial_carry(here.seed)
    total, turned, moved, on_balls = 0.0, 0.0, 0.0, 0
    for _ in range(80):
        action, carry = policy.act(here, carry)
        if continuous:
            image = mirror_actions(action)
        else:
            one_hot = torch.nn.functional.one_hot(action, NUM_DISCRETE_ACTIONS)
            image = mirror_actions(one_hot).argmax(-1)
        here, reward, _ = step(config, here, action)
        there, image_reward, _ = step(config, there, image)
        assert torch.equal(image_reward, reward)
        pose = odometry(config, here)
        assert torch.equal(odometry(config, there), mirror_odometry(pose))
        total, moved = total + float(reward.sum()), max(moved, float(pose[:, 1].abs().max()))
        turned = max(turned, float(pose[:, 2].abs().max()))
        # Walls are the same to the last bit. Balls have their light on one side: they are as large, where
        # they should be, and not compared in colour.
        walls, image_walls = render(config, without_balls(here)), render(config, without_balls(there))
        assert torch.equal(image_walls, mirror_frames(walls))
        ball, image_ball = (
            (render(config, state) != empty).any(-1) for state, empty in ((here, walls), (there, image_walls))
        )
        assert torch.equal(image_ball, ball.flip(-1))
        on_balls += int(ball.sum())
    # Something happened that has two sides.
    assert total > 0 and turned > 0.9 and moved > 1.0 and on_balls > 1000
    assert not torch.equal(image_walls, walls)


def test_in_memory_maze_mirrored_actions_lead_to_mirrored_odometry() -> None:
    """Where no wall is in the way on either side, as at the beginning of this seed."""
    maze = made("lssvwm/MemoryMaze-9x9-v0", observation="dict")

    def poses(actions: torch.Tensor) -> torch.Tensor:
        seen = [maze.reset(seed=4)[0]["proprio"]]
        seen += [maze.step(int(action))[0]["proprio"] for action in actions.argmax(-1)]
        return torch.from_numpy(np.stack(seen))

    actions = torch.eye(NUM_DISCRETE_ACTIONS)[[1, 4, 5, 4]]
    pose = poses(actions)
    assert pose[-1, 0] > 0.5 and pose[-1, 1] > 0.05 and pose[-1, 2] > 0.2
    torch.testing.assert_close(poses(mirror_actions(actions)), mirror_odometry(pose), rtol=0, atol=1e-5)
    maze.close()


def test_left_and_right_change_places_by_hand() -> None:
    one_hot = torch.eye(NUM_DISCRETE_ACTIONS)
    assert mirror_actions(one_hot).argmax(-1).tolist() == [0, 1, 3, 2, 5, 4]
    assert not mirror_actions(torch.zeros(2, NUM_DISCRETE_ACTIONS)).any()  # none at a reset
    assert mirror_actions(torch.tensor([0.5, -0.25])).tolist() == [0.5, 0.25]
    assert mirror_odometry(torch.tensor([1.0, 2.0, 0.6, 0.8])).tolist() == pytest.approx(
        [1.0, -2.0, -0.6, 0.8]
    )
    frames = torch.arange(2 * 3).view(1, 2, 3, 1).expand(-1, -1, -1, 3)
    assert mirror_frames(frames)[0, :, :, 0].tolist() == [[2, 1, 0], [5, 4, 3]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 3), frames=st.integers(1, 4))
def test_a_mirror_in_a_mirror_shows_the_thing_itself(seed: int, batch: int, frames: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for function, shape in (
        (mirror_actions, (NUM_DISCRETE_ACTIONS,)),
        (mirror_actions, (2,)),
        (mirror_odometry, (4,)),
        (mirror_frames, (4, 5, 3)),
    ):
        values = torch.randn(batch, frames, *shape, generator=draw)
        image = function(values)
        assert image.shape == values.shape and not torch.equal(image, values)
        assert torch.equal(function(image), values)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`actions` must be \(\.\.\., 6\).*got \(5, 3\)"):
        mirror_actions(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"`odometry` must be \(\.\.\., 4\).*got \(5, 2\)"):
        mirror_odometry(torch.zeros(5, 2))


@pytest.mark.parametrize(
    ("env_id", "kwargs", "rule"),
    [
        (maze_id(7), {}, None),
        (maze_id(9, continuous=True), {"observation": "dict"}, None),
        (CUE_ID, {"task": "collect"}, None),
        ("lssvwm/MemoryMaze-9x9-v0", {"observation": "dict"}, None),
        (CUE_ID, {}, "must not have the cue task"),
        (maze_id(7), {"task": "cue"}, "must not have the cue task"),
        ("lssvwm/PointMaze-UMaze-v0", {}, r"lssvwm/MemoryMaze-\*, got 'lssvwm/PointMaze-UMaze-v0'"),
        ("CartPole-v1", {}, "left and right are alike"),
    ],
)
def test_which_environments_have_a_mirror_image(
    env_id: str, kwargs: dict[str, str], rule: str | None
) -> None:
    if rule is None:
        check_mirror(env_id, kwargs)
    else:
        with pytest.raises(ValueError, match=rule):
            check_mirror(env_id, kwargs)
