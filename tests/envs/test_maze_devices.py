"""The same numbers on every device, and no look at a tensor's values from the host on the way."""

from dataclasses import fields

import pytest
import torch

from lssvwm_agents.envs import (
    POLICY_NAMES,
    MazeConfig,
    MazeState,
    make_policy,
    odometry,
    render,
    render_top_down,
    reset,
    step,
    truncated,
    wall_color_at_center,
)

CONFIGS = [
    MazeConfig(size=9),
    MazeConfig(size=11, continuous=True, texture="rich"),
    MazeConfig(task="cue", cue_delay=16),
]
IDS = ["discrete", "continuous-rich", "cue"]


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_nothing_is_read_back_from_the_device(config: MazeConfig) -> None:
    # Meta tensors have no values: whatever needs one (a host synchronisation on a GPU) raises here.
    seeds = torch.arange(5000, device="meta")
    state = reset(config, seeds, "meta")
    for name in POLICY_NAMES:
        policy = make_policy(name, config)
        action, _ = policy.act(state, policy.initial_carry(seeds, "meta"))
        state, reward, terminated = step(config, state, action)
        assert reward.device.type == terminated.device.type == "meta"
    assert render(config, state).shape == (5000, 64, 64, 3)
    assert odometry(config, state).shape == (5000, 4)
    assert truncated(config, state).shape == wall_color_at_center(config, state).shape == (5000,)
    assert render_top_down(config, state.select(slice(0, 3)), 64).shape == (3, 64, 64, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_gpu_equals_cpu(config: MazeConfig) -> None:
    seeds = torch.arange(256)
    policy = make_policy("explorer", config)
    cpu, gpu = reset(config, seeds), reset(config, seeds, "cuda")
    carry = policy.initial_carry(seeds)
    for _ in range(60):
        for field in fields(MazeState):
            assert torch.equal(getattr(cpu, field.name), getattr(gpu, field.name).cpu()), field.name
        assert torch.equal(render(config, cpu), render(config, gpu).cpu())
        assert torch.equal(odometry(config, cpu), odometry(config, gpu).cpu())
        action, carry = policy.act(cpu, carry)
        cpu, reward, _ = step(config, cpu, action)
        gpu, gpu_reward, _ = step(config, gpu, action.cuda())
        assert torch.equal(reward, gpu_reward.cpu())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", POLICY_NAMES)
def test_policies_on_gpu_act_as_on_cpu(name: str) -> None:
    config = MazeConfig(size=9)
    seeds = torch.arange(512)
    policy = make_policy(name, config)
    state, carry = reset(config, seeds), policy.initial_carry(seeds)
    gpu_carry = policy.initial_carry(seeds, "cuda")
    for _ in range(40):
        action, carry = policy.act(state, carry)
        gpu_action, gpu_carry = policy.act(state.to("cuda"), gpu_carry)
        assert torch.equal(action, gpu_action.cpu())
        state, _, _ = step(config, state, action)
