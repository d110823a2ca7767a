"""For the documentation site (an extension of griffe): what Markdown would misread in docstrings."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":(?:class|meth|func|data|attr|mod):`~?(?:[\w.]+\.)?(\w+)`")


class ReadableDocstrings(Extension):
    """Puts fences around doctests, and shows names that Sphinx would link as code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each class, function, attribute and module."""
        if obj.docstring is None:
            return
        fenced = _DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
        obj.docstring.value = _ROLE.sub(r"`\1`", fenced)
