"""CEM and random shooting on problems with known answers."""

import pytest
import torch
from planner_problems import (
    ContinuousBandit,
    CountingWorld,
    DiscreteBandit,
    DoubleIntegrator,
    Outcome,
    TensorDynamics,
    WalledGrid,
    seeded,
)
from torch.utils._python_dispatch import TorchDispatchMode

from lssvwm_agents.planners import CEM, ContinuousActions, DiscreteActions, RandomShooting

BOX1 = ContinuousActions((-1.0,), (1.0,))


# ---------------------------------------------------------------- known answers


def _closed_loop_cost(policy, state, num_frames):
    dynamics, cost = DoubleIntegrator(), 0.0
    for _ in range(num_frames):
        state, outcome = dynamics.step(state, policy(state))
        cost = cost - outcome.reward
    p, _ = dynamics.riccati()
    return cost + torch.einsum("bi,ij,bj->b", state, p.to(state), state)


def test_double_integrator_matches_riccati():
    dynamics = DoubleIntegrator()
    p, gain = dynamics.riccati()
    state = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [0.3, -1.0], [0.0, 1.0]], dtype=torch.float64)
    optimal = torch.einsum("bi,ij,bj->b", state, p, state)
    assert torch.allclose(_closed_loop_cost(lambda x: -x @ gain.T, state, 40), optimal, rtol=1e-9)

    planner = CEM(
        ContinuousActions((-4.0,), (4.0,)),
        horizon=10,
        num_samples=512,
        num_elites=32,
        num_iterations=6,
        min_std=0.01,
        terminal_value=dynamics.terminal_value,
        dtype=torch.float64,
    )
    ratios = []
    for seed in range(3):
        generator, plan = seeded(seed), None

        def policy(x, generator=generator):
            nonlocal plan
            plan = planner.plan(dynamics, x, None if plan is None else plan.shift(1), generator)
            return plan.first_action

        ratios.append(_closed_loop_cost(policy, state, 40) / optimal)
    ratio = torch.stack(ratios)
    assert (ratio >= 1 - 1e-9).all() and (ratio <= 1.04).all(), ratio.tolist()
    assert ratio.mean() <= 1.01, ratio.tolist()


def test_terminal_value_makes_the_expected_return_that_of_the_whole_future():
    dynamics = DoubleIntegrator()
    state = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    p, gain = dynamics.riccati()
    planner = CEM(
        ContinuousActions((-4.0,), (4.0,)),
        horizon=5,
        num_iterations=10,
        min_std=0.001,
        terminal_value=dynamics.terminal_value,
        dtype=torch.float64,
    )
    plan = planner.plan(dynamics, state, generator=seeded())
    assert plan.expected_return.item() == pytest.approx(-p[0, 0].item(), rel=1e-3)
    assert plan.first_action.item() == pytest.approx(-gain[0, 0].item(), abs=0.05)


def test_discrete_bandit():
    pay = torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.4]])
    plan = CEM(DiscreteActions(3), horizon=4, num_samples=64, num_elites=8).plan(
        DiscreteBandit(), pay, generator=seeded()
    )
    assert plan.actions.argmax(dim=-1).tolist() == [[1] * 4, [0] * 4]
    assert torch.allclose(plan.expected_return, torch.tensor([3.6, 2.0]))


@pytest.mark.parametrize("return_mode", ["best", "mean"])
def test_continuous_bandit(return_mode):
    target = torch.tensor(
        [[0.3, -0.7], [2.0, 0.0]]
    )  # the second lies outside the box: its nearest face is best
    spec = ContinuousActions((-1.0, -1.0), (1.0, 1.0))
    planner = CEM(spec, horizon=2, num_iterations=8, min_std=0.005, return_mode=return_mode)
    plan = planner.plan(ContinuousBandit(), target, generator=seeded())
    expected = torch.tensor([[0.3, -0.7], [1.0, 0.0]])
    assert torch.allclose(plan.first_action, expected, atol=0.03)


def test_wall_defeats_greed_but_not_foresight():
    world, start = WalledGrid(), torch.tensor([WalledGrid.start])
    state = start
    for _ in range(12):  # one step of foresight never leaves the start
        greedy = CEM(DiscreteActions(4), horizon=1, num_samples=64, num_elites=8)
        state, _ = world.step(state, greedy.plan(world, state, generator=seeded()).first_action)
    assert torch.equal(state, start)

    plan = CEM(DiscreteActions(4), horizon=10).plan(world, start, generator=seeded())
    assert plan.actions[0].argmax(dim=-1)[:7].tolist() == WalledGrid.solution
    assert plan.expected_return.item() == pytest.approx(WalledGrid.best_return)


def test_end_of_the_episode_is_not_outlived():
    """Going on pays 100 a frame, but only in frames after the end, which do not count."""

    class Choice(TensorDynamics):
        def step(self, state, action):
            ended = (state + action[:, 1]).clamp(max=1)
            reward = torch.where(state > 0, 100.0, 1.0 - 0.5 * action[:, 1])
            return ended, Outcome(reward, 1.0 - ended)

    plan = CEM(DiscreteActions(2), horizon=6, num_samples=128, num_elites=16).plan(
        Choice(), torch.zeros(1), generator=seeded()
    )
    assert plan.actions[0].argmax(dim=-1).tolist() == [0] * 6
    assert plan.expected_return.item() == 6.0


def test_random_shooting_is_right_but_worse():
    pay = torch.tensor([[0.1, 0.9, 0.3]])
    shooting = RandomShooting(DiscreteActions(3), horizon=3, num_samples=512)
    plan = shooting.plan(DiscreteBandit(), pay, generator=seeded())
    assert plan.actions.argmax(dim=-1).tolist() == [[1] * 3]
    dynamics, state = DoubleIntegrator(), torch.tensor([[1.0, 0.0]])
    shot = RandomShooting(BOX1, horizon=15).plan(dynamics, state, generator=seeded())
    refined = CEM(BOX1, horizon=15).plan(dynamics, state, generator=seeded())
    assert refined.expected_return > shot.expected_return
    assert BOX1.contains(shot.candidates).all()
    assert torch.equal(shot.candidate_returns.max(dim=1).values, shot.expected_return)
    assert torch.equal(shooting.plan(DiscreteBandit(), pay, plan.shift(1), seeded()).actions, plan.actions)


# ---------------------------------------------------------------- the plan


def test_plan_fields():
    planner = CEM(
        DiscreteActions(4), horizon=5, num_samples=32, num_elites=4, num_iterations=3, action_repeat=2
    )
    start = torch.tensor([WalledGrid.start, (0, 0)])
    plan = planner.plan(WalledGrid(), start, generator=seeded())
    assert plan.actions.shape == (2, 10, 4) and plan.num_frames == 10
    assert torch.equal(plan.first_action, plan.actions[:, 0])
    assert plan.expected_return.shape == (2,)
    assert plan.candidates.shape == (2, 32, 10, 4) and plan.candidate_returns.shape == (2, 32)
    assert (
        DiscreteActions(4).contains(plan.candidates).all() and DiscreteActions(4).contains(plan.actions).all()
    )
    record = plan.record
    assert record.num_iterations == 3
    for entry in (record.return_mean, record.return_max, record.elite_return_mean, record.spread):
        assert entry.shape == (3, 2)
    assert (record.return_mean <= record.elite_return_mean).all()
    assert (record.elite_return_mean <= record.return_max).all()
    assert torch.equal(record.return_max.max(dim=0).values, plan.expected_return)
    assert torch.equal(plan.candidate_returns.max(dim=1).values, record.return_max[-1])
    assert (record.spread[1:] < record.spread[:-1]).all()
    assert plan.distribution.shape == (2, 5, 4)


@pytest.mark.parametrize("return_mode", ["best", "mean"])
@pytest.mark.parametrize("action_repeat", [1, 3])
def test_expected_return_is_what_the_actions_bring(return_mode, action_repeat):
    dynamics, state = DoubleIntegrator(), torch.tensor([[1.0, 0.0], [0.5, -0.5]])
    planner = CEM(BOX1, horizon=4, action_repeat=action_repeat, return_mode=return_mode, discount=0.9)
    plan = planner.plan(dynamics, state, generator=seeded())
    total = torch.zeros(2)
    for t in range(plan.num_frames):
        state, outcome = dynamics.step(state, plan.actions[:, t])
        total += 0.9**t * outcome.reward
    assert torch.allclose(total, plan.expected_return, atol=1e-5)


def test_action_repeat_holds_each_decision():
    world = CountingWorld(end=99)
    planner = CEM(
        DiscreteActions(2), horizon=3, num_samples=8, num_elites=2, num_iterations=1, action_repeat=4
    )
    plan = planner.plan(world, {"count": torch.zeros(1, dtype=torch.int64)}, generator=seeded())
    assert len(world.actions) == 12
    imagined = torch.stack(world.actions, dim=1).view(8, 3, 4, 2)
    assert (imagined == imagined[:, :, :1]).all()
    assert torch.equal(imagined.flatten(1, 2), plan.candidates[0])
    held = plan.actions.view(1, 3, 4, 2)
    assert (held == held[:, :, :1]).all()
    assert plan.expected_return.item() == sum(range(1, 13))  # every frame pays, not every decision


def test_kept_elites_are_imagined_again_and_the_mode_is_a_candidate():
    planner = CEM(BOX1, horizon=4, num_samples=64, num_elites=10, num_iterations=2, keep_elites=0.25)
    assert planner.num_kept == 3
    seen = []

    class Spy(DoubleIntegrator):
        def step(self, state, action):
            seen.append(action)
            return super().step(state, action)

    plan = planner.plan(Spy(), torch.tensor([[1.0, 0.0]]), generator=seeded())
    first = torch.stack(seen[:4], dim=1)
    # the best of the first iteration ends the candidates of the second
    state, total = torch.tensor([[1.0, 0.0]]).repeat(64, 1), torch.zeros(64)
    for t in range(4):
        state, outcome = DoubleIntegrator().step(state, first[:, t])
        total += outcome.reward
    assert torch.equal(plan.candidates[0, -3:], first[total.topk(3).indices])
    assert (plan.record.return_max[1] >= plan.record.return_max[0]).all()
    one = CEM(BOX1, horizon=4, num_samples=64, num_elites=10, num_iterations=1)
    alone = one.plan(DoubleIntegrator(), torch.tensor([[1.0, 0.0]]), generator=seeded())
    assert torch.equal(alone.candidates[0, 0], torch.zeros(4, 1))  # the mode of the initial distribution


def test_warm_start_is_never_worse_than_its_own_mode():
    dynamics, state = DoubleIntegrator(), torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    strong = CEM(BOX1, horizon=10, return_mode="mean").plan(dynamics, state, generator=seeded())
    weak = CEM(BOX1, horizon=10, num_samples=4, num_elites=2, num_iterations=1)
    warm = weak.plan(dynamics, state, strong.distribution, seeded(1))
    cold = weak.plan(dynamics, state, None, seeded(1))
    assert (warm.expected_return >= strong.expected_return - 1e-5).all()
    assert (warm.expected_return > cold.expected_return).all()


def test_warm_start_improves_the_closed_loop():
    def cost(warm, seed):
        dynamics = DoubleIntegrator()
        planner = CEM(BOX1, horizon=15, num_samples=64, num_elites=8, num_iterations=2)
        state = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [0.3, -1.0], [0.0, 1.0]])
        generator, plan, total = seeded(seed), None, torch.zeros(4)
        for _ in range(30):
            plan = planner.plan(dynamics, state, plan.shift(1) if warm and plan else None, generator)
            state, outcome = dynamics.step(state, plan.first_action)
            total -= outcome.reward
        return total

    warm, cold = (sum(cost(flag, seed) for seed in range(3)) / 3 for flag in (True, False))
    assert (warm < cold).all() and warm.mean() < 0.9 * cold.mean(), (warm.tolist(), cold.tolist())


def test_replanning_with_a_warm_start_walks_the_shortest_way():
    world, planner = WalledGrid(), CEM(DiscreteActions(4), horizon=10, num_samples=256, num_elites=24)
    state, generator, plan, taken = torch.tensor([WalledGrid.start]), seeded(), None, []
    for _ in range(7):
        plan = planner.plan(world, state, None if plan is None else plan.shift(1), generator)
        state, outcome = world.step(state, plan.first_action)
        taken.append(plan.first_action.argmax().item())
    assert taken == WalledGrid.solution and outcome.continuation.item() == 0.0


# ---------------------------------------------------------------- quiet core


class _DeviceWaits(TorchDispatchMode):
    """Counts the operations that make the host wait for an accelerator."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += function in waits
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("spec", "dynamics", "state"),
    [
        (BOX1, DoubleIntegrator(), torch.ones(2, 2)),
        (DiscreteActions(3), DiscreteBandit(), torch.ones(2, 3)),
    ],
)
def test_the_device_is_waited_for_once_a_plan(spec, dynamics, state):
    for num_iterations in (1, 5):
        planner = CEM(spec, horizon=3, num_samples=16, num_elites=4, num_iterations=num_iterations)
        warm_start = planner.plan(dynamics, state, generator=seeded()).shift(1)
        with _DeviceWaits() as waits:
            planner.plan(dynamics, state, warm_start, seeded())
        assert waits.count == 1


def test_gradients_reach_the_dynamics_unless_the_caller_forbids_it():
    class Scaled(DoubleIntegrator):
        scale = torch.ones((), requires_grad=True)

        def step(self, state, action):
            state, outcome = super().step(state, action)
            return state, outcome._replace(reward=self.scale * outcome.reward)

    planner = CEM(BOX1, horizon=3, num_samples=16, num_elites=4, num_iterations=2)
    plan = planner.plan(Scaled(), torch.ones(1, 2), generator=seeded())
    (gradient,) = torch.autograd.grad(plan.expected_return.sum(), Scaled.scale)
    assert torch.allclose(gradient, plan.expected_return.sum())
    with torch.no_grad():
        assert not planner.plan(Scaled(), torch.ones(1, 2), generator=seeded()).expected_return.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_generator_on_the_cpu_gives_the_same_plan_on_a_gpu():
    dynamics, state = DoubleIntegrator(), torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=torch.float64)
    planner = CEM(BOX1, horizon=5, dtype=torch.float64)
    here = planner.plan(dynamics, state, generator=seeded())
    there = planner.plan(dynamics, state.cuda(), generator=seeded())
    assert there.actions.is_cuda and torch.allclose(here.actions, there.actions.cpu(), atol=1e-9)
    own = torch.Generator("cuda").manual_seed(0)
    assert planner.plan(dynamics, state.cuda(), there.shift(1), own).actions.is_cuda


# ---------------------------------------------------------------- errors


class _Broken(TensorDynamics):
    """The second row (state 1) goes wrong at the third frame."""

    def __init__(self, field):
        self.field = field

    def step(self, state, action):
        row, frame = state[:, 0], state[:, 1]
        bad = torch.where((row == 1) & (frame == 2), float("nan"), 0.0)
        reward, continuation = torch.ones_like(row), torch.ones_like(row)
        if self.field == "reward":
            reward = reward + bad
        elif self.field == "continuation":
            continuation = continuation + bad
        elif self.field == "infinite":
            reward = torch.where(frame == 1, float("inf"), torch.where(frame == 2, -float("inf"), reward))
        return torch.stack([row, frame + 1], dim=-1), Outcome(reward, continuation)


@pytest.mark.parametrize("planner", [CEM(BOX1, horizon=4), RandomShooting(BOX1, horizon=4)])
@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("reward", r"batch rows \[1\] at iteration 0: the reward of imagined frame 2 is NaN in row 1"),
        (
            "continuation",
            r"batch rows \[1\] at iteration 0: the continuation of imagined frame 2 is NaN in row 1",
        ),
        ("infinite", r"batch rows \[0, 1\] at iteration 0: .* infinite ones met"),
    ],
)
def test_nan_is_an_error_that_names_its_cause(planner, field, sentence):
    with pytest.raises(ValueError, match=sentence):
        planner.plan(_Broken(field), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), generator=seeded())


def test_nan_terminal_value_is_named():
    planner = CEM(BOX1, horizon=2, terminal_value=lambda outcome: outcome.reward * float("nan"))
    with pytest.raises(ValueError, match="the terminal value is NaN in row 0"):
        planner.plan(DoubleIntegrator(), torch.zeros(1, 2), generator=seeded())


def test_minus_infinity_is_a_hard_constraint_not_an_error():
    class Forbidden(TensorDynamics):
        def step(self, state, action):
            force = action[:, 0]
            reward = torch.where(force > 0.25, -float("inf"), force)
            return state, Outcome(reward, torch.ones_like(reward))

    plan = CEM(BOX1, horizon=2, num_iterations=8, min_std=0.01).plan(
        Forbidden(), torch.zeros(1), generator=seeded()
    )
    assert (plan.actions <= 0.25).all() and plan.expected_return.item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_elites": 300, "num_samples": 256}, "`num_elites` must be in [1, num_samples=256], got 300."),
        ({"num_elites": 0}, "`num_elites` must be in [1, num_samples=512], got 0."),
        ({"horizon": 0}, "`horizon` must be an integer of at least 1, got 0."),
        ({"horizon": 2.5}, "`horizon` must be an integer of at least 1, got 2.5."),
        ({"num_samples": 0}, "`num_samples` must be an integer of at least 1, got 0."),
        ({"num_iterations": 0}, "`num_iterations` must be an integer of at least 1, got 0."),
        ({"action_repeat": 0}, "`action_repeat` must be an integer of at least 1, got 0."),
        ({"discount": 1.5}, "`discount` must be in [0, 1], got 1.5."),
        ({"discount": float("nan")}, "`discount` must be in [0, 1], got nan."),
        ({"momentum": 1.0}, "`momentum` must be in [0, 1), got 1.0."),
        ({"initial_std": 0.0}, "`initial_std` must be positive and finite, got 0.0."),
        ({"min_std": 0.6}, "`min_std` must be in [0, initial_std=0.5], got 0.6."),
        ({"smoothing": -0.1}, "`smoothing` must be in [0, 1], got -0.1."),
        ({"keep_elites": 2.0}, "`keep_elites` must be in [0, 1], got 2.0."),
        (
            {"keep_elites": 1.0, "num_elites": 512},
            "`keep_elites` must leave room for new candidates among 512, got 1.0.",
        ),
        ({"warm_start_softening": 2.0}, "`warm_start_softening` must be in [0, 1], got 2.0."),
        ({"return_mode": "median"}, '`return_mode` must be "best" or "mean", got median.'),
        ({"max_rows": 0}, "`max_rows` must be an integer of at least 1, got 0."),
        ({"dtype": torch.float16}, "`dtype` must be torch.float32 or torch.float64, got torch.float16."),
        ({"objective": 3}, "`objective` must be a function of an Outcome, got 3."),
        ({"action_spec": 4}, "`action_spec` must be DiscreteActions or ContinuousActions, got int."),
    ],
)
def test_each_rule_has_its_sentence(options, sentence):
    with pytest.raises(ValueError) as error:
        CEM(**{"action_spec": BOX1, **options})
    assert str(error.value) == sentence


def test_a_warm_start_that_does_not_fit():
    planner = CEM(BOX1, horizon=4, num_samples=8, num_elites=2, num_iterations=1)
    plan = planner.plan(DoubleIntegrator(), torch.zeros(2, 2), generator=seeded())
    with pytest.raises(
        ValueError, match=r"`warm_start` must have the shape \(B, horizon, A\)=\(3, 4, 1\), got"
    ):
        planner.plan(DoubleIntegrator(), torch.zeros(3, 2), plan.shift(1))
    discrete = CEM(DiscreteActions(1), horizon=4, num_samples=8, num_elites=2, num_iterations=1)
    with pytest.raises(ValueError, match=r"`warm_start` must be a Categorical .*, got BoundedGaussian"):
        discrete.plan(DoubleIntegrator(), torch.zeros(2, 2), plan.shift(1))
