"""Pages in a browser, from disk: they work by keyboard and mouse, fit a phone, and neither complain nor call anyone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, find
from tests.frames import write_frame
from tests.test_report import HOSTILE, Project

SEAM = "parseFloat(getComputedStyle(document.querySelector('[data-seam]')).left)"
CLIP = "getComputedStyle(document.querySelector('.before')).clipPath"
FOCUS = "document.activeElement.type"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("no browser: apt-get install chromium, or name one by NIGHTISP_BROWSER")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two frames: one with a name that would like to be markup, one upright."""
    from nightisp.report.report import as_page

    project = Project(tmp_path_factory.mktemp("report"))
    project.render(write_frame(project.folder / "two.dng", 2, height=600, width=400))
    project.render(write_frame(project.folder / "one.dng", 1, height=480, width=720), name=HOSTILE)
    path = project.folder / "report.html"
    path.write_bytes(as_page(project.look()))
    return path


@pytest.fixture(autouse=True)
def silence(browser: Browser) -> Iterator[None]:
    """No error on the console, and nothing asked for but the page itself."""
    browser.complaints.clear()
    browser.requests.clear()
    yield
    assert browser.complaints == []
    assert {url for url in browser.requests if not url.startswith(("file:", "data:"))} == set()
    assert len({url for url in browser.requests if url.startswith("file:")}) == 1


def test_every_picture_is_shown_and_the_policy_held(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert browser.run("getComputedStyle(document.body).maxWidth") != "none"  # the style sheet was let in
    assert browser.run("document.documentElement.classList.contains('scripted')")
    assert browser.run("document.querySelector('h2').textContent") == HOSTILE
    assert browser.run("document.scripts.length") == 1


def test_the_policy_stops_what_is_not_the_pages_own(browser: Browser, report: Path) -> None:
    """Should anything ever slip through, it does not run."""
    browser.open(report)
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,x\" onerror=\"window.ran = 1\">')")
    browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run("window.ran === undefined")
    assert len([text for text in browser.complaints if "Content Security Policy" in text]) == 2
    browser.complaints.clear()


def test_arrow_keys_move_the_split(browser: Browser, report: Path) -> None:
    browser.open(report)
    start, clipped = browser.run(SEAM), browser.run(CLIP)
    for _ in range(20):
        browser.press("Tab")
        if browser.run(FOCUS) == "range":
            break
    assert browser.run(FOCUS) == "range"
    assert browser.run("getComputedStyle(document.querySelector('[data-knob]')).outlineStyle") == "solid"
    browser.press("ArrowRight", 10)
    width = browser.run("document.querySelector('[data-view]').clientWidth")
    assert browser.run(SEAM) == pytest.approx(start + width / 10, abs=1)
    assert browser.run(CLIP) != clipped
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == "60 % before, 40 % after"
    browser.press("Home")
    assert browser.run(SEAM) == 0
    browser.press("End")
    assert browser.run(SEAM) == width


def test_the_mouse_moves_the_split_on_the_picture(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.run("document.querySelector('[data-box]').scrollIntoView({block: 'center', behavior: 'instant'})")
    left, top, width = browser.run(
        "(({left, top, width}) => [left, top, width])(document.querySelector('[data-view]').getBoundingClientRect())"
    )
    browser.drag((left + width / 2, top + 40), (left + width / 4, top + 40))
    assert browser.run(SEAM) == pytest.approx(width / 4, abs=width / 100)
    assert browser.run("document.querySelector('input[type=range]').value") == "25"


def test_at_100_percent_a_pixel_is_a_pixel_and_the_seam_stays_in_sight(browser: Browser, report: Path) -> None:
    browser.open(report, width=360, height=740)
    browser.run("document.querySelector('[data-zoom]').click()")
    shown, natural, seen = browser.run(
        "((image, view) => [image.getBoundingClientRect().width, image.naturalWidth, view.clientWidth])"
        "(document.querySelector('.after'), document.querySelector('[data-view]'))"
    )
    assert shown == natural > seen
    scrolled = browser.run("document.querySelector('[data-view]').scrollLeft")
    assert scrolled == pytest.approx((natural - seen) / 2, abs=1)
    assert browser.run(SEAM) == pytest.approx(seen / 2, abs=1)
    clip = float(browser.run(CLIP).split("- ")[1].split("px")[0])
    assert clip == pytest.approx(scrolled + seen / 2, abs=1)
    browser.run("document.querySelector('[data-zoom]').click()")
    assert browser.run("document.querySelector('.after').getBoundingClientRect().width") <= seen


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window_in_both_schemes(
    browser: Browser, report: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.open(report, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('details').forEach((details) => details.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(LEAST_CONTRAST) >= 4.5
    shots = Path(os.environ.get("NIGHTISP_SCREENSHOTS", tmp_path))  # to look at
    browser.picture(shots / f"report_{width}_{'dark' if dark else 'light'}.png", whole=True)


LEAST_CONTRAST = """
(() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")].filter(
    (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.checkVisibility() &&
      !e.closest(".box, script, .skip"),
  );
  return Math.min(...texts.map((e) => {
    const style = getComputedStyle(e);
    const text = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parse(text).slice(0, 3)), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
})()
"""
"""The least contrast of any text with the ground that it stands on, by WCAG 2."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two by two variants."""
    from nightisp.report.page import page
    from tests.test_compare import compared as compare

    folder = tmp_path_factory.mktemp("compared")
    write_frame(folder / "in" / "one.dng", 1, height=480, width=720)
    path = folder / "compare.html"
    path.write_bytes(page("compare.html.j2", compared=compare(folder, "tone.gamma=2.2,3.2", "tone.exposure_ev=0,1")))
    return path


PLACES = "[...document.querySelectorAll('[data-view]')].map((view) => [view.scrollLeft, view.scrollTop])"


def test_variants_are_zoomed_and_moved_together(browser: Browser, compared: Path) -> None:
    browser.open(compared)
    assert browser.run(PLACES) == [[0, 0]] * 4
    browser.run("document.querySelector('input[type=range]').focus()")
    browser.press("ArrowRight", 20)  # to 300 %
    places = browser.run(PLACES)
    assert len({tuple(place) for place in places}) == 1
    assert min(places[0]) > 50  # the middle stays in the middle
    left, top = browser.run(
        "(({left, top}) => [left, top])(document.querySelector('[data-view]').getBoundingClientRect())"
    )
    browser.drag((left + 100, top + 100), (left + 60, top + 80))
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    moved = browser.run(PLACES)
    assert moved[0] == [places[0][0] + 40, places[0][1] + 20]
    assert max(abs(a - b) for place in moved for a, b in zip(place, moved[0], strict=True)) <= 1
    browser.run("document.querySelectorAll('[data-view]')[2].focus()")
    browser.press("ArrowLeft", 2)
    browser.run("new Promise((done) => setTimeout(done, 400))")
    again = browser.run(PLACES)
    assert again[0][0] < moved[0][0]
    assert max(abs(a - b) for place in again for a, b in zip(place, again[0], strict=True)) <= 1


@pytest.mark.parametrize("width", [360, 1280])
def test_a_comparison_fits_the_window(browser: Browser, compared: Path, width: int) -> None:
    browser.open(compared, width=width, dark=True)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(LEAST_CONTRAST) >= 4.5
    assert browser.run("[...document.images].every((image) => image.naturalWidth > 0)")
