"""Policies where planners and real environments are: streamed features, proposals, saved carries."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import lssvwm_agents.envs  # noqa: F401
from lssvwm_agents.agents import PlanningAgent, load_carry, save_carry
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.planners import CEM, DiscreteActions
from lssvwm_agents.policies.actor_critic import ActorCritic, PolicyConfig
from lssvwm_agents.policies.features_env import FeaturesVectorEnv
from lssvwm_agents.policies.inputs import read_inputs
from lssvwm_agents.policies.policy_planner import CriticValue, PolicyPlanner, with_policy
from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

MAZE = "lssvwm/RaycastMaze-7x7-v0"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    backbone = BackboneConfig(
        width=16, conditioning_width=8, block_sizes=(2, 1), head_dim=8, state_dim=8, place_features=8
    )
    tokenizer = TokenizerConfig(channels=(8, 8, 8), latent_channels=4, num_residual_blocks=0)
    model = WorldModel(WorldModelConfig(tokenizer=tokenizer, backbone=backbone, odometry="pose", env_id=MAZE))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def policy(model):
    torch.manual_seed(1)
    policy = ActorCritic(PolicyConfig.for_actions(DiscreteActions(6), model.feature_dim, hidden=16))
    torch.nn.init.normal_(policy.actor.mlp.last.weight, std=3.0)
    torch.nn.init.normal_(policy.critic.mlp.last.weight, std=0.3)
    return policy


def mazes(num_envs=2, mode=AutoresetMode.SAME_STEP, observation="dict", **kwargs):
    return gymnasium.make_vec(
        MAZE,
        num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        observation=observation,
        **kwargs,
    )


def replayed(model, frames, proprios, actions):
    """Features of the last frame of one episode, observed at once."""
    moves = torch.zeros(1, len(frames), 6)
    for t, action in enumerate(actions, start=1):
        moves[0, t, action] = 1.0
    video = torch.as_tensor(np.stack(frames))[None].permute(0, 1, 4, 2, 3).float() / 255
    known = torch.ones(1, len(frames))
    known[0, 0] = 0.0
    with torch.no_grad():
        state, _ = model.observe(
            model.initial_state(1), video, moves, torch.as_tensor(np.stack(proprios))[None], known
        )
    return state.features[0].numpy()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("observation", ["dict", "frame"])
def test_streamed_features_are_those_of_each_episode_observed_by_itself(model, mode, observation):
    env = FeaturesVectorEnv(mazes(mode=mode, observation=observation, max_episode_steps=3), model)
    bare = mazes(mode=mode, max_episode_steps=3)
    features, _ = env.reset(seed=5)
    plain, _ = bare.reset(seed=5)
    frames, proprios, taken = [plain["frame"][0]], [plain["proprio"][0]], []
    draw = np.random.default_rng(0)
    begins = False
    for _ in range(9):
        assert np.allclose(features[0], replayed(model, frames, proprios, taken), atol=1e-5)
        action = draw.integers(6, size=2)
        features, reward, terminated, truncated, info = env.step(action)
        plain, bare_reward, _, bare_truncated, bare_info = bare.step(action)
        assert np.array_equal(reward, bare_reward) and np.array_equal(truncated, bare_truncated)
        over = bool(truncated[0])
        if over and mode is AutoresetMode.SAME_STEP:
            last = bare_info["final_obs"][0]
            expected = replayed(
                model, [*frames, last["frame"]], [*proprios, last["proprio"]], [*taken, action[0]]
            )
            assert np.allclose(info["final_obs"][0], expected, atol=1e-5)
            frames, proprios, taken = [], [], []
        elif begins:
            frames, proprios, taken = [], [], []
        else:
            taken.append(action[0])
        begins = over and mode is AutoresetMode.NEXT_STEP
        frames.append(plain["frame"][0])
        proprios.append(plain["proprio"][0])


def test_memory_needs_to_know_when_episodes_begin(model):
    with pytest.raises(ValueError, match="autoreset"):
        FeaturesVectorEnv(mazes(mode=AutoresetMode.DISABLED), model)
    with pytest.raises(gymnasium.error.ResetNeeded):
        FeaturesVectorEnv(mazes(), model).step(np.zeros(2, np.int64))


def test_evaluate_policy_of_stable_baselines_judges_a_policy_on_features(model):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    from lssvwm_agents.envs.sb3_bridge import SB3VecEnv

    env = SB3VecEnv(FeaturesVectorEnv(mazes(max_episode_steps=6), model))
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    agent.learn(16)
    rewards, lengths = evaluate_policy(agent, env, n_eval_episodes=3, return_episode_rewards=True, warn=False)
    assert lengths == [6, 6, 6] and np.isfinite(rewards).all()


def test_a_policy_plays_where_a_planner_does(model, policy, tmp_path):
    env = mazes(3, AutoresetMode.NEXT_STEP)
    agent = PlanningAgent(model, PolicyPlanner(policy, deterministic=True))
    carry = agent.initial_carry(3, seed=0)
    observation, _ = env.reset(seed=0)
    for move in range(3):
        action, carry = agent.act(observation, carry, episode_start=move == 0)
        expected = policy.actor(carry.world.features).mode().argmax(-1)
        assert np.array_equal(action, expected.numpy())
        assert torch.allclose(carry.plan.expected_return, policy.critic(carry.world.features))
        observation = env.step(action)[0]
    save_carry(carry, tmp_path / "carry.safetensors")
    again, _ = agent.act(observation, load_carry(tmp_path / "carry.safetensors"))
    assert np.array_equal(again, agent.act(observation, carry)[0])


def test_a_sampling_policy_is_seeded_and_keeps_its_probabilities(policy, model):
    state = model.initial_state(1)
    state = state.repeat(4000)
    planner = PolicyPlanner(policy)
    plans = [planner.plan(None, state, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert not torch.equal(plans[0].actions, plans[2].actions)
    shares = plans[0].actions[:, 0].mean(0)
    assert torch.allclose(shares, policy.actor(state.features[:1]).probabilities[0], atol=0.03)


def test_proposals_and_the_critics_value_enter_a_search(model, policy):
    planner = CEM(DiscreteActions(6), horizon=3, num_samples=12, num_elites=3, num_iterations=2)
    joined = with_policy(planner, policy, num_proposals=4)
    state = model.initial_state(2)
    plan = joined.plan(Imagination(model), state, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, future = model.imagine(state, plan.actions)
        end = future.continuation.cumprod(1)
        weight = torch.cat([torch.ones(2, 1), end[:, :-1]], 1)
        worth = (weight * future.reward).sum(1) + end[:, -1] * policy.critic(future.features[:, -1])
    assert torch.allclose(plan.expected_return, worth, atol=1e-4)
    shared = Imagination(model, num_threads=2).repeat(state, 2)
    assert torch.equal(read_inputs(shared), state.repeat(2).features)
    assert CriticValue(policy)(future).shape == (2, 3)


def test_misfits_are_named(model, policy):
    with pytest.raises(ValueError, match="same actions"):
        with_policy(CEM(DiscreteActions(3)), policy)
    with pytest.raises(ValueError, match="trained for"):
        PolicyPlanner(policy).with_objective(lambda outcome: outcome.reward)
