"""The play page in a real Chromium, as a person uses it."""

import shutil
from collections.abc import Iterator

import pytest
from play_server import Line

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, and this machine has none")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

PIXELS = """id => { const c = document.getElementById(id);
    return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).join() }"""
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """A person with a browser of their own, past the film of real frames."""

    def __init__(self, browser, url: str, **settings) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **settings})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.wait("document.body.dataset.phase === 'dream' && document.body.dataset.index")

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=30_000)

    @property
    def index(self) -> int:
        return int(self.page.evaluate("document.body.dataset.index"))

    def view(self, canvas: str = "dream") -> str:
        return self.page.evaluate(PIXELS, canvas)

    def walk(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            expected = self.index + 1
            self.page.keyboard.press(key)
            self.wait(f"document.body.dataset.index === '{expected}'")

    def close(self) -> None:
        assert not self.errors
        self.context.close()


@pytest.fixture
def visitor(browser, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address)
    yield visitor
    visitor.close()


def test_keys_move_the_view_and_held_keys_go_on(visitor: Visitor) -> None:
    before, index = visitor.view(), visitor.index
    visitor.walk("ArrowLeft")
    assert visitor.index == index + 1 and visitor.view() != before
    visitor.page.keyboard.down("ArrowRight")
    visitor.wait(f"Number(document.body.dataset.index) >= {index + 6}")
    visitor.page.keyboard.up("ArrowRight")
    assert "dB" in visitor.page.text_content("#recall-words")
    visitor.page.keyboard.press("r")
    visitor.page.wait_for_selector("#real-figure:not([hidden])")
    assert visitor.view("real") != visitor.view()


def test_a_fork_restores_the_very_same_frame(visitor: Visitor) -> None:
    visitor.walk("ArrowLeft", 2)
    kept, index = visitor.view(), visitor.index
    visitor.page.click("#fork")
    visitor.page.wait_for_selector("#forks li")
    visitor.walk("ArrowRight", 4)
    assert visitor.view() != kept
    visitor.page.click("#forks .back")
    visitor.wait(f"document.body.dataset.index === '{index}' && document.body.dataset.branch === '1'")
    assert visitor.view() == kept
    visitor.walk("ArrowUp", 1)
    assert visitor.page.locator("#forks .strip").count() == 2  # both futures are shown


def test_a_second_client_does_not_disturb_the_first(browser, address: str, visitor: Visitor) -> None:
    visitor.walk("ArrowLeft", 2)
    view, index = visitor.view(), visitor.index
    other = Visitor(browser, address)
    assert other.index < index
    other.walk("ArrowRight", 3)
    assert visitor.view() == view and visitor.index == index
    visitor.walk("ArrowLeft")
    other.close()


def test_a_lost_connection_recovers(browser, address: str) -> None:
    line = Line(address)
    visitor = Visitor(browser, line.url)
    visitor.walk("ArrowLeft", 3)
    visitor.page.click("#fork")
    visitor.page.wait_for_selector("#forks li")
    view, index = visitor.view(), visitor.index
    line.cut()
    visitor.wait("document.body.dataset.link === 'lost'")
    visitor.page.keyboard.press("ArrowUp")  # goes nowhere, and breaks nothing
    line.mend()
    visitor.wait("document.body.dataset.link === 'open'")
    visitor.wait(f"Number(document.body.dataset.index) >= {index}")
    visitor.page.keyboard.press("1")
    visitor.wait("document.body.dataset.branch === '1'")
    assert visitor.view() == view and visitor.index == index
    visitor.page.reload()  # a page opened anew in the same tab goes on as well
    visitor.wait("document.body.dataset.phase === 'dream' && document.body.dataset.index")
    assert visitor.view() == view and visitor.page.locator("#forks li").count() == 1
    visitor.close()
    line.close()


def test_a_click_on_the_map_sends_the_dreamer_off(visitor: Visitor) -> None:
    index = visitor.index
    box = visitor.page.locator("#map").bounding_box()
    walls = "document.querySelector('#map')"
    assert visitor.page.evaluate(f"{walls} !== null")
    for cell in range(1, 8):  # the middle of some free cell of the first corridor
        where = {"x": box["width"] * (cell + 0.5) / 9, "y": box["height"] * 1.5 / 9}
        visitor.page.locator("#map").click(position=where)
        visitor.page.wait_for_timeout(300)
        if visitor.page.is_visible("#journey"):
            break
    visitor.wait("document.querySelector('#journey span').textContent.includes('candidate futures')")
    visitor.wait(f"Number(document.body.dataset.index) > {index} && document.body.dataset.by === 'planner'")
    visitor.page.keyboard.press("Escape")
    visitor.wait("/Stopped|Arrived/.test(document.querySelector('#journey span').textContent)")


def test_a_phone_walks_by_touch_and_nothing_sticks_out(browser, address: str) -> None:
    visitor = Visitor(browser, address, viewport=PHONE, has_touch=True, is_mobile=True)
    before, index = visitor.view(), visitor.index
    button = visitor.page.locator('.pad [data-move="2"]')
    assert button.bounding_box()["y"] < PHONE["height"]  # view and pad fit one screen
    button.tap()
    visitor.wait(f"Number(document.body.dataset.index) > {index}")
    assert visitor.view() != before
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    visitor.close()
