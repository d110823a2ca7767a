"""stable-baselines3 in imagination: PPO for discrete actions, SAC for continuous ones, on features."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode
from tqdm import tqdm

from lssvwm_agents.data.latents import module_hash
from lssvwm_agents.envs.imagined_vector_env import ImaginedVectorEnv
from lssvwm_agents.files import atomic_path
from lssvwm_agents.policies.sb3_policy import SB3Policy
from lssvwm_agents.report.run_info import file_sha256
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.trainers.policy_algorithms import World
from lssvwm_agents.trainers.policy_config import Algorithm, PolicyRecipe

try:
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecMonitor
except ModuleNotFoundError as missing:
    raise ImportError(
        "--algo ppo and sac need the extra `sb3`: pip install 'lssvwm-agents[sb3]'."
    ) from missing

from lssvwm_agents.envs.sb3_bridge import SB3ImaginedVecEnv


class SB3Improver:
    """An agent of stable-baselines3 in the imagined vector environments.

    The agent is kept in stable-baselines3's own format (a zip with pickled parts: load only what you trust).
    SAC's replay buffer is not kept: a resumed run fills a new one.

    Args:
        algo: ``ppo`` or ``sac``.
        world: Model and environment.
        name: Of the model.
        recipe: Settings.
        out: The run's folder.
        tensorboard: Whether to write TensorBoard files.
    """

    def __init__(
        self, algo: Algorithm, world: World, name: str, recipe: PolicyRecipe, out: Path, tensorboard: bool
    ) -> None:
        self.algo, self.world, self.model, self.env_id = algo, world, world.model, world.env_id
        self.recipe, self.tensorboard = recipe, tensorboard
        self.log = out / "tensorboard" if tensorboard else None
        self.path = out / "policy" / "sb3.zip"
        self._class: Any = PPO if algo == "ppo" else SAC

    @property
    def is_maze(self) -> bool:
        """Whether the environment is one of our mazes."""
        return self.world.maze is not None

    @property
    def updates(self) -> int:
        """Imagined steps done, over all iterations."""
        return 0 if not self.path.is_file() else int(self._load().num_timesteps)

    def imagined(self) -> VecMonitor:
        """The imagined environments: features in, truncated at the horizon, from kept real contexts."""
        config, sources = self.recipe.sb3, self.world.contexts()
        env = ImaginedVectorEnv(
            self.model,
            config.num_envs,
            sources[len(sources) // 2],
            AutoresetMode.SAME_STEP,
            observation="features",
            num_denoising_steps=self.recipe.training.num_denoising_steps,
            max_episode_steps=self.recipe.training.horizon,
            num_starts=self.recipe.starts.pool,
            action_space=self.world.action_space,
        )
        return VecMonitor(SB3ImaginedVecEnv(env))

    def improve(self, iteration: int, deadline: float | None) -> bool:
        """Go on to the end of the iteration; keeps the agent every so many steps."""
        config = self.recipe.sb3
        total = config.steps * (iteration + 1)
        env = self.imagined()
        env.seed(2**40 + fold_in(self.recipe.training.seed, 51, self.updates) % 2**60)
        agent = self._load(env) if self.path.is_file() else self._fresh(env)
        bar = tqdm(total=total, initial=agent.num_timesteps, desc=self.algo, unit="step", mininterval=5.0)
        try:
            while agent.num_timesteps < total:
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                steps = min(config.checkpoint_every, total - agent.num_timesteps)
                agent.learn(steps, _Progress(bar, deadline), tb_log_name=self.algo, reset_num_timesteps=False)
                with atomic_path(self.path) as temporary:
                    agent.save(temporary)
        finally:
            bar.close()
            env.close()
        return True

    def _fresh(self, env: VecMonitor) -> Any:
        config, objective = self.recipe.sb3, self.recipe.objective
        settings: dict[str, Any] = {
            "learning_rate": config.learning_rate,
            "gamma": objective.discount,
            "policy_kwargs": {"net_arch": [self.recipe.hidden] * self.recipe.num_layers},
            "seed": self.recipe.training.seed,
            "device": str(self.model.device),
            "tensorboard_log": None if self.log is None else str(self.log),
            "batch_size": config.batch_size,
        }
        if self.algo == "ppo":
            settings |= {"n_steps": config.n_steps, "gae_lambda": objective.lam, "n_epochs": config.n_epochs}
            settings["ent_coef"] = config.entropy_weight
        else:
            settings |= {"buffer_size": config.buffer_size, "learning_starts": config.learning_starts}
        return self._class("MlpPolicy", env, **settings)

    def _load(self, env: VecMonitor | None = None) -> Any:
        return self._class.load(self.path, env=env, device=str(self.model.device))

    def policy(self) -> SB3Policy:
        """The agent as it was kept."""
        return SB3Policy(self._load(), module_hash(self.model))

    def sha256(self) -> str:
        """SHA-256 of the agent's file."""
        return file_sha256(self.path)


class _Progress(BaseCallback):  # type: ignore[misc]
    """Moves a progress bar, and stops at a deadline."""

    def __init__(self, bar: tqdm[Any], deadline: float | None) -> None:
        super().__init__()
        self.bar, self.deadline = bar, deadline

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        returns = [episode["r"] for episode in self.model.ep_info_buffer or []]
        if returns:
            self.bar.set_postfix_str(f"imagined return {sum(returns) / len(returns):.3f}", refresh=False)
        return self.deadline is None or time.monotonic() < self.deadline
