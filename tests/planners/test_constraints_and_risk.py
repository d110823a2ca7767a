"""Constraints that bind, that do not, and that cannot be kept; plans for an uncertain future."""

import pytest
import torch
from planner_problems import ContinuousBandit, DoubleIntegrator, Outcome, TensorDynamics, seeded
from test_family import make

from lssvwm_agents.planners import (
    CEM,
    MPPI,
    ActionObjective,
    ContinuousActions,
    DiscreteActions,
    Gradient,
    Risk,
    Scores,
    Task,
)

BOX2 = ContinuousActions((-1.0, -1.0), (1.0, 1.0))


class Below(ActionObjective):
    """First entry of the action less a limit: at most 0 where it is kept."""

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, outcome, action=None, /):
        return action[:, 0] - self.limit


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient", "refined"])
def test_an_active_constraint_is_met_with_equality(name):
    target = torch.tensor([[0.7, 0.1], [-0.6, 0.2]])  # binds in the first row alone
    planner = make(name, BOX2, horizon=2, num_samples=256, num_iterations=40, constraints=(Below(0.25),))
    plan = planner.plan(ContinuousBandit(), target, generator=seeded())
    assert plan.violations.shape == (2, 1) and plan.feasible.all()
    assert (plan.actions[..., 0] <= 0.25 + 1e-3).all()
    expected = torch.tensor([[0.25, 0.1], [-0.6, 0.2]])
    assert torch.allclose(plan.first_action, expected, atol=0.05), plan.first_action
    assert (plan.record.violation[-1] <= 1e-3).all()


def test_a_constraint_on_imagined_states_limits_the_speed():
    dynamics, state = DoubleIntegrator(), torch.tensor([[2.0, 0.0]])
    limit = (lambda outcome: outcome.state[:, 1].abs() - 0.3,)
    options = {"horizon": 8, "num_samples": 256, "num_iterations": 12}
    box = ContinuousActions((-4.0,), (4.0,))
    free = make("cem", box, **options).plan(dynamics, state, generator=seeded())
    kept = make("cem", box, **options, constraints=limit).plan(dynamics, state, generator=seeded())
    speeds = []
    for plan in (free, kept):
        now, fastest = state, 0.0
        for t in range(8):
            now, outcome = dynamics.step(now, plan.actions[:, t])
            fastest = max(fastest, outcome.state[0, 1].abs().item())
        speeds.append(fastest)
    assert speeds[0] > 0.6 and speeds[1] <= 0.3 + 1e-6
    assert kept.violations.item() == 0.0 and free.violations.shape == (1, 0) and free.feasible.all()
    assert kept.expected_return < free.expected_return


def test_an_inactive_constraint_changes_nothing():
    target = torch.tensor([[0.3, -0.2]])
    free = make("cem", BOX2).plan(ContinuousBandit(), target, generator=seeded())
    kept = make("cem", BOX2, constraints=(Below(5.0),)).plan(ContinuousBandit(), target, generator=seeded())
    assert torch.equal(free.actions, kept.actions) and kept.violations.tolist() == [[0.0]]


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient"])
def test_what_cannot_be_kept_is_broken_as_little_as_can_be_and_told(name):
    options = {} if name == "gradient" else {"min_std": 0.01}
    planner = make(
        name, BOX2, horizon=1, num_samples=256, num_iterations=40, constraints=(Below(-1.5),), **options
    )
    plan = planner.plan(ContinuousBandit(), torch.tensor([[0.7, 0.1]]), generator=seeded())
    assert not plan.feasible.any()
    assert plan.violations.item() == pytest.approx(0.5, abs=0.05)
    assert plan.first_action[0, 0].item() == pytest.approx(-1.0, abs=0.05)


def test_constraints_after_an_imagined_end_count_nothing():
    class Ends(TensorDynamics):
        def step(self, state, action):
            frame = state + 1
            return frame, Outcome(torch.zeros_like(frame), (frame < 2).float(), frame)

    plan = make("cem", BOX2, constraints=(lambda outcome: outcome.state - 2.0,)).plan(
        Ends(), torch.zeros(1), generator=seeded()
    )
    assert plan.feasible.all()
    late = make("cem", BOX2, constraints=(lambda outcome: outcome.state - 1.5,)).plan(
        Ends(), torch.zeros(1), generator=seeded()
    )
    assert late.violations.tolist() == [[0.5]]


def test_order_of_candidates_by_hand():
    constraints = torch.tensor([0.5, -1.0, -0.1, 0.2]).view(1, 4, 1, 1)
    scores = Scores(torch.tensor([[9.0, 1.0, 2.0, 8.0]]), constraints)
    index, returns = scores.best(4)
    assert index.tolist() == [[2, 1, 3, 0]] and returns.tolist() == [[2.0, 1.0, 8.0, 9.0]]
    assert scores.utilities().tolist() == [[-torch.inf, 1.0, 2.0, -torch.inf]]
    assert Scores(scores.returns, constraints, penalty=20.0).best(4)[0].tolist() == [[3, 2, 1, 0]]
    assert Scores(scores.returns, constraints, tolerance=0.3).best(1)[0].tolist() == [[3]]
    broken = Scores(scores.returns, constraints.abs())
    assert broken.best(4)[0].tolist() == [[2, 3, 0, 1]]
    assert torch.allclose(broken.utilities(), torch.tensor([[-0.5, -1.0, -0.1, -0.2]]))


def test_nan_in_a_constraint_is_named():
    planner = make("cem", BOX2, constraints=(lambda outcome: outcome.reward * float("nan"),))
    with pytest.raises(ValueError, match="constraint is NaN .* value of constraint 0 of imagined frame 0"):
        planner.plan(ContinuousBandit(), torch.zeros(1, 2), generator=seeded())


# ---------------------------------------------------------------- risk


class Gamble(TensorDynamics):
    """Arm 0 pays 1 for sure; arm 1 pays 1.5, but 0 in some futures, with probability 0.2."""

    def __init__(self, unlucky=None):
        self.unlucky = unlucky

    def future(self, seed):
        return Gamble(torch.rand(1, generator=torch.Generator().manual_seed(seed)) < 0.2)

    def step(self, state, action):
        risky = torch.where(self.unlucky, 0.0, 1.5)
        return state, Outcome(action[:, 0] + risky * action[:, 1], None)


@pytest.mark.parametrize(("measure", "arm"), [("mean", 1), ("worst", 0), ("cvar", 0)])
@pytest.mark.parametrize("kind", [CEM, MPPI])
def test_risk_decides_between_a_sure_thing_and_a_gamble(kind, measure, arm):
    planner = kind(DiscreteActions(2), horizon=2, num_samples=64, risk=Risk(num_futures=32, measure=measure))
    plan = planner.plan(Gamble(), torch.zeros(1), generator=seeded(3))
    assert plan.actions.argmax(dim=-1).tolist() == [[arm, arm]]


def test_risk_measures_by_hand():
    returns = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    assert Risk(4, "mean").reduce(returns).tolist() == [2.5]
    assert Risk(4, "worst").reduce(returns).tolist() == [1.0]
    assert Risk(4, "cvar", 0.5).reduce(returns).tolist() == [1.5]
    assert Risk(4, "cvar", 0.26).reduce(returns).tolist() == [1.5]  # rounded up to two futures
    assert Risk(4, "cvar").reduce(torch.tensor([[torch.nan, 1.0, 2.0, 3.0]])).isnan().all()


class Windy(ContinuousBandit):
    """The action is blown by a wind that each future has of its own."""

    def __init__(self, seed=None):
        self.generator_seed = seed
        self.winds = []

    def future(self, seed):
        return Windy(seed)

    def repeat(self, state, n):
        self.generator = torch.Generator().manual_seed(self.generator_seed)
        return super().repeat(state, n)

    def step(self, state, action):
        wind = 0.3 * torch.randn(1, 1, generator=self.generator, dtype=action.dtype)
        return super().step(state, action + wind)


def test_futures_are_common_to_candidates_and_iterations():
    """Two equal candidates get equal returns, and an elite imagined again gets the return it had."""
    planner = CEM(
        ContinuousActions((-1.0,), (1.0,)),
        horizon=3,
        num_samples=32,
        num_elites=4,
        num_iterations=4,
        risk=Risk(5),
        dtype=torch.float64,
    )
    plan = planner.plan(Windy(), torch.zeros(2, 1, dtype=torch.float64), generator=seeded())
    best = plan.record.return_max
    assert (best[1:] >= best[:-1]).all()  # kept elites are never unlucky the second time
    assert torch.equal(plan.candidate_returns[0], plan.candidate_returns[1])
    other = planner.plan(Windy(), torch.zeros(2, 1, dtype=torch.float64), generator=seeded(1))
    assert not torch.equal(plan.expected_return, other.expected_return)


def test_the_gradient_follows_the_mean_of_the_futures():
    planner = Gradient(
        ContinuousActions((-1.0,), (1.0,)), horizon=1, num_iterations=60, risk=Risk(8), dtype=torch.float64
    )
    state = torch.full((1, 1), 0.2, dtype=torch.float64)
    starts = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    plan = planner.improve(Task(Windy(), state, generator=seeded()), starts)
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64).view(1, -1, 1, 1)
    task = Task(Windy(), state, generator=seeded())  # the same seed: the same futures
    returns = planner.evaluator(task)(grid).returns[0]
    assert plan.first_action.item() == pytest.approx(grid[0, returns.argmax()].item(), abs=2e-3)
    assert abs(plan.first_action.item() - 0.2) > 0.02  # not where it would be best without wind


def test_risk_without_futures_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"needs dynamics with a method `future\(seed\)`, got DoubleIntegrator"
    ):
        CEM(ContinuousActions((-1.0,), (1.0,)), risk=Risk(2)).plan(DoubleIntegrator(), torch.zeros(1, 2))
    for options, sentence in (
        ({"num_futures": 0}, "`num_futures` must be an integer of at least 1, got 0."),
        ({"measure": "median"}, '`measure` must be "mean", "worst" or "cvar", got median.'),
        ({"fraction": 0.0}, "`fraction` must be in (0, 1], got 0.0."),
    ):
        with pytest.raises(ValueError) as error:
            Risk(**options)
        assert str(error.value) == sentence
