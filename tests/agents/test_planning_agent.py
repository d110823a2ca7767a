import gymnasium
import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import lssvwm_agents.envs  # noqa: F401
from lssvwm_agents.agents import Exploration, PlanningAgent, PlanningCarry, check_env_id, check_spaces
from lssvwm_agents.planners import CEM, ContinuousActions, DiscreteActions
from lssvwm_agents.worldmodel import WorldModel, WorldState

from .conftest import ENV_ID, make_model

PLANNER = CEM(DiscreteActions(6), horizon=2, num_samples=8, num_elites=2, num_iterations=2, action_repeat=2)


def random_frames(batch: int, time: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (batch, time, 64, 64, 3), dtype=np.uint8), rng.normal(
        size=(batch, time, 4)
    ).astype("f4")


def at(frames: np.ndarray, proprio: np.ndarray, t: int) -> dict[str, np.ndarray]:
    return {"frame": frames[:, t], "proprio": proprio[:, t]}


def assert_states_close(a: WorldState, b: WorldState) -> None:
    for left, right in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def observe_all(
    model: WorldModel, frames: np.ndarray, proprio: np.ndarray, actions: list[np.ndarray]
) -> WorldState:
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
    taken = torch.from_numpy(np.stack(actions, axis=1)).long()
    floats = torch.nn.functional.one_hot(taken, 6).float()
    null = torch.zeros_like(floats[:, :1])
    with torch.no_grad():
        floats = torch.cat([null, floats], dim=1)[:, : frames.shape[1]]
        return model.observe(model.initial_state(len(frames)), pixels, floats, torch.from_numpy(proprio))[0]


def test_every_real_frame_is_seen_exactly_once(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER, replan_every=2)
    frames, proprio = random_frames(2, 7)
    carry, actions = agent.initial_carry(2, seed=1), []
    for t in range(7):
        if t < 3:  # another policy drives
            carry = agent.observe(at(frames, proprio, t), carry)
            action = np.array([t, 5 - t])
            carry = agent.record_action(carry, action)
        else:
            action, carry = agent.act(at(frames, proprio, t), carry)
            assert isinstance(action, np.ndarray) and action.shape == (2,) and action.dtype == np.int64
        actions.append(action)
    assert_states_close(carry.world, observe_all(model, frames, proprio, actions))
    assert carry.stats.plans == 2
    assert carry.stats.imagined_frames == 2 * 2 * 8 * 2 * 4  # plans, rows, samples, iterations, moves
    assert carry.stats.imagined_frames_per_second > 0


def test_carry_is_not_changed_in_place(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER)
    frames, proprio = random_frames(1, 2)
    _, carry = agent.act(at(frames, proprio, 0), agent.initial_carry(1, seed=3))
    before = [leaf.clone() for leaf in pytree.tree_leaves(carry.world)]
    first = agent.act(at(frames, proprio, 1), carry)
    second = agent.act(at(frames, proprio, 1), carry)
    assert first[0] == second[0]
    assert_states_close(first[1].world, second[1].world)
    for old, new in zip(before, pytree.tree_leaves(carry.world), strict=True):
        assert torch.equal(old, new)


def test_an_episode_start_forgets_only_its_row(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER, replan_every=3)
    frames, proprio = random_frames(2, 6)
    carry, actions = agent.initial_carry(2, seed=1), []
    for t in range(6):
        start = np.array([False, t == 4])
        action, carry = agent.act(at(frames, proprio, t), carry, start)
        actions.append(action)
        assert agent.just_planned(carry) == (t in (0, 3, 4))
    whole = observe_all(model, frames, proprio, actions)
    tail = observe_all(model, frames[:, 4:], proprio[:, 4:], actions[4:])
    assert_states_close(carry.world.select(torch.tensor([0])), whole.select(torch.tensor([0])))
    assert_states_close(carry.world.select(torch.tensor([1])), tail.select(torch.tensor([1])))


def test_single_environment_equals_its_row_of_a_vector(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER, replan_every=2)
    frames, proprio = random_frames(3, 5)

    def play(rows: list[int], batched: bool) -> tuple[list[list[int]], PlanningCarry]:
        carry, actions = agent.initial_carry(len(rows), seed=7), []
        for t in range(5):
            observation = {"frame": frames[rows, t], "proprio": proprio[rows, t]}
            if not batched:
                observation = {key: value[0] for key, value in observation.items()}
            action, carry = agent.act(observation, carry, episode_start=t == 0)
            actions.append(np.atleast_1d(action).tolist())
        return actions, carry

    all_actions, all_carry = play([0, 1, 2], True)
    for row in range(3):
        actions, carry = play([row], False)
        assert [a[row] for a in all_actions] == [a[0] for a in actions]
        assert_states_close(carry.world, all_carry.world.select(torch.tensor([row])))


def test_it_plays_the_gymnasium_environments(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER)
    env = gymnasium.make(ENV_ID, observation="dict")
    observation, _ = env.reset(seed=0)
    carry = agent.initial_carry(1)
    for _ in range(2):
        action, carry = agent.act(observation, carry)
        assert isinstance(action, int)
        observation, *_ = env.step(action)
    envs = gymnasium.make_vec(ENV_ID, num_envs=2, observation="dict")
    check_spaces(model.config, envs.single_observation_space, envs.single_action_space)
    observation, _ = envs.reset(seed=0)
    carry = agent.initial_carry(2)
    action, carry = agent.act(observation, carry)
    envs.step(action)


def test_continuous_actions_and_no_odometry() -> None:
    model = make_model(action_dim=2, discrete_actions=False, proprio_dim=0, env_id="")
    planner = CEM(
        ContinuousActions((-1, -1), (1, 1)), horizon=2, num_samples=6, num_elites=2, num_iterations=1
    )
    agent = PlanningAgent(model, planner)
    frames, _ = random_frames(2, 3)
    carry, actions = agent.initial_carry(2), []
    for t in range(3):
        action, carry = agent.act(frames[:, t], carry)
        assert action.shape == (2, 2) and np.abs(action).max() <= 1
        actions.append(torch.as_tensor(action))
    floats = torch.stack([torch.zeros(2, 2), *actions[:2]], dim=1)
    known = torch.tensor([[0.0, 1.0, 1.0]]).expand(2, 3)
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
    with torch.no_grad():
        expected, _ = model.observe(model.initial_state(2), pixels, floats, None, known)
    assert_states_close(carry.world, expected)


def test_a_model_that_sees_its_motion_needs_no_odometry() -> None:
    """Frames alone will do; what the agent has seen of its way counts for exploring and for a cut memory."""
    model = make_model(odometry="pose", visual_odometry=True)
    envs = gymnasium.make_vec(ENV_ID, num_envs=2)
    check_spaces(model.config, envs.single_observation_space, envs.single_action_space)
    agent = PlanningAgent(model, PLANNER, exploration=Exploration(weight=0.1, memory_frames=3))
    cut = PlanningAgent(model, PLANNER, memory_frames=8)
    frames, _ = random_frames(2, 4)
    carry, short, actions = agent.initial_carry(2), cut.initial_carry(2), []
    for t in range(4):
        action, carry = agent.act(frames[:, t], carry)
        actions.append(action)
        short = cut.record_action(cut.observe(frames[:, t], short), action)
    floats = torch.nn.functional.one_hot(torch.as_tensor(np.stack(actions, 1)), 6).float()
    given = torch.cat([torch.zeros(2, 1, 6), floats[:, :3]], dim=1)
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
    with torch.no_grad():
        expected, _ = model.observe(model.initial_state(2), pixels, given)
    assert_states_close(carry.world, expected)
    torch.testing.assert_close(carry.visited[:, -1], carry.world.proprio[:, :2])
    assert_states_close(cut.planning_state(short), expected)


def test_memory_cut_rebuilds_from_the_last_frames(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER, memory_frames=3)
    frames, proprio = random_frames(2, 6)
    carry, actions = agent.initial_carry(2), []
    for t in range(6):
        carry = agent.observe(at(frames, proprio, t), carry, [False, t == 4])
        actions.append(np.array([t % 6, 1]))
        cut = agent.planning_state(carry)
        carry = agent.record_action(carry, actions[-1])
    assert len(carry.recent) == 3
    tail = observe_all(model, frames[1:, 4:], proprio[1:, 4:], [a[1:] for a in actions[4:]])
    assert_states_close(cut.select(torch.tensor([1])), tail)
    pixels = torch.from_numpy(frames[:1, 3:]).permute(0, 1, 4, 2, 3).float() / 255
    floats = torch.nn.functional.one_hot(torch.tensor([[2, 3, 4]]), 6).float()
    with torch.no_grad():
        last, _ = model.observe(model.initial_state(1), pixels, floats, torch.from_numpy(proprio[:1, 3:]))
    assert_states_close(cut.select(torch.tensor([0])), last)


def test_tensors_in_tensors_out(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER)
    frames, proprio = random_frames(2, 1)
    observation = {"frame": torch.from_numpy(frames[:, 0]), "proprio": torch.from_numpy(proprio[:, 0])}
    action, _ = agent.act(observation, agent.initial_carry(2))
    assert isinstance(action, torch.Tensor) and action.dtype == torch.int64


def test_misuse_gets_one_clear_sentence(model: WorldModel) -> None:
    agent = PlanningAgent(model, PLANNER)
    frames, proprio = random_frames(2, 1)
    carry = agent.initial_carry(2)
    with pytest.raises(ValueError, match="needs odometry"):
        agent.act(frames[:, 0], carry)
    with pytest.raises(ValueError, match="the carry holds 2 episodes, the observation 1"):
        agent.act({"frame": frames[:1, 0], "proprio": proprio[:1, 0]}, carry)
    with pytest.raises(ValueError, match="must be uint8"):
        agent.act({"frame": frames[:, 0].astype("f4"), "proprio": proprio[:, 0]}, carry)
    with pytest.raises(ValueError, match="64x64"):
        agent.act({"frame": frames[:, 0, :32, :32], "proprio": proprio[:, 0]}, carry)
    seen = agent.observe(at(frames, proprio, 0), carry)
    with pytest.raises(ValueError, match="record_action"):
        agent.observe(at(frames, proprio, 0), seen)
    with pytest.raises(ValueError, match="must hold 2 actions, got 3"):
        agent.record_action(seen, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"the plan's length of 4 moves, got 9"):
        PlanningAgent(model, PLANNER, replan_every=9).act(at(frames, proprio, 0), carry)
    with pytest.raises(ValueError, match="acts in Discrete"):
        PlanningAgent(model, PLANNER, action_space=gymnasium.spaces.Discrete(4))
    with pytest.raises(ValueError, match="`replan_every` must be at least 1"):
        PlanningAgent(model, PLANNER, replan_every=0)


def test_models_and_environments_that_do_not_fit(model: WorldModel) -> None:
    with pytest.raises(
        ValueError, match="was trained for lssvwm/RaycastMaze-7x7-v0, not for lssvwm/RaycastMaze-9x9-v0"
    ):
        check_env_id(model.config, "lssvwm/RaycastMaze-9x9-v0")
    frames_only = gymnasium.make(ENV_ID)
    with pytest.raises(ValueError, match="needs odometry"):
        check_spaces(model.config, frames_only.observation_space, frames_only.action_space)
    continuous = gymnasium.make("lssvwm/RaycastMaze-7x7-Continuous-v0", observation="dict")
    with pytest.raises(ValueError, match=r"acts in Discrete\(6\)"):
        check_spaces(model.config, continuous.observation_space, continuous.action_space)
    large = gymnasium.make(ENV_ID, observation="dict", image_size=96)
    with pytest.raises(ValueError, match=r"sees frames of \(64, 64, 3\)"):
        check_spaces(model.config, large.observation_space, large.action_space)


def test_threads_share_the_rows_and_change_no_result(model: WorldModel) -> None:
    from lssvwm_agents.agents.imagination import Imagination

    frames, proprio = random_frames(3, 2)
    plans = []
    for num_threads in (1, 2, 5):
        agent = PlanningAgent(model, PLANNER, num_threads=num_threads)
        carry = agent.initial_carry(3, seed=1)
        for t in range(2):
            _, carry = agent.act(at(frames, proprio, t), carry)
        assert carry.plan is not None
        plans.append(carry)
    for other in plans[1:]:
        torch.testing.assert_close(
            other.plan.candidate_returns, plans[0].plan.candidate_returns, rtol=1e-4, atol=1e-5
        )
        assert other.stats.imagined_frames == plans[0].stats.imagined_frames
    # With fewer episodes than threads each thread has forks of its own, which share their past.
    shared = Imagination(model, num_threads=3)
    carried, _ = model.observe(
        model.initial_state(2), torch.rand(2, 4, 3, 64, 64), torch.zeros(2, 4, 6), torch.zeros(2, 4, 4)
    )
    actions = torch.nn.functional.one_hot(torch.arange(14) % 6, 6).float()
    parts = shared.repeat(carried, 7)
    assert sum(part.batch_size for part in parts.parts) == 14 and len(parts.parts) >= 3
    assert all(part.nbytes < 2 * carried.nbytes for part in parts.parts)
    torch.testing.assert_close(
        shared.step(parts, actions)[1].latent, model.step(model.repeat(carried, 7), actions)[1].latent
    )
    # Gradients are on in the threads where they are on here.
    shared = Imagination(model, num_threads=2)
    state = shared.repeat(model.initial_state(1), 4)
    _, prediction = shared.step(state, torch.ones(4, 6, requires_grad=True))
    assert prediction.reward.requires_grad
