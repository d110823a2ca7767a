"""The Python that the documentation shows runs, block after block, as a reader would paste it."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize(
    ("name", "needs"), [("other_backbones.md", "diffusers"), ("long_streams.md", "torch")]
)
def test_python_of_a_page_runs(name, needs, tmp_path, monkeypatch):
    pytest.importorskip(needs, reason=f"the page's code needs the package {needs}")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / name).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        code = "\n" * line + block[1]  # so that an error names the page's own line
        exec(compile(code, str(DOCS / name), "exec"), names)
