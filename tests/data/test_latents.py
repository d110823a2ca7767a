import numpy as np
import pytest
import torch

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.data import latents as latents_module
from lssvwm_agents.data.latents import (
    actions_to_float,
    encode_store,
    make_dataset,
    module_hash,
    value_targets,
)
from lssvwm_agents.worldmodel import Tokenizer, TokenizerConfig


def test_value_is_the_discounted_sum_of_later_rewards():
    reward = torch.tensor([[0.0, 1.0, 0.0, 2.0]])
    value, _ = value_targets(reward, torch.ones(1, 4), torch.tensor([4]), 0.5)
    assert value.tolist() == [[1.0 + 0.25 * 2, 0.5 * 2, 2.0, 0.0]]


def test_rewards_in_the_padding_do_not_count():
    reward = torch.tensor([[0.0, 1.0, 9.0, 9.0]])
    value, valid = value_targets(reward, torch.ones(1, 4), torch.tensor([2]), 0.5)
    assert value[0, :2].tolist() == [1.0, 0.0]
    assert not valid.any()


def test_value_is_valid_where_the_end_weighs_little_or_was_a_termination():
    reward = torch.zeros(2, 8)
    continuation = torch.ones(2, 8)
    continuation[1, 7] = 0.0
    _, valid = value_targets(reward, continuation, torch.tensor([8, 8]), 0.5)
    # 0.5**5 = 0.031 <= 0.05 < 0.5**4: five frames must be left.
    assert valid[0].tolist() == [True] * 3 + [False] * 5
    assert valid[1].all()


def test_actions_become_one_hot_and_the_reset_has_none():
    actions = actions_to_float(np.array([0, 2, 1]), 3)
    assert actions.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert actions_to_float(np.array([[9.0, 9.0], [0.5, -1.0]]), None).tolist() == [[0, 0], [0.5, -1.0]]
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        actions_to_float(np.array([0, 3]), 3)


def make_store(path, lengths=(6, 4), seed=0, num_actions=3, proprio_dim=4, **environment):
    rng = np.random.default_rng(seed)
    spec = StoreSpec(
        **{"env_id": "test/Env-v0", **environment},
        frame_shape=(16, 16, 3),
        num_actions=num_actions,
        action_shape=() if num_actions else (2,),
        action_dtype="int64" if num_actions else "float32",
        proprio_dim=proprio_dim,
    )
    store = EpisodeStore.create(path, spec)
    for length in lengths:
        terminated = np.zeros(length, bool)
        terminated[-1] = True
        store.append(
            Episode(
                frames=rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8),
                actions=(
                    rng.integers(0, num_actions, length)
                    if num_actions
                    else rng.uniform(-1, 1, (length, 2)).astype(np.float32)
                ),
                rewards=np.arange(length, dtype=np.float32),
                terminated=terminated,
                truncated=np.zeros(length, bool),
                proprio=rng.normal(size=(length, proprio_dim)).astype(np.float32),
            )
        )
    return store


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(frame_size=16, channels=(8, 8), latent_channels=2)).eval()


def test_encode_store_pads_and_aligns(tmp_path, tokenizer):
    store = make_store(tmp_path / "store")
    dataset = encode_store(store, tokenizer, "cpu", 0.9, batch_size=4)
    assert dataset.latents.shape == (2, 6, 2, 4, 4)
    assert dataset.lengths.tolist() == [6, 4] and dataset.min_length == 4
    assert dataset.continuation[0].tolist() == [1, 1, 1, 1, 1, 0]
    frames = torch.from_numpy(store.episode(1).frames).movedim(-1, -3).float() / 255
    torch.testing.assert_close(dataset.latents[1, :4], tokenizer.encode(frames))
    assert dataset.reward[1].tolist() == [0, 1, 2, 3, 0, 0]
    assert dataset.value[1, 2].item() == 3.0


def test_latents_are_cached_by_tokenizer_and_store(tmp_path, tokenizer, monkeypatch):
    store = make_store(tmp_path / "store")
    cache = tmp_path / "cache"
    first = encode_store(store, tokenizer, "cpu", 0.9, cache_dir=cache)
    assert len(list(cache.iterdir())) == 1
    calls = []
    original = latents_module.encode_frames
    monkeypatch.setattr(latents_module, "encode_frames", lambda *a, **k: calls.append(1) or original(*a, **k))
    second = encode_store(store, tokenizer, "cpu", 0.9, cache_dir=cache)
    assert not calls
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name
    before = module_hash(tokenizer)
    with torch.no_grad():
        tokenizer.encoder[0].bias.add_(1.0)
    assert module_hash(tokenizer) != before
    encode_store(store, tokenizer, "cpu", 0.9, cache_dir=cache)
    assert calls
    calls.clear()
    encode_store(make_store(tmp_path / "other", seed=1), tokenizer, "cpu", 0.9, cache_dir=cache)
    assert calls and len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("mirror", [False, True], ids=["plain", "mirrored"])
def test_some_episodes_are_encoded_as_each_of_them_alone(tmp_path, tokenizer, mirror):
    lengths = (6, 4, 5, 3, 7)
    store = make_store(tmp_path / "store", lengths, num_actions=6, env_id="lssvwm/RaycastMaze-7x7-v0")
    for chosen in ([0, 2, 3], [4, 0, 3], range(1, 5, 2), (1,)):
        some = encode_store(store, tokenizer, "cpu", 0.9, episodes=chosen, mirror=mirror)
        assert some.lengths.tolist() == [lengths[index] for index in chosen] * (1 + mirror)
        for row, index in enumerate(chosen):
            one = range(index, index + 1)
            alone = encode_store(store, tokenizer, "cpu", 0.9, episodes=one, mirror=mirror)
            for name, tensor in alone.tensors().items():
                found = some.tensors()[name][row :: len(chosen)]  # the episode and its mirror image
                found = found[:, : lengths[index]] if found.ndim > 1 else found
                assert torch.equal(found, tensor), (chosen, index, name)


def test_latents_of_other_episodes_have_a_cache_of_their_own(tmp_path, tokenizer, monkeypatch):
    store = make_store(tmp_path / "store", (5, 5, 5, 5))
    whole = encode_store(store, tokenizer, "cpu", 0.9)
    cache, calls = tmp_path / "cache", []
    original = latents_module.encode_frames
    monkeypatch.setattr(latents_module, "encode_frames", lambda *a, **k: calls.append(1) or original(*a, **k))
    # Some as long as others, with the same ends, or the same in another order.
    selections = ([0, 1, 3], [0, 2, 3], [3, 1, 0], [0, 3], range(3), range(1, 4), range(0, 4, 2), range(4))
    for again in (False, True):
        for chosen in selections:
            calls.clear()
            some = encode_store(store, tokenizer, "cpu", 0.9, episodes=chosen, cache_dir=cache)
            assert len(calls) == (0 if again else len(chosen)), chosen
            assert torch.equal(some.latents, whole.latents[list(chosen)]), chosen
            assert torch.equal(some.actions, whole.actions[list(chosen)]), chosen
    assert len(list(cache.iterdir())) == len(selections)


@pytest.mark.parametrize(("num_actions", "proprio_dim"), [(6, 4), (0, 0)], ids=["discrete", "continuous"])
def test_mirror_images_follow_the_episodes(tmp_path, tokenizer, num_actions, proprio_dim):
    store = make_store(
        tmp_path / "store",
        num_actions=num_actions,
        proprio_dim=proprio_dim,
        env_id="lssvwm/RaycastMaze-7x7-v0",
        env_kwargs={"continuous": num_actions == 0},
    )
    plain = encode_store(store, tokenizer, "cpu", 0.9)
    both = encode_store(store, tokenizer, "cpu", 0.9, batch_size=4, mirror=True)
    assert both.num_episodes == 4 and both.lengths.tolist() == [6, 4, 6, 4]
    images = both.select(2, 4)
    for name, tensor in plain.tensors().items():
        torch.testing.assert_close(both.tensors()[name][:2], tensor)
        if name not in ("latents", "actions", "proprio"):
            assert torch.equal(images.tensors()[name], tensor), name
    swapped = [0, 1, 3, 2, 5, 4]
    expected = plain.actions[..., swapped] if num_actions else plain.actions * torch.tensor([1.0, -1.0])
    assert torch.equal(images.actions, expected) and not torch.equal(images.actions, plain.actions)
    if proprio_dim:
        assert torch.equal(images.proprio, plain.proprio * torch.tensor([1.0, -1.0, -1.0, 1.0]))
    else:
        assert both.proprio is None
    frames = torch.from_numpy(store.episode(1).frames[:, :, ::-1].copy()).movedim(-1, -3).float() / 255
    torch.testing.assert_close(images.latents[1, :4], tokenizer.encode(frames))
    assert not torch.allclose(images.latents, plain.latents, atol=1e-2)


def test_mirrored_latents_have_a_cache_of_their_own(tmp_path, tokenizer):
    store = make_store(tmp_path / "store", num_actions=6, env_id="lssvwm/RaycastMaze-7x7-v0")
    cache = tmp_path / "cache"
    for _ in range(2):
        for mirror, episodes in ((False, 2), (True, 4)):
            dataset = encode_store(store, tokenizer, "cpu", 0.9, cache_dir=cache, mirror=mirror)
            assert dataset.num_episodes == episodes
    assert len(list(cache.iterdir())) == 2


def test_a_store_without_a_mirror_image_is_not_mirrored(tmp_path, tokenizer):
    store = make_store(tmp_path / "store", num_actions=6, env_id="lssvwm/RaycastMaze-Cue-v0")
    with pytest.raises(ValueError, match="must not have the cue task"):
        encode_store(store, tokenizer, "cpu", 0.9, mirror=True)


def test_overwrite_replaces_episodes_in_place():
    def dataset(value):
        one = torch.full((3, 4), value)
        return make_dataset(
            one[..., None, None, None], one[..., None], None, one, one, torch.full((3,), 4), 0.9
        )

    old, new = dataset(1.0), dataset(2.0)
    old.overwrite(1, new.select(0, 2))
    assert old.reward[:, 0].tolist() == [1.0, 2.0, 2.0]
