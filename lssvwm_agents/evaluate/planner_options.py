"""The planner that evaluation, demo and `lssvwm plan` use, as a handful of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import gymnasium

    from lssvwm_agents.agents import PlanningAgent
    from lssvwm_agents.planners import ActionSpec, Planner
    from lssvwm_agents.worldmodel import WorldModel

PlannerName: TypeAlias = Literal[
    "cem", "icem", "mppi", "gradient", "categorical_cem", "refined", "random_shooting"
]


@dataclass(frozen=True)
class PlannerOptions:
    """A planner over held actions in a receding horizon; the defaults fit two CPU cores."""

    name: PlannerName = "cem"
    """The search; refined is CEM and then the gradient."""
    horizon: int = 5
    """Decisions in a plan; it covers horizon * action_repeat moves."""
    action_repeat: int = 4
    """Moves for which each decision is held."""
    num_samples: int = 48
    """Candidates per iteration; not of the gradient."""
    num_elites: int = 8
    """Best candidates kept for the refit (cem, icem, categorical_cem, refined)."""
    num_iterations: int = 2
    """Refits per plan; not of the gradient."""
    noise_colour: float = 2.0
    """How slowly candidates change their mind: 0 white noise, 1 pink, 2 red (icem)."""
    temperature: float = 0.1
    """Softness of the average, in standard deviations of the returns (mppi)."""
    gradient_samples: int = 4
    """Plans that climb side by side (gradient, refined)."""
    gradient_updates: int = 10
    """Updates of each (gradient, refined)."""
    learning_rate: float = 0.2
    """Of the first update, in half widths of the action's box or in logits (gradient; refined takes a tenth,
    to improve what is good already)."""
    milliseconds: float | None = None
    """Time for a decision that plans, the frame's reading included: the best plan found by then is played.
    The search stops between iterations, so allow for more iterations than are made. None for no limit."""
    replan_every: int = 4
    """Moves played before planning again."""
    discount: float = 0.99
    """Discount of imagined rewards, per move."""
    reward_weight: float = 1.0
    """Weight of the imagined rewards beside the terminal value; a small one follows the value past places
    where standing still pays."""
    terminal_value: bool = True
    """Count the model's value of the last imagined frame, if it has a value head."""
    exploration: float = 0.05
    """Largest bonus of an imagined frame for being where the agent was not lately; 0 for none."""
    num_denoising_steps: int = 1
    """Denoising steps of every imagined frame."""
    rollouts: Literal["eager", "cuda_graph", "compiled_cuda_graph"] = "eager"
    """How imagined futures are computed: on cuda also as CUDA graphs, compiled or not."""
    rows_at_once: int = 256
    """Futures imagined at once by each CPU thread: few enough to stay in its cache."""
    gpu_rows_at_once: int = 2048
    """Futures imagined at once on a GPU: enough to keep it busy, few enough for its memory."""


def claim_threads() -> int:
    """Take torch's threads from single operations and give them whole futures instead.

    Returns:
        How many threads torch had; to be handed to :func:`make_planning_agent`.
    """
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    return count


def make_planner(options: PlannerOptions, action_spec: ActionSpec, **problem: Any) -> Planner:
    """Build the planner that ``options`` name.

    Args:
        options: Its name and numbers.
        action_spec: The actions.
        **problem: Other fields of :class:`~lssvwm_agents.planners.PlanningProblem`.

    Raises:
        ValueError: If a number is out of range, or the planner does not take such actions.
    """
    from lssvwm_agents import planners

    problem |= {
        "action_spec": action_spec,
        "horizon": options.horizon,
        "action_repeat": options.action_repeat,
        "discount": options.discount,
    }
    if not options.reward_weight >= 0:
        raise ValueError(f"`reward_weight` must be at least 0, got {options.reward_weight}.")
    if options.reward_weight != 1.0:
        problem["objective"] = planners.WeightedSum((planners.predicted_reward,), (options.reward_weight,))
    search = {**problem, "num_samples": options.num_samples, "num_iterations": options.num_iterations}
    if options.name in ("gradient", "refined"):
        share = 1.0 if options.name == "gradient" else 0.1
        gradient = planners.Gradient(
            **problem,
            num_samples=options.gradient_samples,
            num_iterations=options.gradient_updates,
            learning_rate=share * options.learning_rate,
        )
        if options.name == "gradient":
            return gradient
        cem = planners.CEM(**search, num_elites=options.num_elites)
        return planners.Refined(cem, gradient, num_refined=options.gradient_samples)
    if options.name == "random_shooting":
        return planners.RandomShooting(**problem, num_samples=options.num_samples)
    if options.name == "mppi":
        return planners.MPPI(**search, temperature=options.temperature)
    if options.name == "icem":
        return planners.ICEM(**search, num_elites=options.num_elites, noise_colour=options.noise_colour)
    if options.name == "categorical_cem":
        return planners.CategoricalCEM(**search, num_elites=options.num_elites)
    return planners.CEM(**search, num_elites=options.num_elites)


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
    from lssvwm_agents.planners import predicted_value

    on_cpu = model.device.type == "cpu"
    rows_at_once = options.rows_at_once * num_threads if on_cpu else options.gpu_rows_at_once
    planner = make_planner(
        options,
        action_spec_from_space(action_space),
        terminal_value=predicted_value if options.terminal_value and model.config.value_head else None,
        max_rows=max(rows_at_once, num_envs),
    )
    return PlanningAgent(
        model,
        planner,
        replan_every=options.replan_every,
        seconds_per_decision=None if options.milliseconds is None else options.milliseconds / 1000.0,
        num_denoising_steps=options.num_denoising_steps,
        memory_frames=memory_frames,
        action_space=action_space,
        num_threads=num_threads if on_cpu else 1,
        rollouts=options.rollouts,
        exploration=Exploration(options.exploration) if model.config.proprio_dim >= 2 else None,
    )
