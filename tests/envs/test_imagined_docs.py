"""The code of docs/imagined_environments.md runs, block after block."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "imagined_environments.md"
pytest.importorskip("stable_baselines3")


def test_the_code_blocks_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {"__name__": "docs"}  # not __main__: workers are tested elsewhere
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), names)
