"""How far the critic's bins reach: a setting, and a warning where returns lie beyond them."""

import json
from dataclasses import replace

import pytest
import torch
from policy_worlds import TWO, Clock, make_policy
from test_recorded_value import a_model, recipe

from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.policy_gradients import accumulate_gradients
from lssvwm_agents.trainers.policy_config import PolicyRecipe
from lssvwm_agents.trainers.policy_run import PolicyRunOptions, run_policy


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_the_share_of_returns_beyond_the_bins_is_told(gradient):
    """Half of the rows earn -200 at once and the others 1, where the bins end at 147."""
    world = Clock(1, lambda t, second: torch.where(torch.arange(8) < 4, -200.0, 1.0))
    objective = ActorCriticObjective(gradient, discount=0.5, lam=1.0)
    for limit, share in ((5.0, 0.5), (6.5, 0.0)):
        policy = make_policy(TWO, 2, symlog_limit=limit)
        _, metrics = accumulate_gradients(world, world.start(8), policy, torch.zeros(1, 8, 2), objective)
        assert metrics["beyond_bins"].item() == pytest.approx(share)


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
@pytest.mark.parametrize(("limit", "warned"), [(3.0, True), (5.0, False)])
def test_a_run_warns_of_returns_that_its_critic_cannot_tell(tmp_path, capsys, gradient, limit, warned):
    model = a_model()
    with torch.no_grad():  # the model says that every frame pays 20, give or take a bin; two of them 38
        model.heads.reward[-1].weight.zero_()
        bins = model.heads.two_hot.bins
        model.heads.reward[-1].bias.copy_(
            torch.where((bins - 20).abs() == (bins - 20).abs().min(), 50.0, 0.0)
        )
    model.save_pretrained(tmp_path / "model")
    wanted = recipe(0.9, reuse=2)
    wanted = replace(
        wanted,
        symlog_limit=limit,
        objective=replace(wanted.objective, gradient=gradient, bootstrap="critic", lam=1.0),
    )
    options = PolicyRunOptions(
        tmp_path / "run",
        model=str(tmp_path / "model"),
        device="cpu",
        iterations=1,
        controls=False,
        tensorboard=False,
    )
    assert run_policy(wanted, options)
    said = capsys.readouterr().out
    words = "returns of the last batch lie beyond 19, the last of the critic's bins"
    assert (words in said) == warned == ("larger --symlog-limit than 3" in said)
    assert json.loads((tmp_path / "run" / "policy" / "policy.json").read_text())["symlog_limit"] == limit


def test_the_limit_is_positive_and_finite():
    for value in (0.0, 15.5):
        with pytest.raises(ValueError, match=rf"`symlog_limit` must be in \(0, 15\], got {value}"):
            PolicyRecipe(symlog_limit=value)
