"""The commands of docs/howto/dvc.md, run in a clone: on tiny raws and without networks, for time's sake."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from nightisp.pipeline import NAMES
from tests.frames import CLASSICAL, write_frame

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COMMANDS = "\n".join(re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs/howto/dvc.md").read_text("utf-8"), re.DOTALL))
WHO = {"NAME": "a", "EMAIL": "a@example.org"}

pytestmark = [
    pytest.mark.skipif(not (BIN / "dvc").exists(), reason="dvc is not installed beside this Python"),
    pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="there is nothing to clone: no Git repository"),
    pytest.mark.skipif(shutil.which("git") is None, reason="there is no git"),
]


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
        ["bash", "-c", command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this checkout, changes that are not committed among them, with two tiny raws and no network."""
    root = tmp_path_factory.mktemp("clone") / "nightisp"
    call(REPOSITORY, f"git clone -q . {root}")
    call(
        REPOSITORY,
        f"git ls-files -z -m -o --exclude-standard | tar c --null --ignore-failed-read -T - | tar x -C {root}",
    )
    shutil.rmtree(root / "data")
    for seed in range(2):
        write_frame(root / "data" / f"frame{seed}.dng", seed, height=96, width=128)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    for stage, values in CLASSICAL.items():
        params[stage].update(values)
    yaml.dump(params, root / "params.yaml")
    call(root, "git add --all && git commit -qm 'Tiny raws, no networks'")
    return root


def artifacts(root: Path) -> dict[str, int]:
    return {name: len(list((root / "artifacts" / name).glob("*.zarr"))) for name in NAMES}


def test_every_command_does_what_it_is_there_for(clone: Path) -> None:
    said, before = {}, {}
    for line in COMMANDS.splitlines():
        if line.startswith("dvc exp run --run-all"):
            before = artifacts(clone)
        said[line] = call(clone, line)
        if line.startswith("dvc exp run --run-all"):
            grown = {name: count - before[name] for name, count in artifacts(clone).items()}
            assert said[line].count("computed: tone 4, refine 4, super_resolution 4, export 4;") == 4
            downstream = NAMES[NAMES.index("tone") :]
            assert grown == {name: 16 if name in downstream else 0 for name in NAMES}  # 4 nights, 4 gammas
            assert call(clone, "git status --porcelain params.yaml") == ""
        if line.startswith("dvc plots show"):
            page = (clone / "dvc_plots" / "index.html").read_text()
            assert "super_resolution" in page
            assert "light in stops" in page
        if line.startswith("dvc plots diff"):
            page = (clone / "dvc_plots" / "index.html").read_text()
            assert all(f'"tone_gamma": "{gamma}"' in page for gamma in ("2.4", "2.8", "3.2", "3.6", "4.0"))
    assert re.search(r"tone\.gamma\s+3\.2\s+2\.8", said["dvc params diff"])
    assert "seconds.total" in said["dvc metrics show measured/metrics.json"]
    (table,) = (text for line, text in said.items() if line.startswith("dvc exp show --drop"))
    assert all(gamma in table for gamma in ("2.4", "2.8", "3.2", "3.6"))
    rows = list(csv.DictReader((clone / "experiments.csv").read_text().splitlines()))
    assert {row["tone.gamma"] for row in rows} == {"2.4", "2.8", "3.2", "3.6", "4.0"}
    assert YAML(typ="safe").load(clone / "params.yaml")["tone"]["gamma"] == 3.6
