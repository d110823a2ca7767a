"""A real environment seen through a world model's memory: real frames in, features out."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lssvwm_agents.agents.action_codec import ActionCodec
from lssvwm_agents.agents.compatibility import check_spaces
from lssvwm_agents.agents.observations import read_observation
from lssvwm_agents.policies.inputs import read_inputs
from lssvwm_agents.worldmodel import WorldModel, WorldState


class FeaturesVectorEnv(gymnasium.vector.VectorWrapper):
    """Let a policy that was trained on imagined features act in real environments.

    Every real frame is streamed into the world model's memory with the action that led to it; the observation
    is what the model's features say after it, as in ``ImaginedVectorEnv(observation="features")``. Memory
    begins anew with every episode. stable-baselines3 takes it through ``SB3VecEnv``, so that its
    ``evaluate_policy`` judges a policy of imagination in the real environment.

    Args:
        env: A vector of real environments whose observation is a frame (H, W, 3) uint8, or a Dict of
            ``frame`` and ``proprio``; odometry may also come as ``info["proprio"]``. Autoreset in the same or
            the next step.
        model: The world model.

    Raises:
        ValueError: If environment and model do not fit, or the autoreset mode is another one.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], model: WorldModel) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise ValueError(
                "memory must know when an episode begins: make the environments with autoreset in the same "
                f"or the next step, got {mode}."
            )
        frames_only = isinstance(env.single_observation_space, spaces.Box)
        space = None if frames_only and model.config.proprio_dim else env.single_observation_space
        check_spaces(model.config, space, env.single_action_space)
        self.model = model.eval()
        self.codec = ActionCodec(env.single_action_space)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (model.feature_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._same_step = mode is AutoresetMode.SAME_STEP
        self._world: WorldState | None = None
        self._over: NDArray[np.bool_] = np.zeros(env.num_envs, np.bool_)

    @property
    def world(self) -> WorldState:
        """What the model remembers of all episodes.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._world is None:
            raise gymnasium.error.ResetNeeded("Call reset() first: no episode has begun yet.")
        return self._world

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin all episodes."""
        if options is not None and "reset_mask" in options:
            raise ValueError("`reset_mask` is not supported here: memory begins anew with every episode.")
        observation, info = self.env.reset(seed=seed, options=options)
        first = torch.ones(self.num_envs, dtype=torch.bool)
        self._over[:] = False
        self._world = self._see(self.model.initial_state(self.num_envs), observation, info, None, first)
        return self._features(self._world), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act, and remember what is seen."""
        world = self.world
        observation, reward, terminated, truncated, info = self.env.step(actions)
        over = np.asarray(terminated) | np.asarray(truncated)
        taken = self.codec.encode(actions, self.model.device)
        if self._same_step and over.any():
            rows = np.flatnonzero(over)
            last = _with_rows(observation, rows, [info["final_obs"][row] for row in rows])
            last_info = _with_rows(info, rows, None, info.get("final_info", {}))
            seen = self._see(world, last, last_info, taken, torch.zeros(self.num_envs, dtype=torch.bool))
            final = np.full(self.num_envs, None, dtype=object)
            features = self._features(seen)
            for row in rows:
                final[row] = features[row]
            info = {**info, "final_obs": final}
            begun = self._see(world, observation, info, taken, torch.from_numpy(over))
            self._world = _mixed(torch.from_numpy(over).to(self.model.device), begun, seen)
        else:
            first = torch.from_numpy(self._over.copy())  # in the next step: these episodes begin now
            self._world = self._see(world, observation, info, taken, first)
            self._over = over if not self._same_step else self._over
        return self._features(self._world), reward, terminated, truncated, info

    @torch.no_grad()
    def _see(
        self,
        world: WorldState,
        observation: Any,
        info: dict[str, Any],
        taken: torch.Tensor | None,
        first: torch.Tensor,
    ) -> WorldState:
        """Stream one frame; where ``first`` (B,) it begins an episode, to which no action led."""
        device, config = self.model.device, self.model.config
        seen = read_observation(observation, device)
        proprio = seen.proprio
        if config.proprio_dim == 0:
            proprio = None
        elif proprio is None and "proprio" in info:
            proprio = torch.as_tensor(np.asarray(info["proprio"]), device=device).float()
        if config.proprio_dim and proprio is None and not config.sees_motion:
            raise ValueError(
                f"this model needs odometry (`proprio` of {config.proprio_dim} values) beside the frame: "
                "make the environments with observation='dict', or use a model with visual odometry or none."
            )
        first = first.to(device)
        if bool(first.any()):
            world = world.reset(first)
        action = self.codec.null(self.num_envs, device)
        if taken is not None:
            action = torch.where(first[:, None], action, taken)
        after, _ = self.model.observe(
            world,
            seen.frames[:, None],
            action[:, None],
            None if proprio is None else proprio[:, None],
            (~first).to(action.dtype)[:, None],
        )
        return after

    def _features(self, world: WorldState) -> NDArray[np.float32]:
        features: NDArray[np.float32] = read_inputs(world).float().cpu().numpy().copy()
        return features


def _with_rows(
    batch: Any, rows: NDArray[np.int64], values: list[Any] | None, of: dict[str, Any] | None = None
) -> Any:
    """A batch (array, or dict of arrays) with some rows replaced by ``values``, or by another batch's."""
    if isinstance(batch, dict):
        replaced = {}
        for key, value in batch.items():
            if of is not None:
                if key not in of or not isinstance(value, np.ndarray) or value.dtype == object:
                    continue
                replaced[key] = value.copy()
                replaced[key][rows] = of[key][rows]
            else:
                assert values is not None
                replaced[key] = _with_rows(value, rows, [one[key] for one in values])
        return replaced
    copy = np.array(batch)
    copy[rows] = np.stack(values)  # type: ignore[arg-type]
    return copy


def _mixed(mask: torch.Tensor, one: WorldState, other: WorldState) -> WorldState:
    """Rows of ``one`` where ``mask`` (B,), of ``other`` elsewhere."""
    from torch.utils import _pytree as pytree

    def choose(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

    mixed: WorldState = pytree.tree_map(choose, one, other)
    return mixed
