"""Imagined environments: one equals many, rows are their own, resets, moments, hostile use."""

import pickle

import numpy as np
import pytest
import torch
from gymnasium import error, spaces
from gymnasium.vector import AutoresetMode
from imagined_builders import FRAME_SIZE, NoiseContexts, micro_model, micro_vector, same
from torch.utils import _pytree as pytree

from lssvwm_agents.envs import ImaginedEnv, ImaginedVectorEnv
from lssvwm_agents.envs.imagined_starts import normal_noise
from lssvwm_agents.worldmodel.config import BackboneConfig

KINDS = ("frame", "latent", "features", "dict")


def play(env, num_steps: int, seed: int = 5):
    """Everything that an environment answers."""
    generator = np.random.default_rng(0)
    answers = [env.reset(seed=seed)]
    for _ in range(num_steps):
        space = env.action_space
        action = generator.integers(3, size=space.shape)
        answers.append(env.step(action if space.shape else int(action)))
    return answers


# --- one and many ---------------------------------------------------------------------------------


@pytest.mark.parametrize("observation", KINDS)
@pytest.mark.parametrize("contexts", [None, NoiseContexts()], ids=["cold", "contexts"])
def test_a_vector_of_one_equals_the_single_environment_over_episodes(observation, contexts) -> None:
    settings = {"contexts": contexts, "observation": observation, "num_denoising_steps": 2}
    model = micro_model(goes_on=1.0)
    single = ImaginedEnv(model, max_episode_steps=4, **settings)
    vector = ImaginedVectorEnv(model, 1, max_episode_steps=4, **settings)
    (seen, info), (seen_1, info_1) = single.reset(seed=7), vector.reset(seed=7)
    endings, over, generator = set(), False, np.random.default_rng(1)
    for _ in range(16):
        assert same(seen, _row(seen_1, 0)) and same(info, _row(_without_masks(info_1), 0))
        assert single.observation_space.contains(seen) and vector.observation_space.contains(seen_1)
        action = int(generator.integers(3))
        seen_1, rewards, ended, cut, info_1 = vector.step(np.array([action]))
        if over:
            (seen, info), answer = single.reset(), (0.0, False, False)
        else:
            seen, *answer, info = single.step(action)
            answer = tuple(answer)
        assert (rewards[0], ended[0], cut[0]) == answer
        over = answer[1] or answer[2]
        endings |= {answer[1:]}
    assert {(True, False), (False, True)} <= endings


def _row(value, row):
    return {key: part[row] for key, part in value.items()} if isinstance(value, dict) else value[row]


def _without_masks(info):
    return {key: value for key, value in info.items() if not key.startswith("_")}


@pytest.mark.parametrize("steps", [1, 3], ids=["mean", "samples"])
def test_environment_i_does_not_depend_on_the_others(steps: int) -> None:
    model = micro_model(torch.float64, goes_on=1.5)
    settings = {"observation": "features", "contexts": NoiseContexts(), "num_denoising_steps": steps}
    vector = ImaginedVectorEnv(model, 4, max_episode_steps=7, **settings)
    alone = ImaginedVectorEnv(model, 1, max_episode_steps=7, **settings)
    generator = np.random.default_rng(2)
    many, one = vector.reset(seed=10), alone.reset(seed=12)
    ends = 0
    for _ in range(30):
        assert same(many[0][2], one[0][0], 1e-6) and same(many[1]["proprio"][2], one[1]["proprio"][0], 1e-6)
        actions = generator.integers(3, size=4)
        many, one = vector.step(actions), alone.step(actions[2:3])
        assert many[1][2] == pytest.approx(one[1][0], abs=1e-9)
        assert (many[2][2], many[3][2]) == (one[2][0], one[3][0])
        many, one = (many[0], many[4]), (one[0], one[4])
        ends += int(vector.moment.over[2])
    assert ends > 2


def test_samples_differ_by_seed_and_step_and_the_mean_does_not_draw() -> None:
    model = micro_model()
    for steps in (1, 4):
        env = ImaginedVectorEnv(model, 3, num_denoising_steps=steps, observation="latent")
        first, _ = env.reset(seed=0)
        assert not same(first[0], first[1])  # a cold first frame is always a sample
        moment = env.get_state()
        twin = moment.select(torch.tensor([0, 0, 1]))
        env.set_state(twin)
        after = env.step(np.zeros(3, np.int64))[0]
        assert same(after[0], after[1], 1e-6) and not same(after[0], after[2], 1e-6)
    seeds = torch.arange(2000)
    noise = normal_noise(model, seeds, torch.ones_like(seeds))
    assert noise.mean().abs() < 0.02 and abs(noise.std() - 1) < 0.02
    assert np.corrcoef(noise[:-1].flatten(), noise[1:].flatten())[0, 1] == pytest.approx(0, abs=0.02)


def test_sampled_ends_come_as_often_as_the_model_says() -> None:
    model = micro_model(goes_on=1.0)
    rates = {}
    for termination in ("sampled", "threshold", "never"):
        env = ImaginedVectorEnv(model, 400, termination=termination, num_denoising_steps=1)
        env.reset(seed=0)
        _, _, ended, _, info = env.step(np.zeros(400, np.int64))
        rates[termination] = ended.mean()
        if termination == "sampled":
            expected = 1 - info["continuation"].mean()
    assert 0.1 < expected < 0.5
    assert rates["sampled"] == pytest.approx(expected, abs=0.07)
    assert rates["threshold"] == (info["continuation"] < 0.5).mean() and rates["never"] == 0


# --- autoreset ------------------------------------------------------------------------------------


def vector_of(mode: AutoresetMode, **settings) -> ImaginedVectorEnv:
    vector = micro_vector(2, max_episode_steps=3, autoreset_mode=mode, **settings)
    assert vector.metadata["autoreset_mode"] is mode
    assert ImaginedVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    return vector


NOOP = np.zeros(2, np.int64)


@pytest.mark.parametrize("array_type", ["numpy", "torch"])
def test_next_step_autoreset(array_type: str) -> None:
    vector = vector_of(AutoresetMode.NEXT_STEP, array_type=array_type)
    vector.reset(seed=5)
    for count in range(1, 4):
        _, _, _, truncated, info = vector.step(NOOP)
        assert truncated.all() == (count == 3) and "final_obs" not in info
    seen, rewards, terminated, truncated, _ = vector.step(NOOP)
    assert not rewards.any() and not terminated.any() and not truncated.any()
    assert vector.moment.episode.tolist() == [1, 1] and vector.moment.step_count.tolist() == [0, 0]
    assert same(seen, _second_episode(5))


def _second_episode(seed: int):
    env = micro_vector(2)
    env.reset(seed=seed)
    return env.reset()[0]


@pytest.mark.parametrize("observation", KINDS)
@pytest.mark.parametrize("array_type", ["numpy", "torch"])
def test_same_step_autoreset(observation: str, array_type: str) -> None:
    settings = {"observation": observation, "array_type": array_type}
    vector = vector_of(AutoresetMode.SAME_STEP, **settings)
    reference = vector_of(AutoresetMode.DISABLED, **settings)
    vector.reset(seed=5), reference.reset(seed=5)
    for _ in range(2):
        assert "final_obs" not in vector.step(NOOP)[4]
        reference.step(NOOP)
    seen, rewards, _, truncated, info = vector.step(NOOP)
    ended, rewards_of_reference, _, _, info_of_reference = reference.step(NOOP)
    assert truncated.all() and info["_final_obs"].all() and info["_final_info"].all()
    assert same(rewards, rewards_of_reference)
    assert same(info["final_info"], info_of_reference)
    for row in range(2):
        assert same(info["final_obs"][row], _row(ended, row))
    assert same(seen, reference.reset()[0])


def test_rows_that_end_leave_the_others() -> None:
    vector = ImaginedVectorEnv(
        micro_model(goes_on=1.0), 6, autoreset_mode="SameStep", contexts=NoiseContexts()
    )
    vector.reset(seed=0)
    mixed = 0
    for _ in range(20):
        before = vector.moment.step_count.numpy()
        _, _, ended, _, info = vector.step(np.zeros(6, np.int64))
        counts = vector.moment.step_count.numpy()
        assert np.array_equal(counts == 0, ended) and (counts[~ended] == before[~ended] + 1).all()
        if ended.any():
            assert [frame is not None for frame in info["final_obs"]] == ended.tolist()
            assert np.array_equal(info["final_info"]["_continuation"], ended)
            assert (info["continuation"][ended] == 1).all()
        mixed += ended.any() and not ended.all()
    assert mixed > 5


def test_disabled_autoreset_resets_by_mask() -> None:
    vector = vector_of(AutoresetMode.DISABLED)
    with pytest.raises(error.ResetNeeded, match="all environments once"):
        vector.reset(options={"reset_mask": np.array([True, False])})
    first, _ = vector.reset(seed=5)
    vector.step(NOOP)
    seen, _ = vector.reset(options={"reset_mask": np.array([False, True])})
    assert same(seen[1], _second_episode(5)[1], 1e-5) and not same(seen[0], first[0])
    vector.step(NOOP)
    truncated = vector.step(NOOP)[3]
    assert truncated.tolist() == [True, False]
    with pytest.raises(error.ResetNeeded, match=r"rows \[0\]"):
        vector.step(NOOP)
    vector.reset(options={"reset_mask": truncated})
    assert vector.step(NOOP)[3].tolist() == [False, True]
    for bad in (np.zeros(2, np.bool_), np.array([0, 1]), [True, False], np.ones(3, np.bool_)):
        with pytest.raises(ValueError, match="reset_mask"):
            vector.reset(options={"reset_mask": bad})


def test_seeds_of_resets() -> None:
    model, contexts = micro_model(), NoiseContexts()
    env = ImaginedEnv(model, contexts, observation="latent")
    first, _ = env.reset(seed=3)
    second, _ = env.reset()
    assert not same(first, second)
    again, _ = env.reset(seed=3)
    assert same(first, again) and same(env.reset()[0], second)
    unseeded = [ImaginedEnv(model, contexts, observation="latent").reset()[0] for _ in range(2)]
    assert not same(*unseeded)
    vector = ImaginedVectorEnv(model, 2, contexts, observation="latent")
    assert same(vector.reset(seed=[3, None])[0][0], first)
    assert same(vector.reset(seed=2)[0][1], first, 1e-5)
    with pytest.raises(ValueError, match="num_envs=2"):
        vector.reset(seed=[1, 2, 3])


@pytest.mark.parametrize("contexts", [None, NoiseContexts()], ids=["cold", "contexts"])
def test_few_beginnings_are_kept_and_drawn_by_seed(contexts) -> None:
    class Counted(NoiseContexts):
        drawn = 0

        def draw(self, seeds):
            Counted.drawn += len(seeds)
            return super().draw(seeds)

    contexts = None if contexts is None else Counted()
    env = ImaginedVectorEnv(micro_model(), 40, contexts, observation="latent", num_starts=3)
    seen, _ = env.reset(seed=0)
    different = {row.round(3).tobytes() for row in seen}
    assert len(different) == 3 and Counted.drawn == (0 if contexts is None else 3)
    assert {row.round(3).tobytes() for row in env.reset()[0]} == different
    assert Counted.drawn == (0 if contexts is None else 3)
    alone = ImaginedEnv(micro_model(), contexts, observation="latent", num_starts=3)
    assert same(alone.reset(seed=17)[0], seen[17], 1e-5)


# --- moments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_moment_is_gone_back_to_exactly(mode: str) -> None:
    model = micro_model(goes_on=1.0)
    vector = ImaginedVectorEnv(model, 3, NoiseContexts(), mode, "dict", num_denoising_steps=2)
    play(vector, 7)
    moment = vector.get_state()
    kept = pickle.loads(pickle.dumps(moment))
    actions = np.random.default_rng(3).integers(3, size=(20, 3))
    first = [vector.step(action) for action in actions]
    other = ImaginedVectorEnv(model, 3, NoiseContexts(), mode, "dict", num_denoising_steps=2)
    for env, start in ((vector, moment), (other, kept)):
        seen, _ = env.set_state(start)
        assert env.observation_space.contains(seen)
        for action, answer in zip(actions, first, strict=True):
            again = env.step(action)
            assert all(same(one, two) for one, two in zip(answer[:4], again[:4], strict=True))
    assert sum(int(answer[2].sum()) for answer in first) > 3  # resets on the way are the same, too


def test_a_moment_of_another_kind_is_refused() -> None:
    env, vector = ImaginedEnv(micro_model()), ImaginedVectorEnv(micro_model(), 2)
    for each in (env, vector):
        with pytest.raises(error.ResetNeeded, match="reset"):
            each.get_state()
    env.reset(seed=0), vector.reset(seed=0)
    with pytest.raises(ValueError, match="must hold 1 episodes, got 2"):
        env.set_state(vector.get_state())
    with pytest.raises(ValueError, match="must be an ImaginedMoment, got dict"):
        env.set_state({})
    with pytest.raises(ValueError, match="another model"):
        ImaginedEnv(micro_model(proprio_dim=0)).set_state(env.get_state())


def test_two_environments_on_one_model_do_not_meet() -> None:
    model = micro_model()
    alone = play(ImaginedEnv(model, NoiseContexts()), 6)
    one, two = ImaginedEnv(model, NoiseContexts()), ImaginedEnv(model, NoiseContexts())
    generator, answers = np.random.default_rng(0), [one.reset(seed=5)]
    two.reset(seed=77)
    for _ in range(6):
        answers.append(one.step(int(generator.integers(3))))
        two.step(1)
    assert all(same(a[0], b[0]) for a, b in zip(alone, answers, strict=True))
    assert one.worlds.model is two.worlds.model


def test_a_pickled_environment_goes_on_as_the_first() -> None:
    env = ImaginedEnv(micro_model(), NoiseContexts(), "dict")
    play(env, 3)
    copy = pickle.loads(pickle.dumps(env))
    for action in (0, 1, 2, 2):
        one, two = env.step(action), copy.step(action)
        assert same(one[0], two[0]) and one[1:4] == two[1:4]


def test_four_hundred_steps_do_not_grow() -> None:
    import gc

    backbone = BackboneConfig(width=8, head_dim=4, block_sizes=(1,), state_dim=4, window=2)
    model = micro_model(goes_on=50.0, backbone=backbone)
    env = ImaginedEnv(model, NoiseContexts(), "features", num_denoising_steps=1)
    env.reset(seed=0)

    def live_tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts, sizes = [], set()
    for step in range(400):
        seen, reward, *_ = env.step(step % 3)
        sizes.add(env.get_state().nbytes)
        if step in (10, 399):
            counts.append(live_tensors())
    assert len(sizes) == 1 and counts[0] == counts[1]
    assert np.isfinite(seen).all() and np.isfinite(reward)


# --- tensors --------------------------------------------------------------------------------------


def test_tensors_in_tensors_out() -> None:
    model = micro_model(goes_on=1.0)
    for mode in AutoresetMode:
        tensors = ImaginedVectorEnv(model, 3, NoiseContexts(), mode, array_type="torch", termination="never")
        arrays = ImaginedVectorEnv(model, 3, NoiseContexts(), mode, termination="never")
        seen, seen_too = tensors.reset(seed=1), arrays.reset(seed=1)
        for _ in range(4):
            assert isinstance(seen[0], torch.Tensor) and same(seen[0], seen_too[0])
            actions = torch.tensor([0, 1, 2])
            seen, seen_too = tensors.step(actions), arrays.step(actions.numpy())
            for part, other, dtype in zip(
                seen[1:4], seen_too[1:4], (torch.float32, torch.bool, torch.bool), strict=True
            ):
                assert part.dtype == dtype and same(part, other)
    env = ImaginedEnv(model, array_type="torch", observation="dict")
    assert all(isinstance(part, torch.Tensor) for part in env.reset(seed=0)[0].values())
    _, reward, terminated, truncated, info = env.step(torch.tensor(1))
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert isinstance(info["continuation"], torch.Tensor)


@pytest.mark.gpu
@pytest.mark.parametrize("array_type", ["numpy", "torch"])
def test_on_a_gpu(array_type: str) -> None:
    model = micro_model(goes_on=1.0).to("cuda")
    settings = {"contexts": NoiseContexts(), "autoreset_mode": "SameStep", "num_denoising_steps": 2}
    env = ImaginedVectorEnv(model, 5, array_type=array_type, observation="dict", **settings)
    host = ImaginedVectorEnv(micro_model(goes_on=1.0), 5, observation="dict", **settings)
    seen, other = env.reset(seed=0)[0], host.reset(seed=0)[0]
    for _ in range(10):
        assert isinstance(seen["frame"], np.ndarray) == (array_type == "numpy")
        if array_type == "torch":
            assert seen["frame"].device.type == "cuda"
            seen = {key: value.cpu().numpy() for key, value in seen.items()}
        assert np.abs(seen["frame"].astype(int) - other["frame"]).max() <= 2
        actions = np.array([0, 1, 2, 0, 1])
        given = torch.from_numpy(actions).cuda() if array_type == "torch" else actions
        seen, other = env.step(given)[0], host.step(actions)[0]


# --- hostile use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discrete", "action", "words"),
    [
        (True, 1.0, "integers of shape"),
        (True, True, "integers of shape"),
        (True, 3, r"lie in Discrete\(3\)"),
        (True, -1, r"lie in Discrete\(3\)"),
        (True, [1, 2], "shape"),
        (True, "left", "numbers"),
        (True, 1j, "integers of shape"),
        (False, np.array([np.nan, 0.0, 0.0]), "finite"),
        (False, np.array([1.5, 0.0, 0.0]), r"lie in Box\(-1"),
        (False, np.array([0, 1, 0]), "floats of shape"),
        (False, np.zeros(2), "shape"),
    ],
)
def test_wrong_actions_are_refused(discrete: bool, action: object, words: str) -> None:
    model = micro_model(discrete_actions=discrete)
    env, vector = ImaginedEnv(model), ImaginedVectorEnv(model, 2)
    env.reset(seed=0), vector.reset(seed=0)
    before = env.get_state()
    with pytest.raises(error.InvalidAction, match=words):
        env.step(action)
    with pytest.raises(error.InvalidAction, match=words):
        vector.step(np.stack([np.asarray(action)] * 2))
    assert env.get_state() is before


def test_calls_out_of_order_are_refused() -> None:
    env = ImaginedEnv(micro_model(), max_episode_steps=1, render_mode="rgb_array")
    vector = ImaginedVectorEnv(micro_model(), 2, render_mode="rgb_array")
    for each, action in ((env, 0), (vector, NOOP)):
        for call in (lambda each=each, action=action: each.step(action), each.render):
            with pytest.raises(error.ResetNeeded, match="reset"):
                call()
        each.reset(seed=0)
        moment = each.get_state()
        each.step(action)
        if each is env:
            with pytest.raises(error.ResetNeeded, match="over"):
                each.step(action)
        each.close()
        calls = (
            lambda each=each, action=action: each.step(action),
            each.reset,
            each.render,
            each.get_state,
            lambda each=each, moment=moment: each.set_state(moment),
        )
        for call in calls:
            with pytest.raises(error.ClosedEnvironmentError, match="closed"):
                call()


def test_a_model_without_odometry() -> None:
    model = micro_model(proprio_dim=0)
    with pytest.raises(ValueError, match="needs a model with odometry"):
        ImaginedEnv(model, observation="dict")
    for contexts in (None, NoiseContexts(), NoiseContexts(proprio_dim=0)):
        env = ImaginedEnv(model, contexts)
        frame, info = env.reset(seed=0)
        assert frame.shape == (FRAME_SIZE, FRAME_SIZE, 3) and set(info) == {"continuation"}
        assert set(env.step(0)[4]) == {"continuation"}


def test_odometry_that_is_no_pose_begins_unknown_when_cold() -> None:
    env = ImaginedEnv(micro_model(odometry="vector"), observation="dict")
    seen, _ = env.reset(seed=0)
    assert not env.moment.world.proprio_known.any() and not seen["proprio"].any()
    pose = ImaginedEnv(micro_model(), observation="dict")
    assert pose.reset(seed=0)[0]["proprio"].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("contexts", "words"),
    [
        (NoiseContexts(size=16), "frames of 8x8, but the contexts' are of 16x16"),
        (NoiseContexts(action_dim=4), "actions have 3 numbers, but the contexts' have 4"),
        (NoiseContexts(proprio_dim=2), "odometry of 4 values, but the contexts have 2"),
        (NoiseContexts(proprio_dim=0), "odometry of 4 values, but the contexts have 0"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(contexts: NoiseContexts, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImaginedEnv(micro_model(), contexts).reset(seed=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"observation": "pixels"}, "`observation` must be one of"),
        ({"termination": "maybe"}, "`termination` must be one of"),
        ({"array_type": "jax"}, "`array_type` must be one of"),
        ({"render_mode": "human"}, "`render_mode` must be"),
        ({"num_denoising_steps": 0}, "`num_denoising_steps` must be at least 1, got 0"),
        ({"num_starts": 0}, "`num_starts` must be at least 1 or None, got 0"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be at least 1"),
        ({"threshold": 1.5}, r"`threshold` must be in \[0, 1\], got 1.5"),
        ({"action_space": spaces.Discrete(4)}, "Discrete of width 3"),
        ({"model": "tiny"}, "`model` must be a WorldModel, got str"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, words: str) -> None:
    for make in (ImaginedEnv, lambda **given: ImaginedVectorEnv(num_envs=2, **given)):
        with pytest.raises(ValueError, match=words):
            make(**{"model": micro_model(), **settings})


def test_a_growing_memory_is_refused() -> None:
    backbone = BackboneConfig(width=8, head_dim=4, block_sizes=(1,), memory="full_attention", state_dim=4)
    with pytest.raises(ValueError, match="memory of constant size"):
        ImaginedEnv(micro_model(backbone=backbone))


def test_answers_are_copies() -> None:
    for array_type in ("numpy", "torch"):
        for observation in ("latent", "features"):
            env = micro_vector(2, array_type=array_type, observation=observation)
            seen, info = env.reset(seed=0)
            seen[:], info["proprio"][:], info["continuation"][:] = 9, 9, 9
            assert not any((leaf == 9).any() for leaf in pytree.tree_leaves(env.moment))


def test_rendering_for_people() -> None:
    model = micro_model()
    env = ImaginedEnv(model, render_mode="rgb_array")
    frame, _ = env.reset(seed=0)
    view = env.render()
    assert view.shape == (256, 256, 3) and np.array_equal(view[::32, ::32], frame)
    vector = ImaginedVectorEnv(model, 2, render_mode="rgb_array")
    vector.reset(seed=0)
    assert len(vector.render()) == 2 and np.abs(vector.render()[0].astype(int) - view).max() <= 1
    assert ImaginedEnv(model).render() is None
