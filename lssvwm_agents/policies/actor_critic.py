"""An actor and a critic on what they read of a world model's state, and the folder they are kept in."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch import nn

from lssvwm_agents.errors import UserError
from lssvwm_agents.files import write_json, write_tensors
from lssvwm_agents.planners import ActionSpec, ContinuousActions, DiscreteActions
from lssvwm_agents.policies.actors import Actor
from lssvwm_agents.policies.critics import Critic, SlowCopy
from lssvwm_agents.policies.inputs import FEATURES, Input, check_inputs, read_inputs
from lssvwm_agents.policies.return_scale import ReturnScale

CONFIG, WEIGHTS = "policy.json", "policy.safetensors"


@dataclass(frozen=True)
class PolicyConfig:
    """What an actor and a critic are; enough to build them around their weights.

    Attributes:
        feature_dim: Width of what is read.
        inputs: What is read of the world model's state (`lssvwm_agents.policies.inputs`).
        num_actions: Discrete actions; 0 for continuous ones.
        low: Bounds of continuous actions.
        high: Bounds of continuous actions.
        hidden: Width of the layers of both.
        num_layers: How many.
        uniform_share: Discrete actions: share of the uniform distribution that is always mixed in.
        min_std: Continuous actions: smallest standard deviation before the squashing.
        max_std: And the largest.
        num_bins: Bins of the critic.
        symlog_limit: How far they reach, in symlog.
        scale_floor: Returns spread less than this are not blown up.
        features_of: Hash of the world model whose features these are; empty for any.
        world_model: Name or path of that world model, as it was given.
        env_id: Environment that it was trained for.
    """

    feature_dim: int
    num_actions: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    hidden: int = 256
    num_layers: int = 2
    uniform_share: float = 0.01
    min_std: float = 0.1
    max_std: float = 1.0
    num_bins: int = 127
    symlog_limit: float = 5.0
    scale_floor: float = 0.1
    inputs: tuple[Input, ...] = FEATURES
    features_of: str = ""
    world_model: str = ""
    env_id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", tuple(self.low))
        object.__setattr__(self, "high", tuple(self.high))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        check_inputs(self.inputs)
        if bool(self.num_actions) == bool(self.low):
            raise ValueError(
                "a policy has either `num_actions` or bounds `low` and `high`, got "
                f"{self.num_actions}, {self.low} and {self.high}."
            )

    @property
    def action_spec(self) -> ActionSpec:
        """What the actor chooses among."""
        if self.num_actions:
            return DiscreteActions(self.num_actions)
        return ContinuousActions(self.low, self.high)

    @classmethod
    def for_actions(cls, action_spec: ActionSpec, feature_dim: int, **settings: Any) -> PolicyConfig:
        """The configuration for these actions; ``settings`` are other fields."""
        if isinstance(action_spec, DiscreteActions):
            return cls(feature_dim, num_actions=action_spec.action_dim, **settings)
        return cls(feature_dim, low=tuple(action_spec.low), high=tuple(action_spec.high), **settings)


def make_actor(config: PolicyConfig) -> Actor:
    """A fresh actor of these sizes."""
    return Actor(
        config.feature_dim,
        config.action_spec,
        config.hidden,
        config.num_layers,
        config.uniform_share,
        config.min_std,
        config.max_std,
    )


class ActorCritic(nn.Module):
    """A policy and its critic.

    Args:
        config: Their sizes.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.actor = make_actor(config)
        self.critic = Critic(
            config.feature_dim, config.hidden, config.num_layers, config.num_bins, config.symlog_limit
        )
        self.slow_critic = SlowCopy(self.critic)
        self.scale = ReturnScale(floor=config.scale_floor)
        self.log_entropy_weight = nn.Parameter(torch.zeros(()), requires_grad=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.scale.range.device

    def read(self, seen: Any) -> torch.Tensor:
        """(..., I) what actor and critic read of a world model's state or prediction."""
        return read_inputs(seen, self.config.inputs)

    def fit_features(self, features: torch.Tensor, critic_alone: bool = False) -> None:
        """Measure how features (N, F) are spread, before the first update; an actor may know already."""
        if not critic_alone:
            self.actor.mlp.fit(features)
        self.critic.mlp.fit(features)

    def check_features(self, model_hash: str) -> None:
        """Refuse the features of another world model than those it was trained on.

        Raises:
            ValueError: If the hashes differ.
        """
        if self.config.features_of and self.config.features_of != model_hash:
            raise ValueError(
                f"this policy reads the features of the world model {self.config.features_of}, got those of "
                f"{model_hash}: give the world model that it was trained in."
            )

    def check_actions(self, space: gymnasium.Space[Any]) -> None:
        """Refuse another action space than the one it acts in.

        Raises:
            ValueError: If they differ.
        """
        from lssvwm_agents.agents.action_codec import action_spec_from_space

        if action_spec_from_space(space) != self.actor.action_spec:
            raise ValueError(f"this policy acts in {self.actor.action_spec}, got the action space {space}.")

    def save(self, folder: str | Path) -> None:
        """Write policy.json and policy.safetensors, each whole or not at all."""
        write_tensors(Path(folder) / WEIGHTS, self.state_dict())
        write_json(Path(folder) / CONFIG, dataclasses.asdict(self.config))


def load_policy(folder: str | Path, device: torch.device | str = "cpu") -> ActorCritic:
    """Read a policy that `ActorCritic.save` wrote, from its folder or that of its run.

    Raises:
        UserError: If there is none, or its files are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for place in (Path(folder), Path(folder) / "policy"):
        if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
            break
    else:
        raise UserError(
            f"`{folder}` holds no policy ({CONFIG} and {WEIGHTS}): give a run of `lssvwm train-policy`."
        )
    try:
        policy = ActorCritic(PolicyConfig(**json.loads((place / CONFIG).read_text())))
        policy.load_state_dict(load_file(place / WEIGHTS))
    except (SafetensorError, json.JSONDecodeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"`{place}` cannot be read as a policy: {' '.join(str(error).split())}") from error
    return policy.to(device).eval()
