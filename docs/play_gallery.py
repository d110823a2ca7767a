"""Photograph the play page: `python docs/play_gallery.py` writes play.jpg and play_phone.jpg.

Needs Chromium and the package playwright. A person walks, keeps a moment, walks on, goes back, walks away
and clicks on the map; the wide picture is taken while the planner compares its candidates.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

MEDIA = Path(__file__).parent / "media"
WIDE, NARROW = {"width": 1280, "height": 1100}, {"width": 390, "height": 844}


def walk(page: Page, keys: str) -> None:
    """Walk by letters: l and r turn, u goes forward, f keeps the moment, 1 goes back to it."""
    names = {"l": "ArrowLeft", "r": "ArrowRight", "u": "ArrowUp"}
    for key in keys:
        page.keyboard.press(names.get(key, key))
        page.wait_for_timeout(150)


def photograph(address: str) -> None:
    """Take both pictures."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, size, scheme in (("play", WIDE, "dark"), ("play_phone", NARROW, "light")):
            page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            page.goto(address)
            page.wait_for_function("document.body.dataset.index")
            walk(page, "uuuflllluuuuuu1rrrruuuu")
            if name == "play":
                walk(page, "r")
                page.locator("#map").click(position={"x": 60, "y": 60})
                said = "document.querySelector('#journey span').textContent"
                page.wait_for_function(f"{said}.includes('refined 2')", timeout=60_000)
            page.wait_for_timeout(300)
            page.screenshot(path=MEDIA / f"{name}.jpg", type="jpeg", quality=85)
        browser.close()


def main() -> None:
    """Start the server, photograph, stop it."""
    command = [sys.executable, "-m", "lssvwm_agents.cli", "play", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            photograph(server.stdout.readline().split()[-1])
        finally:
            server.kill()


if __name__ == "__main__":
    main()
