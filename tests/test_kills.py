"""The short form of `python -m tests.torture.kills`: SIGKILL, SIGTERM and SIGINT, wherever they come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
def test_whatever_kills_a_run_nothing_is_lost() -> None:
    """In a process of its own: it forks, which threads of other tests would not outlive."""
    command = [sys.executable, "-m", "tests.torture.kills", "--kills", "10", "--seed", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing wrong" in done.stdout
    assert "10 killed" in done.stdout
