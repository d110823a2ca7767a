"""Play a policy in a real environment, and ask the world model now and then what it expects of it.

Legend: ``B`` episodes side by side, ``W`` windows of ``H`` moves that are imagined and then really played.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from lssvwm_agents.agents import PlanningAgent, PlanningCarry
from lssvwm_agents.evaluate.mazes import look_around
from lssvwm_agents.evaluate.recording import to_uint8
from lssvwm_agents.policies.actor_critic import ActorCritic
from lssvwm_agents.policies.imagined_rollouts import imagine_policy
from lssvwm_agents.policies.returns import imagined_return
from lssvwm_agents.policies.sb3_policy import SB3Policy
from lssvwm_agents.policies.sure_rewards import sure_reward
from lssvwm_agents.seeding import generator
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState

SAMPLE_STEPS = 8
"""Denoising steps of sampled futures."""
_FUTURES_EVERY = 4


@dataclass(frozen=True)
class Comparison:
    """When and how imagination is held against what really happens.

    Attributes:
        policy: Who acts in imagination.
        horizon: Moves ``H`` of a window.
        futures: Sampled futures of every fourth window; 0 for none.
        doubt: See `sure_reward`.
        deterministic: Imagine the likeliest actions instead of sampling.
        film_rows: The first so many episodes are filmed.
    """

    policy: ActorCritic | SB3Policy
    horizon: int = 16
    futures: int = 4
    doubt: float = 0.5
    deterministic: bool = False
    film_rows: int = 0


@dataclass(frozen=True)
class FilmFrame:
    """One move of the filmed episodes: (rows, H, W, 3) uint8 frames, and (rows,) sums of rewards so far."""

    real: np.ndarray
    imagined: np.ndarray
    real_score: np.ndarray
    imagined_score: np.ndarray
    fresh: bool


@dataclass
class Played:
    """What was seen of ``B`` episodes.

    Attributes:
        scores: (B,) sum of the rewards that counted.
        moves: (B,) moves that counted.
        terminated: (B,) whether the episode ended by itself.
        imagined: W arrays (B,): imagined return of the mean future; NaN where a window does not count.
        sure: W arrays (B,): the same, of rewards that the model is sure of.
        real: W arrays (B,): what was really earned in the same moves.
        spread: Arrays (B,): standard deviation of the return over sampled futures.
        film: Of the filmed rows, one entry a move.
    """

    scores: np.ndarray
    moves: np.ndarray
    terminated: np.ndarray
    imagined: list[np.ndarray] = field(default_factory=list)
    sure: list[np.ndarray] = field(default_factory=list)
    real: list[np.ndarray] = field(default_factory=list)
    spread: list[np.ndarray] = field(default_factory=list)
    film: list[FilmFrame] = field(default_factory=list)


class _Watched:
    """Dynamics that keep the latents of the frames they imagine."""

    def __init__(self, model: WorldModel, steps: int = 1, noise: torch.Generator | None = None) -> None:
        self.model, self.steps, self.noise = model, steps, noise
        self.latents: list[torch.Tensor] = []
        self.keep = 0

    def step(self, state: WorldState, action: torch.Tensor) -> tuple[WorldState, Prediction]:
        state, prediction = self.model.step(state, action, self.steps, self.noise)
        if self.keep:
            self.latents.append(prediction.latent[: self.keep])
        return state, prediction


@dataclass(frozen=True)
class _Expected:
    """Imagined at a window's start: (B,) return and spread; of filmed rows (H, rows, ...) frames, rewards."""

    total: np.ndarray
    sure: np.ndarray
    spread: np.ndarray | None
    frames: np.ndarray | None
    rewards: np.ndarray | None


@torch.no_grad()
def expect(model: WorldModel, state: WorldState, comparison: Comparison, seed: int, window: int) -> _Expected:
    """Imagine the policy's next ``H`` moves from real memory."""
    device, width = model.device, model.config.action_dim
    rows, horizon, futures = state.batch_size, comparison.horizon, comparison.futures
    noise = torch.randn((horizon, rows, width), generator=generator("cpu", seed, window, 0)).to(device)
    if comparison.deterministic:
        noise = torch.zeros_like(noise)
    watched = _Watched(model)
    watched.keep = comparison.film_rows
    actor, read = comparison.policy.actor, comparison.policy.read
    _, rollouts = imagine_policy(watched, model.repeat(state, 1), actor, noise, read)
    total = imagined_return(rollouts.reward, rollouts.continuation)
    logits = model.heads.reward(rollouts.features[:, 1:, : model.feature_dim])
    certain = sure_reward(logits, model.heads.two_hot.bins, comparison.doubt)
    sure = imagined_return(torch.cat([rollouts.reward[:, :1], certain], dim=1), rollouts.continuation)
    spread, frames, rewards = None, None, None
    if futures > 1 and window % _FUTURES_EVERY == 0:
        sampled = _Watched(model, SAMPLE_STEPS, generator(device, seed, window, 1))
        forks = model.repeat(state, futures)  # the same noise of actions in every future
        _, many = imagine_policy(sampled, forks, actor, noise.repeat_interleave(futures, dim=1), read)
        returns = imagined_return(many.reward, many.continuation).view(rows, futures)
        spread = returns.std(dim=1).cpu().numpy()
    if comparison.film_rows:
        frames = to_uint8(model.decode(torch.stack(watched.latents)))
        rewards = rollouts.reward[: comparison.film_rows, 1:].T.cpu().numpy()
    return _Expected(total.cpu().numpy(), sure.cpu().numpy(), spread, frames, rewards)


def play(
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    agent: PlanningAgent,
    seeds: list[int],
    steps: int,
    comparison: Comparison | None = None,
    look_around_moves: int | None = None,
    progress: tqdm[Any] | None = None,
    guide: str = "explorer",
) -> Played:
    """Play one episode in each environment, for at most ``steps`` moves.

    Args:
        env: With autoreset in the next step; episodes that begin anew do not count.
        agent: A planning agent; for a policy, one around a `PolicyPlanner`.
        seeds: One per environment.
        steps: Moves that count.
        comparison: Whether to hold imagination against reality.
        look_around_moves: Mazes: moves of the guide before; None for none and any environment.
        progress: Counts the moves.
        guide: Name of the scripted policy that makes them.
    """
    count = len(seeds)
    carry = agent.initial_carry(count, seed=seeds[0])
    if look_around_moves is None:
        observation, _ = env.reset(seed=seeds)  # type: ignore[arg-type]
    else:
        observation, watched = look_around(env, seeds, look_around_moves, agent, carry, guide=guide)
        assert watched is not None
        carry = watched
    played = Played(np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.bool_))
    running, begun = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    window: _Window | None = None
    for move in range(steps):
        action, carry = agent.act(observation, carry, begun)
        if comparison is not None and move % comparison.horizon == 0 and move + comparison.horizon <= steps:
            window = _Window(agent, carry, comparison, seeds[0], move, running.copy())
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
        earned = np.where(running, np.asarray(reward, np.float64), 0.0)
        played.scores += earned
        played.moves += running
        if window is not None:
            window.add(played, observation, earned)
            window.valid &= ~(running & np.asarray(truncated) & ~np.asarray(terminated))
            if window.done:
                window.finish(played)
                window = None
        begun = np.asarray(terminated) | np.asarray(truncated)
        played.terminated |= running & np.asarray(terminated)
        running = running & ~begun
        if progress is not None:
            progress.set_postfix_str(f"score {played.scores.mean():.2f}", refresh=False)
            progress.update()
        if not running.any():
            break
    return played


class _Window:
    """Moves that were imagined first, and are now really played."""

    def __init__(
        self,
        agent: PlanningAgent,
        carry: PlanningCarry,
        comparison: Comparison,
        seed: int,
        move: int,
        running: np.ndarray,
    ) -> None:
        number = move // comparison.horizon
        self.expected = expect(agent.model, agent.planning_state(carry), comparison, seed, number)
        self.comparison, self.valid = comparison, running
        self.earned = np.zeros(len(running))
        self.moves = 0

    @property
    def done(self) -> bool:
        return self.moves == self.comparison.horizon

    def add(self, played: Played, observation: Any, earned: np.ndarray) -> None:
        """Take in one real move."""
        self.earned += earned
        rows, expected = self.comparison.film_rows, self.expected
        if rows:
            assert expected.frames is not None and expected.rewards is not None
            frame = observation["frame"] if isinstance(observation, dict) else observation
            before = played.film[-1].imagined_score if played.film else np.zeros(rows)
            played.film.append(
                FilmFrame(
                    np.array(np.asarray(frame)[:rows]),
                    expected.frames[self.moves],
                    played.scores[:rows].copy(),
                    before + expected.rewards[self.moves],
                    self.moves == 0,
                )
            )
        self.moves += 1

    def finish(self, played: Played) -> None:
        """Note both returns."""
        if self.valid.any():
            played.imagined.append(np.where(self.valid, self.expected.total, np.nan))
            played.sure.append(np.where(self.valid, self.expected.sure, np.nan))
            played.real.append(np.where(self.valid, self.earned, np.nan))
            if self.expected.spread is not None:
                played.spread.append(np.where(self.valid, self.expected.spread, np.nan))
