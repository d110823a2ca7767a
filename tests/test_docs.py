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


def test_pages_are_finished_and_their_links_lead_somewhere():
    """No placeholder is left, every linked file is there, and so is every linked heading."""
    pages = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
    headings = {page: set(_anchors(page.read_text())) for page in pages}
    wrong = []
    for page in pages:
        text = page.read_text()
        wrong += [f"{page.name}: placeholder {found}" for found in re.findall(r"@@\w+@@", text)]
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            linked = (page.parent / name).resolve() if name else page
            if not linked.exists():
                wrong.append(f"{page.name}: no file {target}")
            elif anchor and linked.suffix == ".md" and anchor not in headings[linked]:
                wrong.append(f"{page.name}: no heading {target}")
    assert not wrong


def _anchors(text: str) -> list[str]:
    """What a Markdown page's headings are called in links."""
    lines = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    titles = [line.lstrip("#").strip() for line in lines if re.match(r"#+ ", line)]
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
