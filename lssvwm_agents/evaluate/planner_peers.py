"""Planners of other packages on the double integrator, to be timed beside ours.

Each imports its package when it is made, so that a missing one is told and not skipped. A contender is given
(B, 2) states and returns (B, 1) actions; ``reset`` makes it forget its warm start.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from lssvwm_agents.evaluate.double_integrator import DT, FORCE_COST, MAX_FORCE, DoubleIntegrator, cost, move
from lssvwm_agents.evaluate.double_integrator import cost_to_go as optimal_cost_to_go

INSTALL = {
    "torchrl": "pip install torchrl==0.14.1 tensordict==0.14.3",
    "pytorch_mppi": "pip install pytorch-mppi==0.9.1",
}


class Contender(Protocol):
    """A planner of any package, warm-started from its own last plan where it can be."""

    def reset(self, seed: int) -> None:
        """Forget everything, and draw the noise of this seed from now on."""
        ...

    def act(self, state: torch.Tensor) -> torch.Tensor:
        """(B, 2) states to (B, 1) actions, by one plan."""
        ...


class EagerCEM:
    """What one writes by hand: CEM in thirty lines, for this problem alone, without any of our code."""

    def __init__(
        self, horizon: int, num_samples: int, num_iterations: int, num_elites: int, value: bool
    ) -> None:
        self.horizon, self.num_samples, self.num_iterations = horizon, num_samples, num_iterations
        self.num_elites, self.value = num_elites, value
        self.dynamics = DoubleIntegrator()

    def reset(self, seed: int) -> None:
        """Forget the last plan."""
        self.mean: torch.Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def act(self, state: torch.Tensor) -> torch.Tensor:
        """Plan once."""
        batch_size = state.shape[0]
        mean = torch.zeros(batch_size, self.horizon, 1)
        if self.mean is not None:
            mean[:, :-1] = self.mean[:, 1:]
        std = torch.full((batch_size, self.horizon, 1), 0.5 * MAX_FORCE)
        for _ in range(self.num_iterations):
            noise = torch.randn(1, self.num_samples, self.horizon, 1, generator=self.generator)
            plans = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-MAX_FORCE, MAX_FORCE)
            flat = plans.view(-1, self.horizon, 1)
            rows, total = state.repeat_interleave(self.num_samples, dim=0), torch.zeros(len(flat))
            for t in range(self.horizon):
                rows, arrival = self.dynamics.step(rows, flat[:, t])
                total = total + arrival.reward
            if self.value:
                total = total - optimal_cost_to_go(rows)
            best = total.view(batch_size, -1).topk(self.num_elites, dim=1).indices
            elites = plans.gather(1, best[:, :, None, None].expand(-1, -1, self.horizon, 1))
            mean, std = elites.mean(dim=1), elites.std(dim=1)
        self.mean = mean
        return mean[:, 0]


class TorchRLPlanner:
    """TorchRL's CEMPlanner or MPPIPlanner; neither is warm-started, nor knows a terminal value."""

    def __init__(
        self, kind: str, horizon: int, num_samples: int, num_iterations: int, num_elites: int
    ) -> None:
        from tensordict import TensorDict
        from tensordict.nn import TensorDictModule
        from torchrl.data import Bounded, Composite, Unbounded
        from torchrl.envs.model_based import ModelBasedEnvBase
        from torchrl.modules import CEMPlanner, MPPIPlanner

        def world(state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            position, velocity = state.unbind(dim=-1)
            after = torch.stack([position + DT * velocity, velocity + DT * action[..., 0]], dim=-1)
            price = after.square().sum(dim=-1) + FORCE_COST * action[..., 0].square()
            return after, -price.unsqueeze(-1)

        class World(ModelBasedEnvBase):  # type: ignore[misc]
            def __init__(self, model: Any) -> None:
                super().__init__(model)
                self.observation_spec = Composite(state=Unbounded((2,)))
                self.state_spec = Composite(state=Unbounded((2,)))
                self.action_spec = Bounded(-MAX_FORCE, MAX_FORCE, (1,))
                self.reward_spec = Unbounded((1,))

            def _reset(self, tensordict: Any) -> Any:
                return tensordict

        env = World(TensorDictModule(world, in_keys=["state", "action"], out_keys=["state", "reward"]))
        if kind == "cem":
            self.planner: Any = CEMPlanner(env, horizon, num_iterations, num_samples, num_elites)
        else:

            def to_go(tensordict: Any) -> Any:
                """The return of each candidate as its advantage: the estimator wants a value network."""
                reward = tensordict["next", "reward"]
                return tensordict.set("advantage", reward.sum(dim=-2, keepdim=True).expand_as(reward))

            self.planner = MPPIPlanner(
                env,
                to_go,
                1.0,
                horizon,
                num_iterations,
                num_samples,
                num_elites,  # type: ignore[arg-type]
            )
        self.tensordict = TensorDict

    def reset(self, seed: int) -> None:
        """TorchRL draws from the global generator."""
        torch.manual_seed(seed)

    def act(self, state: torch.Tensor) -> torch.Tensor:
        """Plan once."""
        batch = state.shape[:1]
        start = self.tensordict({"state": state, "done": torch.zeros(*batch, 1, dtype=torch.bool)}, batch)
        action: torch.Tensor = self.planner(start)["action"]
        return action.view(-1, 1)


class PytorchMPPI:
    """pytorch_mppi: a controller for each state, or its batched class, which knows no terminal cost."""

    def __init__(
        self, horizon: int, num_samples: int, num_updates: int, value: bool, std: float, temperature: float
    ) -> None:
        import pytorch_mppi

        self.package, self.value = pytorch_mppi, value
        self.options: dict[str, Any] = {
            "noise_sigma": torch.tensor([[std**2]]),
            "num_samples": num_samples,
            "horizon": horizon,
            "lambda_": temperature,
            "u_min": torch.tensor([-MAX_FORCE]),
            "u_max": torch.tensor([MAX_FORCE]),
        }
        self.num_updates = num_updates
        self.horizon = horizon

    def reset(self, seed: int) -> None:
        """Forget the nominal plans; pytorch_mppi draws from the global generator."""
        torch.manual_seed(seed)
        self.controllers: list[Any] = []

    def act(self, state: torch.Tensor) -> torch.Tensor:
        """Plan once: the nominal plan is shifted, then updated ``num_updates`` times."""
        if not self.controllers:
            self.controllers = self._make(state.shape[0])
        if len(self.controllers) == 1 and state.shape[0] > 1:
            return self._update(self.controllers[0], state).view(-1, 1)
        pairs = zip(self.controllers, state, strict=True)
        return torch.stack([self._update(controller, row).view(1) for controller, row in pairs])

    def _make(self, batch_size: int) -> list[Any]:
        if batch_size > 1 and not self.value:
            return [self.package.mppi.MPPI_Batched(move, self._cost, 2, num_envs=batch_size, **self.options)]
        options = {**self.options, "U_init": torch.zeros(self.horizon, 1)}
        if self.value:
            options["terminal_state_cost"] = lambda states, actions: optimal_cost_to_go(states[:, :, -1])
        return [self.package.MPPI(move, self._cost, 2, **options) for _ in range(batch_size)]

    @staticmethod
    def _cost(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return cost(state, action)

    def _update(self, controller: Any, state: torch.Tensor) -> torch.Tensor:
        action: torch.Tensor = controller.command(state)
        for _ in range(self.num_updates - 1):
            action = controller.command(state, shift_nominal_trajectory=False)
        return action
