"""Every planner of the family on problems with known answers, and the promises that all of them make."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from test_cem import _closed_loop_cost, _DeviceWaits

from lssvwm_agents.planners import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    ContinuousActions,
    DiscreteActions,
    Gradient,
    RandomShooting,
    Refined,
    RememberedElites,
)

BOX1 = ContinuousActions((-1.0,), (1.0,))
NAMES = ["cem", "cem_correlated", "icem", "mppi", "mppi_fixed", "gradient", "refined"]
few = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


def make(name, spec, horizon=4, num_samples=48, num_iterations=3, **options):
    """A small planner of that name."""
    problem = {"action_spec": spec, "horizon": horizon, **options}
    search = {**problem, "num_samples": num_samples, "num_iterations": num_iterations}
    if name == "cem":
        return CEM(**search, num_elites=8)
    if name == "cem_correlated":
        return CEM(**search, num_elites=12, correlated=True, elite_weights="rank", noise_colour=0.5)
    if name == "icem":
        return ICEM(**search, num_elites=8, noise_colour=1.0)
    if name == "mppi":
        return MPPI(**search)
    if name == "mppi_fixed":
        return MPPI(**search, adapt_std=False, return_mode="mean")
    if name == "shooting":
        return RandomShooting(**problem, num_samples=num_samples)
    rate = 0.2 if name == "gradient" else 0.02
    gradient = Gradient(**problem, num_samples=3, num_iterations=num_iterations, learning_rate=rate)
    return gradient if name == "gradient" else Refined(CEM(**search, num_elites=8), gradient, num_refined=2)


# ---------------------------------------------------------------- known answers

TUNED = {
    "cem": (CEM, {"num_elites": 16}, 0.02),
    "icem": (ICEM, {"num_elites": 20, "noise_colour": 0.1, "decay": 1.05}, 0.02),
    "mppi": (MPPI, {"temperature": 0.015}, 0.02),
}


@pytest.mark.parametrize("name", [*TUNED, "gradient", "refined"])
def test_double_integrator_matches_riccati(name):
    dynamics = DoubleIntegrator()
    p, _ = dynamics.riccati()
    state = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [0.3, -1.0], [0.0, 1.0]], dtype=torch.float64)
    optimal = torch.einsum("bi,ij,bj->b", state, p, state)
    problem = {
        "action_spec": ContinuousActions((-4.0,), (4.0,)),  # never reached by the optimum
        "horizon": 10,
        "terminal_value": dynamics.terminal_value,
        "dtype": torch.float64,
    }
    search = {"momentum": 0.0, "min_std": 0.02, "warm_start_softening": 0.05, "return_mode": "mean"}
    if name in TUNED:
        kind, options, slack = TUNED[name]
        planner = kind(**problem, **search, **options, num_samples=384)
    elif name == "gradient":
        planner, slack = Gradient(**problem, num_samples=1, num_iterations=60), 1e-3
    else:
        cem = CEM(**problem, **search, num_samples=64, num_elites=8, num_iterations=3)
        planner, slack = (
            Refined(cem, Gradient(**problem, num_iterations=40, learning_rate=0.05), num_refined=1),
            1e-2,
        )
    generator, plan = seeded(), None

    def policy(x):
        nonlocal plan
        plan = planner.plan(dynamics, x, None if plan is None else plan.shift(1), generator)
        return plan.first_action

    with torch.no_grad():
        cost = _closed_loop_cost(policy, state, 30)
    assert (cost >= optimal * (1 - 1e-9)).all()
    assert cost.sum() <= optimal.sum() * (1 + slack), (cost / optimal).tolist()


@pytest.mark.parametrize("name", [*NAMES, "shooting"])
def test_discrete_bandit(name):
    pay = torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.4]])
    planner = make(name, DiscreteActions(3), horizon=3, num_samples=128, num_iterations=12)
    plan = planner.plan(DiscreteBandit(), pay, generator=seeded())
    assert plan.actions.argmax(dim=-1).tolist() == [[1] * 3, [0] * 3]
    assert torch.allclose(plan.expected_return, torch.tensor([2.7, 1.5]))


@pytest.mark.parametrize("name", NAMES)
def test_continuous_bandit_inside_and_on_the_face_of_the_box(name):
    target = torch.tensor([[0.3, -0.7], [2.0, 0.0]])
    options = {} if name in ("gradient", "refined") else {"min_std": 0.01}
    planner = make(
        name,
        ContinuousActions((-1.0, -1.0), (1.0, 1.0)),
        horizon=2,
        num_samples=256,
        num_iterations=30,
        **options,
    )
    plan = planner.plan(ContinuousBandit(), target, generator=seeded())
    atol = 0.15 if name == "mppi_fixed" else 0.03
    assert torch.allclose(plan.first_action, torch.tensor([[0.3, -0.7], [1.0, 0.0]]), atol=atol)


@pytest.mark.parametrize(
    "planner",
    [
        CategoricalCEM(DiscreteActions(4), horizon=10),
        ICEM(DiscreteActions(4), horizon=10, noise_colour=0.25),
        MPPI(DiscreteActions(4), horizon=10, temperature=0.2, num_iterations=8),
    ],
    ids=lambda planner: type(planner).__name__,
)
def test_corridor_with_a_wall(planner):
    plan = planner.plan(WalledGrid(), torch.tensor([WalledGrid.start]), generator=seeded())
    assert plan.actions[0].argmax(dim=-1)[:7].tolist() == WalledGrid.solution
    assert plan.expected_return.item() == pytest.approx(WalledGrid.best_return)


class Choice(TensorDynamics):
    """Going on pays 100 a frame, but only after the end, which does not count."""

    def step(self, state, action):
        ended = (state + action[:, 1]).clamp(max=1)
        reward = torch.where(state > 0, 100.0, 1.0 - 0.5 * action[:, 1])
        return ended, Outcome(reward, 1.0 - ended)


@pytest.mark.parametrize("name", NAMES)
def test_the_end_is_not_outlived(name):
    planner = make(name, DiscreteActions(2), horizon=5, num_samples=128, num_iterations=20)
    plan = planner.plan(Choice(), torch.zeros(1), generator=seeded())
    assert plan.actions[0].argmax(dim=-1).tolist() == [0] * 5
    assert plan.expected_return.item() == 5.0


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "shooting"])
def test_every_frame_of_the_counting_world_counts_until_its_end(name):
    planner = make(name, DiscreteActions(2), horizon=3, action_repeat=2)
    world = CountingWorld(end=4)
    plan = planner.plan(world, {"count": torch.zeros(1, dtype=torch.int64)}, generator=seeded())
    assert plan.expected_return.item() == 1 + 2 + 3 + 4
    assert plan.actions.shape == (1, 6, 2)


# ---------------------------------------------------------------- promises of all


@pytest.mark.parametrize("name", [*NAMES, "shooting"])
@few
@given(
    seed=seeds, low=st.floats(-20, 20, width=32), width=st.floats(0.01, 20), action_repeat=st.integers(1, 2)
)
def test_every_continuous_candidate_lies_in_the_box(name, seed, low, width, action_repeat):
    spec = ContinuousActions((low, -1.0), (low + width, 1.0))
    planner = make(name, spec, horizon=3, num_samples=24, num_iterations=2, action_repeat=action_repeat)
    far = torch.tensor([[1000.0, 1000.0], [-1000.0, 1000.0]])
    plan = planner.plan(ContinuousBandit(), far, generator=seeded(seed))
    warm = planner.plan(ContinuousBandit(), far, plan.shift(1), seeded(seed))
    for tensor in (plan.candidates, plan.actions, plan.distribution.mode(), warm.candidates, warm.actions):
        assert spec.contains(tensor).all()


@pytest.mark.parametrize("name", [*NAMES, "shooting"])
@few
@given(seed=seeds, num_actions=st.integers(1, 6))
def test_every_discrete_candidate_is_one_hot(name, seed, num_actions):
    spec = DiscreteActions(num_actions)
    planner = make(name, spec, horizon=3, num_samples=24, num_iterations=2)
    pay = torch.randn(2, num_actions, generator=seeded(seed))
    plan = planner.plan(DiscreteBandit(), pay, generator=seeded(seed))
    warm = planner.plan(DiscreteBandit(), pay, plan.shift(2), seeded(seed))
    for tensor in (plan.candidates, plan.actions, plan.distribution.mode(), warm.candidates, warm.actions):
        assert spec.contains(tensor).all()


@pytest.mark.parametrize("name", NAMES)
@few
@given(seed=seeds, row=st.integers(0, 2), warm=st.booleans())
def test_a_row_of_a_batch_equals_a_batch_of_one(name, seed, row, warm):
    state = torch.randn(3, 2, generator=seeded(seed), dtype=torch.float64)
    planner, dynamics = make(name, BOX1, num_samples=24, dtype=torch.float64), DoubleIntegrator()
    start = planner.plan(dynamics, state, None, seeded(seed + 1)).shift(1) if warm else None
    alone = start.select(torch.tensor([row])) if start is not None else None
    batch = planner.plan(dynamics, state, start, seeded(seed))
    single = planner.plan(dynamics, state[row : row + 1], alone, seeded(seed))
    assert torch.allclose(batch.actions[row], single.actions[0], atol=1e-9)
    assert torch.allclose(batch.expected_return[row], single.expected_return[0], atol=1e-9)
    assert torch.allclose(batch.candidates[row], single.candidates[0], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name):
    state = torch.tensor([[1.0, 0.0], [0.5, -0.5]])
    planner = make(name, BOX1)
    first, again, other = (planner.plan(DoubleIntegrator(), state, None, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.actions, again.actions) and torch.equal(first.candidates, again.candidates)
    assert not torch.equal(first.candidates, other.candidates)


@pytest.mark.parametrize("name", NAMES)
@few
@given(seed=seeds, shift=st.floats(-100, 100), exponent=st.integers(-10, 10))
def test_shift_and_positive_scale_of_the_reward_change_nothing(name, seed, shift, exponent):
    # Powers of two scale without rounding, so that even ties fall alike.
    state, scale = torch.randn(2, 2, generator=seeded(seed), dtype=torch.float64), 2.0**exponent
    plain = make(name, BOX1, num_samples=24, dtype=torch.float64)
    changed = plain.with_objective(lambda outcome: scale * (outcome.reward + shift))
    one = plain.plan(DoubleIntegrator(), state, None, seeded(seed))
    other = changed.plan(DoubleIntegrator(), state, None, seeded(seed))
    assert torch.allclose(one.actions, other.actions, atol=1e-6)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "mppi_fixed"])
@pytest.mark.parametrize("constrained", [False, True])
def test_the_device_is_waited_for_once_a_plan(name, constrained):
    options = {"constraints": (lambda outcome: outcome.state[:, 1] - 0.1,)} if constrained else {}
    counts = []
    for num_iterations in (1, 5):
        planner = make(name, BOX1, num_iterations=num_iterations, **options)
        state = torch.ones(2, 2)
        warm_start = planner.plan(DoubleIntegrator(), state, generator=seeded()).shift(1)
        with _DeviceWaits() as waits:
            planner.plan(DoubleIntegrator(), state, warm_start, seeded())
        counts.append(waits.count)
    assert counts[0] == counts[1] <= 2


@pytest.mark.parametrize("name", [*NAMES, "shooting"])
@pytest.mark.parametrize("action_repeat", [1, 3])
def test_expected_return_is_what_the_actions_bring(name, action_repeat):
    dynamics, state = DoubleIntegrator(), torch.tensor([[1.0, 0.0], [0.5, -0.5]])
    plan = make(name, BOX1, action_repeat=action_repeat, discount=0.9).plan(
        dynamics, state, generator=seeded()
    )
    total = torch.zeros(2)
    for t in range(plan.num_frames):
        state, outcome = dynamics.step(state, plan.actions[:, t])
        total += 0.9**t * outcome.reward
    assert torch.allclose(total, plan.expected_return, atol=1e-5)
    held = plan.actions.view(2, 4, action_repeat, 1)
    assert (held == held[:, :, :1]).all()


@pytest.mark.parametrize("name", [*NAMES, "shooting"])
def test_callbacks_see_every_iteration(name):
    views = []
    plan = make(name, BOX1, num_iterations=3).plan(
        DoubleIntegrator(), torch.ones(1, 2), generator=seeded(), callback=views.append
    )
    last = views[-plan.record.num_iterations :]
    assert [view.iteration for view in last] == list(range(plan.record.num_iterations))
    for view, best in zip(last, plan.record.return_max, strict=True):
        assert view.scores.returns.max() == best and BOX1.contains(view.decisions).all()


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient", "refined"])
def test_a_time_budget_stops_between_iterations(name):
    class Slow(DoubleIntegrator):
        def step(self, state, action):
            time.sleep(0.002)
            return super().step(state, action)

    planner = make(name, BOX1, horizon=3, num_samples=16, num_iterations=200)
    state, lengths = torch.ones(1, 2), []
    for seconds in (1e-6, 0.3):
        before = time.perf_counter()
        plan = planner.plan(Slow(), state, generator=seeded(), seconds=seconds)
        assert time.perf_counter() - before < 3.0 and plan.actions.shape == (1, 3, 1)
        lengths.append(plan.record.num_iterations)
    assert lengths[0] <= 2 < lengths[1] < 60
    with pytest.raises(ValueError, match=r"`seconds` must be positive and finite, got 0\."):
        planner.plan(Slow(), state, seconds=0.0)


def test_warm_starts_fit_each_other_where_they_can():
    state = torch.ones(2, 2)
    icem, cem = make("icem", BOX1), make("cem", BOX1)
    kept = icem.plan(DoubleIntegrator(), state, generator=seeded())
    assert isinstance(kept.distribution, RememberedElites)
    for planner in (cem, icem, make("mppi", BOX1), make("gradient", BOX1)):
        for plan in (kept, cem.plan(DoubleIntegrator(), state, generator=seeded())):
            assert planner.plan(DoubleIntegrator(), state, plan.shift(1), seeded()).actions.shape == (2, 4, 1)


def test_refined_is_never_worse_than_its_search():
    state = torch.tensor([[1.0, 0.0], [0.5, -0.5]], dtype=torch.float64)
    refined = make("refined", BOX1, dtype=torch.float64)
    found = refined.search.plan(DoubleIntegrator(), state, generator=seeded())
    plan = refined.plan(DoubleIntegrator(), state, generator=seeded())
    assert (plan.expected_return >= found.expected_return - 1e-12).all()
    assert (plan.expected_return > found.expected_return).any()
    with pytest.raises(ValueError, match="`horizon` of `gradient` must be that of `search`, 4, got 5"):
        Refined(make("cem", BOX1), make("gradient", BOX1, horizon=5))
