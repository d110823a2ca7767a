"""The long-memory video world model: frames and actions in, imagined frames, rewards and odometry out."""

from lssvwm_agents.worldmodel.batch import WindowBatch
from lssvwm_agents.worldmodel.config import (
    BackboneConfig,
    TokenizerConfig,
    TransformerConfig,
    WorldModelConfig,
    small,
    tiny,
)
from lssvwm_agents.worldmodel.denoiser import FrameDenoiser
from lssvwm_agents.worldmodel.model import Prediction, WorldModel
from lssvwm_agents.worldmodel.objectives import (
    ObjectiveConfig,
    TokenizerLossConfig,
    tokenizer_loss,
    world_model_loss,
)
from lssvwm_agents.worldmodel.state import LayerState, WorldState
from lssvwm_agents.worldmodel.tokenizer import Tokenizer

__all__ = [
    "BackboneConfig",
    "FrameDenoiser",
    "LayerState",
    "ObjectiveConfig",
    "Prediction",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerLossConfig",
    "TransformerConfig",
    "WindowBatch",
    "WorldModel",
    "WorldModelConfig",
    "WorldState",
    "small",
    "tiny",
    "tokenizer_loss",
    "world_model_loss",
]
