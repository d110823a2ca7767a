"""Code blocks of Markdown pages, and what the comment before a block says of its check.

A comment that begins with ``ci`` stands right before a block and is invisible on the rendered page::

    <!-- ci
    needs diffusers                      a package without which the block is skipped
    before lssvwm collect ...            shell: a command that readers have run earlier; not counted below
    run --episodes 2                     shell: run the block's next command, with this number for its own
    parse: hours on a GPU                shell: let the next command's own parser read it, and say why no more
    skip: another program                shell: say why not even that; for programs that are not ours alone
    save your_module.py                  Python: also write the block to this file
    smaller range(48) -> range(5)        Python: change this text before the block runs
    -->

Every command of a shell block takes one line of ``run``, ``parse`` or ``skip``, in their order. A Python
block without a comment runs as it is.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
]
PYTHON, SHELL, SHOWN = "python", "bash", ("bibtex", "text")

_FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|~{3,})\s*(?P<language>[^`\s]*)[^`]*$")


@dataclass(frozen=True)
class Check:
    """How one shell command is checked: run with ``flags``, or parsed or skipped for a ``reason``."""

    kind: str
    flags: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is its first line of code in ``page``, counted from 1."""

    page: Path
    line: int
    language: str
    code: str
    checks: tuple[Check, ...] = ()
    needs: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    smaller: tuple[tuple[str, str], ...] = ()
    save: str = ""

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, continued lines joined, without comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if shlex.split(line, comments=True)]


def read_blocks(page: Path, text: str | None = None) -> list[Block]:
    """All fenced blocks of a page, in order.

    Raises:
        ValueError: Where a fence is not closed, a comment belongs to no block or cannot be read, or nobody
            checks a block's language.
    """
    lines = (page.read_text() if text is None else text).splitlines()
    blocks, comment, index = [], list[str](), 0
    while index < len(lines):
        line, here = lines[index], f"{page.name}:{index + 1}"
        fence = _FENCE.match(line)
        if line.strip().startswith("<!-- ci"):
            end = next((i for i in range(index, len(lines)) if "-->" in lines[i]), None)
            if end is None or comment:
                raise ValueError(f"{here}: a comment that is not closed, or follows another")
            inside = "\n".join(lines[index : end + 1]).strip().removeprefix("<!-- ci").removesuffix("-->")
            comment, index = [one.strip() for one in inside.splitlines() if one.strip()], end
        elif fence is not None:
            closing = re.compile(rf"^\s*{fence['fence'][0]}{{{len(fence['fence'])},}}\s*$")
            end = next((i for i in range(index + 1, len(lines)) if closing.match(lines[i])), None)
            if end is None:
                raise ValueError(f"{here}: a fence that is not closed")
            code = "\n".join(one.removeprefix(fence["indent"]) for one in lines[index + 1 : end]) + "\n"
            blocks.append(_block(page, index + 2, fence["language"], code, comment))
            comment, index = [], end
        elif comment and line.strip():
            raise ValueError(f"{here}: the comment above belongs to no block")
        index += 1
    if comment:
        raise ValueError(f"{page.name}: the last comment belongs to no block")
    return blocks


def _block(page: Path, line: int, language: str, code: str, comment: list[str]) -> Block:
    here = f"{page.name}:{line}"
    checks, lists = list[Check](), {"needs": [], "before": [], "smaller": [], "save": []}
    for said in comment:
        word, _, rest = said.partition(" ")
        if word in ("parse:", "skip:") and rest:
            checks.append(Check(word[:-1], reason=rest))
        elif word == "run":
            checks.append(Check("run", flags=tuple(shlex.split(rest))))
        elif word == "smaller" and " -> " in rest:
            lists["smaller"].append(tuple(rest.split(" -> ")))
        elif word in ("needs", "before", "save") and rest:
            lists[word].append(rest)
        else:
            raise ValueError(
                f"{here}: `{said}` is none of run, parse: WHY, skip: WHY, needs, before, smaller, save"
            )
    block = Block(
        *(page, line, language, code, tuple(checks)),
        needs=tuple(lists["needs"]),
        before=tuple(lists["before"]),
        smaller=tuple(lists["smaller"]),
        save="".join(lists["save"]),
    )
    if language not in (PYTHON, SHELL, *SHOWN):
        raise ValueError(f"{here}: nobody checks a block of `{language}`; say {PYTHON}, {SHELL} or {SHOWN}")
    if language in SHOWN and re.search(r"^\s*(\$ |lssvwm |pip |make |import )", code, re.MULTILINE):
        raise ValueError(f"{here}: shown as `{language}`, but it looks like something to run")
    if language == SHELL and len(block.commands) != len(checks):
        raise ValueError(
            f"{here}: {len(block.commands)} commands, but {len(checks)} lines of run, parse or skip"
        )
    if language != SHELL and (checks or block.before):
        raise ValueError(f"{here}: run, parse, skip and before are for shell blocks")
    if language != PYTHON and (block.smaller or block.save):
        raise ValueError(f"{here}: smaller and save are for Python blocks")
    for old, _ in block.smaller:
        if old not in code:
            raise ValueError(f"{here}: there is no `{old}` to make smaller")
    return block


def main() -> None:
    """Print how every block is checked."""
    for page in PAGES:
        for block in read_blocks(page):
            if block.language != SHELL:
                how = "runs" if block.language == PYTHON else "is shown"
                print(
                    f"{block.where:<34}{block.language}: {how} {'; '.join(map(' -> '.join, block.smaller))}"
                )
            for command, check in zip(block.commands if block.checks else (), block.checks, strict=True):
                how = " ".join((check.kind, *check.flags)) + (f" ({check.reason})" if check.reason else "")
                print(f"{block.where:<34}{how}: {command[:90]}")


if __name__ == "__main__":
    main()
