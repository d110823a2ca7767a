"""Training only a part of the model."""

import pytest

from lssvwm_agents.trainers.world_model_trainer import freeze_all_but
from lssvwm_agents.worldmodel import BackboneConfig, WorldModel, WorldModelConfig


def test_only_the_named_parts_are_trained() -> None:
    backbone = BackboneConfig(width=32, conditioning_width=8, block_sizes=(2,), head_dim=16, state_dim=8)
    model = WorldModel(WorldModelConfig(backbone=backbone))
    freeze_all_but(model, ())
    assert all(p.requires_grad for p in model.parameters())
    freeze_all_but(model, ("heads.proprio", "heads.reward"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith(("heads.proprio", "heads.reward")) for name in trained)
    with pytest.raises(ValueError, match="`only` must name parameters of the model.*'head.proprio'"):
        freeze_all_but(model, ("head.proprio",))
