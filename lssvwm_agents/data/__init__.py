"""Recorded episodes, their latents, and the windows that training samples."""

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.data.store_spec import StoreSpec

__all__ = ["Episode", "EpisodeStore", "StoreSpec"]
