"""Policies that collect episodes in a vector environment, each of its slots independent of the others."""

from __future__ import annotations

import copy
import dataclasses
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from lssvwm_agents.data.waypoint_policies import make_waypoint_policy
from lssvwm_agents.errors import UserError
from lssvwm_agents.seeding import fold_in

SCRIPTED = ("held_random", "explorer", "forager", "wanderer", "guesser", "oracle")

VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


class Policy(Protocol):
    """What the collector asks of a policy."""

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin new episodes in ``slots``; what is random in each follows from its seed alone."""

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """One action for every slot, (B, ...) in the environment's own dtype."""


class RandomPolicy:
    """Samples the action space, with one generator for each slot."""

    def __init__(self, envs: VectorEnv) -> None:
        """Play in ``envs``."""
        self._spaces = [copy.deepcopy(envs.single_action_space) for _ in range(envs.num_envs)]

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Seed the generators of ``slots``."""
        for slot, seed in zip(slots, seeds, strict=True):
            self._spaces[slot].seed(fold_in(seed, 0) % 2**32)

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """Uniform actions."""
        return np.stack([np.asarray(space.sample()) for space in self._spaces])


class EpsilonPolicy:
    """Plays another policy, but at each step, with probability ``epsilon``, a uniformly random action."""

    def __init__(self, policy: Policy, envs: VectorEnv, epsilon: float) -> None:
        """Wrap ``policy``."""
        self._policy = policy
        self._random = RandomPolicy(envs)
        self._epsilon = epsilon
        self._generators = [np.random.default_rng(0) for _ in range(envs.num_envs)]

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Start both."""
        self._policy.start(slots, seeds)
        self._random.start(slots, seeds)
        for slot, seed in zip(slots, seeds, strict=True):
            self._generators[slot] = np.random.default_rng(fold_in(seed, 2))

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """Mix the two."""
        actions = self._policy.act(envs, observations).copy()
        random = self._random.act(envs, observations)
        chosen = np.array([generator.random() < self._epsilon for generator in self._generators])
        actions[chosen] = random[chosen]
        return actions


class ScriptedPolicy:
    """A policy of ``lssvwm_agents.envs.scripted_policies``, which sees the maze itself, not its frames."""

    def __init__(self, name: str, envs: VectorEnv) -> None:
        """Play policy ``name`` in ``envs``, which must be a vector of our mazes."""
        from lssvwm_agents.envs import scripted_policies

        if not hasattr(envs.unwrapped, "maze_config"):
            raise UserError(
                f"Policy `{name}` plays RaycastMaze environments only; for others choose `random` "
                "or the path of a stable-baselines3 policy."
            )
        self._policy = scripted_policies.make_policy(name, envs.unwrapped.maze_config)
        self._carry: Any = None
        self._envs = envs.unwrapped

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Give ``slots`` a fresh carry."""
        import torch

        device = self._envs.maze_state.position.device
        all_seeds = torch.zeros(self._envs.num_envs, dtype=torch.int64)
        mask = torch.zeros(self._envs.num_envs, dtype=torch.bool)
        for slot, seed in zip(slots, seeds, strict=True):
            all_seeds[slot] = fold_in(seed, 1)
            mask[slot] = True
        fresh = self._policy.initial_carry(all_seeds.to(device), device)
        self._carry = fresh if self._carry is None else choose_rows(mask.to(device), fresh, self._carry)

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """Ask the scripted policy."""
        actions, self._carry = self._policy.act(envs.unwrapped.maze_state, self._carry)
        dtype: Any = envs.single_action_space.dtype
        return actions.cpu().numpy().astype(dtype)


def choose_rows(mask: Any, new: Any, old: Any) -> Any:
    """Rows of ``new`` where the (B,) ``mask`` is True, of ``old`` elsewhere, in nested tensors."""
    import torch

    if isinstance(new, torch.Tensor):
        return torch.where(mask.view(-1, *[1] * (new.ndim - 1)), new, old)
    if dataclasses.is_dataclass(new) and not isinstance(new, type):
        names = [f.name for f in dataclasses.fields(new)]
        return dataclasses.replace(
            new, **{n: choose_rows(mask, getattr(new, n), getattr(old, n)) for n in names}
        )
    if isinstance(new, dict):
        return {key: choose_rows(mask, new[key], old[key]) for key in new}
    if isinstance(new, tuple):
        values = [choose_rows(mask, *pair) for pair in zip(new, old, strict=True)]
        return type(new)(*values) if hasattr(new, "_fields") else tuple(values)
    return new


class StableBaselinesPolicy:
    """The deterministic action of a policy that stable-baselines3 saved.

    Such a file holds pickled Python objects, as stable-baselines3 made it: load only files that you trust.
    """

    def __init__(self, path: Path) -> None:
        """Load the file."""
        try:
            import stable_baselines3
        except ModuleNotFoundError as error:
            raise UserError(
                "Loading a policy needs stable-baselines3: pip install 'lssvwm-agents[sb3]'."
            ) from error
        self._model = getattr(stable_baselines3, algorithm_of(path)).load(path, device="cpu")

    def start(self, slots: Sequence[int], seeds: Sequence[int]) -> None:
        """Nothing to start: the policy has no memory and nothing random."""

    def act(self, envs: VectorEnv, observations: Any) -> NDArray[Any]:
        """Ask the network."""
        if isinstance(observations, dict):
            observations = {key: np.asarray(value) for key, value in observations.items()}
        actions, _ = self._model.predict(observations, deterministic=True)
        return np.asarray(actions)

    def check(self, envs: VectorEnv) -> None:
        """Refuse an environment whose spaces are not those that the policy was trained for."""
        single = envs.single_action_space
        if self._model.action_space != single:
            raise UserError(
                f"The loaded policy acts in {self._model.action_space}, but this environment takes {single}."
            )


def algorithm_of(path: Path) -> str:
    """Name of the stable-baselines3 class that saved ``path``, told by its settings (TD3 also reads DDPG)."""
    foreign = UserError(f"`{path}` is not a policy saved by stable-baselines3 (a .zip with a `data` file).")
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise foreign from error
    signs = (("clip_range", "PPO"), ("gae_lambda", "A2C"), ("target_entropy", "SAC"))
    signs += (("target_policy_noise", "TD3"), ("exploration_fraction", "DQN"))
    for setting, name in signs:
        if setting in settings:
            return name
    raise foreign


def make_policy(name: str, envs: VectorEnv, epsilon: float = 0.0, device: str = "cpu") -> Policy:
    """The policy called ``name``: ``random``, a scripted one, a stable-baselines3 .zip, or a policy's folder.

    A policy of a folder remembers with its world model, on ``device``.

    Raises:
        UserError: When there is no such policy, or it cannot play these environments.
    """
    policy: Policy
    if name == "random":
        policy = RandomPolicy(envs)
    elif name in SCRIPTED:
        policy = ScriptedPolicy(name, envs)
    elif name == "waypoints":
        policy = make_waypoint_policy(envs)
    elif Path(name).is_file():
        policy = StableBaselinesPolicy(Path(name))
        policy.check(envs)
    elif Path(name).is_dir():
        from lssvwm_agents.policies.collecting import CollectingPolicy

        policy = CollectingPolicy(Path(name), envs, device)
    else:
        raise UserError(
            f"`policy` must be random, {', '.join(SCRIPTED)}, waypoints, the path of a file, or of a run of "
            f"`lssvwm train-policy`, got `{name}`."
        )
    return EpsilonPolicy(policy, envs, epsilon) if epsilon > 0 else policy
