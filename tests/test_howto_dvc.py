"""The commands of docs/howto/dvc.md, run in a clone: on tiny raws and without networks, for time's sake."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from nightisp.pipeline import NAMES
from tests.clone import BIN, NEEDS_GIT, call, clone, commands

COMMANDS = "\n".join(commands("docs/howto/dvc.md"))

pytestmark = [
    pytest.mark.skipif(not (BIN / "dvc").exists(), reason="dvc is not installed beside this Python"),
    *NEEDS_GIT,
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone") / "nightisp", ["frame0", "frame1"])


def artifacts(root: Path) -> dict[str, int]:
    return {name: len(list((root / "artifacts" / name).glob("*.zarr"))) for name in NAMES}


def test_every_command_does_what_it_is_there_for(project: Path) -> None:
    said, before = {}, {}
    for line in COMMANDS.splitlines():
        if " --temp " in line:
            before = artifacts(project)
        said[line] = call(project, line)
        if " --temp " in line:
            grown = {name: count - before[name] for name, count in artifacts(project).items()}
            assert said[line].count("computed: tone 4, refine 4, super_resolution 4, export 4;") == 4
            downstream = NAMES[NAMES.index("tone") :]
            assert grown == {name: 16 if name in downstream else 0 for name in NAMES}  # 4 nights, 4 gammas
            assert call(project, "git status --porcelain params.yaml") == ""
        if line.startswith("dvc plots show"):
            page = (project / "dvc_plots" / "index.html").read_text()
            assert "super_resolution" in page
            assert "light in stops" in page
        if line.startswith("dvc plots diff"):
            page = (project / "dvc_plots" / "index.html").read_text()
            assert all(f'"tone_gamma": "{gamma}"' in page for gamma in ("2.4", "2.8", "3.2", "3.6", "4.0"))
    assert re.search(r"tone\.gamma\s+3\.2\s+2\.8", said["dvc params diff"])
    assert "seconds.total" in said["dvc metrics show measured/metrics.json"]
    (table,) = (text for line, text in said.items() if line.startswith("dvc exp show --drop"))
    assert all(gamma in table for gamma in ("2.4", "2.8", "3.2", "3.6"))
    rows = list(csv.DictReader((project / "experiments.csv").read_text().splitlines()))
    assert {row["tone.gamma"] for row in rows} == {"2.4", "2.8", "3.2", "3.6", "4.0"}
    assert YAML(typ="safe").load(project / "params.yaml")["tone"]["gamma"] == 3.6
