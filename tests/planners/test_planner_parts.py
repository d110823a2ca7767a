"""Parts of planners by hand: noise, kept elites, softmax weights, gradients, goals, proposals, compiling."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from planner_problems import (
    ContinuousBandit,
    DiscreteBandit,
    DoubleIntegrator,
    Outcome,
    TensorDynamics,
    WalledGrid,
    seeded,
)
from test_family import make

from lssvwm_agents.planners import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    ContinuousActions,
    ControlPenalty,
    DiscreteActions,
    Goal,
    Gradient,
    RememberedElites,
    Task,
    WeightedSum,
    coloured_normal,
    discounted_return,
    goal_image,
    goal_odometry,
    initial_distribution,
    predicted_reward,
)
from lssvwm_agents.planners.mppi import softmax_weights

BOX1 = ContinuousActions((-1.0,), (1.0,))


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("horizon", [1, 2, 7, 12])
@pytest.mark.parametrize("colour", [0.0, 1.0, 3.0])
def test_coloured_noise_has_unit_variance_everywhere(horizon, colour):
    noise = coloured_normal(2, 20000, horizon, 2, colour, seeded(), dtype=torch.float64)
    assert noise.shape == (2, 20000, horizon, 2)
    assert torch.allclose(noise.std(dim=1), torch.ones(2, horizon, 2, dtype=torch.float64), atol=0.03)
    assert noise.mean(dim=1).abs().max() < 0.04
    apart = (
        (noise[0] * noise[1]).mean(dim=0).abs().max(),
        (noise[..., 0] * noise[..., 1]).mean(dim=1).abs().max(),
    )
    assert max(apart) < 0.04


def test_the_power_of_coloured_noise_falls_with_frequency_as_it_says():
    noise = coloured_normal(1, 20000, 32, 1, 2.0, seeded(), dtype=torch.float64)[0, ..., 0]
    power = torch.fft.rfft(noise, dim=-1).abs().square().mean(dim=0)
    for low, high in ((1, 2), (2, 4), (4, 8)):
        assert (power[low] / power[high]).item() == pytest.approx((high / low) ** 2, rel=0.06)


def test_coloured_noise_makes_discrete_plans_that_hold():
    start = initial_distribution(DiscreteActions(3), 1, 10)

    def changes(colour):
        candidates = start.sample(start.draw_noise(1, 2000, seeded(), colour)[0])
        assert DiscreteActions(3).contains(candidates).all()
        assert candidates.mean(dim=1)[0].flatten().tolist() == pytest.approx([1 / 3] * 30, abs=0.04)
        return (candidates[:, :, 1:] != candidates[:, :, :-1]).any(dim=-1).double().mean().item()

    assert changes(3.0) < 0.4 < 0.6 < changes(0.0)


def test_std_can_be_given_for_each_step_and_entry():
    spec = ContinuousActions((-1.0, -10.0), (1.0, 10.0))
    spread = [[0.1, 0.2], [0.01, 0.02], [0.3, 0.05]]
    planner = CEM(spec, horizon=3, num_samples=4000, num_iterations=1, initial_std=spread, min_std=0.01)
    plan = planner.plan(ContinuousBandit(), torch.zeros(1, 2), generator=seeded())
    expected = torch.tensor(spread) * torch.tensor([1.0, 10.0])
    assert torch.allclose(plan.candidates[0].std(dim=0), expected, rtol=0.06)
    tail = plan.shift(2)  # new decisions have the spread that a search begins with at the end of the horizon
    assert torch.allclose(tail.std[0, 1:], expected[1:])
    for wrong, sentence in (
        ([0.1, 0.2, 0.3], r"`initial_std` must be a number, or numbers of shape \(A,\) or \(H, A\)"),
        ([0.1, 0.0], "`initial_std` must be positive and finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            CEM(spec, horizon=3, initial_std=wrong, min_std=0.0)


# ---------------------------------------------------------------- iCEM


def test_icem_has_fewer_candidates_in_each_iteration():
    planner = ICEM(BOX1, horizon=3, num_samples=100, num_elites=10, num_iterations=5, decay=2.0)
    assert planner.samples_by_iteration() == [100, 50, 25, 20, 20]
    seen = []
    planner.plan(
        DoubleIntegrator(),
        torch.ones(1, 2),
        generator=seeded(),
        callback=lambda view: seen.append(view.decisions.shape[1]),
    )
    assert seen == [100, 50, 25, 20, 20]


def test_icem_imagines_the_elites_of_the_plan_before_again():
    planner = ICEM(BOX1, horizon=4, num_samples=40, num_elites=10, keep_elites=0.3, num_iterations=2)
    state, views = torch.ones(2, 2), []
    plan = planner.plan(DoubleIntegrator(), state, generator=seeded())
    elites = plan.distribution.elites
    assert elites.shape == (2, 3, 4, 1)
    warm_start = plan.shift(1)
    assert torch.equal(warm_start.elites[:, :, :3], elites[:, :, 1:])
    planner.plan(DoubleIntegrator(), state, warm_start, seeded(1), callback=views.append)
    assert torch.equal(views[0].decisions[:, -3:], warm_start.elites)


def test_remembered_elites_shift_reset_and_select():
    start = initial_distribution(BOX1, 2, 3)
    elites = torch.arange(6.0).view(2, 1, 3, 1) / 10
    kept = RememberedElites(start, elites)
    assert kept.shift(2).elites[0, 0, :, 0].tolist() == pytest.approx([0.2, 0.0, 0.0])
    assert kept.shift(1, 4).elites[0, 0, :, 0].tolist() == pytest.approx(
        [0.0, 0.1, 0.2]
    )  # a quarter: not yet
    assert kept.shift(3, 4).elites[0, 0, :, 0].tolist() == pytest.approx([0.1, 0.2, 0.0])
    assert kept.shift(99).elites.abs().max() == 0.0
    assert kept.reset(torch.tensor([True, False])).elites[:, 0, 2, 0].tolist() == pytest.approx([0.0, 0.5])
    assert torch.equal(kept.select(torch.tensor([1])).elites, elites[1:])


# ---------------------------------------------------------------- MPPI


def test_mppi_averages_by_hand():
    planner = MPPI(
        BOX1, horizon=1, num_samples=3, momentum=0.0, temperature=2.0, temperature_unit="return", min_std=0.0
    )
    start = initial_distribution(BOX1, 1, 1)
    candidates = torch.tensor([-0.5, 0.0, 0.8]).view(1, 3, 1, 1)

    from lssvwm_agents.planners import Scores

    fitted = planner.update(start, candidates, Scores(torch.tensor([[0.0, 2.0, 4.0]])), candidates[:, :1])
    weights = torch.tensor([1.0, math.e, math.e**2]) / (1 + math.e + math.e**2)
    mean = (weights * torch.tensor([-0.5, 0.0, 0.8])).sum()
    assert fitted.mean.item() == pytest.approx(mean.item())
    variance = (weights * (torch.tensor([-0.5, 0.0, 0.8]) - mean).square()).sum()
    assert fitted.std.item() == pytest.approx(variance.sqrt().item())


@pytest.mark.parametrize("unit", [True, False])
def test_weights_are_safe_at_any_scale(unit):
    for scale in (1e-30, 1.0, 1e30):
        weights = softmax_weights(scale * torch.tensor([[1.0, 2.0, 3.0]]), 0.1, unit)
        assert weights.isfinite().all() and weights.sum().item() == pytest.approx(1.0)
    a, b = (softmax_weights(s * torch.tensor([[1.0, 2.0, 3.0]]), 0.7, True) for s in (1e-18, 1e18))
    assert torch.allclose(a, b, rtol=1e-3)
    assert softmax_weights(torch.full((1, 4), 5.0), 0.1, unit).tolist() == [[0.25] * 4]
    assert softmax_weights(torch.full((1, 4), -torch.inf), 0.1, unit).tolist() == [[0.25] * 4]
    assert softmax_weights(torch.tensor([[-torch.inf, 0.0]]), 0.1, unit).tolist() == [[0.0, 1.0]]
    assert softmax_weights(torch.tensor([[torch.nan, 0.0]]), 0.1, unit).isnan().all()


# ---------------------------------------------------------------- gradients


def test_the_gradient_of_a_return_is_that_of_finite_differences():
    class Ends(DoubleIntegrator):
        def step(self, state, action):
            state, outcome = super().step(state, action)
            return state, outcome._replace(continuation=torch.sigmoid(state[:, 0]))

    dynamics, state = Ends(), torch.tensor([[1.0, 0.0], [0.5, -0.5]], dtype=torch.float64)
    planner = Gradient(
        BOX1,
        horizon=3,
        action_repeat=2,
        discount=0.9,
        terminal_value=dynamics.terminal_value,
        dtype=torch.float64,
        constraints=(lambda outcome: outcome.state[:, 1] - 0.05,),
    )
    evaluator = planner.evaluator(Task(dynamics, state))
    decisions = (0.5 * torch.randn(2, 2, 3, 1, generator=seeded(), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: evaluator(d).returns, (decisions,))
    assert torch.autograd.gradcheck(lambda d: evaluator(d).constraints, (decisions,))


def test_gradients_are_on_inside_and_off_outside():
    planner = Gradient(BOX1, horizon=3, num_iterations=5)
    with torch.no_grad():
        plan = planner.plan(DoubleIntegrator(), torch.ones(1, 2), generator=seeded())
    assert not plan.actions.requires_grad and not plan.expected_return.requires_grad
    assert plan.record.return_max[-1] > plan.record.return_max[0] and plan.record.num_iterations == 6


def test_dynamics_without_a_gradient_are_told():
    with pytest.raises(ValueError, match="gradient planning needs dynamics whose reward carries a gradient"):
        Gradient(DiscreteActions(4), horizon=2).plan(WalledGrid(), torch.tensor([WalledGrid.start]))

    class Deaf(TensorDynamics):
        def step(self, state, action):
            return state, Outcome(state.clone().requires_grad_(), torch.ones_like(state))

    with pytest.raises(ValueError, match="reward depends on the action, got one that does not"):
        Gradient(BOX1, horizon=2).plan(Deaf(), torch.ones(1))


@pytest.mark.parametrize(
    "options", [{}, {"gumbel_noise": 0.5}, {"relaxation": "softmax"}, {"softness": 0.5, "num_samples": 1}]
)
def test_relaxed_discrete_actions_find_the_best_arm(options):
    pay = torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.4]])
    planner = Gradient(DiscreteActions(3), horizon=3, num_iterations=30, **options)
    plan = planner.plan(DiscreteBandit(), pay, generator=seeded())
    assert plan.actions.argmax(dim=-1).tolist() == [[1] * 3, [0] * 3]
    assert DiscreteActions(3).contains(plan.candidates).all()
    assert torch.allclose(plan.expected_return, torch.tensor([2.7, 1.5]))


# ---------------------------------------------------------------- objectives


def test_a_goal_image_and_goal_odometry_are_reached():
    class Outcome2:
        def __init__(self, state):
            self.reward, self.continuation = torch.zeros(len(state)), None
            self.latent, self.proprio = state.view(-1, 2, 1, 1), state

    class Mover(TensorDynamics):
        def step(self, state, action):
            state = state + 0.25 * action
            return state, Outcome2(state)

    spec, start = ContinuousActions((-1.0, -1.0), (1.0, 1.0)), torch.zeros(2, 2)
    goal = torch.tensor([[0.5, -0.25], [-0.5, 0.5]])
    for objective in (goal_image(goal.view(2, 2, 1, 1)), goal_odometry(goal)):
        planner = CEM(spec, horizon=4, num_iterations=8, min_std=0.01, objective=objective)
        plan = planner.plan(Mover(), start, generator=seeded())
        reached = start + 0.25 * plan.actions.sum(dim=1)
        assert torch.allclose(reached, goal, atol=0.06)
    one = goal_odometry(goal[0], torch.tensor([1.0, 0.0]))  # the first coordinate of one goal for all
    assert one(Outcome2(torch.tensor([[0.2, 9.0], [0.5, 3.0]]))).tolist() == pytest.approx([-0.3, 0.0])
    assert goal_image(goal[0].view(2, 1, 1))(Outcome2(torch.zeros(1, 2))).tolist() == [-(0.25 + 0.0625) / 2]
    at_goal = goal[:1].clone().requires_grad_()
    goal_odometry(goal[0])(Outcome2(at_goal)).sum().backward()
    assert at_goal.grad.tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="a goal of `proprio` needs an outcome with that field, got none"):
        goal_odometry(goal[0])(Outcome(torch.zeros(1), None))
    with pytest.raises(ValueError, match=r"`goal` must have shape \(2,\), or that for each row"):
        goal_odometry(torch.zeros(3))(Outcome2(torch.zeros(1, 2)))
    with pytest.raises(ValueError, match='`distance` must be "mean_square" or "euclidean", got cosine'):
        Goal("latent", torch.zeros(1), distance="cosine")


def test_a_control_penalty_pulls_to_rest():
    target = torch.tensor([[0.8]])
    objective = WeightedSum((predicted_reward, ControlPenalty()), (1.0, 3.0))
    planner = CEM(BOX1, horizon=2, num_iterations=10, min_std=0.005, objective=objective)
    plan = planner.plan(ContinuousBandit(), target, generator=seeded())
    assert plan.first_action.item() == pytest.approx(0.8 / 4, abs=0.02)  # argmin (u - 0.8)^2 + 3 u^2
    weighted = ControlPenalty(rest=torch.tensor([1.0, 0.0]), weights=torch.tensor([2.0, 10.0]))
    assert weighted(None, torch.tensor([[0.0, 0.5]])).tolist() == [-4.5]
    with pytest.raises(ValueError, match="`ControlPenalty` needs the action of the frame, got none"):
        objective(Outcome(torch.zeros(1), None))


@pytest.mark.parametrize("discount", [1.0, 0.9, 0.0])
def test_dynamics_that_never_end_may_leave_continuation_out(discount):
    class Endless(DoubleIntegrator):
        def step(self, state, action):
            state, outcome = super().step(state, action)
            return state, outcome._replace(continuation=None)

    options = {
        "discount": discount,
        "terminal_value": DoubleIntegrator().terminal_value,
        "dtype": torch.float64,
    }
    state = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    plans = [
        make("cem", BOX1, **options).plan(dynamics, state, generator=seeded())
        for dynamics in (DoubleIntegrator(), Endless())
    ]
    assert torch.allclose(plans[0].candidate_returns, plans[1].candidate_returns)
    reward = torch.tensor([1.0, 2.0, 4.0])
    assert discounted_return(reward, None, torch.tensor(8.0), 0.5).item() == 1 + 1 + 1 + 1

    class Undecided(DoubleIntegrator):
        def step(self, state, action):
            state, outcome = super().step(state, action)
            self.frames = getattr(self, "frames", 0) + 1
            return state, outcome._replace(continuation=None if self.frames == 3 else outcome.continuation)

    with pytest.raises(ValueError, match="must be None at every frame or at none of 4, got None at 1"):
        make("cem", BOX1).plan(Undecided(), torch.ones(1, 2), generator=seeded())


# ---------------------------------------------------------------- policy proposals


@pytest.mark.parametrize("kind", [CEM, ICEM, MPPI])
@pytest.mark.parametrize("action_repeat", [1, 2])
def test_a_policy_proposes_plans_that_are_imagined(kind, action_repeat):
    dynamics, views = DoubleIntegrator(), []
    _, gain = dynamics.riccati()

    def policy(state, noise):
        return -(state @ gain.T) + 0.1 * noise

    planner = kind(
        ContinuousActions((-4.0,), (4.0,)),
        horizon=5,
        num_samples=64,
        num_elites=8,
        num_iterations=2,
        action_repeat=action_repeat,
        policy=policy,
        num_proposals=6,
        terminal_value=dynamics.terminal_value,
        dtype=torch.float64,
    )
    state = torch.tensor([[1.0, 0.0], [0.3, -1.0]], dtype=torch.float64)
    plan = planner.plan(dynamics, state, generator=seeded(), callback=views.append)
    proposals = views[0].decisions[:, 1:7]
    assert torch.equal(proposals, views[1].decisions[:, 1:7])
    noise = ((proposals[:, 0, 0] + state @ gain.T) / 0.1)[:, 0]
    assert noise[0].item() == pytest.approx(noise[1].item(), abs=1e-9)  # common to all rows
    assert proposals.std(dim=1).min() > 0.01
    assert (plan.expected_return >= views[0].scores.returns[:, 1:7].max(dim=1).values).all()
    alone = planner.plan(dynamics, state[1:], generator=seeded())
    assert torch.allclose(alone.actions[0], plan.actions[1])


def test_a_policy_of_discrete_actions_is_made_permitted():
    planner = CEM(
        DiscreteActions(3),
        horizon=2,
        num_samples=16,
        num_elites=4,
        num_iterations=1,
        policy=lambda state, noise: state + 0.0 * noise,
        num_proposals=2,
    )
    plan = planner.plan(DiscreteBandit(), torch.tensor([[0.1, 0.9, 0.3]]), generator=seeded())
    assert plan.candidates[0, 1].argmax(dim=-1).tolist() == [1, 1]
    assert DiscreteActions(3).contains(plan.candidates).all()
    with pytest.raises(ValueError, match=r"`num_proposals` must be in \[1, num_samples - 1=15\], got 16"):
        CEM(DiscreteActions(3), num_samples=16, num_elites=4, policy=lambda s, n: s, num_proposals=16)


# ---------------------------------------------------------------- compiling


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_compiled_rounds_give_the_same_plan():
    class Free(DoubleIntegrator):  # traced: no cached function inside
        def step(self, state, action):
            state, outcome = super().step(state, action)
            return state, outcome._replace(continuation=torch.where(state[:, 0] > 0.9, 0.5, 1.0))

    options = {"horizon": 3, "num_samples": 32, "num_elites": 4, "num_iterations": 2, "dtype": torch.float64}
    state = torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=torch.float64)
    limits = (lambda outcome: outcome.state[:, 1] - 0.7,)
    slow = CEM(BOX1, **options, discount=0.9, constraints=limits)
    fast = CEM(BOX1, **options, discount=0.9, constraints=limits, compile_rollout=True)
    with torch.no_grad():
        a, b = (planner.plan(Free(), state, generator=seeded()) for planner in (slow, fast))
    assert torch.allclose(a.actions, b.actions, atol=1e-12)
    assert torch.allclose(a.candidate_returns, b.candidate_returns, atol=1e-12)
    assert torch.allclose(a.distribution.mode(), b.distribution.mode(), atol=1e-12)
    assert torch.equal(a.violations, b.violations)

    class Untraceable(DoubleIntegrator):
        def step(self, state, action):
            print(state.sum().item(), end="")
            return super().step(state, action)

    with pytest.raises(ValueError, match="compiled rollouts need dynamics and objectives that torch.compile"):
        fast.plan(Untraceable(), state)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make_planner", "sentence"),
    [
        (lambda: ICEM(BOX1, noise_colour=-1.0), "`noise_colour` must be at least 0 and finite, got -1.0."),
        (lambda: ICEM(BOX1, decay=0.5), "`decay` must be at least 1 and finite, got 0.5."),
        (lambda: MPPI(BOX1, temperature=0.0), "`temperature` must be positive and finite, got 0.0."),
        (
            lambda: MPPI(BOX1, temperature_unit="x"),
            '`temperature_unit` must be "std" or "return", got x.',
        ),
        (
            lambda: CategoricalCEM(BOX1),
            "`action_spec` must be DiscreteActions for CategoricalCEM, got ContinuousActions.",
        ),
        (
            lambda: Gradient(BOX1, learning_rate=-1.0),
            "`learning_rate` must be positive and finite, got -1.0.",
        ),
        (
            lambda: Gradient(BOX1, relaxation="hard"),
            '`relaxation` must be "straight_through" or "softmax", got hard.',
        ),
        (
            lambda: CEM(BOX1, constraint_penalty=-1.0),
            "`constraint_penalty` must be at least 0 or None, got -1.0.",
        ),
        (
            lambda: CEM(BOX1, constraints=(3,)),
            "`constraints` must be a tuple of functions of an Outcome, got (3,).",
        ),
    ],
)
def test_each_rule_has_its_sentence(make_planner, sentence):
    with pytest.raises(ValueError) as error:
        make_planner()
    assert str(error.value) == sentence


@pytest.mark.parametrize("num_samples", [6, 7])
def test_candidates_come_in_mirrored_pairs(num_samples):
    planner = CEM(BOX1, horizon=3, num_samples=num_samples, num_elites=2, num_iterations=2, keep_elites=0.0)
    distribution = initial_distribution(BOX1, 1, 3)
    noise = planner.draw_noise(distribution, seeded())
    assert [len(part) for part in noise] == [num_samples, num_samples]
    for part in noise:
        half = -(-num_samples // 2)
        assert torch.equal(part[half:], -part[: num_samples - half])
    plain = replace(planner, mirrored=False).draw_noise(distribution, seeded())
    assert not torch.equal(plain[0][3:6], -plain[0][:3])
    # Noise correlated in time is for every search: neighbours agree.
    longer = replace(planner, horizon=12, num_samples=4000)
    distribution = initial_distribution(BOX1, 1, 12)
    red = replace(longer, noise_colour=2.0).draw_noise(distribution, seeded())[0]
    white = longer.draw_noise(distribution, seeded())[0]
    together = [float((noise[:, 0] * noise[:, 1]).mean()) for noise in (red, white)]
    assert together[0] > 0.2 > 0.1 > abs(together[1])
    with pytest.raises(ValueError, match="`noise_colour` must be at least 0 and finite, got -1"):
        replace(planner, noise_colour=-1.0)
