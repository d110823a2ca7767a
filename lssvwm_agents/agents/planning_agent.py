"""An agent that sees every real frame once, remembers it, and plans by imagining what would follow.

Shapes: B episodes side by side, A width of a float action, T frames of a plan.
"""

from __future__ import annotations

import dataclasses
import time

import gymnasium
import numpy as np
import torch

from lssvwm_agents.agents.action_codec import ActionCodec
from lssvwm_agents.agents.compatibility import check_spaces
from lssvwm_agents.agents.exploration import Exploration, Novelty
from lssvwm_agents.agents.graphed_imagination import GraphedImagination, Rollouts, make_graphs
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.agents.observations import Observed, read_observation
from lssvwm_agents.agents.planning_carry import PlanningCarry, PlanningStats, SeenFrame
from lssvwm_agents.planners import (
    ContinuousActions,
    Planner,
    WeightedSum,
    predicted_reward,
)
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.worldmodel import Prediction, WorldModel, WorldState


class PlanningAgent:
    """Act by planning in a world model: stream each real frame into its memory, fork it, imagine, choose.

    Works for one environment (unbatched observations) and for vectors of them. Rows are planned for together:
    when an episode starts in one row, all rows get a new plan. Nothing here needs gradients; a planner that
    does turns them on itself.

    Args:
        model: The world model; it is put in evaluation mode.
        planner: Any planner of :mod:`lssvwm_agents.planners`.
        replan_every: Moves played from a plan before the next one, which starts from the old one, shifted.
        num_denoising_steps: Of every imagined frame.
        memory_frames: If given, each plan starts from a memory rebuilt from only the last so many real
            frames: a control that shows what long memory is worth. None: all since the episode's start.
        action_space: Action space of one environment; by default what the model's configuration says, with
            the planner's bounds for a Box.
        num_threads: Threads that share the imagined futures; see :class:`Imagination`.
        exploration: A bonus for imagined places not seen lately, added to the planner's objective; None for
            none.
        seconds_per_decision: Time for an :meth:`act` that plans, reading the frame included: the search stops
            between iterations, and the best plan so far is played. One iteration is always made, and plans
            then depend on the machine. None for no limit.
        rollouts: ``eager``; on a CUDA device also ``cuda_graph``, imagined futures as CUDA graphs, and
            ``compiled_cuda_graph``, after ``torch.compile``: the same plans to rounding, sooner, after a slow
            first one. Not for planners that follow a gradient.

    Raises:
        ValueError: If a number is out of range, the planner's or environment's actions do not fit, or graphs
            are asked for where there are none.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        replan_every: int = 1,
        num_denoising_steps: int = 1,
        memory_frames: int | None = None,
        action_space: gymnasium.Space | None = None,
        num_threads: int = 1,
        exploration: Exploration | None = None,
        seconds_per_decision: float | None = None,
        rollouts: Rollouts = "eager",
    ) -> None:
        if seconds_per_decision is not None and not 0 < seconds_per_decision < float("inf"):
            raise ValueError(
                f"`seconds_per_decision` must be positive and finite or None, got {seconds_per_decision}."
            )
        if exploration is not None and exploration.weight > 0 and model.config.proprio_dim < 2:
            raise ValueError(
                "exploring needs a world model with odometry, got one without: set its weight to 0."
            )
        for name, value in (
            ("replan_every", replan_every),
            ("num_denoising_steps", num_denoising_steps),
            ("num_threads", num_threads),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if memory_frames is not None and memory_frames < 1:
            raise ValueError(f"`memory_frames` must be at least 1 or None, got {memory_frames}.")
        if action_space is None:
            action_space = _default_action_space(model, planner)
        check_spaces(model.config, None, action_space)
        self.model = model.eval()
        self.planner = planner
        self.replan_every = replan_every
        self.num_denoising_steps = num_denoising_steps
        self.memory_frames = memory_frames
        self.num_threads = num_threads
        self.seconds_per_decision = seconds_per_decision
        self.exploration = exploration if exploration is not None and exploration.weight > 0 else None
        self.codec = ActionCodec(action_space)
        self.graphs = make_graphs(model, planner, rollouts, num_denoising_steps)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @torch.no_grad()
    def initial_carry(self, num_envs: int = 1, seed: int = 0) -> PlanningCarry:
        """Remember nothing yet, for ``num_envs`` episodes; ``seed`` fixes all planning noise to come."""
        if num_envs < 1:
            raise ValueError(f"`num_envs` must be at least 1, got {num_envs}.")
        return PlanningCarry(
            world=self.model.initial_state(num_envs),
            last_action=None,
            frames_seen=0,
            plan=None,
            warm_start=None,
            moves_played=0,
            visited=self._nowhere(num_envs),
            recent=(),
            seed=seed,
            stats=PlanningStats(),
        )

    @torch.no_grad()
    def act(
        self, observation: object, carry: PlanningCarry, episode_start: object = False
    ) -> tuple[np.ndarray | torch.Tensor | int, PlanningCarry]:
        """See one real frame and choose the next move.

        Args:
            observation: (H, W, 3) or (B, H, W, 3) uint8, or a mapping of such a ``frame`` and ``proprio``.
            carry: From the call before, or :meth:`initial_carry`.
            episode_start: Whether this frame is an episode's first: a bool, or (B,) of them.

        Returns:
            The action in the environment's own dtype (unbatched if the observation was; a tensor if it was
            one), and the new carry, which records that action as taken.
        """
        began = time.perf_counter()
        observed = self._read(observation, carry)
        carry = self._see(observed, carry, episode_start)
        if carry.plan is None or carry.moves_played >= self.replan_every:
            carry = self._replan(carry, began)
        plan = carry.plan
        assert plan is not None
        action_BA = plan.actions[:, carry.moves_played]
        carry = dataclasses.replace(carry, last_action=action_BA, moves_played=carry.moves_played + 1)
        action = self.codec.decode(action_BA)
        return self._in_kind(action, observed), carry

    @torch.no_grad()
    def observe(
        self, observation: object, carry: PlanningCarry, episode_start: object = False
    ) -> PlanningCarry:
        """See one real frame while another policy drives; then hand its action to :meth:`record_action`."""
        return self._see(self._read(observation, carry), carry, episode_start)

    @torch.no_grad()
    def record_action(self, carry: PlanningCarry, action: object) -> PlanningCarry:
        """Record the action really taken, in the environment's dtype; the running plan is dropped."""
        array = torch.as_tensor(action, device=self.device)
        unbatched = array.ndim == len(self.codec.space.shape or ())
        taken = self.codec.encode(array[None] if unbatched else array, self.device)
        if taken.shape[0] != carry.world.batch_size:
            raise ValueError(f"`action` must hold {carry.world.batch_size} actions, got {taken.shape[0]}.")
        return dataclasses.replace(carry, last_action=taken, plan=None, warm_start=None, moves_played=0)

    @torch.no_grad()
    def imagine(
        self, carry: PlanningCarry, actions: torch.Tensor, rows: torch.Tensor | None = None
    ) -> Prediction:
        """Imagine float actions (B, T, A) from the memory that a plan made now would start from.

        Args:
            carry: After the frame to start from was seen.
            actions: (B, T, A), or (len(rows), T, A).
            rows: Episodes to imagine, repeats allowed; all by default.
        """
        state = self.planning_state(carry)
        if rows is not None:
            state = state.select(rows)
        return self.model.imagine(state, actions)[1]

    def just_planned(self, carry: PlanningCarry) -> bool:
        """Whether the carry's plan was made in the last :meth:`act`."""
        return carry.plan is not None and carry.moves_played == 1

    def _read(self, observation: object, carry: PlanningCarry) -> Observed:
        observed = read_observation(observation, self.device)
        config = self.model.config
        batch = observed.frames.shape[0]
        if batch != carry.world.batch_size:
            raise ValueError(f"the carry holds {carry.world.batch_size} episodes, the observation {batch}.")
        size = config.tokenizer.frame_size
        if observed.frames.shape[-2:] != (size, size):
            raise ValueError(
                f"this model sees frames of {size}x{size}, got {tuple(observed.frames.shape[-2:])}."
            )
        if config.proprio_dim > 0 and observed.proprio is None and not config.sees_motion:
            raise ValueError(
                f"this model needs odometry (`proprio` of {config.proprio_dim} values) beside the frame: "
                "make the environment with observation='dict', or use a model with visual odometry or "
                "without any."
            )
        if config.proprio_dim == 0 or observed.proprio is None:
            return dataclasses.replace(observed, proprio=None)
        if observed.proprio.shape[1] != config.proprio_dim:
            raise ValueError(
                f"this model needs odometry of {config.proprio_dim} values, got {observed.proprio.shape[1]}."
            )
        return observed

    def _see(self, observed: Observed, carry: PlanningCarry, episode_start: object) -> PlanningCarry:
        """Stream one real frame, with the action that led to it, into memory."""
        start = torch.as_tensor(episode_start, device=self.device).bool()
        start = start.expand(carry.world.batch_size) if start.ndim == 0 else start
        if start.shape != (carry.world.batch_size,):
            raise ValueError(
                f"`episode_start` must be a bool or ({carry.world.batch_size},), got {tuple(start.shape)}."
            )
        first = start | (carry.frames_seen == 0)
        any_start = bool(start.any())
        if carry.last_action is None and not bool(first.all()):
            raise ValueError(
                "the action since the last frame is unknown: call "
                "`carry = agent.record_action(carry, action)` after `observe`, before the next frame."
            )
        action = self.codec.null(carry.world.batch_size, self.device)
        if carry.last_action is not None:
            action = torch.where(first[:, None], action, carry.last_action)
        seen = SeenFrame(
            self.model.tokenizer.encode(observed.frames), action, ~first, observed.proprio, start
        )
        if any_start:
            carry = self._begin_episodes(carry, start)
        world, visited = self._write(carry.world, (seen,)), carry.visited
        if observed.proprio is None and self.model.config.sees_motion:
            seen = dataclasses.replace(seen, proprio=world.proprio)
        recent = (*carry.recent, seen)[-self.memory_frames :] if self.memory_frames is not None else ()
        if self.exploration is not None and self.model.config.proprio_dim:  # given, or seen by the model
            visited = torch.cat([visited[:, 1:], world.proprio[:, None, :2].to(visited.dtype)], dim=1)
        return dataclasses.replace(
            carry,
            world=world,
            visited=visited,
            recent=recent,
            last_action=None,
            frames_seen=carry.frames_seen + 1,
        )

    def _begin_episodes(self, carry: PlanningCarry, start: torch.Tensor) -> PlanningCarry:
        """Forget the rows that start, and ask for a new plan, which for them begins afresh."""
        warm_start = carry.plan.shift(carry.moves_played).reset(start) if carry.plan is not None else None
        visited = torch.where(start[:, None, None], torch.inf, carry.visited)
        return dataclasses.replace(
            carry,
            world=carry.world.reset(start),
            visited=visited,
            plan=None,
            warm_start=warm_start,
            moves_played=0,
        )

    def _nowhere(self, num_envs: int) -> torch.Tensor:
        """Positions of no frames yet: (B, M, 2)."""
        frames = 0 if self.exploration is None else self.exploration.memory_frames
        return torch.full((num_envs, frames, 2), torch.inf, device=self.device)

    def _write(self, world: WorldState, frames: tuple[SeenFrame, ...]) -> WorldState:
        """Write real frames into memory, all at once."""
        latents = torch.stack([f.latent for f in frames], dim=1)
        actions = torch.stack([f.action for f in frames], dim=1)
        given = [f.proprio for f in frames if f.proprio is not None]
        proprio = torch.stack(given, dim=1) if given else None
        known = torch.stack([f.action_known for f in frames], dim=1).to(actions.dtype)
        return self.model.observe_latents(world, latents, actions, proprio, known)[0]

    def planning_state(self, carry: PlanningCarry) -> WorldState:
        """The memory that plans start from: all frames seen, or only the last ``memory_frames`` of them."""
        if self.memory_frames is None:
            return carry.world
        world = self.model.initial_state(carry.world.batch_size)
        if not any(bool(seen.start.any()) for seen in carry.recent[1:]):
            return self._write(world, carry.recent)
        for seen in carry.recent:
            world = self._write(world.reset(seen.start), (seen,))
        return world

    def _replan(self, carry: PlanningCarry, began: float) -> PlanningCarry:
        """Make a new plan for every row, starting from the old one if there is one.

        ``began`` is when the decision did, from which its time is counted.
        """
        before = time.perf_counter()
        stats = carry.stats
        warm_start = carry.warm_start if carry.plan is None else carry.plan.shift(carry.moves_played)
        noise = _noise(carry.seed, stats.plans, 1)
        if self.graphs is None:
            dynamics = Imagination(self.model, self.num_denoising_steps, noise, self.num_threads)
        else:
            dynamics = GraphedImagination(self.graphs, noise)
        state = self.planning_state(carry)
        seconds = self.seconds_per_decision
        if seconds is not None:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds = max(
                seconds - (time.perf_counter() - began), 1e-6
            )  # too late: one iteration all the same
        plan = self._explorer(carry).plan(
            dynamics,
            state,
            warm_start=warm_start,
            generator=_noise(carry.seed, stats.plans, 0),
            seconds=seconds,
        )
        if plan.actions.shape[1] < self.replan_every:
            raise ValueError(
                f"`replan_every` must be at most the plan's length of {plan.actions.shape[1]} moves, "
                f"got {self.replan_every}."
            )
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        stats = PlanningStats(
            stats.plans + 1,
            stats.imagined_frames + dynamics.imagined_frames,
            stats.seconds + time.perf_counter() - before,
        )
        return dataclasses.replace(carry, plan=plan, warm_start=None, moves_played=0, stats=stats)

    def _explorer(self, carry: PlanningCarry) -> Planner:
        """The planner, with the exploration bonus in its objective."""
        if self.exploration is None:
            return self.planner
        worth = self.planner.objective or predicted_reward
        objective = WeightedSum((worth, Novelty(self.exploration, carry.visited)), (1.0, 1.0))
        return self.planner.with_objective(objective)

    def _in_kind(self, action: torch.Tensor, observed: Observed) -> np.ndarray | torch.Tensor | int:
        """Answer as the observation came: batched or not, array or tensor."""
        if not observed.batched:
            action = action[0]
            if self.codec.discrete:
                return int(action)
        return action.cpu().numpy() if observed.as_numpy else action


def _default_action_space(model: WorldModel, planner: Planner) -> gymnasium.Space:
    """The action space that the model's configuration and the planner's bounds imply."""
    if model.config.discrete_actions:
        return gymnasium.spaces.Discrete(model.config.action_dim)
    spec = planner.action_spec
    if not isinstance(spec, ContinuousActions):
        raise ValueError(
            f"this model acts in a Box of {model.config.action_dim} values, but the planner chooses from "
            f"{spec}: make the planner with `action_spec_from_space(env.action_space)`."
        )
    return gymnasium.spaces.Box(np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32))


def _noise(seed: int, *counters: int) -> torch.Generator:
    """The stream of noise that these integers name; on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(fold_in(seed, *counters))
