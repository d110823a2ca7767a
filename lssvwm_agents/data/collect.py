"""Play episodes in a vector environment and append each to a store as soon as it ends."""

from __future__ import annotations

import importlib
import json
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from tqdm import tqdm

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.observations import ObservationReader
from lssvwm_agents.data.policies import Policy, VectorEnv, make_policy
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.errors import UserError

LONGEST_EPISODE = 100_000


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. Episode i is made from ``seed + i`` alone, whatever ``num_envs`` is.

    Attributes:
        env: Gymnasium id.
        policy: ``random``, ``waypoints`` (mazes of other packages), a scripted policy of our mazes
            (``held_random``, ``explorer``, ``forager``, ``wanderer``, ``guesser``, ``oracle``), the path of a
            stable-baselines3 policy, or the folder of a policy of ``lssvwm train-policy``.
        episodes: Episodes that the store holds in the end.
        num_envs: Environments played side by side.
        seed: Seed of episode 0.
        env_kwargs: Keyword arguments of the environment; JSON values.
        epsilon: Probability, at each step, of a uniformly random action instead of the policy's.
        frame_size: Edge of the recorded frames in pixels; None keeps the size of image observations, and
            takes 64 for rendered frames.
        processes: Each environment in a process of its own: for slow ones, such as those drawn by MuJoCo.
        device: Where our mazes are stepped and drawn, and a trained policy that plays them remembers; with
            other environments there is no choice but ``cpu``.
    """

    env: str
    policy: str = "random"
    episodes: int = 10
    num_envs: int = 16
    seed: int = 0
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    epsilon: float = 0.0
    frame_size: int | None = None
    processes: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("episodes", "num_envs"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.seed <= 2**31 - self.episodes:  # from 2**31 on seeds are for evaluation
            raise UserError(
                f"`seed` must be in [0, 2**31 - episodes={2**31 - self.episodes}], got {self.seed}."
            )
        if not 0.0 <= self.epsilon <= 1.0:
            raise UserError(f"`epsilon` must be in [0, 1], got {self.epsilon}.")
        if self.frame_size is not None and self.frame_size < 1:
            raise UserError(f"`frame_size` must be at least 1, got {self.frame_size}.")
        if self.device != "cpu":
            _check_device(self)


class _Recording:
    """The episode that one slot is playing."""

    def __init__(self, seed: int, null_action: NDArray[Any]) -> None:
        self.seed = seed
        self._null_action = null_action
        self._rows: list[tuple[Any, ...]] = []

    def start(self, frame: NDArray[np.uint8], proprio: NDArray[np.float32]) -> None:
        self.add(frame, self._null_action, 0.0, False, False, proprio)

    def add(
        self, frame: Any, action: Any, reward: Any, terminated: Any, truncated: Any, proprio: Any
    ) -> None:
        self._rows.append(
            (
                np.array(frame),
                np.array(action),
                float(reward),
                bool(terminated),
                bool(truncated),
                np.array(proprio),
            )
        )
        if len(self._rows) > LONGEST_EPISODE:
            raise UserError(
                f"An episode has not ended after {LONGEST_EPISODE} frames; limit its length, for example by "
                """--env-kwargs '{"max_episode_steps": 1000}'."""
            )

    def finish(self) -> Episode:
        frames, actions, rewards, terminated, truncated, proprio = zip(*self._rows, strict=True)
        return Episode(
            frames=np.stack(frames),
            actions=np.stack(actions).astype(self._null_action.dtype),
            rewards=np.array(rewards, np.float32),
            terminated=np.array(terminated, bool),
            truncated=np.array(truncated, bool),
            proprio=np.stack(proprio),
            seed=self.seed,
        )


def collect(config: CollectConfig, path: str | Path, progress: bool = True) -> EpisodeStore:
    """Play what is missing of ``config.episodes`` episodes and append them to the store at ``path``.

    Episodes lie in the store in the order in which they ended; each knows its seed. Killed at any moment, the
    function goes on where it was when it is called again.

    Args:
        config: What to collect.
        path: The store: a new folder, or one that an earlier call with the same configuration made
            (``episodes``, ``num_envs``, ``processes`` and ``device`` may differ).
        progress: Whether to show a progress bar.

    Returns:
        The store, closed for appending.

    Raises:
        UserError: When the environment, the policy or the store cannot be used so.
    """
    path = Path(path)
    store = EpisodeStore.open(path) if path.is_dir() and any(path.iterdir()) else None
    reader, action_space = _inspect(config)
    spec = _spec(config, reader, action_space)
    if store is not None:
        _check_same(store, spec)
    have = set() if store is None else set(store.seeds.tolist())
    missing = deque(seed for seed in range(config.seed, config.seed + config.episodes) if seed not in have)
    if store is not None and not missing:
        return store
    envs = _make_vector(config, min(config.num_envs, len(missing)), reader)
    try:
        policy = make_policy(config.policy, envs, config.epsilon, config.device)
        if store is None:
            store = EpisodeStore.create(path, spec)
        with store, _progress_bar(config, len(missing), progress) as bar:
            _play(config, store, reader, envs, policy, missing, bar)
    finally:
        envs.close()
    return store


def _progress_bar(config: CollectConfig, missing: int, progress: bool) -> tqdm[Any]:
    return tqdm(
        total=config.episodes,
        initial=config.episodes - missing,
        desc=f"collect {config.env}",
        unit="episode",
        disable=not progress,
    )


def _play(
    config: CollectConfig,
    store: EpisodeStore,
    reader: ObservationReader,
    envs: VectorEnv,
    policy: Policy,
    missing: deque[int],
    bar: tqdm[Any],
) -> None:
    """Fill the slots of a vector environment with episodes until none is missing."""
    null_action = np.zeros(store.spec.action_shape, store.spec.action_dtype)
    slots: list[_Recording | None] = [None] * envs.num_envs
    ended: NDArray[np.bool_] = np.ones(envs.num_envs, np.bool_)
    frames_seen, started = 0, time.monotonic()
    while True:
        # Slots whose episode has ended take the next one; a slot with none left plays on, unrecorded.
        fresh: list[int] = np.flatnonzero(ended).tolist()
        for slot in fresh:
            slots[slot] = _Recording(missing.popleft(), null_action) if missing else None
        if not any(slots):
            return
        if fresh:
            seeds = [config.seed if recording is None else recording.seed for recording in slots]
            observations, infos = envs.reset(seed=seeds, options={"reset_mask": ended.copy()})
            policy.start(fresh, [seeds[slot] for slot in fresh])
            frames, proprio = reader.read(envs, observations, infos)
            for slot in fresh:
                recording = slots[slot]
                if recording is not None:
                    recording.start(frames[slot], proprio[slot])
        actions = policy.act(envs, observations)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        frames, proprio = reader.read(envs, observations, infos)
        ended = np.asarray(terminated) | np.asarray(truncated)
        for slot, recording in enumerate(slots):
            if recording is None:
                continue
            recording.add(
                frames[slot],
                actions[slot],
                rewards[slot],
                terminated[slot],
                truncated[slot],
                proprio[slot],
            )
            frames_seen += 1
            if ended[slot]:
                store.append(recording.finish())
                bar.update()
        bar.set_postfix_str(f"{frames_seen / (time.monotonic() - started):,.0f} frames/s", refresh=False)
        bar.update(0)


# -------------------- environments


def _check_device(config: CollectConfig) -> None:
    """Refuse a device that is not there, or that the environment would not use."""
    from lssvwm_agents.trainers.distributed import choose_device

    importlib.import_module("lssvwm_agents.envs")
    if config.processes or config.env not in gymnasium.registry or not _is_one_batch(config.env):
        raise UserError(
            f"`device` is where a batch of our mazes is stepped and drawn: `{config.env}` "
            f"{'in processes ' if config.processes else ''}plays on cpu, got {config.device}."
        )
    choose_device(config.device)


def _is_ours(env_id: str) -> bool:
    return env_id.startswith("lssvwm/")


def _is_one_batch(env_id: str) -> bool:
    """Whether it is one of ours in which all environments are rows of tensors."""
    return _is_ours(env_id) and gymnasium.spec(env_id).vector_entry_point is not None


def _make(config: CollectConfig, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """One environment, for a look at its spaces."""
    if _is_ours(config.env):
        importlib.import_module("lssvwm_agents.envs")
    try:
        return gymnasium.make(config.env, **{**config.env_kwargs, **kwargs})
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        sentence = " ".join(str(error).split())
        raise UserError(f"The environment `{config.env}` cannot be made: {sentence}") from error
    except TypeError as error:
        raise UserError(
            f"The environment `{config.env}` does not take {config.env_kwargs}: {error}."
        ) from error


def _inspect(config: CollectConfig) -> tuple[ObservationReader, spaces.Discrete | spaces.Box]:
    """How to read the environment's observations, and its actions."""
    env = _make(config)
    try:
        reader = ObservationReader.for_env(env, config.frame_size)
        action_space = env.action_space
    finally:
        env.close()
    if isinstance(action_space, spaces.Discrete) and action_space.start == 0:
        return reader, action_space
    if isinstance(action_space, spaces.Box):
        return reader, action_space
    raise UserError(
        f"Actions must be Discrete, counted from 0, or a Box; `{config.env}` takes {action_space}."
    )


def _check_renders(config: CollectConfig) -> None:
    """Draw one frame, to say what is wrong before a store is made.

    Raises:
        UserError: When the environment cannot be drawn, for example because a package is missing.
    """
    env = _make(config, render_mode="rgb_array")
    try:
        env.reset(seed=config.seed)
        env.render()
    except (gymnasium.error.Error, ImportError) as error:
        sentence = " ".join(str(error).split())
        raise UserError(f"The environment `{config.env}` cannot be drawn: {sentence}") from error
    finally:
        env.close()


def _make_vector(config: CollectConfig, num_envs: int, reader: ObservationReader) -> VectorEnv:
    """A vector environment that is reset slot by slot, by us."""
    kwargs = dict(config.env_kwargs)
    if _is_one_batch(config.env) and not config.processes:
        kwargs |= {"autoreset_mode": AutoresetMode.DISABLED, "device": config.device}
        return gymnasium.make_vec(config.env, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    if reader.kind == "rendered":
        kwargs["render_mode"] = "rgb_array"
        _check_renders(config)
    vector_kwargs: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}
    if config.processes:  # fresh ones: what draws does not live through a fork
        vector_kwargs["context"] = "spawn"
    return gymnasium.make_vec(
        config.env,
        num_envs,
        vectorization_mode="async" if config.processes else "sync",
        vector_kwargs=vector_kwargs,
        **kwargs,
    )


# -------------------- the store


def _spec(
    config: CollectConfig, reader: ObservationReader, action_space: spaces.Discrete | spaces.Box
) -> StoreSpec:
    if isinstance(action_space, spaces.Discrete):
        num_actions, low, high = int(action_space.n), (), ()
    else:
        num_actions, low, high = 0, action_space.low.ravel().tolist(), action_space.high.ravel().tolist()
    return StoreSpec(
        env_id=config.env,
        env_kwargs=config.env_kwargs,
        policy=config.policy,
        seed=config.seed,
        frame_shape=reader.frame_shape,
        action_shape=tuple(action_space.shape or ()),
        action_dtype=str(action_space.dtype),
        num_actions=num_actions,
        action_low=tuple(low),
        action_high=tuple(high),
        proprio_dim=reader.proprio_dim,
        extra={"observation": reader.kind, "epsilon": config.epsilon},
    )


def _check_same(store: EpisodeStore, spec: StoreSpec) -> None:
    """Refuse to mix episodes of different origin."""
    ours, theirs = (json.loads(json.dumps(asdict(each))) for each in (spec, store.spec))
    for name, value in ours.items():
        if theirs[name] != value:
            raise UserError(
                f"The episode store `{store.path}` was made with {name}={theirs[name]!r}, "
                f"now it is {value!r}; choose another folder."
            )
