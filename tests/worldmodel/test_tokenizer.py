"""Frames to latents and back."""

import pytest
import torch

from lssvwm_agents.worldmodel import Tokenizer, TokenizerConfig


@pytest.mark.parametrize("channels", [(4,), (4, 6), (4, 6, 8)])
def test_shapes(channels):
    config = TokenizerConfig(frame_size=16, channels=channels, latent_channels=3)
    tokenizer = Tokenizer(config)
    frames = torch.rand(2, 5, 3, 16, 16)
    latents = tokenizer.encode(frames)
    assert (
        latents.shape
        == (2, 5, *config.latent_shape)
        == (2, 5, 3, 16 // 2 ** len(channels), 16 // 2 ** len(channels))
    )
    decoded = tokenizer.decode(latents)
    assert decoded.shape == frames.shape
    assert decoded.min() >= 0 and decoded.max() <= 1
    torch.testing.assert_close(tokenizer.decode_unclamped(latents).clamp(0, 1), decoded)
    assert tokenizer.encode(frames[0, 0]).shape == config.latent_shape
    torch.testing.assert_close(tokenizer.encode(frames[1, 2]), latents[1, 2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 15, 16), (2, 3, 32, 32), (2, 16, 16, 3), (2, 1, 16, 16)])
def test_wrong_frames_are_refused(shape):
    tokenizer = Tokenizer(TokenizerConfig(frame_size=16, channels=(4,)))
    with pytest.raises(
        ValueError, match=r"frames must be \(\.\.\., 3, 16, 16\) in \[0, 1\] for this tokenizer, got"
    ):
        tokenizer.encode(torch.rand(shape))


def test_bytes_are_refused_not_misread():
    tokenizer = Tokenizer(TokenizerConfig(frame_size=16, channels=(4,)))
    with pytest.raises(ValueError, match=r"frames must be floats in \[0, 1\], got torch.uint8"):
        tokenizer.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_statistics_standardise_every_channel():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(frame_size=16, channels=(4, 4), latent_channels=3))
    with torch.no_grad():
        tokenizer.encoder[-1].bias.copy_(torch.tensor([-4.0, 0.0, 9.0]))
    frames = torch.rand(50, 3, 16, 16)
    decoded = tokenizer.decode_unclamped(tokenizer.encode(frames))
    for _ in range(2):  # fitting again forgets the old statistics
        tokenizer.fit_statistics(frames, batch_size=7)
        latents = tokenizer.encode(frames)
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
        torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(tokenizer.decode_unclamped(latents), decoded, atol=1e-4, rtol=1e-4)
    assert {"latent_mean", "latent_std"} <= set(tokenizer.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"frame_size": 20, "channels": (4, 4, 4)},
            r"`frame_size` must be divisible by 2\*\*len\(channels\)=8, got 20",
        ),
        ({"channels": ()}, "`channels` must name at least one stage"),
        ({"latent_channels": 0}, "`latent_channels` must be at least 1, got 0"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**options)
