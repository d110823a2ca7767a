"""Properties that hold for any numbers: bounds, independence of rows, determinism, invariance."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_problems import ContinuousBandit, DiscreteBandit, DoubleIntegrator, WalledGrid, seeded

from lssvwm_agents.planners import CEM, ContinuousActions, DiscreteActions, RandomShooting

few = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
reals = st.floats(-50, 50, allow_nan=False, width=32)


def _planner(spec, **options):
    defaults = {"horizon": 4, "num_samples": 32, "num_elites": 4, "num_iterations": 3}
    return CEM(spec, **{**defaults, **options})


@few
@given(
    seed=seeds,
    bounds=st.lists(st.tuples(reals, st.floats(0.01, 50)), min_size=1, max_size=3),
    return_mode=st.sampled_from(["best", "mean"]),
    initial_std=st.floats(0.05, 10),
    action_repeat=st.integers(1, 3),
)
def test_every_continuous_candidate_lies_in_the_box(seed, bounds, return_mode, initial_std, action_repeat):
    low = [b[0] for b in bounds]
    spec = ContinuousActions(low, [b[0] + b[1] for b in bounds])
    planner = _planner(spec, return_mode=return_mode, initial_std=initial_std, action_repeat=action_repeat)
    far = torch.full((2, len(low)), 1000.0) * torch.tensor([[1.0], [-1.0]])  # pulls towards opposite corners
    plan = planner.plan(ContinuousBandit(), far, generator=seeded(seed))
    warm = planner.plan(ContinuousBandit(), far, plan.shift(1), seeded(seed))
    for tensor in (plan.candidates, plan.actions, plan.distribution.mode(), warm.candidates, warm.actions):
        assert spec.contains(tensor).all()


@few
@given(seed=seeds, num_actions=st.integers(1, 7), smoothing=st.floats(0, 1), action_repeat=st.integers(1, 3))
def test_every_discrete_candidate_is_one_hot(seed, num_actions, smoothing, action_repeat):
    spec = DiscreteActions(num_actions)
    planner = _planner(spec, smoothing=smoothing, action_repeat=action_repeat)
    pay = torch.randn(2, num_actions, generator=seeded(seed))
    plan = planner.plan(DiscreteBandit(), pay, generator=seeded(seed))
    warm = planner.plan(DiscreteBandit(), pay, plan.shift(1), seeded(seed))
    for tensor in (plan.candidates, plan.actions, warm.candidates, warm.actions):
        assert spec.contains(tensor).all()
    probabilities = plan.distribution.probabilities
    assert torch.allclose(probabilities.sum(dim=-1), torch.ones(2, 4), atol=1e-5)
    assert (probabilities >= smoothing / num_actions - 1e-6).all()


@few
@given(seed=seeds, row=st.integers(0, 2), shooting=st.booleans(), warm=st.booleans())
def test_a_row_of_a_batch_equals_a_batch_of_one(seed, row, shooting, warm):
    state = torch.randn(3, 2, generator=seeded(seed), dtype=torch.float64)
    spec, dynamics = ContinuousActions((-1.0,), (1.0,)), DoubleIntegrator()
    planner = (
        RandomShooting(spec, 4, 32, dtype=torch.float64) if shooting else _planner(spec, dtype=torch.float64)
    )
    start = planner.plan(dynamics, state, None, seeded(seed + 1)).shift(1) if warm else None
    alone = start.select(torch.tensor([row])) if start is not None else None
    batch = planner.plan(dynamics, state, start, seeded(seed))
    single = planner.plan(dynamics, state[row : row + 1], alone, seeded(seed))
    assert torch.allclose(batch.actions[row], single.actions[0], atol=1e-12)
    assert torch.allclose(batch.expected_return[row], single.expected_return[0], atol=1e-12)
    assert torch.allclose(batch.candidates[row], single.candidates[0], atol=1e-12)
    assert torch.allclose(batch.distribution.mode()[row], single.distribution.mode()[0], atol=1e-12)


def test_a_row_of_a_discrete_batch_equals_a_batch_of_one():
    starts = torch.tensor([(2, 0), (0, 1), (1, 3)])
    planner = _planner(DiscreteActions(4), horizon=8, num_samples=64)
    batch = planner.plan(WalledGrid(), starts, generator=seeded())
    for row in range(3):
        single = planner.plan(WalledGrid(), starts[row : row + 1], generator=seeded())
        assert torch.equal(batch.candidates[row], single.candidates[0])
        assert torch.equal(batch.actions[row], single.actions[0])


@few
@given(seed=seeds, shooting=st.booleans())
def test_the_seed_decides(seed, shooting):
    state = torch.randn(2, 2, generator=seeded(seed))
    spec = ContinuousActions((-1.0,), (1.0,))
    planner = RandomShooting(spec, 4, 32) if shooting else _planner(spec)
    first, again, other = (
        planner.plan(DoubleIntegrator(), state, None, seeded(s)) for s in (seed, seed, seed + 1)
    )
    assert torch.equal(first.actions, again.actions)
    assert torch.equal(first.candidate_returns, again.candidate_returns)
    assert not torch.equal(first.candidates, other.candidates)


def test_without_a_generator_torch_decides():
    planner = _planner(ContinuousActions((-1.0,), (1.0,)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = planner.plan(DoubleIntegrator(), torch.ones(1, 2)).candidates
        torch.manual_seed(3)
        again = planner.plan(DoubleIntegrator(), torch.ones(1, 2)).candidates
    assert torch.equal(first, again)


@few
@given(seed=seeds, shift=st.floats(-1000, 1000), scale=st.floats(1e-3, 1e3), discount=st.floats(0.5, 1))
def test_shift_and_positive_scale_of_the_reward_change_nothing(seed, shift, scale, discount):
    state = torch.randn(2, 2, generator=seeded(seed), dtype=torch.float64)
    spec = ContinuousActions((-1.0,), (1.0,))
    options = {"dtype": torch.float64, "discount": discount}
    plain = _planner(spec, **options).plan(DoubleIntegrator(), state, None, seeded(seed))
    changed = _planner(spec, **options, objective=lambda o: scale * o.reward + shift).plan(
        DoubleIntegrator(), state, None, seeded(seed)
    )
    assert torch.equal(plain.actions, changed.actions)


@few
@given(seed=seeds, max_rows=st.integers(2, 80))
def test_chunks_change_no_plan(seed, max_rows):
    state = torch.randn(2, 2, generator=seeded(seed), dtype=torch.float64)
    spec = ContinuousActions((-1.0,), (1.0,))
    whole = _planner(spec, dtype=torch.float64).plan(DoubleIntegrator(), state, None, seeded(seed))
    parts = _planner(spec, dtype=torch.float64, max_rows=max_rows).plan(
        DoubleIntegrator(), state, None, seeded(seed)
    )
    assert torch.allclose(whole.actions, parts.actions, atol=1e-12)
