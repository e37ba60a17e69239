"""The same raws give the same bytes, however many workers and threads there are, and however the store cuts arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nightisp import store
from tests.frames import SHIPPED, write_frame
from tests.terminal import Terminal


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture
def threads() -> Iterator[None]:
    """Put back how many threads PyTorch takes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_neither_workers_nor_threads_nor_chunks_change_a_bit(
    nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    """With all four networks, in the precision that this processor takes by itself."""
    for number in range(4):
        write_frame(tmp_path / "data" / f"frame{number}.dng", number, height=160, width=240)
    found = []
    for number, (workers, count, chunk) in enumerate(((1, 1, 1024), (4, 2, 1024), (2, 3, 16))):
        torch.set_num_threads(count)
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
