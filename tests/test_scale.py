"""A lab: Prefect on PostgreSQL, a worker of a work pool, workers of Dask, a bucket for raws and artifacts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import REPOSITORY, cluster
from tests.frames import CLASSICAL, write_frames
from tests.postgres import postgres, programs
from tests.prefect_server import standing
from tests.s3 import bucket, put_frames, serving

PLAIN = [f"{stage}.{name}={value}" for stage, values in CLASSICAL.items() for name, value in values.items()]

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (apt-get install postgresql)"),
]


def test_a_lab_renders_what_one_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "here", 5)
    settings = [*PLAIN, "export.format=png"]
    with postgres() as database, serving() as objects, bucket(objects.settings, __name__, monkeypatch) as url:
        put_frames(tmp_path / "here", f"{url}/raws")
        (tmp_path / "prefect").mkdir()
        variables = {**objects.settings, "NIGHTISP_CACHE": str(tmp_path / "cache")}
        connection = {"PREFECT_API_DATABASE_CONNECTION_URL": database.url}
        offered = {"gpu0": "GPU=1", "cpu0": "CPU=1"}
        with (
            standing(tmp_path / "prefect", **variables, **connection) as server,
            cluster(tmp_path / "cluster", offered) as workers,
        ):
            where = ["--input", f"{url}/raws", "--store", f"{url}/store", "--output", "there"]
            how = ["--runner", "dask", "--address", workers.address, "--batch", "2", "--pool", "lab"]
            words = [word for setting in settings for word in ("--set", setting)]
            deployed = server.command(tmp_path, "flow", "deploy", "--deployment", "lab", *where, *how, *words)
            assert deployed.returncode == 0, deployed.stderr
            deployment = server.ask("deployments/name/nightisp-develop/lab")
            run = server.ask(f"deployments/{deployment['id']}/create_flow_run", {})
            begun = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", "lab"]
            worker = subprocess.run(
                [*begun, "--run-once"],
                env=server.environment | {"PREFECT_API_URL": server.api},
                cwd=REPOSITORY.parent,
                capture_output=True,
                text=True,
                check=False,
                timeout=180,
            )
            ended = server.finished(run["id"])
            assert ended["state_type"] == "COMPLETED", f"{ended['state']}\n{worker.stderr}"
            assert ended["state"]["message"] == "5 of 5 pictures rendered"
            tasks = server.finished_tasks(run["id"], 3)
            assert tasks == [
                "ingest to export · 2 pictures from frame0",
                "ingest to export · 2 pictures from frame2",
                "ingest to export · frame4",
            ]
            assert int(database.ask("SELECT count(*) FROM task_run")) == 3
            local = server.command(
                tmp_path,
                "flow",
                "run",
                "--engine",
                "local",
                "--input",
                "here",
                "--store",
                "own",
                "--output",
                "one",
                *words,
            )
            assert local.returncode == 0, local.stderr
    pictures = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("there", "one")]
    assert len(pictures[0]) == 5
    assert pictures[0] == pictures[1]
