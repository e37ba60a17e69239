"""The documents: links lead somewhere, every page is in the site, and the commands do what they are there for."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.clone import NEEDS_GIT, REPOSITORY, call, clone, commands

DOCS = REPOSITORY / "docs"
PAGES = sorted(
    path
    for path in [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *REPOSITORY.glob("*/README.md")]
    if not {"_build", "_generated"} & set(path.parts)
)
GUIDES = {
    "docs/tutorial.md": ["compare.html", "report.html", "summit_iso800-stages/06_refine.png"],
    "docs/howto/looks.md": [
        *("output/bridge_iso1600_street.jpg", "output/bridge_iso1600_neon.jpg", "output/summit_iso800_web.jpg"),
        "output/summit_iso800.tif",
    ],
    "docs/howto/compare.md": ["compare.html", "grid.html", "diff.png"],
    "docs/howto/cache.md": ["summit_iso800-stages/00_ingest.png", "mosaic.npy", "linear.tif"],
    "docs/howto/converters.md": ["clean.dng"],
}
"""What stands there after the commands of each."""
PLATFORM = re.compile(r"[a-z]+:")  # http:, https:, mailto:


def tokens(page: Path) -> list[Token]:
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text("utf-8"), flags=re.DOTALL)
    flat = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        flat += [token, *(token.children or [])]
    return flat


def anchors(page: Path) -> set[str]:
    """Return what a heading of a page is linked by."""
    found, heading = set(), False
    for token in tokens(page):
        if token.type == "inline" and heading:
            words = re.sub(r"[^\w\- ]", "", token.content.lower())
            found.add(words.replace(" ", "-"))
        heading = token.type == "heading_open"
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for token in tokens(page):
        target = unquote(str(token.attrGet("href") or token.attrGet("src") or ""))
        if not target or PLATFORM.match(target) or "_generated/" in target:  # the site's build checks the last
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n\n[gone](gone.md) [there](#one-heading)\n")
    assert anchors(page) == {"one-heading"}
    with pytest.raises(AssertionError, match=r"gone\.md"):
        test_every_link_leads_somewhere(page)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone") / "nightisp", ["bridge_iso1600", "summit_iso800"])


@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_do_what_they_are_there_for(guide: str, project: Path) -> None:
    for made in GUIDES[guide]:
        (project / made).unlink(missing_ok=True)
    for block in commands(guide):
        # Without Prefect, whose start would be most of the time.
        call(project, block.replace("nightisp flow run", "nightisp flow run --engine local"))
    assert [made for made in GUIDES[guide] if not (project / made).is_file()] == []


test_the_commands_of_a_guide_do_what_they_are_there_for.pytestmark += NEEDS_GIT  # type: ignore[attr-defined]
