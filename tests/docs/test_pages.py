"""Links, navigation and reference of README and documentation are whole; their code: test_blocks_run.py."""

import contextlib
import functools
import io
import re

import pytest
from doc_blocks import PAGES, ROOT

from lssvwm_agents import cli
from lssvwm_agents.errors import UserError

DOCS = ROOT / "docs"


def test_pages_are_finished_and_their_links_lead_somewhere() -> None:
    """No placeholder is left, every linked file is there, and so is every linked heading."""
    headings = {page: set(_anchors(page.read_text())) for page in PAGES}
    wrong = []
    for page in PAGES:
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


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_the_reference_lists_every_public_name() -> None:
    import importlib

    for name in ("worldmodel", "planners", "envs", "agents"):
        module = importlib.import_module(f"lssvwm_agents.{name}")
        page = (DOCS / "reference" / f"{name}.md").read_text()
        shown = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, re.MULTILINE))
        origins = {one: getattr(getattr(module, one), "__module__", "") for one in module.__all__}
        documented = {one for one, origin in origins.items() if origin.startswith("lssvwm")}
        assert shown == documented, f"docs/reference/{name}.md: {sorted(shown ^ documented)}"


def _anchors(text: str) -> list[str]:
    """What a Markdown page's headings are called in links."""
    lines = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    titles = [line.lstrip("#").strip() for line in lines if re.match(r"#+ ", line)]
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_commands_named_in_a_sentence_have_the_flags_they_are_given() -> None:
    """Inline code such as `lssvwm train --store FOLDER`: the command is there, and so is every flag."""
    wrong = []
    for page in PAGES:
        text = re.sub(r"^\s*```.*?^\s*```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for said in re.findall(r"`lssvwm ([a-z][^`]*)`", text):
            words = said.replace("\\|", "|").split()
            known = _flags_of(tuple(word for word in words[:2] if re.fullmatch(r"[a-z-]+", word)))
            flags = {word.split("=")[0] for word in words if word.startswith("--")}
            if known is None or not flags <= known:
                wrong.append(f"{page.name}: `lssvwm {said}`")
    assert not wrong


@functools.cache
def _flags_of(words: tuple[str, ...]) -> set[str] | None:
    """Flags of the command that the first of ``words`` name; None where there is none."""
    groups = {command.words[0] for command in cli.COMMANDS if command.words[1:]}
    if words[:1] in {(group,) for group in groups} and len(words) == 1:
        return set()
    try:
        command, _ = cli.find_command(words)
    except UserError:
        return None
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        cli.execute([*command.words, "--help"])
    return {"--help", *re.findall(r"--[a-z][\w.-]*", said.getvalue())}
