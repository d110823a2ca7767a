"""The checks of code blocks can fail, and no block of any page escapes them."""

from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT, Check, read_blocks
from doc_commands import parse_command, run_command, skippable, smaller, words_of

PAGE = Path("page.md")


def read(*lines: str):
    return read_blocks(PAGE, "\n".join(lines))


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_no_block_of_a_page_escapes(page: Path) -> None:
    fences = [line for line in page.read_text().splitlines() if line.lstrip(" >").startswith(("```", "~~~"))]
    blocks = read_blocks(page)
    assert len(fences) == 2 * len(blocks)
    for block in blocks:
        assert block.language != "bash" or len(block.commands) == len(block.checks) > 0, block.where


def test_a_block_is_read_with_its_comment() -> None:
    (block,) = read(
        *("Text.", "<!-- ci", "needs numpy", "before lssvwm collect --out a", "run --episodes 2"),
        *(
            "parse: a GPU: and hours",
            "-->",
            "",
            "   ```bash",
            "   lssvwm data info a \\",
            "       --check  # all",
        ),
        *("", "   # a comment", "   lssvwm demo", "   ```"),
    )
    assert (block.line, block.needs, block.before) == (10, ("numpy",), ("lssvwm collect --out a",))
    assert block.checks == (Check("run", ("--episodes", "2")), Check("parse", reason="a GPU: and hours"))
    assert [words_of(one) for one in block.commands] == [
        ["lssvwm", "data", "info", "a", "--check"],
        ["lssvwm", "demo"],
    ]
    assert words_of("A=1 B=2 .venv-gpu/bin/lssvwm train --out x &") == ["lssvwm", "train", "--out", "x"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["```bash", "lssvwm demo", "```"], "1 commands, but 0 lines"),
        (["<!-- ci", "run", "run", "-->", "```bash", "lssvwm demo", "```"], "1 commands, but 2 lines"),
        (["<!-- ci", "parse", "-->", "```bash", "lssvwm demo", "```"], "`parse` is none of"),
        (["<!-- ci", "run", "-->", "Text.", "```bash", "lssvwm demo", "```"], "belongs to no block"),
        (["<!-- ci", "run", "-->"], "belongs to no block"),
        (["<!-- ci", "run"], "not closed"),
        (["```python", "x = 1"], "not closed"),
        (["```sh", "ls", "```"], "nobody checks a block of `sh`"),
        (["```", "ls", "```"], "nobody checks a block of ``"),
        (["```text", "$ lssvwm demo", "```"], "looks like something to run"),
        (["<!-- ci", "run", "-->", "```python", "x = 1", "```"], "are for shell blocks"),
        (["<!-- ci", "smaller 9 -> 1", "-->", "```python", "x = 10", "```"], "no `9` to make smaller"),
    ],
)
def test_what_cannot_be_checked_is_refused(lines: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(*lines)


def test_only_sizes_may_differ_from_what_is_written() -> None:
    written = words_of("lssvwm evaluate planning --planners cem mppi --episodes 20 --json a.json")
    assert smaller(written, ("--episodes", "1", "--steps", "2")) == words_of(
        "lssvwm evaluate planning --planners cem mppi --json a.json --episodes 1 --steps 2"
    )
    with pytest.raises(ValueError, match="is no size"):
        smaller(written, ("--json", "b.json"))
    kwargs = ["lssvwm", "collect", "--env-kwargs", '{"texture": "rich"}']
    assert smaller(kwargs, ("--env-kwargs", '{"texture": "rich", "max_episode_steps": 9}'))[-1].endswith("9}")
    with pytest.raises(ValueError, match="changes more than max_episode_steps"):
        smaller(kwargs, ("--env-kwargs", '{"max_episode_steps": 9}'))


@pytest.mark.parametrize(
    "command",
    [
        "lssvwm collect --env a --out b --episode 3",
        "lssvwm colect",
        "lssvwm train --recipe nothing --out a",
        "torchrun --nproc-per-nodes 2 -m lssvwm_agents.cli train --out a",
        "torchrun --nproc-per-node 2 -m lssvwm_agents.cli train --outs a",
        "python benchmarks/play_speed.py --jason a",
        "python benchmarks/point_maze.py --episode 2",
        "make demos",
        "make demo TOCH=cuda",
        "pip install 'lssvwm-agents[sb4]'",
    ],
)
def test_parsers_refuse_what_is_not_there(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        parse_command(words_of(command), monkeypatch)


def test_what_fails_or_is_ours_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="status 2"):
        run_command(["lssvwm", "data", "info", "nowhere"])
    with pytest.raises(ValueError, match="cannot be run here"):
        run_command(["make", "demo"])
    with pytest.raises(ValueError, match="has no parser here"):
        parse_command(["git", "clone", "x"], monkeypatch)
    assert skippable(["git", "clone", "x"]) and not skippable(["lssvwm", "demo"])
    assert not skippable(["pip", "install", "lssvwm-agents[sb3]"])
