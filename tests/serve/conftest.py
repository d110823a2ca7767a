from collections.abc import Iterator

import pytest
from play_server import running


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running("--context-frames", "32") as address:
        yield address
