from dataclasses import replace

import pytest
import torch

from lssvwm_agents.data.latents import make_dataset
from lssvwm_agents.data.windows import draw_windows, revisit_share, sample_windows

EPISODES, FRAMES = 5, 20


def counting_dataset(lengths=None, proprio=True):
    """Every number says which episode and frame it belongs to: 100 * episode + frame."""
    count = 100.0 * torch.arange(EPISODES)[:, None] + torch.arange(FRAMES)
    return make_dataset(
        latents=count[..., None, None, None].expand(-1, -1, 2, 3, 3).contiguous(),
        actions=count[..., None].expand(-1, -1, 2).contiguous(),
        proprio=count[..., None].expand(-1, -1, 4).contiguous() if proprio else None,
        reward=count.clone(),
        continuation=torch.ones_like(count),
        lengths=torch.full((EPISODES,), FRAMES) if lengths is None else torch.tensor(lengths),
        value_discount=0.5,
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_windows_are_consecutive_and_aligned():
    dataset = counting_dataset()
    batch = sample_windows(dataset, 64, 6, generator())
    count = batch.latents[:, :, 0, 0, 0]
    assert torch.equal(count, count[:, :1] + torch.arange(6))
    assert ((count % 100) < FRAMES).all()
    assert torch.equal(batch.reward, count)
    assert torch.equal(batch.proprio[..., 3], count)
    first = count % 100 == 0
    assert first.any()
    assert torch.equal(batch.action_known, ~first)
    assert torch.equal(batch.actions[..., 0], torch.where(first, 0.0, count))
    assert batch.reward_mask.all() and batch.proprio_known.all()
    episode, frame = (count // 100).long(), (count % 100).long()
    assert torch.equal(batch.value, dataset.value[episode, frame])
    assert torch.equal(batch.value_mask, dataset.value_valid[episode, frame])


def test_every_start_is_drawn_and_none_leaves_its_episode():
    dataset = counting_dataset(lengths=[6, 7, 20, 20, 8])
    batch = sample_windows(dataset, 4000, 6, generator())
    start = batch.latents[:, 0, 0, 0, 0].long()
    wanted = {100 * e + t for e, room in enumerate([1, 2, 15, 15, 3]) for t in range(room)}
    assert set(start.tolist()) == wanted


def test_windows_longer_than_an_episode_begin_with_it_and_nothing_counts_after_its_end():
    lengths = torch.tensor([4, 6, 20, 20, 9])
    dataset = replace(counting_dataset(lengths=lengths.tolist()), min_length=FRAMES)
    batch = sample_windows(dataset, 2000, 8, generator())
    count = batch.latents[:, :, 0, 0, 0].long()
    assert torch.equal(count, count[:, :1] + torch.arange(8))
    wanted = {100 * e + t for e, room in enumerate([1, 1, 13, 13, 2]) for t in range(room)}
    assert set(count[:, 0].tolist()) == wanted
    inside = count % 100 < lengths[count // 100]
    assert torch.equal(batch.reward_mask, inside) and not batch.value_mask[~inside].any()
    assert (batch.reward[~inside] == 0).all() and (batch.reward[inside] == count[inside]).all()
    share = torch.bincount(count[:, 0] // 100) / 2000
    assert (share - 0.2).abs().max() < 0.04  # short episodes are drawn as often as long ones
    again = sample_windows(dataset, 2000, 8, generator(), rows=(500, 700))
    assert torch.equal(again.latents, batch.latents[500:700])
    replayed = sample_windows(dataset, 200, 8, generator(), memory_replay=1.0)
    assert not replayed.reward_mask[:, 4:].any() and replayed.reward_mask[:, :4].all()


@pytest.mark.parametrize("length,walk", [(6, [0, 1, 2, 2, 1, 0]), (5, [0, 1, 2, 2, 1])])
def test_memory_replay_walks_back(length, walk):
    batch = sample_windows(counting_dataset(), 32, length, generator(), memory_replay=1.0)
    count = batch.latents[:, :, 0, 0, 0]
    assert torch.equal(count - count[:, :1], torch.tensor(walk, dtype=torch.float32).expand(32, -1))
    half = (length + 1) // 2
    assert torch.equal(batch.proprio[..., 0], count) and batch.proprio_known.all()
    assert not batch.action_known[:, half:].any() and (batch.actions[:, half:] == 0).all()
    assert not batch.reward_mask[:, half:].any() and batch.reward_mask[:, :half].all()
    assert not batch.value_mask[:, half:].any() and (batch.reward[:, half:] == 0).all()


def test_memory_replay_walks_forwards_again():
    batch = sample_windows(counting_dataset(), 8, 6, generator(), memory_replay=1.0, replay_mode="forwards")
    count = batch.latents[:, :, 0, 0, 0]
    assert torch.equal(count - count[:, :1], torch.tensor([0.0, 1, 2, 0, 1, 2]).expand(8, -1))
    # The actions are those recorded, but for the jump back to the beginning.
    known = torch.tensor([True, True, True, False, True, True]).expand(8, -1)
    known = known & (count % 100 > 0)
    assert torch.equal(batch.action_known, known)
    assert torch.equal(batch.actions[..., 0], torch.where(known, count, 0.0))
    assert not batch.reward_mask[:, 3:].any()


def test_shuffled_replay_shows_every_frame_once_more_in_a_random_order():
    batch = sample_windows(counting_dataset(), 200, 8, generator(), memory_replay=1.0, replay_mode="shuffled")
    count = batch.latents[:, :, 0, 0, 0]
    offset = count - count[:, :1]
    assert torch.equal(offset[:, :4], torch.arange(4.0).expand(200, -1))
    assert torch.equal(offset[:, 4:].sort(1).values, torch.arange(4.0).expand(200, -1))
    assert len({tuple(row) for row in offset[:, 4:].tolist()}) == 24  # all orders of four
    follows = offset[:, 4:] == offset[:, 3:-1] + 1
    assert torch.equal(batch.action_known[:, 4:], follows & (count[:, 4:] % 100 > 0))
    assert torch.equal(batch.proprio[..., 0], count) and not batch.reward_mask[:, 4:].any()


def test_mixed_replay_goes_all_ways():
    batch = sample_windows(counting_dataset(), 600, 8, generator(), memory_replay=1.0, replay_mode="mixed")
    second = (batch.latents[:, 4:, 0, 0, 0] - batch.latents[:, :1, 0, 0, 0]).tolist()
    share = [sum(row == way for row in second) / 600 for way in ([3, 2, 1, 0], [0, 1, 2, 3])]
    assert all(0.28 < each < 0.42 for each in share) and 0.25 < 1 - sum(share) < 0.4
    with pytest.raises(ValueError, match="`replay_mode` must be one of .*, got 'sideways'"):
        sample_windows(counting_dataset(), 4, 6, generator(), memory_replay=1.0, replay_mode="sideways")


def test_memory_replay_has_its_probability():
    index = draw_windows(counting_dataset(), 4000, 6, generator(), memory_replay=0.3)
    share = index.replayed_BT[:, -1].float().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)


def test_rows_are_those_of_the_whole_batch():
    dataset = counting_dataset()
    whole = sample_windows(dataset, 10, 6, generator(), 0.5, 0.5)
    part = sample_windows(dataset, 10, 6, generator(), 0.5, 0.5, rows=(4, 7))
    for name in ("latents", "actions", "action_known", "value_mask"):
        assert torch.equal(getattr(whole, name)[4:7], getattr(part, name))


def pose(x, heading=0.0):
    x = torch.as_tensor(x, dtype=torch.float32)
    heading = torch.full_like(x, heading)
    return torch.stack([x, torch.zeros_like(x), heading.sin(), heading.cos()], -1)


def test_revisit_share_by_hand():
    away = pose([0.0, 1, 2, 3, 4, 5, 6, 7])
    back = pose([0.0, 1, 2, 3, 3, 2, 1, 0])
    turned = back.clone()
    turned[4:, 3] = -1.0
    still = pose([0.0] * 8)
    share = revisit_share(torch.stack([away, back, turned, still]))
    # Walking back, frame 3 meets itself one frame later: too soon to count (a quarter of the window is 2).
    assert share.tolist() == [0.0, 0.75, 0.0, 1.0]


def test_priority_prefers_windows_that_return():
    dataset = counting_dataset()
    dataset.proprio.copy_(pose(torch.arange(FRAMES) * 1.0).expand(EPISODES, -1, -1))
    dataset.proprio[3] = pose([0.0, 1, 2, 3, 3, 2, 1, 0] * 2 + [0, 0, 0, 0])
    plain = draw_windows(dataset, 2000, 8, generator())
    prior = draw_windows(dataset, 2000, 8, generator(), priority=1.0)
    assert (plain.episode_B == 3).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (prior.episode_B == 3).float().mean() > 0.4


def test_errors_name_the_rule_and_the_value():
    with pytest.raises(ValueError, match="at least the window's 6 frames, got one of 5"):
        sample_windows(counting_dataset(lengths=[20, 20, 5, 20, 20]), 4, 6, generator())
    with pytest.raises(ValueError, match="needs odometry"):
        sample_windows(counting_dataset(proprio=False), 4, 6, generator(), memory_replay=0.5)
    with pytest.raises(ValueError, match=r"`memory_replay` must be in \[0, 1\], got 1.5"):
        sample_windows(counting_dataset(), 4, 6, generator(), memory_replay=1.5)


def test_what_holds_no_pose_has_no_revisits():
    with pytest.raises(ValueError, match="x, y, sine and cosine of the heading, got 3 values"):
        revisit_share(torch.zeros(1, 8, 3))
