"""What is saved is what comes back, whole or not at all, and never a pickle."""

import json
import os
from dataclasses import asdict

import pytest
import safetensors.torch
import torch
from worldmodel_builders import micro_config, micro_model, state_distance, video

from lssvwm_agents.worldmodel import (
    BackboneConfig,
    TokenizerConfig,
    WorldModel,
    WorldModelConfig,
    small,
    tiny,
)


def outputs(model):
    latents, actions, proprio = video(model, 2, 4)
    state, features = model.observe_latents(model.initial_state(2), latents, actions, proprio)
    state, prediction = model.imagine(state, actions)
    return state, features, prediction.latent, prediction.reward, model.decode(prediction.latent)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recurrence": "rotary_ssd", "objective": "diffusion_forcing"},
        {"memory": "none", "proprio_dim": 0},
        {
            "half_life_frames": (3.0, 50.0),
            "block_sizes": (1, 2, 1),
            "env_id": "a/B-v0",
            "env_kwargs_json": "{}",
        },
    ],
)
def test_roundtrip(options, tmp_path):
    model = micro_model(torch.float32, **options)
    model.save_pretrained(tmp_path / "model")
    loaded = WorldModel.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert isinstance(loaded.config.backbone.block_sizes, tuple)
    assert not loaded.training
    for one, two in zip(outputs(model), outputs(loaded), strict=True):
        assert state_distance(one, two) == 0.0


def test_files_are_config_weights_and_card(tmp_path):
    micro_model(torch.float32).save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["README.md", "config.json", "model.safetensors"]
    assert not (tmp_path / "model.safetensors").read_bytes().startswith((b"PK", b"\x80"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["backbone"]["block_sizes"] == [2, 1]


def test_saving_again_replaces_weights_and_keeps_a_written_card(tmp_path):
    micro_model(torch.float32, seed=1).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("# written by hand\n")
    model = micro_model(torch.float32, seed=2)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# written by hand\n"
    assert (
        state_distance(dict(WorldModel.from_pretrained(tmp_path).state_dict()), dict(model.state_dict()))
        == 0.0
    )


def test_an_interrupted_save_leaves_the_old_files(tmp_path, monkeypatch):
    old = micro_model(torch.float32, seed=1)
    old.save_pretrained(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def fail(*_):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        micro_model(torch.float32, seed=2).save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    monkeypatch.undo()
    monkeypatch.setattr(safetensors.torch, "save_model", fail)
    with pytest.raises(OSError, match="killed"):
        micro_model(torch.float32, seed=2).save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_missing_weights_are_an_error_not_a_random_model(tmp_path):
    model = micro_model(torch.float32)
    model.save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del weights["backbone.embed.weight"]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises((RuntimeError, ValueError), match="backbone.embed.weight"):
        WorldModel.from_pretrained(tmp_path)


def test_loading_is_quiet(tmp_path, capsys):
    micro_model(torch.float32).save_pretrained(tmp_path)
    WorldModel.from_pretrained(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no world model"):
        WorldModel.from_pretrained(tmp_path)


def test_configuration_survives_json():
    for config in (tiny(), small(), micro_config(recurrence="rotary_ssd")):
        assert WorldModelConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match=r"BackboneConfig has only the fields .*got \['widht'\]"):
        WorldModelConfig(backbone={"widht": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "head_dim": 4}, "`head_dim` must divide"),
        ({"head_dim": 2}, "`head_dim` must be divisible by 4, got 2"),
        ({"state_dim": 3}, "`state_dim` must be even, got 3"),
        ({"num_groups": 3}, "`num_groups` must divide the 2 heads, got 3"),
        ({"window": 0}, "`window` must be at least 1 frame, got 0"),
        ({"block_sizes": ()}, "`block_sizes` must name at least one layer"),
        ({"block_sizes": (3,)}, "every block size must divide the token grid of 2x2, got 3"),
        ({"patch_size": 3}, "`patch_size` must divide the latent's 4, got 3"),
        ({"num_bins": 4}, "`num_bins` must be odd and at least 3, got 4"),
        ({"imagined_noise_level": 0.2}, r"`imagined_noise_level` must be in \[0, 0.1\], got 0.2"),
        ({"recurrence": "gru"}, "`recurrence` must be one of .*got gru"),
        ({"objective": "gan"}, "`objective` must be one of .*got gan"),
        ({"memory": "all"}, "`memory` must be one of .*got all"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        micro_config(**options)


def test_named_sizes():
    def count(config):
        return sum(p.numel() for p in WorldModel(config).parameters())

    assert tiny().tokens_per_frame == 4 and count(tiny()) <= 1_500_000
    assert small().tokens_per_frame == 4 and 2_500_000 <= count(small()) <= 3_500_000
    assert isinstance(tiny().backbone, BackboneConfig) and isinstance(tiny().tokenizer, TokenizerConfig)


def test_compact_weights_take_half_the_space_and_load_as_float32(tmp_path):
    model = micro_model(torch.float32, width=32, conditioning_width=32)
    model.save_pretrained(tmp_path / "exact")
    model.save_pretrained(tmp_path / "compact", compact=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # the model itself is left as it was
    exact, compact = (
        safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("exact", "compact")
    )
    for name, tensor in compact.items():
        trained = name in dict(model.named_parameters())
        matrix = trained and tensor.ndim >= 2 and name.startswith(("backbone.", "heads."))
        assert tensor.dtype == (torch.bfloat16 if matrix else exact[name].dtype)
        torch.testing.assert_close(tensor.float(), exact[name], rtol=2**-8, atol=0)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("exact", "compact")]
    assert sizes[1] < 0.7 * sizes[0]
    loaded = WorldModel.from_pretrained(tmp_path / "compact")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.backbone.embed.weight, compact["backbone.embed.weight"].float())
