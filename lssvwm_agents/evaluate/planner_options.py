"""The planner that evaluation, demo and `lssvwm plan` use, as a handful of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gymnasium

    from lssvwm_agents.agents import PlanningAgent
    from lssvwm_agents.worldmodel import WorldModel


@dataclass(frozen=True)
class PlannerOptions:
    """CEM over held actions in a receding horizon; the defaults fit two CPU cores."""

    horizon: int = 5
    """Decisions in a plan; it covers horizon * action_repeat moves."""
    action_repeat: int = 4
    """Moves for which each decision is held."""
    num_samples: int = 48
    """Candidates per iteration."""
    num_elites: int = 8
    """Best candidates kept for the refit."""
    num_iterations: int = 2
    """Refits per plan."""
    replan_every: int = 4
    """Moves played before planning again."""
    discount: float = 0.99
    """Discount of imagined rewards, per move."""
    terminal_value: bool = True
    """Count the model's value of the last imagined frame, if it has a value head."""
    exploration: float = 0.05
    """Largest bonus of an imagined frame for being where the agent was not lately; 0 for none."""
    num_denoising_steps: int = 1
    """Denoising steps of every imagined frame."""
    rows_at_once: int = 256
    """Futures imagined at once by each CPU thread: few enough to stay in its cache. GPUs take all."""


def claim_threads() -> int:
    """Take torch's threads from single operations and give them whole futures instead.

    Returns:
        How many threads torch had; to be handed to :func:`make_planning_agent`.
    """
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    return count


def make_planning_agent(
    model: WorldModel,
    options: PlannerOptions,
    action_space: gymnasium.Space,
    num_envs: int,
    memory_frames: int | None = None,
    num_threads: int = 1,
) -> PlanningAgent:
    """Build the agent that ``options`` describe.

    Args:
        model: The world model.
        options: The planner's numbers.
        action_space: Of one environment.
        num_envs: Environments side by side; bounds how many futures are imagined at once.
        memory_frames: If given, plans start from a memory of only the last so many real frames.
        num_threads: Threads that share the imagined futures, on a CPU.
    """
    from lssvwm_agents.agents import Exploration, PlanningAgent, action_spec_from_space
    from lssvwm_agents.planners import CEM, predicted_value

    on_cpu = model.device.type == "cpu"
    planner = CEM(
        action_spec_from_space(action_space),
        horizon=options.horizon,
        num_samples=options.num_samples,
        num_elites=options.num_elites,
        num_iterations=options.num_iterations,
        action_repeat=options.action_repeat,
        discount=options.discount,
        terminal_value=predicted_value if options.terminal_value and model.config.value_head else None,
        max_rows=max(options.rows_at_once * num_threads, num_envs) if on_cpu else None,
    )
    return PlanningAgent(
        model,
        planner,
        replan_every=options.replan_every,
        num_denoising_steps=options.num_denoising_steps,
        memory_frames=memory_frames,
        action_space=action_space,
        num_threads=num_threads if on_cpu else 1,
        exploration=Exploration(options.exploration) if model.config.proprio_dim >= 2 else None,
    )
