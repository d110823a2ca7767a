"""PPO of stable-baselines3, trained in the real maze: what policies trained in imagination are held against.

    python benchmarks/policy_ppo_baseline.py --steps 200000 --training-seed 0 --json runs/ppo_seed0.json

It is judged as `lssvwm evaluate policy` and `lssvwm evaluate planning` judge: for a --seed in the same
held-out mazes, after the same moves of the explorer, which do not count and which its stack of frames sees.
The border of every frame shows the colour that is asked for. `--observation dict` adds the odometry that a
world model such as `tiny` is given (MultiInputPolicy); `frame` is frames alone (CnnPolicy). In the cue
corridor (--env lssvwm/RaycastMaze-Cue-v0) no one may look around: --look-around 0.

Training mazes have derived seeds; those of the evaluation are in [2**31, 2**32).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import stable_baselines3
import torch
import tyro
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations
from tqdm import tqdm

from lssvwm_agents.envs import make_policy
from lssvwm_agents.envs.sb3_bridge import SB3VecEnv
from lssvwm_agents.evaluate.environments import make_envs
from lssvwm_agents.evaluate.mazes import episode_seeds, make_mazes, maze_of, seeds_tensor
from lssvwm_agents.evaluate.planning import CI95_METHOD, summary
from lssvwm_agents.evaluate.policy import CONTROLS
from lssvwm_agents.evaluate.policy_play import play
from lssvwm_agents.report import run_info, write_json
from lssvwm_agents.seeding import fold_in

POLICIES = {"dict": "MultiInputPolicy", "frame": "CnnPolicy"}


@dataclass(frozen=True)
class Args:
    """Where PPO is trained, how, and how it is judged."""

    env: str = "lssvwm/RaycastMaze-7x7-v0"
    """One of our mazes."""
    steps: int = 200_000
    """Real steps of all environments together; a multiple of --num-envs times --n-steps."""
    training_seed: int = 0
    """Of weights, mazes and choices in training."""
    observation: Literal["dict", "frame"] = "dict"
    """dict: frames and odometry, as `tiny` is given; frame: frames alone."""
    frame_stack: int = 4
    """Last observations that the policy sees at once."""
    num_envs: int = 16
    """Environments side by side."""
    episode_steps: int | None = None
    """Moves of a training episode; by default the environment's own."""
    learning_rate: float = 2.5e-4
    """Of Adam."""
    anneal: bool = False
    """Let the learning rate fall to zero, linearly."""
    n_steps: int = 125
    """Steps of each environment between two updates."""
    batch_size: int = 250
    """Steps of a minibatch."""
    n_epochs: int = 4
    """Passes through the steps in an update."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Lambda of the advantages."""
    clip_range: float = 0.2
    """Of the ratio of probabilities."""
    entropy_weight: float = 0.01
    """Of the entropy bonus."""
    seed: int = 0
    """Names the held-out mazes, as for `lssvwm evaluate policy`."""
    episodes: int = 20
    """Held-out mazes."""
    look_around: int = 96
    """Moves of the explorer before anything counts."""
    moves: int = 250
    """Moves that count at most."""
    device: str = "cpu"
    """cpu or cuda: of the policy and, in training, of the mazes."""
    json: Path | None = None
    """File for the result."""

    def __post_init__(self) -> None:
        for name in ("steps", "frame_stack", "num_envs", "n_steps", "batch_size", "episodes", "moves"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        rollout = self.num_envs * self.n_steps
        if self.steps % rollout:
            raise ValueError(f"`steps` must be a multiple of num_envs x n_steps={rollout}, got {self.steps}.")
        if rollout % self.batch_size:
            raise ValueError(f"`batch_size` must divide num_envs x n_steps={rollout}, got {self.batch_size}.")


class Curve(BaseCallback):
    """Moves a progress bar, and keeps what was earned in every rollout.

    Attributes:
        points: One a rollout: ``real_steps`` so far; ``reward_per_250_moves`` in it; ``mean_return`` of the
            ``episodes`` that ended in it, None if none did; ``entropy`` of the actions in the update before
            it, in nats, None for the first.
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        super().__init__()
        self.bar = bar
        self.points: list[dict[str, Any]] = []
        self._rewards: list[float] = []
        self._returns: list[float] = []

    def _on_step(self) -> bool:
        self._rewards.append(float(np.mean(self.locals["rewards"])))
        self._returns += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        self.bar.update(self.num_timesteps - self.bar.n)
        return True

    def _on_rollout_end(self) -> None:
        rate = 250 * float(np.mean(self._rewards))
        loss = self.logger.name_to_value.get("train/entropy_loss")
        self.points.append(
            {
                "real_steps": self.num_timesteps,
                "reward_per_250_moves": rate,
                "mean_return": float(np.mean(self._returns)) if self._returns else None,
                "episodes": len(self._returns),
                "entropy": None if loss is None else -float(loss),
            }
        )
        self.bar.set_postfix_str(f"reward in 250 moves {rate:.2f}", refresh=False)
        self._rewards, self._returns = [], []


def train(args: Args) -> tuple[PPO, list[dict[str, Any]]]:
    """PPO after ``args.steps`` real steps, and its learning curve."""
    settings: dict[str, Any] = {"observation": args.observation, "device": args.device}
    if args.episode_steps is not None:
        settings["max_episode_steps"] = args.episode_steps
    mazes = make_envs(args.env, args.num_envs, {"autoreset_mode": AutoresetMode.SAME_STEP, **settings})
    env = VecFrameStack(VecMonitor(SB3VecEnv(mazes)), args.frame_stack)
    agent = PPO(
        POLICIES[args.observation],
        env,
        learning_rate=lambda remaining: args.learning_rate * (remaining if args.anneal else 1.0),
        n_steps=args.n_steps,
        batch_size=args.batch_size,
        n_epochs=args.n_epochs,
        gamma=args.gamma,
        gae_lambda=args.gae_lambda,
        clip_range=args.clip_range,
        ent_coef=args.entropy_weight,
        seed=fold_in(args.training_seed, 60) % 2**31,
        device=args.device,
    )
    with tqdm(total=args.steps, unit="step", desc="ppo", mininterval=5.0) as bar:
        curve = Curve(bar)
        agent.learn(args.steps, curve)
    env.close()
    return agent, curve.points


class PPOPlayer:
    """PPO behind the methods by which `play` asks a planning agent; its carry is the stack of observations.

    Args:
        agent: The trained agent.
        space: Of one observation, not stacked.
        frame_stack: Observations in the stack.
        deterministic: Play the likeliest action instead of sampling.
    """

    def __init__(
        self, agent: PPO, space: gymnasium.Space[Any], frame_stack: int, deterministic: bool
    ) -> None:
        self.agent, self.space = agent, space
        self.frame_stack, self.deterministic = frame_stack, deterministic

    def initial_carry(self, batch_size: int, seed: int) -> StackedObservations[Any]:
        """A stack of zeros, as after a reset; ``seed`` fixes the samples."""
        torch.manual_seed(seed)
        return StackedObservations(batch_size, self.frame_stack, self.space)

    def observe(self, observation: Any, carry: StackedObservations[Any]) -> StackedObservations[Any]:
        """Put what is seen on the stack."""
        carry.update(observation, np.zeros(0, np.bool_), [])
        return carry

    def record_action(self, carry: StackedObservations[Any], action: Any) -> StackedObservations[Any]:
        """Nothing: this policy does not see its actions."""
        return carry

    def act(
        self, observation: Any, carry: StackedObservations[Any], begun: Any = None
    ) -> tuple[Any, StackedObservations[Any]]:
        """One action for each environment."""
        stacked, _ = carry.update(observation, np.zeros(0, np.bool_), [])  # no stack begins anew
        return self.agent.predict(stacked, deterministic=self.deterministic)[0], carry


class ScriptedPlayer:
    """A scripted policy behind the same methods; it reads the maze's true state.

    Args:
        env: The mazes.
        seeds: Their seeds.
        name: random, explorer or oracle.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], seeds: list[int], name: str) -> None:
        self.env, self.seeds = env, seeds
        self.policy = make_policy(name, env.unwrapped.maze_config)  # type: ignore[attr-defined]

    def initial_carry(self, batch_size: int, seed: int) -> Any:
        """The policy's own; the same choices as in `lssvwm evaluate planning`."""
        return self.policy.initial_carry(seeds_tensor(self.seeds, 2), "cpu")

    def observe(self, observation: Any, carry: Any) -> Any:
        """Nothing to remember."""
        return carry

    def record_action(self, carry: Any, action: Any) -> Any:
        """Nothing to remember."""
        return carry

    def act(self, observation: Any, carry: Any, begun: Any = None) -> tuple[Any, Any]:
        """One action for each maze."""
        return self.policy.act(maze_of(self.env)[1], carry)


def evaluate(args: Args, agent: PPO) -> dict[str, Any]:
    """Scores in the held-out mazes: of PPO, its actions sampled or the likeliest, and scripted policies."""
    began = time.perf_counter()
    seeds = episode_seeds(args.seed, args.episodes)
    settings = {"observation": args.observation}
    env = make_mazes(args.env, args.episodes, args.look_around + args.moves, settings)
    space = env.single_observation_space
    players: dict[str, Any] = {
        "policy": PPOPlayer(agent, space, args.frame_stack, False),
        "policy_deterministic": PPOPlayer(agent, space, args.frame_stack, True),
        **{name: ScriptedPlayer(env, seeds, name) for name in CONTROLS},
    }
    result: dict[str, Any] = {}
    with tqdm(total=args.moves * len(players), unit="move", desc="evaluate", leave=False) as bar:
        for name, player in players.items():
            played = play(env, player, seeds, args.moves, None, args.look_around, bar)
            result[name] = summary(played.scores.tolist())
            if name == "policy":
                result["success_rate"] = float(np.mean(played.terminated))
    env.close()
    oracle = result["oracle"]["mean"]
    return {
        **result,
        "fraction_of_oracle": result["policy"]["mean"] / oracle if oracle > 0 else None,
        "ci95_method": CI95_METHOD,
        "seed": args.seed,
        "seeds": seeds,
        "env_id": args.env,
        "look_around": args.look_around,
        "steps": args.moves,
        "deterministic": False,
        "wall_seconds": time.perf_counter() - began,
    }


def main(args: Args) -> None:
    """Train, judge, print a table, and write the result."""
    began = time.perf_counter()
    agent, curve = train(args)
    seconds = time.perf_counter() - began
    result = evaluate(args, agent) | {
        "algorithm": f"PPO ({POLICIES[args.observation]}), stable-baselines3 {stable_baselines3.__version__}",
        "training_seed": args.training_seed,
        "real_steps": agent.num_timesteps,
        "training_seconds": seconds,
        "settings": {name: value for name, value in asdict(args).items() if name != "json"},
        "learning_curve": curve,
        **run_info(args.device),
    }
    print(f"{'who':<22}{'mean':>8}   95 % interval")
    for who in ("policy", "policy_deterministic", *CONTROLS):
        low, high = result[who]["ci95"]
        print(f"{who:<22}{result[who]['mean']:>8.2f}   {low:.2f} to {high:.2f}")
    print(f"{agent.num_timesteps} real steps in {seconds:.0f} s.")
    if args.json is not None:
        write_json(args.json, result)
        print(f"Written to {args.json}.")


if __name__ == "__main__":
    main(tyro.cli(Args))
