"""Time whole plans in a world model: how long a decision takes, and whether a longer past makes it slower.

Every contender plans from the same real episode, seen up to some frame. Contenders and contexts take turns,
so that a busy moment strikes all alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch

from lssvwm_agents.agents.graphed_imagination import GraphedImagination, RolloutGraphs, Rollouts
from lssvwm_agents.agents.imagination import Imagination
from lssvwm_agents.envs.contexts import Context
from lssvwm_agents.evaluate.kernel_work import count_work
from lssvwm_agents.evaluate.planner_options import PlannerName, PlannerOptions, make_planner
from lssvwm_agents.imagined import make_contexts
from lssvwm_agents.planners import DiscreteActions, Plan, Planner, predicted_value
from lssvwm_agents.seeding import generator
from lssvwm_agents.worldmodel import WorldModel, WorldState

Precision: TypeAlias = Literal["fp32", "tf32", "bf16"]
Preset: TypeAlias = Literal["tiny", "small", "debug"]
RECIPE_OF: dict[str, str] = {"tiny": "maze-tiny", "small": "memory-small", "debug": "maze-debug"}
NAMES: tuple[PlannerName, ...] = ("cem", "icem", "mppi", "categorical_cem")
EAGER_REPEATS = 5
FRAMES_AT_ONCE = 256


@dataclass(frozen=True)
class PlanningBench:
    """What is timed.

    Attributes:
        planners: Searches, by name.
        rollouts: Ways to compute imagined futures.
        contexts: Real frames seen before the plan.
        num_samples: Candidates of an iteration.
        horizon: Frames of a plan; each has an action of its own.
        num_iterations: Refits of a plan.
        repeats: Timed plans of each contender; at most :data:`EAGER_REPEATS` where they are eager.
        precision: Of matrix products: ``fp32``; ``tf32``; ``bf16``, autocast.
        seed: Of the maze, the candidates and random weights.
    """

    planners: tuple[PlannerName, ...] = NAMES
    rollouts: tuple[Rollouts, ...] = ("eager",)
    contexts: tuple[int, ...] = (256, 10_000)
    num_samples: int = 512
    horizon: int = 16
    num_iterations: int = 4
    repeats: int = 20
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("contexts", "num_samples", "horizon", "num_iterations", "repeats"):
            values = getattr(self, name)
            if min(values if isinstance(values, tuple) else (values,), default=0) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {values}.")
        known: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("planners", NAMES),
            ("rollouts", get_args(Rollouts)),
        )
        for name, allowed in known:
            given = getattr(self, name)
            if not given or not set(given) <= set(allowed):
                raise ValueError(f"`{name}` must be of {', '.join(allowed)}, got {', '.join(given) or None}.")
        if self.precision not in get_args(Precision):
            allowed = ", ".join(get_args(Precision))
            raise ValueError(f"`precision` must be of {allowed}, got {self.precision}.")


def random_model(preset: Preset, device: torch.device | str = "cpu", seed: int = 0) -> WorldModel:
    """A world model of a preset's shape with random weights, good for timing and for nothing else."""
    from lssvwm_agents.recipes import RECIPES, with_maze

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WorldModel(with_maze(RECIPES[RECIPE_OF[preset]]()).model)
        with torch.no_grad():
            for parameter in model.parameters():  # heads begin at zero, and then all plans are worth the same
                if not parameter.any():
                    parameter.normal_(std=0.02)
    return model.to(device).eval()


@torch.no_grad()
def see(model: WorldModel, context: Context, num_frames: int) -> WorldState:
    """The memory after the first ``num_frames`` frames of the context."""
    state, device = model.initial_state(len(context.frames)), model.device
    for start in range(0, num_frames, FRAMES_AT_ONCE):
        part = slice(start, min(start + FRAMES_AT_ONCE, num_frames))
        pixels = context.frames[:, part].to(device).movedim(-1, 2).float() / 255.0
        given = model.config.proprio_dim > 0 and context.proprio is not None
        proprio = context.proprio[:, part].to(device) if given and context.proprio is not None else None
        state, _ = model.observe(
            state,
            pixels,
            context.actions[:, part].to(device),
            proprio,
            context.action_known[:, part].to(device),
        )
    return state


def bench_planning(
    model: WorldModel, bench: PlanningBench, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure.

    Args:
        model: For discrete actions, and trained (or made) for one of our mazes, which give the context.
        bench: What to measure.
        say: Told what is going on.

    Returns:
        ``entries``, one for each planner, way and context: median and its 95 % interval in ms, the first
        plan's seconds, and how far the returns of the same candidates are from the eager ones'; ``work`` of
        one plan of each planner; ``state`` in bytes; ``ratios`` of the longest context's median over the
        shortest's; and the setting.

    Raises:
        ValueError: If the model's actions are continuous, or graphs are wanted without a CUDA device.
    """
    if not model.config.discrete_actions:
        raise ValueError("the planning benchmark needs a model with discrete actions, got continuous ones.")
    device = model.device
    if device.type != "cuda" and set(bench.rollouts) - {"eager"}:
        raise ValueError(f"CUDA graphs need the world model on a CUDA device, got it on {device}.")
    if device.type != "cuda" and bench.precision != "fp32":
        raise ValueError(f"`precision` must be fp32 on {device}, got {bench.precision}.")
    say(f"walking {max(bench.contexts):,} frames")
    source, _ = make_contexts(model.config, "live", max(bench.contexts))
    assert source is not None
    context = source.draw(torch.tensor([bench.seed]))
    states = {frames: see(model, context, frames) for frames in bench.contexts}
    first = states[bench.contexts[0]]
    planners = {name: _planner(model, name, bench) for name in bench.planners}
    with torch.no_grad(), _precision(bench.precision, device):
        work = []
        for name, planner in planners.items():
            say(f"counting the work of {name}")
            counted = count_work(
                lambda planner=planner: _plan(planner, Imagination(model), first, bench.seed)
            )
            work.append({"planner": name, **asdict(counted)})
        entries = []
        for way in bench.rollouts:
            entries += _time_way(model, way, bench, planners, states, say)
    return {
        "entries": entries,
        "ratios": _ratios(entries, bench),
        "work": work,
        "state": _state_bytes(model, first, bench),
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_used_in_planning": sum(
            p.numel() for part in (model.backbone, model.heads) for p in part.parameters()
        ),
        **asdict(bench),
    }


def _planner(model: WorldModel, name: PlannerName, bench: PlanningBench) -> Planner:
    options = PlannerOptions(
        name=name,
        horizon=bench.horizon,
        action_repeat=1,
        num_samples=bench.num_samples,
        num_elites=max(1, bench.num_samples // 16),
        num_iterations=bench.num_iterations,
    )
    value = predicted_value if model.config.value_head else None
    return make_planner(options, DiscreteActions(model.config.action_dim), terminal_value=value)


def _plan(planner: Planner, dynamics: Imagination, state: WorldState, seed: int) -> Plan:
    return planner.plan(dynamics, state, generator=generator("cpu", seed))


def _time_way(
    model: WorldModel,
    way: Rollouts,
    bench: PlanningBench,
    planners: dict[PlannerName, Planner],
    states: dict[int, WorldState],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """All planners and contexts, with futures computed in one way."""
    cuda = model.device.type == "cuda"
    graphs = None if way == "eager" else RolloutGraphs(model, compiled=way == "compiled_cuda_graph")

    def dynamics() -> Imagination:
        return Imagination(model) if graphs is None else GraphedImagination(graphs)

    found: dict[tuple[PlannerName, int], dict[str, Any]] = {}
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for name, planner in planners.items():
        for frames, state in states.items():
            say(f"{way}: first plan of {name} after {frames:,} frames")
            before = time.perf_counter()
            imagination = dynamics()
            plan = _plan(planner, imagination, state, bench.seed)
            _wait(cuda)
            found[name, frames] = {
                "planner": name,
                "rollouts": way,
                "context": frames,
                "first_s": time.perf_counter() - before,
                "imagined_frames": imagination.imagined_frames,
                **_against_eager(model, planner, plan, state, bench, way),
            }
    repeats = bench.repeats if graphs is not None else min(bench.repeats, EAGER_REPEATS)
    seconds: dict[tuple[PlannerName, int], list[float]] = {key: [] for key in found}
    say(f"{way}: timing")
    for _ in range(repeats):
        for name, frames in found:
            _wait(cuda)
            before = time.perf_counter()
            _plan(planners[name], dynamics(), states[frames], bench.seed)
            _wait(cuda)
            seconds[name, frames].append(time.perf_counter() - before)
    peak = torch.cuda.max_memory_allocated() if cuda else None
    for key, entry in found.items():
        entry |= _spread([1000.0 * s for s in seconds[key]])
        entry["ms_per_imagined_step"] = entry["median_ms"] / (bench.num_iterations * bench.horizon)
        entry["peak_memory_bytes_of_all"] = peak
    return list(found.values())


def _against_eager(
    model: WorldModel, planner: Planner, plan: Plan, state: WorldState, bench: PlanningBench, way: Rollouts
) -> dict[str, Any]:
    """How far the returns of the first candidates, which are common to all ways, are from the eager ones."""
    if way == "eager":
        return {"largest_return_difference": 0.0, "same_plan_as_eager": True}
    eager = _plan(planner, Imagination(model), state, bench.seed)
    apart = (plan.record.returns[0] - eager.record.returns[0]).abs().max()
    return {
        "largest_return_difference": float(apart),
        "same_plan_as_eager": bool(torch.equal(plan.actions, eager.actions)),
    }


def _state_bytes(model: WorldModel, state: WorldState, bench: PlanningBench) -> dict[str, int]:
    """Memory of the past, and what each candidate has of its own at the end of its plan."""
    forks = model.repeat(state, bench.num_samples)
    action = forks.features.new_zeros(bench.num_samples, model.config.action_dim)
    action[:, 1 % model.config.action_dim] = 1.0
    with torch.no_grad():
        for _ in range(bench.horizon):
            forks, _ = model.step(forks, action)
    return {
        "context_bytes": state.nbytes,
        "bytes_per_candidate": max(forks.nbytes - state.nbytes, 0) // bench.num_samples,
        "bytes_of_a_private_copy": state.nbytes // state.batch_size,
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Median with its 95 % interval from order statistics (no assumption of a shape), 10 % and 90 %."""
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.5**count  # the binomial probability of at most `rank` values under the median
    while below <= 0.025 and rank < (count - 1) // 2:
        rank += 1
        below += math.comb(count, rank) * 0.5**count
    rank = max(rank - (below > 0.025), 0)
    tensor = torch.tensor(ordered, dtype=torch.float64)
    low, median, high = tensor.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    return {
        "median_ms": median,
        "ci95_ms": [ordered[rank], ordered[count - 1 - rank]],
        "p10_ms": low,
        "p90_ms": high,
        "repeats": count,
    }


def _ratios(entries: list[dict[str, Any]], bench: PlanningBench) -> list[dict[str, Any]]:
    """What a longer past costs: medians over medians."""
    shortest, longest = min(bench.contexts), max(bench.contexts)
    median = {(e["planner"], e["rollouts"], e["context"]): e["median_ms"] for e in entries}
    return [
        {
            "planner": name,
            "rollouts": way,
            "contexts": [longest, shortest],
            "ratio": median[name, way, longest] / median[name, way, shortest],
        }
        for way in bench.rollouts
        for name in bench.planners
    ]


@contextmanager
def _precision(precision: Precision, device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    try:
        with autocast:
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()
