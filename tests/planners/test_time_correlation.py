"""Distributions that learn how decisions hang together, and the plans that they find."""

import pytest
import torch
from planner_problems import DoubleIntegrator, Outcome, TensorDynamics, seeded

from lssvwm_agents.planners import CEM, ICEM, MPPI, ContinuousActions, coloured_normal
from lssvwm_agents.planners.distributions import begin_from, initial_distribution
from lssvwm_agents.planners.elite_search import rank_weights
from lssvwm_agents.planners.time_correlation import PRIOR_SHARE, colour_correlation

BOX = ContinuousActions((-4.0,), (4.0,))
DOCUMENTED = {"correlated": True, "return_mode": "mean", "momentum": 0.0, "warm_start_softening": 0.05}
ELITES = {**DOCUMENTED, "num_elites": 64, "elite_weights": "rank"}
PLANNERS = {
    "cem": (CEM, ELITES),
    "icem": (ICEM, {**ELITES, "noise_colour": 0.1, "decay": 1.05}),
    "mppi": (MPPI, DOCUMENTED),
}


class Chain(TensorDynamics):
    """A force moves a slow actuator, which moves a mass with friction: three states, quadratic costs."""

    a = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.9, 0.2], [0.0, 0.0, 0.7]], dtype=torch.float64)
    b = torch.tensor([[0.0], [0.0], [0.5]], dtype=torch.float64)
    force_cost = 0.2

    def riccati(self):
        p = torch.zeros(3, 3, dtype=torch.float64)
        for _ in range(1000):
            s = torch.eye(3, dtype=torch.float64) + p
            gain = torch.linalg.solve(self.force_cost + self.b.T @ s @ self.b, self.b.T @ s @ self.a)
            p = self.a.T @ s @ (self.a - self.b @ gain)
        return p, gain

    def step(self, state, action):
        state = state @ self.a.T.to(state) + action @ self.b.T.to(state)
        reward = -state.square().sum(dim=1) - self.force_cost * action[:, 0].square()
        return state, Outcome(reward, torch.ones_like(reward), state)

    def terminal_value(self, outcome):
        return -_cost_to_go(self.p, outcome.state)

    p = None


def _cost_to_go(p, state):
    return torch.einsum("bi,ij,bj->b", state, p.to(state), state)


CHAIN = Chain()
CHAIN.p = CHAIN.riccati()[0]
PROBLEMS = {
    "double integrator": (DoubleIntegrator(), [[1.0, 0.0], [-0.5, 0.8], [0.3, -1.0], [0.0, 1.0]]),
    "chain": (CHAIN, [[1.0, 0.0, 0.0], [0.0, 0.8, -0.8], [-0.5, 0.5, 1.0], [0.0, 0.0, 1.0]]),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", PLANNERS)
def test_every_seed_and_start_drives_within_two_percent_of_riccati(name, problem):
    dynamics, starts = PROBLEMS[problem]
    p, _ = dynamics.riccati()
    kind, options = PLANNERS[name]
    planner = kind(BOX, horizon=15, min_std=0.02, terminal_value=dynamics.terminal_value, **options)
    ratios = []
    for seed in range(10):
        state, generator, plan, cost = torch.tensor(starts), seeded(seed), None, 0.0
        for _ in range(4):  # what is lost is lost by the first plans, from a cold start
            with torch.no_grad():
                plan = planner.plan(dynamics, state, None if plan is None else plan.shift(1), generator)
            state, outcome = dynamics.step(state, plan.first_action)
            cost = cost - outcome.reward
        ratios.append((cost + _cost_to_go(p, state)) / _cost_to_go(p, torch.tensor(starts)))
    ratio = torch.stack(ratios)
    assert ratio.min() >= 1 - 1e-5 and ratio.max() <= 1.02, ratio.max(dim=0)
    assert ratio.mean() <= 1.005


@pytest.mark.parametrize(("horizon", "colour"), [(5, 0.0), (6, 1.0), (7, 2.0), (1, 1.0)])
def test_the_prior_is_the_correlation_of_coloured_noise(horizon, colour):
    noise = coloured_normal(1, 100_000, horizon, 1, colour, seeded())[0, :, :, 0]
    torch.testing.assert_close(
        colour_correlation(horizon, colour),
        torch.corrcoef(noise.T).view(horizon, horizon),
        atol=0.015,
        rtol=0,
    )


def _begin(dtype=torch.float64, batch_size=1, horizon=3, spec=BOX, colour=0.0):
    return initial_distribution(spec, batch_size, horizon, prior_colour=colour, dtype=dtype)


def test_refits_learn_the_correlation_of_the_candidates_and_samples_have_it():
    truth = torch.tensor([[1.0, 0.9, -0.5], [0.9, 1.0, -0.3], [-0.5, -0.3, 1.0]], dtype=torch.float64)
    white = torch.randn(20_000, 3, generator=seeded(), dtype=torch.float64)
    plans = (0.3 * white @ torch.linalg.cholesky(truth).T)[None, :, :, None]
    fitted = _begin().refit(plans, 0.0)
    expected = torch.lerp(truth, torch.eye(3, dtype=torch.float64), PRIOR_SHARE)
    torch.testing.assert_close(fitted.correlation[0, 0], expected, atol=0.02, rtol=0)
    drawn = fitted.sample(fitted.draw_noise(1, 20_000, seeded(1), colour=2.0)[0])[0, :, :, 0]
    torch.testing.assert_close(torch.corrcoef(drawn.T), expected, atol=0.03, rtol=0)
    torch.testing.assert_close(
        drawn.std(dim=0), torch.full((3,), 0.3, dtype=torch.float64), atol=0.01, rtol=0
    )


def test_weighted_candidates_count_by_their_weights():
    plans = torch.randn(2, 40, 3, 1, generator=seeded(), dtype=torch.float64)
    chosen = torch.zeros(2, 40, dtype=torch.float64)
    chosen[:, :10] = 0.1
    begin = _begin(batch_size=2)
    one, other = begin.refit(plans, 0.0, chosen), begin.refit(plans[:, :10], 0.0)
    for name in ("mean", "std", "correlation"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_decisions_that_all_agree_on_and_slow_colours_have_a_factor():
    begin = _begin(torch.float32, horizon=50, colour=4.0)
    plans = torch.randn(1, 8, 50, 1, generator=seeded())
    plans[:, :, 3] = 4.0
    fitted = begin.refit(plans, 0.0)
    for distribution in (begin, fitted, fitted.refit(plans[:, :1].expand(-1, 8, -1, -1), 0.5)):
        sample = distribution.sample(torch.randn(5, 50, 1, generator=seeded()))
        assert sample.isfinite().all() and BOX.contains(sample).all()


def test_a_warm_start_begins_with_the_planners_own_prior():
    begin, plain = _begin(), initial_distribution(BOX, 1, 3, dtype=torch.float64)
    fitted = begin.refit(torch.randn(1, 9, 3, 1, generator=seeded(), dtype=torch.float64), 0.0)
    assert fitted.shift(1).correlation is None and fitted.correlation is not None
    for warm in (fitted, fitted.shift(1), plain):
        assert begin_from(warm, begin, 0.0).prior is begin.prior
        assert begin_from(warm, begin, 0.0).correlation is None
        assert begin_from(warm, plain, 0.0).prior is None
        torch.testing.assert_close(begin_from(warm, begin, 0.0).mean, warm.mean)


def test_better_elites_count_more_by_rank():
    weights = rank_weights(5, torch.device("cpu"), torch.float64)
    assert weights.sum() == pytest.approx(1.0) and (weights[:-1] > weights[1:]).all() and weights[-1] > 0
    with pytest.raises(ValueError, match='`elite_weights` must be "equal" or "rank", got best'):
        CEM(BOX, elite_weights="best")
