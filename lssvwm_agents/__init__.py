"""Agents that plan and learn inside a long-memory video world model."""

from pathlib import Path

# In a checkout the sub-packages lie beside this folder, not inside it: let Python find them there, so that
# `python -c "import lssvwm_agents.envs"` works from the repository root without an install. An installed
# package has them inside and takes no notice.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.cfg").is_file() and (_checkout / "worldmodel").is_dir():
    __path__.append(str(_checkout))

__version__ = "0.1.0"
