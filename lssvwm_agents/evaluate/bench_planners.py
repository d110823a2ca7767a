"""Time planners side by side on the double integrator, and measure how well they drive it.

In one process and on one budget: ours, a loop written by hand, and other packages' planners. Timed plans
know no terminal value, since not all contenders take one. The quality is the cost of driving in a closed
loop, over the optimum that the Riccati equation gives; there a contender that takes a terminal value has the
optimal one.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lssvwm_agents.evaluate.double_integrator import (
    MAX_FORCE,
    STARTS,
    Arrival,
    DoubleIntegrator,
    closed_loop,
    cost_to_go,
    terminal_value,
)
from lssvwm_agents.evaluate.planner_peers import INSTALL, Contender, EagerCEM, PytorchMPPI, TorchRLPlanner
from lssvwm_agents.planners import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    ContinuousActions,
    DiscreteActions,
    Gradient,
    Plan,
    Planner,
)

HORIZON, SAMPLES, ITERATIONS, ELITES, UPDATES = 15, 512, 6, 16, 100
NAMES = (
    "cem",
    "icem",
    "mppi",
    "gradient",
    "categorical_cem",
    "compiled_cem",
    "eager_cem",
    "torchrl_cem",
    "torchrl_mppi",
    "pytorch_mppi",
    "cem_correlated",
    "icem_correlated",
    "mppi_correlated",
)
PACKAGES = {"torchrl_cem": "torchrl", "torchrl_mppi": "torchrl", "pytorch_mppi": "pytorch_mppi"}
FORCES = (-4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 4.0)


class Forces(DoubleIntegrator):
    """The double integrator with one of a few forces at a time, one-hot."""

    levels = torch.tensor(FORCES)

    def step(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Arrival]:
        """One frame."""
        return super().step(state, (action @ self.levels).unsqueeze(-1))


@dataclass
class Ours:
    """One of our planners as a contender."""

    planner: Planner
    dynamics: DoubleIntegrator

    def reset(self, seed: int) -> None:
        """Forget the last plan."""
        self.last: Plan | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def act(self, state: torch.Tensor) -> torch.Tensor:
        """Plan once, from the last plan, shifted."""
        warm_start = None if self.last is None or len(self.last.actions) != len(state) else self.last.shift(1)
        with torch.no_grad():
            self.last = self.planner.plan(self.dynamics, state, warm_start, self.generator)
        action = self.last.first_action
        return action if action.shape[1] == 1 else (action @ Forces.levels).unsqueeze(-1)


def contender(name: str, value: bool) -> Contender:
    """The contender of that name; ``value`` gives it the optimal terminal value, if it takes one.

    Raises:
        ImportError: If its package is not installed.
    """
    box = ContinuousActions((-MAX_FORCE,), (MAX_FORCE,))
    problem: dict[str, Any] = {"horizon": HORIZON, "terminal_value": terminal_value if value else None}
    search = {
        **problem,
        "num_samples": SAMPLES,
        "num_iterations": ITERATIONS,
        "momentum": 0.0,
        "min_std": 0.02,
        "warm_start_softening": 0.05,
    }
    # Slower and better: the distribution learns how decisions hang together, and ends at its mean.
    correlated = {**search, "correlated": True, "return_mode": "mean"}
    elites = {**correlated, "num_elites": 64, "elite_weights": "rank"}
    plain = DoubleIntegrator()
    makers: dict[str, Callable[[], Contender]] = {
        "cem": lambda: Ours(CEM(box, num_elites=ELITES, **search), plain),
        "compiled_cem": lambda: Ours(CEM(box, num_elites=ELITES, compile_rollout=True, **search), plain),
        "icem": lambda: Ours(ICEM(box, num_elites=20, noise_colour=0.1, decay=1.05, **search), plain),
        "mppi": lambda: Ours(MPPI(box, temperature=0.015, **search), plain),
        "cem_correlated": lambda: Ours(CEM(box, **elites), plain),
        "icem_correlated": lambda: Ours(ICEM(box, noise_colour=0.1, decay=1.05, **elites), plain),
        "mppi_correlated": lambda: Ours(MPPI(box, temperature=0.1, **correlated), plain),
        "gradient": lambda: Ours(Gradient(box, num_samples=1, num_iterations=UPDATES, **problem), plain),
        "categorical_cem": lambda: Ours(
            CategoricalCEM(DiscreteActions(len(FORCES)), num_elites=ELITES, **search), Forces()
        ),
        "eager_cem": lambda: EagerCEM(HORIZON, SAMPLES, ITERATIONS, ELITES, value),
        "torchrl_cem": lambda: TorchRLPlanner("cem", HORIZON, SAMPLES, ITERATIONS, ELITES),
        "torchrl_mppi": lambda: TorchRLPlanner("mppi", HORIZON, SAMPLES, ITERATIONS, 64),
        # Spread and temperature are the best of sixteen pairs tried.
        "pytorch_mppi": lambda: PytorchMPPI(HORIZON, SAMPLES, ITERATIONS, value, 0.3, 0.03),
    }
    return makers[name]()


def missing_package(name: str) -> str | None:
    """The package that the contender ``name`` lacks, or None."""
    package = PACKAGES.get(name)
    if package is None:
        return None
    try:
        contender(name, False)
    except ImportError:
        return package
    return None


def measure_quality(name: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Closed-loop cost over the Riccati optimum, over all starts and seeds."""
    optimum = cost_to_go(torch.tensor(STARTS))
    one = contender(name, value=True)
    ratios = []
    for seed in seeds:
        one.reset(seed)
        ratios.append(closed_loop(one.act) / optimum)
    ratio = torch.stack(ratios)
    return {
        "relative_cost": ratio.mean().item(),
        "relative_cost_worst": ratio.max().item(),
        "terminal_value": not isinstance(one, TorchRLPlanner),
    }


def measure_speed(names: list[str], batch: int, repeats: int, seed: int) -> dict[str, list[float]]:
    """Seconds of each plan; the contenders take turns, so that a busy moment strikes all alike."""
    state = torch.tensor(STARTS).repeat(-(-batch // len(STARTS)), 1)[:batch]
    contenders = {name: contender(name, value=False) for name in names}
    for one in contenders.values():
        one.reset(seed)
        for _ in range(3):
            one.act(state)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, one in contenders.items():
            before = time.perf_counter()
            one.act(state)
            seconds[name].append(time.perf_counter() - before)
    return seconds


def bench_planners(
    batches: tuple[int, ...] = (1, 8),
    repeats: int = 50,
    seeds: tuple[int, ...] = (0, 1, 2),
    names: tuple[str, ...] = NAMES,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure all contenders on one thread.

    Args:
        batches: Batch sizes that plans are timed at.
        repeats: Timed plans of each contender and batch size.
        seeds: Of the closed-loop runs, the same for all.
        names: The contenders, of :data:`NAMES`.
        say: Told what is going on.

    Returns:
        ``planners``, one entry for each contender and batch size, those of packages that are not installed
        with ``missing`` true and the command that installs them; ``ratios`` of medians; and the setting.
    """
    for name, values, least in (("batch", batches, 1), ("repeats", (repeats,), 1), ("seeds", seeds, 0)):
        if not values or min(values) < least:
            raise ValueError(f"`{name}` must be at least {least}, got {values}.")
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(f"`names` must be of {', '.join(NAMES)}, got {', '.join(unknown)}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        missing = {name: package for name in names if (package := missing_package(name)) is not None}
        for name, package in missing.items():
            say(f"{name} is missing: {INSTALL[package]}")
        present = [name for name in names if name not in missing]
        quality = {}
        for name in present:
            say(f"driving: {name}")
            quality[name] = measure_quality(name, seeds)
        entries = []
        for batch in batches:
            say(f"timing at batch {batch}")
            seconds = measure_speed(present, batch, repeats, seeds[0])
            for name in names:
                known = name in present
                measured = {**_times(name, seconds[name]), **quality[name]} if known else {}
                entries.append(_entry(name, batch, missing.get(name)) | measured)
    finally:
        torch.set_num_threads(threads)
    return {
        "planners": entries,
        "ratios": _ratios(entries, batches),
        "problem": "double integrator",
        "horizon": HORIZON,
        "num_samples": SAMPLES,
        "num_iterations": ITERATIONS,
        "gradient_updates": UPDATES,
        "threads": 1,
        "repeats": repeats,
        "seeds": list(seeds),
    }


def _entry(name: str, batch: int, lacks: str | None) -> dict[str, Any]:
    package = PACKAGES.get(name, "lssvwm_agents" if name != "eager_cem" else "written by hand")
    entry: dict[str, Any] = {"name": name, "batch": batch, "package": package, "missing": lacks is not None}
    if lacks is not None:
        return entry | {"install": INSTALL[lacks], "median_ms": None}
    if name in PACKAGES:
        distribution = package.replace("_", "-")
        entry["version"] = importlib.metadata.version(distribution)
    return entry


def _times(name: str, seconds: list[float]) -> dict[str, float]:
    ms = 1000.0 * torch.tensor(seconds, dtype=torch.float64)
    low, median, high = ms.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    rounds = UPDATES if name == "gradient" else ITERATIONS
    return {"median_ms": median, "p10_ms": low, "p90_ms": high, "ms_per_update": median / rounds}


def _ratios(entries: list[dict[str, Any]], batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Medians over medians, for the comparisons that are asked for; None where one is missing."""
    found = []
    for batch in batches:
        median = {entry["name"]: entry["median_ms"] for entry in entries if entry["batch"] == batch}

        def ratio(above: str, below: str, median: dict[str, Any] = median) -> float | None:
            known = median.get(above) is not None and median.get(below) is not None
            return median[above] / median[below] if known else None

        found.append(
            {
                "batch": batch,
                "cem_over_eager_cem": ratio("cem", "eager_cem"),
                "torchrl_cem_over_cem": ratio("torchrl_cem", "cem"),
                "cem_over_compiled_cem": ratio("cem", "compiled_cem"),
                "eager_cem_over_compiled_cem": ratio("eager_cem", "compiled_cem"),
                "mppi_over_pytorch_mppi": ratio("mppi", "pytorch_mppi"),
            }
        )
    return found
