import pytest
import torch

from lssvwm_agents.worldmodel import BackboneConfig, TokenizerConfig, WorldModel, WorldModelConfig

ENV_ID = "lssvwm/RaycastMaze-7x7-v0"


def make_model(**overrides: object) -> WorldModel:
    """A world model with random weights, small enough for tests, whose heads do not start at zero."""
    torch.manual_seed(0)
    backbone = BackboneConfig(width=32, conditioning_width=16, block_sizes=(2, 1), head_dim=16, state_dim=16)
    config = WorldModelConfig(
        tokenizer=TokenizerConfig(channels=(8, 8, 8), latent_channels=4, num_residual_blocks=0),
        **{"env_id": ENV_ID, "backbone": backbone, **overrides},  # type: ignore[arg-type]
    )
    model = WorldModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="session")
def model() -> WorldModel:
    return make_model()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
