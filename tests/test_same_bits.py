"""The same raws give the same bytes, however many workers there are, and however the store cuts its arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightisp import store
from tests.frames import SHIPPED, write_frames
from tests.terminal import Terminal


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_neither_workers_nor_chunks_change_a_bit(
    nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all four networks, in the precision that this processor takes by itself."""
    write_frames(tmp_path / "data", 4)
    found = []
    for number, (workers, chunk) in enumerate(((1, 1024), (4, 1024), (2, 16))):
        monkeypatch.setattr(store, "_CHUNK", chunk)
        where = ("--store", f"store{number}", "--output", f"out{number}", "--weights", SHIPPED)
        how = ("--workers", workers, "--set", "export.format=png", "--device", "cpu")
        nightisp("flow", "run", "--engine", "local", *where, *how)
        found.append(pictures(tmp_path / f"out{number}"))
    assert len(found[0]) == 4
    assert found[1] == found[0]
    assert found[2] == found[0]
    chunks = [len(list((tmp_path / f"store{n}").rglob("samples/c/*/*"))) for n in (0, 2)]
    assert chunks[0] < chunks[1]
