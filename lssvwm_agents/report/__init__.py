"""Pictures, videos and records of what was run."""

from lssvwm_agents.files import atomic_path, write_bytes, write_json
from lssvwm_agents.report.film_strip import FilmStripRow, film_strip
from lssvwm_agents.report.run_info import file_sha256, model_sha256, run_info
from lssvwm_agents.report.video import write_gif, write_mp4

__all__ = [
    "FilmStripRow",
    "atomic_path",
    "file_sha256",
    "film_strip",
    "model_sha256",
    "run_info",
    "write_bytes",
    "write_gif",
    "write_json",
    "write_mp4",
]
