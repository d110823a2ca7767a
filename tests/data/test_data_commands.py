"""`lssvwm data info`, `convert`, `merge` and `preview`."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from data_builders import episode, same_episodes, store_of
from PIL import Image

from lssvwm_agents.cli import main
from lssvwm_agents.data import EpisodeStore
from lssvwm_agents.data.preview import contact_sheet
from lssvwm_agents.errors import UserError


def test_info_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [episode(n, seed=n) for n in (4, 6, 9)]
    store_of(tmp_path / "store", episodes)
    assert main(["data", "info", str(tmp_path / "store"), "--json", str(tmp_path / "facts.json")]) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["episodes"], facts["frames"], facts["seeds"]) == (3, 19, [4, 9])
    assert (facts["shortest"], facts["median"], facts["longest"]) == (4, 6.0, 9)
    assert "lssvwm/RaycastMaze-7x7-v0" in capsys.readouterr().out and "mean_return" not in facts
    main(["data", "info", str(tmp_path / "store"), "--check", "--json", str(tmp_path / "facts.json")])
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["mean_return"] == pytest.approx(np.mean([e.rewards.sum() for e in episodes]))
    assert (facts["terminated"], facts["truncated"]) == (2, 1) and facts["bytes_on_disk"] > 1000


def test_check_finds_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_of(tmp_path / "store", [episode(9)])
    (tmp_path / "store" / "rewards" / "c.0").unlink()
    assert main(["data", "info", str(tmp_path / "store")]) == 0
    assert main(["data", "info", str(tmp_path / "store"), "--check"]) == 2
    assert "episode 0 is not what was recorded" in capsys.readouterr().err


def test_convert_goes_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path / "store", [episode(5)])
    told = ["data", "convert", str(store.path), "--out", str(tmp_path / "videos"), "--to", "folder"]
    assert main(told) == 0 and (tmp_path / "videos" / "episode_000000.mp4").is_file()
    assert "1 episodes, from store to folder" in capsys.readouterr().out
    assert main(told) == 2 and "exists already" in capsys.readouterr().err


def test_merge_keeps_every_episode_and_where_it_came_from(tmp_path: Path) -> None:
    one = store_of(tmp_path / "one", [episode(4, seed=1), episode(5, seed=2)], policy="forager")
    other = store_of(tmp_path / "other", [episode(6, seed=3)], policy="random", seed=3)
    assert main(["data", "merge", str(one.path), str(other.path), "--out", str(tmp_path / "m")]) == 0
    merged = EpisodeStore.open(tmp_path / "m")
    assert same_episodes(merged, [*one, *other])
    assert merged.spec.policy == "forager+random"
    assert [part["episodes"] for part in merged.spec.extra["parts"]] == [2, 1]


def test_stores_that_do_not_fit_are_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = store_of(tmp_path / "one", [episode(4)])
    other = store_of(tmp_path / "other", [episode(4, size=8)])
    out = tmp_path / "m"
    assert main(["data", "merge", str(one.path), str(other.path), "--out", str(out)]) == 2
    assert "frame_shape" in capsys.readouterr().err
    assert main(["data", "merge", str(one.path), "--out", str(out)]) == 2
    assert "at least 2" in capsys.readouterr().err and not out.exists()


def test_preview_shows_the_frames(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", [episode(12, seed=1), episode(3, seed=2)])
    out = tmp_path / "look"
    told = ["data", "preview", str(store.path), "--out", str(out), "--columns", "5"]
    assert main(told) == 0
    sheet = np.asarray(Image.open(out / "sheet.png"))
    tile = np.repeat(np.repeat(store.episode(0).frames[0], 6, axis=0), 6, axis=1)  # 96 pixels of 16
    assert any(np.array_equal(sheet[top : top + 96, 4:100], tile) for top in range(40))
    frames = imageio.mimread(out / "film.mp4", format="FFMPEG", memtest=False)
    assert len(frames) == 15 and frames[0].shape[1] == 256
    with pytest.raises(UserError, match="`columns`"):
        contact_sheet([(0, store.episode(0))], columns=1)


def test_the_group_says_what_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    assert "info, convert, merge, preview" in capsys.readouterr().out
