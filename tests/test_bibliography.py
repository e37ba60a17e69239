"""Every source that is cited is in the bibliography, once, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nightisp.pipeline import PIPELINE

REPOSITORY = Path(__file__).parents[1]
ENTRIES = re.split(r"^@", (REPOSITORY / "BIBLIOGRAPHY.bib").read_text("utf-8"), flags=re.MULTILINE)[1:]
KEYS = [match[1] for entry in ENTRIES if (match := re.match(r"\w+\{([^,\s]+),", entry))]


def cited() -> dict[str, set[str]]:
    """Return for each key the modules whose text cites it."""
    found: dict[str, set[str]] = {}
    for folder in ("nightisp", "flows", "tasks", "scripts", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for keys in re.findall(r":cite:`([^`]+)`", path.read_text("utf-8")):
                for key in keys.split(","):
                    found.setdefault(key.strip(), set()).add(path.relative_to(REPOSITORY).as_posix())
    return found


def test_every_entry_has_a_key_of_its_own() -> None:
    assert len(KEYS) == len(ENTRIES) > 10
    assert len(set(KEYS)) == len(KEYS)


def test_cited_is_listed_and_listed_is_cited() -> None:
    by_stages = {key for stage in PIPELINE for key in stage.cite}
    assert set(cited()) | by_stages == set(KEYS)


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_a_stage_cites_what_its_docstrings_do(stage) -> None:  # type: ignore[no-untyped-def]
    module = f"{stage.module.replace('.', '/')}.py"
    written = {key for key, modules in cited().items() if module in modules}
    if "/stages/" in module:
        assert set(stage.cite) == written
    assert len(set(stage.cite)) == len(stage.cite)


@pytest.mark.parametrize("entry", ENTRIES, ids=KEYS)
def test_entries_are_whole(entry: str) -> None:
    assert re.search(r"^  title\s+= \{.+\},$", entry, re.MULTILINE)
    assert re.search(r"^  year\s+= \{\d{4}\},$", entry, re.MULTILINE)
    assert re.search(r"^  (author|institution)\s+= \{.+\},$", entry, re.MULTILINE)
    assert entry.count("{") == entry.count("}")
