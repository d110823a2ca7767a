"""The rules of a walk in the dream, without a network."""

import numpy as np
import pytest
import torch

from lssvwm_agents.envs import odometry
from lssvwm_agents.errors import UserError
from lssvwm_agents.metrics import psnr
from lssvwm_agents.serve.dream import Dream, inside
from lssvwm_agents.serve.plan_to import PlanTo, SearchView
from lssvwm_agents.serve.walk import MAX_FORKS, Walk
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import WorldModel, WorldModelConfig

SEED = 1 << 31


@pytest.fixture(scope="module")
def dream() -> Dream:
    return Dream(load_model("tiny"), context_frames=48)


def test_the_dream_begins_where_the_real_frames_end(dream: Dream) -> None:
    walk = Walk(dream, SEED)
    assert walk.moment.index == 47 and len(walk.look.frames) == 48
    np.testing.assert_allclose(walk.pose, dream.real_pose(walk.moment.real), atol=1e-5)
    np.testing.assert_allclose(walk.look.proprio[-1], odometry(dream.maze, walk.moment.real)[0], atol=1e-6)
    assert np.array_equal(dream.real_frame(walk.moment.real), walk.look.frames[-1])
    assert walk.look.typical + 8 < walk.look.ceiling  # dB
    recall = walk.recall()
    assert recall.seen_share == 1.0 and recall.age == 0 and recall.then == 47
    shown, real = (torch.from_numpy(f) for f in (walk.moment.frame, walk.look.frames[-1]))
    assert recall.psnr == pytest.approx(float(psnr(inside(shown), inside(real))), abs=1e-4)
    assert recall.match > 0.6


def test_a_full_turn_comes_back_to_what_was_seen(dream: Dream) -> None:
    """24 turns of 15 degrees end at the first view, whose every piece of wall was seen 24 frames before."""
    walk = Walk(dream, SEED)
    before = walk.pose
    half = None
    for turn in range(24):
        walk.move(2)
        half = walk.recall() if turn == 11 else half
    heading = (walk.pose[2] - before[2] + np.pi) % (2 * np.pi) - np.pi
    assert abs(heading) < 0.1 and np.hypot(walk.pose[0] - before[0], walk.pose[1] - before[1]) < 0.2
    recall = walk.recall()
    assert recall.revisit and 20 <= recall.age <= 48 and recall.then is not None
    assert half is not None and half.then != recall.then
    assert walk.moment.real.heading == Walk(dream, SEED).moment.real.heading  # the real twin turned as well


def test_a_fork_is_gone_back_to_exactly_and_has_two_futures(dream: Dream) -> None:
    walk = Walk(dream, SEED)
    walk.move(2)
    kept, fork = walk.moment, walk.fork()
    first = [walk.move(3).frame for _ in range(3)]
    assert walk.restore(fork.number) is kept
    assert walk.branch.number == 1 and walk.branch.parent == 0 and walk.branch.poses == [walk.pose]
    second = [walk.move(1).frame for _ in range(3)]
    walk.restore(fork.number)
    again = [walk.move(3).frame for _ in range(3)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[-1], second[-1])
    walk.forget(fork.number)
    with pytest.raises(UserError, match="no kept moment 1"):
        walk.restore(fork.number)
    for _ in range(MAX_FORKS):
        walk.fork()
    with pytest.raises(UserError, match="at most 9"):
        walk.fork()


def test_a_new_place_is_no_revisit_and_a_wall_has_no_match(dream: Dream) -> None:
    walk = Walk(dream, SEED)
    inside_wall = walk.moment.proprio.copy()
    inside_wall[:2] = dream.odometry_of(walk.moment.real, 0.5, 0.5)  # the outer wall
    lost = type(walk.moment)(**{**walk.moment.__dict__, "proprio": inside_wall})
    recall = walk.meter.read(dream, lost)
    assert recall.match is None and not recall.revisit
    walk.meter._last_seen.clear()
    recall = walk.recall()
    assert recall.seen_share == 0.0 and not recall.revisit and recall.age is None and recall.match is not None


def test_odometry_and_maze_coordinates_are_inverse(dream: Dream) -> None:
    state = Walk(dream, SEED + 1).moment.real
    x, y, heading = dream.real_pose(state)
    np.testing.assert_allclose((x, y), state.position[0].numpy(), atol=1e-5)
    ahead, left = dream.odometry_of(state, x, y)
    np.testing.assert_allclose((ahead, left), odometry(dream.maze, state)[0, :2].numpy(), atol=1e-5)
    assert np.degrees(heading) % 360 == pytest.approx(float(state.heading[0]) / 16, abs=1e-3)


def test_a_plan_leads_nearer_its_goal_and_shows_its_candidates(dream: Dream) -> None:
    walk = Walk(dream, SEED)
    goal = walk.looked_path[8][:2]

    def distance() -> float:
        return float(np.hypot(walk.pose[0] - goal[0], walk.pose[1] - goal[1]))

    far, views = distance(), list[SearchView]()
    assert far > 1.0
    planner = PlanTo(dream, horizon=6, action_repeat=3, num_samples=24, num_iterations=2)
    plan = planner.plan(walk.moment, goal, walk.look.proprio[:, :2], seed=0, watch=views.append)
    assert [view.iteration for view in views] == [0, 1]
    assert views[0].proprio.shape == (24, 18, 4) and views[0].returns.shape == (24,)
    nearest = [np.hypot(*(view.proprio[:, -1, :2] - _odometry(dream, walk, goal)).T).min() for view in views]
    assert min(nearest) < far
    for index in range(plan.num_frames):
        walk.follow(plan, index)
    assert distance() < far


def _odometry(dream: Dream, walk: Walk, goal: tuple[float, float]) -> tuple[float, float]:
    return dream.odometry_of(walk.moment.real, *goal)


def test_models_that_cannot_be_walked_in_get_one_sentence(dream: Dream) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match="odometry of its pose"):
        Dream(WorldModel(WorldModelConfig()))
    with pytest.raises(UserError, match="`context_frames` must be at least 2, got 1"):
        Dream(dream.model, context_frames=1)
    with pytest.raises(ValueError, match=r"`move` must be in \[0, 6\), got 6"):
        Walk(dream, SEED).move(6)
