"""Episodes from and to the field's formats: Minari, folders of videos with tables, LeRobot.

A format is a function that opens a path as a :class:`Source`, and, where we write it, one that writes one.
"""

from lssvwm_agents.data.formats.convert import FORMATS, convert, open_source
from lssvwm_agents.data.formats.source import ImportOptions, Source

__all__ = ["FORMATS", "ImportOptions", "Source", "convert", "open_source"]
