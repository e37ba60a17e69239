"""Fixtures that more than one file uses."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.terminal import Terminal

# A shell that starts us in the background has us ignore Ctrl-C, and with us whatever a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))


@pytest.fixture(scope="session")
def classical() -> Mapping[str, NDArray[np.float64]]:
    """The published system's values for the stages without a network."""
    path = SHARED / "reference" / "golden" / "classical.npz"
    if not path.is_file():
        pytest.skip(f"no golden values: {path} is not there")
    with np.load(path) as golden:
        return dict(golden)


@pytest.fixture
def nightisp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.chdir(tmp_path)
    for name in ("NIGHTISP_STORE", "NIGHTISP_WEIGHTS", "NIGHTISP_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return Terminal(monkeypatch, capsys)
