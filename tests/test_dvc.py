"""`dvc repro` and `flow run` in a project of their own: the same store, and nothing computed twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nightisp.pipeline import NAMES
from tests.frames import write_frames

REPOSITORY = Path(__file__).parents[1]
STAGES = [*NAMES, "measure"]
"""Of dvc.yaml: the pipeline's, and the one that writes down what it took."""
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(not (BIN / "dvc").exists(), reason="dvc is not installed beside this Python")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as a user has it, with two tiny raws in place of those in data/."""
    root = tmp_path_factory.mktemp("project")
    for name in ("nightisp", "tasks", "flows", "weights"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root / name)
    write_frames(root / "data", 2)
    call(root, "git", "init", "-q", "-b", "main")
    call(root, "dvc", "init", "-q")
    call(root, "dvc", "config", "core.analytics", "false")
    call(root, "git", "add", "-A")
    call(root, "git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "start")
    return root


def call(root: Path, *command: str) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"}
    environment.pop("NIGHTISP_STORE", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def repro(root: Path) -> list[str]:
    """Run `dvc repro` and return the stages that it started."""
    return [line.split("'")[1] for line in call(root, "dvc", "repro").splitlines() if line.startswith("Running stage")]


def artifacts(root: Path) -> dict[str, int]:
    """Count the artifacts of each stage: everything that was ever computed."""
    return {name: len(list((root / "artifacts" / name).glob("*.zarr"))) for name in NAMES}


def flow(root: Path) -> dict[str, dict[str, str]]:
    report = json.loads(call(root, "nightisp", "flow", "run", "--engine", "local", "--json"))
    return {frame["frame"]: frame["stages"] for frame in report["frames"]}


def set_gamma(root: Path, old: str, new: str) -> None:
    params = root / "params.yaml"
    text = params.read_text()
    assert f"gamma: {old}" in text
    params.write_text(text.replace(f"gamma: {old}", f"gamma: {new}"))


def test_dvc_and_the_flow_share_one_store(project: Path) -> None:
    """One story in order, since each step builds on what the one before left in the store."""
    assert repro(project) == STAGES
    assert artifacts(project) == dict.fromkeys(NAMES, 2)
    assert sorted(p.name for p in (project / "output").glob("*.*")) == [".nightisp", "frame0.jpg", "frame1.jpg"]

    # what it took is there for `dvc metrics show`
    (told,) = json.loads(call(project, "dvc", "metrics", "show", "--json", "measured/metrics.json")).values()
    metrics = told["data"]["measured/metrics.json"]["data"]
    assert (metrics["frames"], metrics["failed"]) == (2, 0)
    assert set(metrics["seconds"]) == {*NAMES, "total"}

    # after dvc repro, the flow computes nothing
    assert {did for stages in flow(project).values() for did in stages.values()} == {"cached"}
    assert repro(project) == []

    # a change of gamma reruns tone and what follows, in both
    set_gamma(project, "3.2", "2.8")
    after = {frame: [s for s, did in stages.items() if did == "computed"] for frame, stages in flow(project).items()}
    downstream = list(NAMES[NAMES.index("tone") :])
    assert list(after.values()) == [downstream, downstream]
    before = artifacts(project)
    assert repro(project) == [*downstream, "measure"]  # DVC starts them, but
    assert artifacts(project) == before  # they find their keys and compute nothing

    # putting gamma back computes nothing
    set_gamma(project, "2.8", "3.2")
    assert set(repro(project)) <= {"export"}  # whose output persists, so that DVC runs it to check
    assert artifacts(project) == before

    # a sidecar beside a raw reruns what it names, of that raw alone
    sidecar = project / "data" / "frame0.nightisp.yaml"
    sidecar.write_text("super_resolution: {method: lanczos}\n")
    assert repro(project) == STAGES  # which frames there are, and their sidecars, stand in the first manifest
    last = NAMES[-2:]
    assert artifacts(project) == {name: count + (name in last) for name, count in before.items()}
    before = artifacts(project)
    assert {did for stages in flow(project).values() for did in stages.values()} == {"cached"}
    sidecar.unlink()
    repro(project)
    assert artifacts(project) == before

    # one more raw: that raw alone
    write_frames(project / "data", 1, first=2)
    repro(project)
    assert artifacts(project) == {name: count + 1 for name, count in before.items()}

    # a frame that fails is an entry of the manifest that later stages pass on; dvc repro goes on
    (project / "data" / "broken.dng").write_bytes(b"no raw")
    repro(project)
    lines = [json.loads(line) for line in (project / "manifests" / "export.jsonl").read_text().splitlines()]
    (failed,) = [line for line in lines if "error" in line]
    assert failed["frame"] == "broken"
    assert failed["stage"] == "ingest"
    assert len([line for line in lines if "key" in line]) == 3
    (project / "data" / "broken.dng").unlink()


def test_an_experiment_in_a_temporary_copy_uses_the_store_of_the_project(project: Path) -> None:
    repro(project)
    call(project, "git", "add", "-A")
    call(project, "git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "lock")
    before = artifacts(project)
    call(project, "dvc", "exp", "run", "--temp", "-S", "tone.gamma=2.5")
    after = artifacts(project)
    changed = {name for name in NAMES if after[name] != before[name]}
    assert changed == set(NAMES[NAMES.index("tone") :])


def test_dvc_runs_without_git(project: Path, tmp_path: Path) -> None:
    """As in a container: `core.no_scm`."""
    root = tmp_path / "copy"
    shutil.copytree(
        project, root, ignore=shutil.ignore_patterns(".git", ".dvc", "artifacts", "manifests", "output", "dvc.lock")
    )
    call(root, "dvc", "init", "--no-scm", "-q")
    assert repro(root) == STAGES
    assert artifacts(root)["export"] == len(list((root / "data").glob("*.dng")))
