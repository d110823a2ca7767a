"""Tokenizers other than our own: squares of pixels, and an autoencoder of `diffusers`."""

import json
import sys
from dataclasses import asdict, replace

import pytest
import torch
from worldmodel_builders import micro_config, state_distance, video, window_batch

from lssvwm_agents.recipes import maze_debug
from lssvwm_agents.trainers.distributed import Process
from lssvwm_agents.trainers.tokenizer_trainer import load_tokenizer, save_tokenizer, train_tokenizer
from lssvwm_agents.worldmodel import (
    ObjectiveConfig,
    Tokenizer,
    TokenizerConfig,
    TokenizerLossConfig,
    WorldModel,
    WorldModelConfig,
    tokenizer_loss,
    world_model_loss,
)
from lssvwm_agents.worldmodel.autoencoder import _groups

IDENTITY = TokenizerConfig(frame_size=8, channels=(0,), latent_channels=12, kind="identity")
KL = TokenizerConfig(frame_size=8, channels=(4, 8), latent_channels=3, kind="diffusers")


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason='needs the package diffusers: pip install ".[diffusers]"')


def bytes_as_frames(count, size=8):
    pixels = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return pixels, pixels.float() / 255.0


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_identity_gives_every_byte_back(halvings):
    config = TokenizerConfig(8, (0,) * halvings, 3 * 4**halvings, kind="identity")
    tokenizer = Tokenizer(config)
    pixels, frames = bytes_as_frames(32)
    for _ in range(2):
        latents = tokenizer.encode(frames)
        assert latents.shape == (32, *config.latent_shape)
        assert latents.numel() == frames.numel()
        decoded = tokenizer.decode(latents)
        assert torch.equal((255.0 * decoded).round().long(), pixels)
        torch.testing.assert_close(decoded, frames, rtol=0, atol=2e-7)
        tokenizer.fit_statistics(frames)
    torch.testing.assert_close(
        latents.mean((0, 2, 3)), torch.zeros(config.latent_channels), atol=1e-5, rtol=0
    )


def test_identity_keeps_squares_together():
    frames = torch.zeros(1, 3, 8, 8)
    frames[0, 1, 4:6, 2:4] = 1.0
    changed = (Tokenizer(IDENTITY).encode(frames) != -1.0).nonzero()
    assert changed.tolist() == [[0, channel, 2, 1] for channel in range(4, 8)]


def test_identity_has_only_statistics_to_train(tmp_path):
    pixels, _ = bytes_as_frames(16)
    frames = pixels.permute(0, 2, 3, 1).to(torch.uint8)
    process = Process(0, 1, torch.device("cpu"))
    training, loss = maze_debug().tokenizer_training, TokenizerLossConfig()
    tokenizer = train_tokenizer(IDENTITY, training, loss, frames, frames, process, tmp_path)
    assert tokenizer.config == IDENTITY and list(tokenizer.parameters()) == []
    assert (tokenizer.latent_std - 1).abs().min() > 0.1
    again = load_tokenizer(tmp_path / "tokenizer")
    assert again.config == IDENTITY
    assert state_distance(dict(again.state_dict()), dict(tokenizer.state_dict())) == 0.0


def test_a_world_model_on_pixels():
    model = WorldModel(micro_config(tokenizer=IDENTITY))
    _, frames = bytes_as_frames(3)
    state, _ = model.observe(model.initial_state(1), frames[None], torch.eye(3)[None])
    _, prediction = model.step(state, torch.eye(3)[:1])
    assert model.decode(prediction.latent).shape == (1, 3, 8, 8)


# --- diffusers ------------------------------------------------------------------------------------


def test_it_is_the_autoencoder_of_the_package(diffusers, tmp_path):
    torch.manual_seed(0)
    autoencoder = diffusers.AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        layers_per_block=2,
        norm_num_groups=2,
        act_fn="relu",
        use_quant_conv=True,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ).eval()
    autoencoder.save_pretrained(tmp_path / "inner" / "vae")
    tokenizer = Tokenizer.from_autoencoder(str(tmp_path / "inner"), 16, subfolder="vae")
    assert tokenizer.config.latent_shape == (3, 8, 8)
    assert (tokenizer.config.channels, tokenizer.config.num_residual_blocks) == ((4, 8), 2)
    frames = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = autoencoder.encode(2 * frames - 1).latent_dist.mode()
        latents = tokenizer.encode(frames)
        assert torch.equal(latents, expected)
        decoded = 0.5 * (autoencoder.decode(expected).sample + 1)
        torch.testing.assert_close(tokenizer.decode_unclamped(latents), decoded)

        tokenizer.fit_statistics(frames)
        standardised = tokenizer.encode(frames)
        torch.testing.assert_close(standardised.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
        torch.testing.assert_close(tokenizer.decode_unclamped(standardised), decoded, atol=1e-5, rtol=1e-5)

    # The configuration alone rebuilds it: with the weights it is the same, on a machine without the folder.
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    assert again.config == tokenizer.config
    assert torch.equal(again.encode(frames), standardised)
    assert "relu" in again.config.autoencoder_json


def test_it_learns_to_reconstruct(diffusers):
    torch.manual_seed(0)
    tokenizer = Tokenizer(replace(KL, channels=(8, 16)))
    frames = torch.rand(8, 3, 2, 2).repeat_interleave(4, -1).repeat_interleave(4, -2)  # four squares each
    optimizer, losses = torch.optim.Adam(tokenizer.parameters(), lr=5e-3), []
    for _ in range(120):
        loss, metrics = tokenizer_loss(tokenizer, frames, TokenizerLossConfig())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(metrics["tokenizer/mse"]))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("channels", "groups"), [((4, 8), 1), ((16, 32, 48), 4), ((128, 256), 32), ((5, 7), 1), ((6,), 1)]
)
def test_normalising_groups_divide_every_width(channels, groups):
    assert _groups(channels) == groups


def test_a_world_model_made_of_both(diffusers, tmp_path):
    torch.manual_seed(0)
    model = WorldModel(micro_config(tokenizer=KL, denoiser="diffusers")).eval()
    loss, _ = world_model_loss(
        model, window_batch(model, 2, 4), torch.Generator().manual_seed(0), ObjectiveConfig()
    )
    assert loss.isfinite()
    _, frames = bytes_as_frames(3)
    actions = torch.eye(3)[None]
    whole, features = model.observe(model.initial_state(1), frames[None], actions)
    state = model.initial_state(1)
    for t in range(3):
        state, last = model.observe(state, frames[None, t : t + 1], actions[:, t : t + 1])
    torch.testing.assert_close(last[:, 0], features[:, -1], atol=1e-5, rtol=1e-5)
    _, prediction = model.imagine(whole, actions)
    pictures = model.decode(prediction.latent)
    assert pictures.shape == (1, 3, 3, 8, 8) and pictures.std() > 0

    model.save_pretrained(tmp_path)
    loaded = WorldModel.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded.decode(loaded.imagine(whole, actions)[1].latent), pictures)


def test_only_the_parts_in_use_are_kept(diffusers):
    names = {name.split(".")[0] for name in Tokenizer(KL).state_dict()}
    assert names == {"encoder", "decoder", "latent_mean", "latent_std"}


def test_other_colours_are_refused(diffusers, tmp_path):
    diffusers.AutoencoderKL(in_channels=4, block_out_channels=(4,), norm_num_groups=2).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match=r"must turn 3 colour channels into 3, got \(4, 3\)"):
        Tokenizer.from_autoencoder(str(tmp_path), 8)


def test_a_field_cannot_be_given_twice(diffusers):
    config = TokenizerConfig(8, (4,), kind="diffusers", autoencoder_json='{"latent_channels": 4}')
    with pytest.raises(ValueError, match=r"leave these to the fields latent_channels, got \['latent_chann"):
        Tokenizer(config)


# --- configuration --------------------------------------------------------------------------------


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    sentence = (
        r'^the tokenizer of kind \'diffusers\' needs the package diffusers: pip install "lssvwm-agents\['
    )
    with pytest.raises(ImportError, match=sentence):
        Tokenizer(KL)
    with pytest.raises(ImportError, match=sentence):
        Tokenizer.from_autoencoder("anywhere", 8)
    assert Tokenizer(IDENTITY).encode(torch.rand(1, 3, 8, 8)).shape == (1, 12, 4, 4)


def test_files_of_before_still_load(tmp_path):
    tokenizer = Tokenizer(TokenizerConfig(frame_size=8, channels=(4,), latent_channels=2))
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "config.json"
    values = json.loads(path.read_text())
    del values["kind"], values["autoencoder_json"]
    path.write_text(json.dumps(values))
    frames = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_tokenizer(tmp_path / "tokenizer").encode(frames), tokenizer.encode(frames))

    before = asdict(micro_config())
    del before["tokenizer"]["kind"], before["tokenizer"]["autoencoder_json"]
    assert WorldModelConfig(**json.loads(json.dumps(before))) == micro_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "vq"}, "`kind` must be one of .*got vq"),
        (
            {"kind": "identity", "latent_channels": 8},
            r"of an identity tokenizer must be 3 \* 4\*\*len\(channels\)=192, got 8",
        ),
        (
            {"kind": "diffusers", "frame_size": 62},
            r"must be divisible by 2\*\*\(len\(channels\) - 1\)=4, got 62",
        ),
        (
            {"kind": "diffusers", "num_residual_blocks": 0},
            "of a diffusers tokenizer must be at least 1, got 0",
        ),
        ({"kind": "diffusers", "autoencoder_json": "[1]"}, r"must be a JSON object, got \[1\]"),
        ({"kind": "diffusers", "autoencoder_json": "{"}, "must be a JSON object, got {"),
        ({"autoencoder_json": '{"act_fn": "relu"}'}, "only for a tokenizer of kind diffusers, got {"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**options)


def test_latent_sizes():
    assert IDENTITY.latent_shape == (12, 4, 4)
    assert KL.latent_shape == (3, 4, 4)
    assert TokenizerConfig(channels=(16, 32, 48, 64), kind="diffusers").latent_shape == (8, 8, 8)
    latents, _, _ = video(WorldModel(micro_config(tokenizer=IDENTITY)), 1, 2)
    assert latents.shape == (1, 2, 12, 4, 4)
