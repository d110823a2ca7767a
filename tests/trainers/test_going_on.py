"""Rollouts that go on where those of the last batch ended."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.errors import UserError
from lssvwm_agents.planners import ContinuousActions
from lssvwm_agents.policies.actor_critic import ActorCritic, PolicyConfig
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.imagined_rollouts import imagine_policy
from lssvwm_agents.policies.returns import imagined_return
from lssvwm_agents.trainers.going_on import GoingOn
from lssvwm_agents.trainers.imagined_dynamics import ImaginedDynamics
from lssvwm_agents.trainers.policy_algorithms import ActorCriticImprover
from lssvwm_agents.trainers.policy_config import PolicyRecipe, PolicyTrainingConfig, StartsConfig
from lssvwm_agents.trainers.policy_trainer import ImaginedUpdate
from tests.worldmodel.worldmodel_builders import micro_model, state_distance


def numbered(rows):
    """A state whose odometry says which row it is."""
    state = micro_model(memory="none").initial_state(rows)
    return dataclasses.replace(state, proprio=torch.arange(rows).double()[:, None].repeat(1, 2))


def old(starts):
    return torch.zeros(starts, dtype=torch.int64)


def test_the_first_batch_has_no_imagined_starts():
    state, ages = GoingOn(0.5, 48, 8, 0).draw(0, 6)
    assert state is None and len(ages) == 0


def test_a_share_of_the_starts_goes_on_and_grows_older():
    starts = GoingOn(0.5, 24, 8, 0)
    starts.keep((numbered(12), torch.ones(12)), old(6))  # two forks of each start
    state, ages = starts.draw(1, 6)
    assert state.batch_size == 3 and len(set(state.proprio[:, 0].tolist())) == 3
    assert ages.tolist() == [8, 8, 8]
    same, _ = starts.draw(1, 6)
    other, _ = starts.draw(2, 6)
    assert torch.equal(state.proprio, same.proprio) and not torch.equal(state.proprio, other.proprio)
    starts.keep((numbered(6), torch.ones(6)), torch.tensor([0, 0, 0, 8, 8, 16]))
    for batch in range(20):  # the row that is 24 frames old stays behind
        state, ages = starts.draw(batch, 6)
        assert state.batch_size == 3 and 5 not in state.proprio[:, 0]
        assert ages.tolist() == [8 if row < 3 else 16 for row in state.proprio[:, 0].tolist()]


def test_forks_are_as_old_as_their_start():
    starts = GoingOn(0.9, 24, 8, 0)
    starts.keep((numbered(6), torch.ones(6)), torch.tensor([0, 8, 16]))
    state, ages = starts.draw(1, 6)
    assert state.proprio[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0] and ages.tolist() == [8, 8, 16, 16]


def test_one_start_at_least_is_a_real_one():
    starts = GoingOn(0.9, 48, 8, 0)
    starts.keep((numbered(4), torch.ones(4)), old(4))
    assert starts.draw(1, 2)[0].batch_size == 1  # 0.9 of two would be both
    assert starts.draw(1, 1)[0] is None


def test_where_streams_take_all_starts_nothing_goes_on():
    starts = GoingOn(0.5, 48, 8, 0)
    starts.keep((numbered(4), torch.ones(4)), old(4))
    assert starts.draw(1, 0)[0] is None


def test_what_came_to_an_end_does_not_go_on():
    starts = GoingOn(0.5, 48, 8, 0)
    starts.keep((numbered(4), torch.tensor([0.1, 0.9, 0.4, 0.0])), old(4))
    state, ages = starts.draw(1, 4)
    assert state.proprio[:, 0].tolist() == [1.0] and ages.tolist() == [8]
    starts.keep((numbered(4), torch.zeros(4)), old(4))
    assert starts.draw(2, 4)[0] is None


def test_without_a_share_nothing_is_kept():
    starts = GoingOn(0.0, 48, 8, 0)
    starts.keep((numbered(4), torch.ones(4)), old(4))
    assert starts.draw(1, 4)[0] is None


class Pool:
    """Recorded starts, all of an episode's beginning."""

    def __init__(self, model):
        self.model = model

    def draw(self, batch, count):
        return self.model.initial_state(count)


class Streams:
    """Episodes of a policy's own, whose features are ones."""

    def __init__(self, model, rows):
        state = model.initial_state(rows)
        self.world = dataclasses.replace(state, features=torch.ones_like(state.features))

    def advance(self, frames):
        return 0.0


def an_update(gradient="dynamics", share=0.5, streams=0, **training):
    model = micro_model(torch.float32, discrete_actions=False)
    torch.nn.init.zeros_(model.heads.continuation.weight)
    torch.nn.init.constant_(model.heads.continuation.bias, 9.0)  # no rollout comes to an end
    spec = ContinuousActions((-1.0,) * 3, (1.0,) * 3)
    policy = ActorCritic(PolicyConfig.for_actions(spec, model.feature_dim, hidden=8))
    settings = PolicyTrainingConfig(**{"horizon": 3, "starts": 4, "forks": 2, "updates": 8, **training})
    return ImaginedUpdate(
        model.requires_grad_(False),
        policy,
        Pool(model),
        ActorCriticObjective(gradient, truncation=2),
        settings,
        Streams(model, streams) if streams else None,
        go_on=GoingOn(share, 6, settings.horizon, 0),
    )


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_rollouts_go_on_where_they_ended(gradient):
    update = an_update(gradient, reuse=2)
    update(0)
    kept, ages = update.go_on.draw(1, 4)
    assert kept.batch_size == 2 and ages.tolist() == [3, 3]
    state = update._starts(1)
    assert state.batch_size == 4
    assert torch.equal(state.features[2:], kept.features) and state.features[2:].any()
    assert not state.features[:2].any(), "the recorded ones are at an episode's beginning"
    for one, two in zip(state.select(torch.tensor([2, 3])).layers, kept.layers, strict=True):
        assert torch.equal(one.scan, two.scan) and one.scan.any()
    update(1)  # from the same batch: nothing moves on
    assert torch.equal(update.go_on.draw(1, 4)[0].features, kept.features)
    update(2)
    assert update.go_on._ages.tolist() == [3] * 4 + [6] * 4
    assert update.go_on.draw(2, 4)[1].tolist() == [3, 3], "six frames are as long as they may be"


@pytest.mark.parametrize("gradient", ["score_function", "dynamics"])
def test_they_go_on_from_their_last_frame_if_they_reached_it(gradient):
    """As by hand, from the same starts and noise; two of the three frames are before the gradient's cut."""
    update = an_update(gradient, share=0.9, starts=16, num_denoising_steps=2, doubt=0.02)
    head = update.model.heads.continuation
    torch.nn.init.normal_(head.weight, std=3.0, generator=torch.Generator().manual_seed(2))
    torch.nn.init.constant_(head.bias, 2.3)  # some end, in every frame
    state, noise, of_frames, _ = update._begin(0)
    returns = []
    for doubt in (0.0, 0.02):
        dynamics = ImaginedDynamics(update.model, 2, of_frames, doubt)
        forks = update.model.repeat(state, 2)
        with torch.no_grad():
            end, rollouts = imagine_policy(dynamics, forks, update.policy.actor, noise, update.policy.read)
            returns.append(imagined_return(rollouts.reward, rollouts.continuation).mean())
    _, metrics = update(0)
    torch.testing.assert_close(metrics["imagined_return"], returns[1])
    assert abs(returns[1] - returns[0]) > 1e-3, "doubt counts"
    first, second, third = (share > 0.5 for share in rollouts.continuation[:, 1:].cumprod(1).unbind(1))
    last = rollouts.continuation[:, 3] > 0.5
    assert (first & second & ~third).any() and (last & ~third).any() and third.any()
    kept, ages = update.go_on.draw(1, 32)
    assert state_distance(kept, end.select(torch.where(third)[0])) < 1e-5
    assert ages.tolist() == [3] * int(third.sum())
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(kept))


def test_the_share_is_of_the_starts_beside_the_streams():
    update = an_update(streams=3, starts=8)
    update(0)
    features = update._starts(1).features
    assert not features[:2].any(), "two recorded ones"
    assert features[2:6].eq(1).all(), "four of the streams"
    assert torch.equal(features[6:], update.go_on.draw(1, 4)[0].features), "two that go on"
    update(1)
    assert update.go_on._ages.tolist() == [3] * 12 + [6] * 4


@pytest.mark.parametrize(("colour", "least", "most"), [(0.0, -0.1, 0.1), (1.0, 0.1, 0.9), (2.0, 0.3, 1.0)])
def test_noise_of_actions_has_its_colour(colour, least, most):
    update = an_update(share=0.0, noise_colour=colour, starts=64, forks=8, horizon=16)
    noise = update._begin(0)[1]
    assert noise.shape == (16, 512, 3)
    assert abs(float(noise.std()) - 1) < 0.05 and abs(float(noise.mean())) < 0.05
    assert least < float((noise[1:] * noise[:-1]).mean()) < most
    with pytest.raises(ValueError, match="`noise_colour` must be at least 0, got -1"):
        PolicyTrainingConfig(noise_colour=-1.0)


def test_bad_shares_are_named():
    with pytest.raises(ValueError, match=r"`go_on_share` must be in \[0, 1\), .* got 1.0 and 48"):
        StartsConfig(go_on_share=1.0)
    with pytest.raises(ValueError, match="`go_on_frames` at least 1, got 0.5 and 0"):
        StartsConfig(go_on_share=0.5, go_on_frames=0)
    training = PolicyTrainingConfig(horizon=8)
    with pytest.raises(ValueError, match="`go_on_frames` must be at least two horizons of 8 .* got 15"):
        PolicyRecipe(training=training, starts=StartsConfig(go_on_share=0.5, go_on_frames=15))
    PolicyRecipe(training=training, starts=StartsConfig(go_on_share=0.5, go_on_frames=16))
    PolicyRecipe(training=training, starts=StartsConfig(go_on_frames=15))


def test_memories_that_grow_are_refused(tmp_path):
    world = SimpleNamespace(model=micro_model(memory="full_attention"), store=None)
    with pytest.raises(UserError, match="`starts.go_on_share` needs a memory of constant size"):
        ActorCriticImprover(world, "", PolicyRecipe(starts=StartsConfig(go_on_share=0.5)), tmp_path, False)
