"""Another denoiser around the same memory: a `diffusers` transformer, and one written here."""

import sys
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn import functional as F
from worldmodel_builders import (
    ACTION_DIM,
    micro_config,
    micro_model,
    randomise,
    state_distance,
    video,
    window_batch,
)

from lssvwm_agents.cli import main
from lssvwm_agents.errors import UserError
from lssvwm_agents.planners import CEM, DiscreteActions
from lssvwm_agents.trainers.optimizers import split_parameters
from lssvwm_agents.weights import load_model
from lssvwm_agents.worldmodel import (
    ObjectiveConfig,
    TransformerConfig,
    WorldModel,
    WorldModelConfig,
    world_model_loss,
)
from lssvwm_agents.worldmodel.backbone import Frames
from lssvwm_agents.worldmodel.patches import from_patches, to_patches

SMALL = {"denoiser": "diffusers", "transformer": TransformerConfig(num_layers=1, num_heads=2, head_dim=8)}
VARIANTS = {
    "ssd": {},
    "rotary": {"recurrence": "rotary_ssd"},
    "no_memory": {"memory": "none"},
    "actions_alone": {"proprio_dim": 0},
}
every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason='needs the package diffusers: pip install ".[diffusers]"')


def close(one, two, tolerance=1e-9):
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


def read_frames(model, batch, time, level, seed=4):
    latents, actions, proprio = video(model, batch, time, seed)
    known = latents.new_ones(batch, time)
    proprio = latents.new_zeros(batch, time, 0) if proprio is None else proprio
    return Frames(latents, level * known, actions, known, proprio, known)


# --- the default ----------------------------------------------------------------------------------


def test_the_default_is_the_reading_stream_bit_for_bit():
    """Written out as it was before there was a choice."""
    model = micro_model(torch.float32)
    backbone = model.backbone
    clean, noisy = read_frames(model, 2, 5, 0.0), read_frames(model, 2, 5, 0.4, seed=5)
    out = backbone(clean, noisy, backbone.initial_layers(2))
    w, r = backbone._embed(clean), backbone._embed(noisy)
    for layer, state in zip(backbone.layers, backbone.initial_layers(2), strict=True):
        w, r, _ = layer(w, r, state)
    shift, scale = backbone.modulate_out(r.conditioning)[:, :, None, None, :].chunk(2, dim=-1)
    tokens = backbone.project_out(F.rms_norm(r.tokens, (8,)) * (1 + scale) + shift)
    split = tokens.reshape(2, 5, 2, 2, 2, 2, 2).permute(0, 1, 4, 2, 5, 3, 6)
    assert torch.equal(out.clean, split.reshape(2, 5, 2, 4, 4))


def test_the_default_asks_for_no_package_and_keeps_its_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    names = set(micro_model().state_dict())
    assert {"backbone.modulate_out.weight", "backbone.project_out.bias"} <= names
    assert not any("denoiser" in name for name in names)


def test_patches_go_there_and_back():
    latents = torch.randn(2, 3, 5, 4, 6)
    tokens = to_patches(latents, 2)
    assert tokens.shape == (2, 3, 2, 3, 20)
    assert torch.equal(tokens[1, 2, 1, 0], latents[1, 2, :, 2:4, 0:2].flatten())
    assert torch.equal(from_patches(tokens, 2), latents)


# --- a denoiser of one's own ----------------------------------------------------------------------


class LinearDenoiser(torch.nn.Module):
    """The smallest thing that follows the protocol."""

    def __init__(self, width, channels):
        super().__init__()
        self.map, self.calls = torch.nn.Linear(width, channels * 4).double(), []

    def forward(self, noisy, noise_level, memory, conditioning):
        self.calls.append((noisy, noise_level, memory, conditioning))
        return from_patches(self.map(memory), 2) + noisy


def test_any_module_that_follows_the_protocol_will_do():
    model = micro_model()
    own = model.backbone.denoiser = LinearDenoiser(8, 2)
    state = model.initial_state(3)
    _, prediction = model.step(state, torch.eye(3, dtype=torch.float64), num_denoising_steps=4)
    assert prediction.latent.shape == (3, 2, 4, 4)
    assert len(own.calls) == 4
    noisy, level, memory, conditioning = own.calls[0]
    assert noisy.shape == (3, 1, 2, 4, 4) and not noisy.any() and (level == 1).all()
    assert memory.shape == (3, 1, 2, 2, 8) and conditioning.shape == (3, 1, 8)
    assert [float(call[1][0, 0]) for call in own.calls] == [1.0, 0.75, 0.5, 0.25]
    assert all(call[2] is memory for call in own.calls), "memory is to be asked once a frame"


def test_what_memory_answers_does_not_know_the_noisy_latent():
    model = micro_model()
    own = model.backbone.denoiser = LinearDenoiser(8, 2)
    clean = read_frames(model, 2, 4, 0.0)
    for seed, level in ((5, 0.3), (6, 0.9)):
        noisy = clean._replace(
            latents=read_frames(model, 2, 4, 0.0, seed).latents, noise_level=level + 0 * clean.noise_level
        )
        model.backbone(clean, noisy, model.initial_state(2).layers)
    (one, level_one, memory_one, _), (two, level_two, memory_two, _) = own.calls
    assert (one - two).abs().max() > 0.1 and (level_one - level_two).abs().max() > 0.1
    assert torch.equal(memory_one, memory_two)


# --- the transformer ------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("level", [1.0, 0.4])
def test_training_is_what_imagining_does(options, level, diffusers):
    """Frames denoised side by side, as in training, equal those denoised one by one from memory."""
    model = micro_model(**SMALL, **options)
    clean, noisy = read_frames(model, 2, 5, 0.0), read_frames(model, 2, 5, level, seed=5)
    noisy = noisy._replace(action=clean.action, proprio=clean.proprio)
    together = model.backbone(clean, noisy, model.initial_state(2).layers).clean
    assert together.shape == clean.latents.shape and together.std() > 0.01
    state = model.initial_state(2)
    for t in range(5):
        now = Frames(*(x[:, t : t + 1] for x in noisy))
        close(model._read(now, state.layers).clean, together[:, t : t + 1], 1e-6)
        asked = model.backbone.recall(now, state.layers)
        found = model.backbone.denoise(now.latents, now.noise_level, asked)
        close(found, together[:, t : t + 1], 1e-6)
        state, _ = model.write(state, Frames(*(x[:, t : t + 1] for x in clean)))


@every_variant
def test_observing_at_once_is_observing_frame_by_frame(options, diffusers):
    model = micro_model(**SMALL, **options)
    latents, actions, proprio = video(model, 2, 6)
    given = [latents, actions] + ([] if proprio is None else [proprio])
    whole_state, whole = model.observe_latents(model.initial_state(2), *given)
    state, parts = model.initial_state(2), []
    for t in range(6):
        state, features = model.observe_latents(state, *(x[:, t : t + 1] for x in given))
        parts.append(features)
    close(torch.cat(parts, 1), whole)
    _, one = model.imagine(state, actions[:, 1:3])
    _, two = model.imagine(whole_state, actions[:, 1:3])
    close(one.latent, two.latent, 1e-6)


def test_rows_do_not_depend_on_each_other_and_forks_are_copies(diffusers):
    model = micro_model(**SMALL)
    latents, actions, proprio = video(model, 3, 5)
    state, _ = model.observe_latents(model.initial_state(3), latents, actions, proprio)
    _, prediction = model.imagine(state, actions[:, 1:4])
    alone, _ = model.imagine(state.select(torch.tensor([1])), actions[1:2, 1:4])[1].latent, None
    close(alone[0], prediction.latent[1], 1e-6)
    forked = model.imagine(model.repeat(state, 2), actions[:, 1:4].repeat_interleave(2, 0))[1]
    close(forked.latent[1::2], prediction.latent, 1e-6)


def test_every_input_of_the_transformer_counts(diffusers):
    denoiser = micro_model(**SMALL).backbone.denoiser
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    inputs = [draw(2, 3, 2, 4, 4), draw(2, 3), draw(2, 3, 2, 2, 8), draw(2, 3, 8)]
    base = denoiser(*inputs)
    assert base.shape == (2, 3, 2, 4, 4) and base.dtype == torch.float64
    for index, tensor in enumerate(inputs):
        changed = tensor.clone()
        changed[1, 2] = draw(*tensor.shape[2:])
        difference = denoiser(*inputs[:index], changed, *inputs[index + 1 :]) - base
        assert difference[1, 2].abs().max() > 1e-3, f"input {index} is not looked at"
        difference[1, 2] = 0.0
        assert difference.abs().max() < 1e-9, f"input {index} of one frame changes another"


def test_memory_noise_and_condition_all_reach_the_frame(diffusers):
    model = micro_model(**SMALL)
    latents, actions, proprio = video(model, 1, 4)
    state, _ = model.observe_latents(model.initial_state(1), latents, actions, proprio)

    def imagined(state, action, steps=1, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return model.step(state, action, steps, generator)[1].latent

    first, second = torch.eye(ACTION_DIM, dtype=torch.float64)[:2, None]
    base = imagined(state, first)
    assert torch.equal(base, imagined(state, first, seed=1)), "one step is deterministic"
    assert (base - imagined(model.initial_state(1), first)).abs().max() > 1e-3
    assert (base - imagined(state, second)).abs().max() > 1e-3
    assert (imagined(state, first, 4) - imagined(state, first, 4, seed=1)).abs().max() > 1e-3
    assert (
        imagined(state, first, 2) - imagined(state, first, 3)
    ).abs().max() > 1e-3  # levels 1/2, not 2/3, 1/3


def test_gradients_flow_through_imagining(diffusers):
    model = micro_model(**SMALL)
    latents, actions, proprio = video(model, 2, 4)
    latents.requires_grad_()
    state, _ = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    plan = torch.rand(2, 3, ACTION_DIM, dtype=torch.float64, requires_grad=True)
    _, prediction = model.imagine(state, plan)
    wanted = [plan, latents, model.backbone.denoiser.draft.weight, model.backbone.embed.weight]
    gradients = torch.autograd.grad(prediction.reward.sum(), wanted)
    assert all(gradient.abs().max() > 1e-8 for gradient in gradients)
    assert gradients[0][:, 0].abs().max() > 1e-8, "the first action moves the rewards after it"


def test_it_overfits_a_batch_and_plans(diffusers):
    torch.manual_seed(0)
    model = WorldModel(micro_config(width=16, conditioning_width=16, head_dim=8, **SMALL))
    model.tokenizer.requires_grad_(False)
    batch = window_batch(model, 4, 6)
    objective = ObjectiveConfig(action_dropout=0.0, proprio_dropout=0.0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    draws, losses = torch.Generator().manual_seed(0), []
    for _ in range(150):
        loss, metrics = world_model_loss(model, batch, draws, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(metrics["loss/denoising"]))
    assert sum(losses[:10]) / 10 > 0.8  # latents have unit variance: 1 is knowing nothing
    assert sum(losses[-10:]) / 10 < 0.1
    assert "loss/rollout_denoising" not in metrics
    rollouts = replace(objective, rollout_weight=1.0, rollout_horizon=2)
    loss, metrics = world_model_loss(model, batch, draws, rollouts)
    optimizer.zero_grad()
    loss.backward()
    assert metrics["loss/rollout_denoising"] < 0.5
    unused = [name for name, p in model.backbone.named_parameters() if p.grad is None]
    assert unused == []

    state, _ = model.observe_latents(model.initial_state(2), *video(model, 2, 3))
    planner = CEM(DiscreteActions(ACTION_DIM), horizon=2, num_samples=6, num_elites=2, num_iterations=1)
    with torch.no_grad():
        plan = planner.plan(model, state)
    assert plan.actions.shape == (2, 2, ACTION_DIM) and plan.expected_return.isfinite().all()


def test_roundtrip_through_files(tmp_path, diffusers):
    model = micro_model(torch.float32, **SMALL)
    model.save_pretrained(tmp_path)
    loaded = WorldModel.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.config.transformer.num_layers == 1
    assert state_distance(dict(model.state_dict()), dict(loaded.state_dict())) == 0.0
    action = torch.eye(ACTION_DIM)
    one, two = (m.step(m.initial_state(ACTION_DIM), action)[1] for m in (model, loaded))
    assert torch.equal(one.latent, two.latent)
    model.save_pretrained(tmp_path / "compact", compact=True)
    compact = WorldModel.from_pretrained(tmp_path / "compact")
    assert {p.dtype for p in compact.parameters()} == {torch.float32}
    close(compact.step(compact.initial_state(ACTION_DIM), action)[1].latent, one.latent, 0.05)


def test_muon_takes_the_matrices_of_the_transformer_but_not_its_tables(diffusers):
    model = WorldModel(micro_config(**SMALL))
    muon = {name for name, _ in split_parameters(model, use_muon=True)[0]}
    prefix = "backbone.denoiser.transformer.transformer_blocks.0."
    assert prefix + "attn1.to_q.weight" in muon
    assert prefix + "scale_shift_table" not in muon


# --- configuration --------------------------------------------------------------------------------


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        ImportError,
        match=r"`denoiser`='diffusers' needs the package diffusers: "
        r'pip install "lssvwm-agents\[diffusers\]"\.$',
    ):
        WorldModel(micro_config(**SMALL))


def test_a_fault_inside_the_package_is_not_taken_for_its_absence(monkeypatch, tmp_path):
    (tmp_path / "diffusers.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        WorldModel(micro_config(**SMALL))


def test_a_configuration_without_the_new_fields_is_the_default():
    values = asdict(micro_config())
    del values["denoiser"], values["transformer"]
    assert WorldModelConfig(**values) == micro_config()
    assert replace(micro_config(), transformer={"num_layers": 3}).transformer.num_layers == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoiser": "gan"}, "`denoiser` must be one of .*got gan"),
        (
            {"denoiser": "diffusers", "objective": "diffusion_forcing"},
            "`denoiser`='diffusers' needs `objective`='teacher_forcing', got diffusion_forcing",
        ),
        ({"transformer": {"num_layers": 0}}, "`num_layers` must be at least 1, got 0"),
        ({"transformer": {"num_heads": 3, "head_dim": 2}}, "must be divisible by 4 .*got 6"),
        ({"transformer": {"layers": 2}}, r"TransformerConfig has only the fields .*got \['layers'\]"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        micro_config(**options)


def test_randomising_leaves_no_zero_gate(diffusers):
    model = WorldModel(micro_config(**SMALL))
    randomise(model)
    assert all(parameter.any() for parameter in model.parameters())


def test_the_command_line_tells_of_a_missing_package_before_it_trains(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    run = tmp_path / "run"
    flags = ["--recipe", "maze-debug", "--model.denoiser", "diffusers", "--out", str(run)]
    assert main(["train", *flags]) == 2
    assert 'pip install "lssvwm-agents[diffusers]"' in capsys.readouterr().err
    assert not run.exists()


def test_loading_tells_of_a_missing_package(monkeypatch, tmp_path, diffusers):
    micro_model(torch.float32, **SMALL).save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"needs the package diffusers: pip install .*\.$"):
        load_model(tmp_path)
