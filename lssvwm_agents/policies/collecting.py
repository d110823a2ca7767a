"""A trained policy that collects episodes: what `lssvwm collect --policy RUN` plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_agents.agents import PlanningAgent, PlanningCarry
from lssvwm_agents.data.latents import module_hash
from lssvwm_agents.policies.actor_critic import load_policy
from lssvwm_agents.policies.policy_planner import PolicyPlanner
from lssvwm_agents.seeding import generator
from lssvwm_agents.weights import load_model


class CollectingPolicy:
    """Samples a trained policy's actions, with the memory of its world model and one generator for each slot.

    Args:
        folder: Of the policy, or of its run; it names its world model.
        envs: What it plays; the observation is a frame, or a Dict of ``frame`` and ``proprio``.
        device: Of the world model.
    """

    def __init__(self, folder: Path, envs: Any, device: str = "cpu") -> None:
        self.policy = load_policy(folder, device)
        self.policy.check_actions(envs.single_action_space)
        model = load_model(self.policy.config.world_model, device)
        self.policy.check_features(module_hash(model))
        self.agent = PlanningAgent(model, PolicyPlanner(self.policy), action_space=envs.single_action_space)
        self._carry: PlanningCarry = self.agent.initial_carry(envs.num_envs)
        self._noise = [torch.Generator() for _ in range(envs.num_envs)]
        self._begun = np.zeros(envs.num_envs, np.bool_)

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Forget the episodes of ``slots``."""
        for slot, seed in zip(slots, seeds, strict=True):
            self._noise[slot] = generator("cpu", seed, 3)
            self._begun[slot] = True

    @torch.no_grad()
    def act(self, envs: Any, observations: Any) -> NDArray[Any]:
        """See one frame in every slot, and choose."""
        self._carry = self.agent.observe(observations, self._carry, self._begun.copy())
        self._begun[:] = False
        width = self.agent.codec.action_dim
        noise = torch.stack([torch.randn(width, generator=one) for one in self._noise])
        features = self.policy.read(self._carry.world)
        action = self.agent.codec.decode(self.policy.actor(features).sample(noise.to(features)))
        self._carry = self.agent.record_action(self._carry, action)
        return action.cpu().numpy().astype(envs.single_action_space.dtype)
