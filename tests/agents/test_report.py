import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from lssvwm_agents.files import atomic_path, write_bytes, write_json
from lssvwm_agents.report.film_strip import FilmStripRow, film_strip
from lssvwm_agents.report.run_info import file_sha256, run_info
from lssvwm_agents.report.video import write_gif, write_mp4


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a" / "result.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_mp4_has_even_sizes_and_every_frame(tmp_path: Path) -> None:
    frames = [np.full((33, 47, 3), 20 * i, np.uint8) for i in range(10)]
    write_mp4(tmp_path / "v.mp4", frames, fps=5)
    read = imageio.mimread(tmp_path / "v.mp4")
    assert len(read) == 10 and read[0].shape == (34, 48, 3)
    assert abs(float(read[5].mean()) - 100) < 6
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(tmp_path / "w.mp4", [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.mp4"]


def test_gif_opens_with_every_frame(tmp_path: Path) -> None:
    frames = [np.full((32, 40, 3), (25 * i, 0, 255 - 25 * i), np.uint8) for i in range(10)]
    write_gif(tmp_path / "v.gif", frames, fps=10)
    with Image.open(tmp_path / "v.gif") as gif:
        assert gif.n_frames == 10 and gif.size == (40, 32)
        assert gif.info["duration"] == 100


def test_film_strip_shows_every_frame_and_refuses_uneven_rows() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    rows = [
        FilmStripRow("best of 8", 1.5, frames, np.array([0, 1.0, 0, 0])),
        FilmStripRow("worst", 0, frames, np.zeros(4)),
    ]
    picture = film_strip(frames[0], rows, [4, 8, 12, 16], "Candidate futures", cell=64)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    # An unscaled frame of the strip is found in the picture as it is.
    windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (64, 64))
    wanted = frames[2][..., 0]
    corner = np.argwhere((windows[..., 0, 0] == wanted[0, 0]) & (windows[..., 63, 63] == wanted[63, 63]))
    assert any((windows[y, x] == wanted).all() for y, x in corner)
    with pytest.raises(ValueError, match="one frame and one reward per time"):
        film_strip(frames[0], rows, [4, 8], "x")


def test_run_info_says_what_ran(tmp_path: Path) -> None:
    info = run_info("cpu")
    assert set(info) == {"command", "commit", "device", "versions"}
    assert "torch" in info["versions"] and "cpu" in str(info["device"])
    write_bytes(tmp_path / "f", b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
