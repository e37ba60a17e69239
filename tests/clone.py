"""A clone of this checkout with tiny raws and without networks, for commands that documents promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.frames import CLASSICAL, write_frame

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
WHO = {"NAME": "a", "EMAIL": "a@example.org"}

NEEDS_GIT = [
    pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="there is nothing to clone: no Git repository"),
    pytest.mark.skipif(shutil.which("git") is None, reason="there is no git"),
]


def commands(document: str) -> list[str]:
    """Return the blocks of commands that a document promises: those marked `sh`."""
    return re.findall(r"```sh\n(.*?)```", (REPOSITORY / document).read_text("utf-8"), re.DOTALL)


def call(root: Path, command: str) -> str:
    """Run a line in the clone, with its own code."""
    environment = {
        **os.environ,
        **{f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in WHO.items()},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "DVC_NO_ANALYTICS": "1",
        "COLUMNS": "200",
    }
    environment.pop("NIGHTISP_STORE", None)
    done = subprocess.run(
        ["bash", "-ec", command], cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clone(root: Path, frames: Iterable[str]) -> Path:
    """Clone this checkout, changes that are not committed among them, with tiny raws of these names and no network."""
    call(REPOSITORY, f"git clone -q . {root}")
    call(
        REPOSITORY,
        f"git ls-files -z -m -o --exclude-standard | tar c --null --ignore-failed-read -T - | tar x -C {root}",
    )
    shutil.rmtree(root / "data")
    for seed, name in enumerate(frames):
        write_frame(root / "data" / f"{name}.dng", seed, height=96, width=128)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    for stage, values in CLASSICAL.items():
        params[stage].update(values)
    yaml.dump(params, root / "params.yaml")
    call(root, "git add --all && git commit -qm 'Tiny raws, no networks'")
    return root
