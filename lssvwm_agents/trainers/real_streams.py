"""Real episodes that run beside the training, driven by the policy as it is: where it goes, it is trained.

Contexts of scripted policies show places that a policy may never come to, and none of the corners that it
gets stuck in. These streams are the policy's own: each keeps its episode and the world model's memory of it,
and every update moves it on by a few real frames.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch

from lssvwm_agents.agents.action_codec import ActionCodec
from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.features_env import FeaturesVectorEnv
from lssvwm_agents.seeding import fold_in, generator
from lssvwm_agents.worldmodel import WorldModel, WorldState


class RealStreams:
    """Episodes of a real environment, remembered frame by frame.

    Args:
        env: With autoreset in the next step.
        model: The world model that remembers.
        policy: Who acts; its present weights are used.
        seed: Names the episodes and the choices; never those of an evaluation.
    """

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv[Any, Any, Any],
        model: WorldModel,
        policy: ActorCritic,
        seed: int,
    ) -> None:
        self.env, self.policy, self.seed = FeaturesVectorEnv(env, model), policy, seed
        self.codec = ActionCodec(env.single_action_space)
        self.env.reset(seed=2**40 + fold_in(seed, 41) % 2**60)
        self.real_steps = 0
        self.reward = 0.0

    @property
    def world(self) -> WorldState:
        """(num_envs,) memories, the last frame included."""
        return self.env.world

    @torch.no_grad()
    def advance(self, frames: int) -> float:
        """Play ``frames`` moves in every stream; gives the mean reward of a move."""
        total, rows = 0.0, self.env.num_envs
        for _ in range(frames):
            features = self.policy.read(self.world)
            noise = torch.randn(
                (rows, self.codec.action_dim), generator=generator("cpu", self.seed, 42, self.real_steps)
            )
            action = self.policy.actor(features).sample(noise.to(features))
            _, reward, _, _, _ = self.env.step(self.codec.decode(action).cpu().numpy())
            total += float(np.sum(reward))
            self.real_steps += rows
        return total / max(frames * rows, 1)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
