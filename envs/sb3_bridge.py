"""From Gymnasium's vector environments to the ``VecEnv`` that stable-baselines3 trains in.

stable-baselines3 refuses ``gymnasium.vector.VectorEnv``. Its own convention is Gymnasium's SAME_STEP
autoreset in another shape: one ``done`` flag, one info dict an environment, the last observation of a
finished episode in ``info["terminal_observation"]``, and ``info["TimeLimit.truncated"]`` where it was cut off
but did not end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from lssvwm_agents.envs.imagined_vector_env import ImaginedVectorEnv
from lssvwm_agents.envs.imagined_worlds import ImaginedMoment

try:
    from stable_baselines3.common.env_util import is_wrapped
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as missing:
    raise ImportError(
        "The bridge to stable-baselines3 needs the extra `sb3`: pip install 'lssvwm-agents[sb3]'."
    ) from missing

Indices = int | Iterable[int] | None


class SB3VecEnv(VecEnv):  # type: ignore[misc]
    """Hand any Gymnasium vector environment to stable-baselines3.

    A vector of separate environments (``SyncVectorEnv``, ``AsyncVectorEnv``) is asked for attributes and
    methods one environment at a time. A vector that is one object has them for all environments together:
    each index is given the same value, and setting one for only some environments is refused.

    Args:
        venv: With autoreset in the same step, and numpy observations.

    Raises:
        ValueError: If the autoreset mode is another one, or it speaks tensors.
    """

    def __init__(self, venv: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                "stable-baselines3 needs a vector environment that begins anew in the same step: make it "
                f"with autoreset_mode=AutoresetMode.SAME_STEP, got {mode}."
            )
        env = venv.unwrapped
        if isinstance(env, ImaginedVectorEnv) and env.view.array_type != "numpy":
            raise ValueError("stable-baselines3 needs numpy arrays: make it with array_type='numpy'.")
        self.venv = venv
        self._actions: NDArray[Any] | None = None
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    # --- playing ----------------------------------------------------------------------------------

    def reset(self) -> Any:
        """Begin all episodes, with the seeds and options given before, if any."""
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        options = self._options[0] or None
        if any(other != self._options[0] for other in self._options):
            raise ValueError("a vector environment takes one dict of options for all, got different ones.")
        observation, info = self.venv.reset(seed=seeds, options=options)  # type: ignore[arg-type]
        self.reset_infos = [row_of_info(info, row, self.num_envs) for row in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Take one step in all environments."""
        observation, reward, terminated, truncated, info = self.venv.step(self._actions)
        done = np.logical_or(terminated, truncated)
        infos = []
        for row in range(self.num_envs):
            last = row_of_info(info, row, self.num_envs)
            if done[row]:  # then `info` is the new episode's, but for what wrappers say of the old one
                self.reset_infos[row], statistics = last, last.pop("episode", None)
                last = row_of_info(info["final_info"], row, self.num_envs)
                last["terminal_observation"] = info["final_obs"][row]
                if statistics is not None:
                    last["episode"] = statistics
            last["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
            infos.append(last)
        return observation, np.asarray(reward, dtype=np.float32), done, infos

    def close(self) -> None:
        """Close the vector environment."""
        self.venv.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """What each environment renders."""
        images = self.venv.render()
        return [None] * self.num_envs if images is None else [np.asarray(image) for image in images]

    # --- attributes and methods -------------------------------------------------------------------

    def _rows(self, indices: Indices) -> list[int]:
        rows = list(self._get_indices(indices))
        if any(not -self.num_envs <= row < self.num_envs for row in rows):
            raise IndexError(f"`indices` must be in [0, {self.num_envs}), got {rows}.")
        return [row % self.num_envs for row in rows]

    @property
    def _separate(self) -> bool:
        return all(hasattr(self.venv.unwrapped, name) for name in ("call", "get_attr", "set_attr"))

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The attribute of each of the environments."""
        rows = self._rows(indices)
        if self._separate:
            values = self.venv.unwrapped.get_attr(attr_name)  # type: ignore[attr-defined]
            return [values[row] for row in rows]
        return [getattr(self.venv.unwrapped, attr_name)] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set the attribute of each of the environments to ``value``.

        Raises:
            ValueError: If they are one object, and not all are named.
        """
        rows = self._rows(indices)
        if not self._separate:
            self._refuse_some(rows, f"attribute `{attr_name}`")
            setattr(self.venv.unwrapped, attr_name, value)
            return
        envs = getattr(self.venv.unwrapped, "envs", None)
        if envs is not None:
            for row in rows:
                envs[row].set_wrapper_attr(attr_name, value)
            return
        old = self.get_attr(attr_name) if len(set(rows)) < self.num_envs else []
        values = [value if row in rows else old[row] for row in range(self.num_envs)]
        self.venv.unwrapped.set_attr(attr_name, values)  # type: ignore[attr-defined]

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each of the environments; of one object for all, once.

        Raises:
            ValueError: If not all environments are named: a vector calls them together.
        """
        rows = self._rows(indices)
        self._refuse_some(rows, f"method `{method_name}`")
        if self._separate:
            results = self.venv.unwrapped.call(method_name, *method_args, **method_kwargs)  # type: ignore[attr-defined]
            return [results[row] for row in rows]
        return [getattr(self.venv.unwrapped, method_name)(*method_args, **method_kwargs)] * len(rows)

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        """Whether each environment is wrapped so; of environments in other processes no one knows: False."""
        envs = getattr(self.venv.unwrapped, "envs", None)
        return [envs is not None and is_wrapped(envs[row], wrapper_class) for row in self._rows(indices)]

    def _refuse_some(self, rows: list[int], what: str) -> None:
        if set(rows) != set(range(self.num_envs)):
            raise ValueError(
                f"this vector environment has one {what} for all: `indices` must name all "
                f"{self.num_envs} environments, got {rows}."
            )


class SB3ImaginedVecEnv(SB3VecEnv):
    """Hand an imagined vector environment to stable-baselines3, which trains in it unchanged.

    Args:
        venv: An :class:`ImaginedVectorEnv`, or wrappers around one, with autoreset in the same step.

    Raises:
        ValueError: If it is another one, or resets in another way.
    """

    def __init__(self, venv: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(venv.unwrapped, ImaginedVectorEnv):
            raise ValueError(
                f"an ImaginedVectorEnv is needed, got {type(venv.unwrapped).__name__}: "
                "SB3VecEnv takes any vector environment."
            )
        super().__init__(venv)

    @property
    def imagined(self) -> ImaginedVectorEnv:
        """The imagined environments."""
        env = self.venv.unwrapped
        assert isinstance(env, ImaginedVectorEnv)
        return env

    def get_state(self) -> ImaginedMoment:
        """This moment of all environments; see :meth:`ImaginedVectorEnv.get_state`."""
        return self.imagined.get_state()

    def set_state(self, moment: ImaginedMoment) -> Any:
        """Go back to a moment; gives the observations there."""
        return self.imagined.set_state(moment)[0]


def row_of_info(info: dict[str, Any], row: int, num_envs: int) -> dict[str, Any]:
    """One environment's part of a vector's info.

    That is the row of every entry that the mask ``_key`` says this environment has. An entry without a mask
    holds for all environments: its row, if it has one for each, or itself.
    """
    own: dict[str, Any] = {}
    for key, value in info.items():
        mask = info.get(f"_{key}")
        is_mask = key.startswith("_") and key[1:] in info
        if is_mask or key in ("final_obs", "final_info") or (mask is not None and not mask[row]):
            continue
        if isinstance(value, dict):
            own[key] = row_of_info(value, row, num_envs)
        elif mask is not None or (isinstance(value, np.ndarray) and value.shape[:1] == (num_envs,)):
            own[key] = value[row]
        else:
            own[key] = value
    return own
