"""The flow on workers: a Dask cluster of processes over TCP, Ray, an S3 server that fails; same bits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from flows import runners
from nightisp.errors import RunnerError
from tests.cluster import REPOSITORY, Cluster, cluster
from tests.frames import CLASSICAL, write_frame, write_frames
from tests.s3 import Server, bucket, put_frames, serving
from tests.terminal import PROGRAM, Terminal, render

PLAIN = tuple(
    word
    for stage, values in CLASSICAL.items()
    for name, value in values.items()
    for word in ("--set", f"{stage}.{name}={value}")
)
PNG = ("--set", "export.format=png")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers with a GPU, so they say, and two without."""
    offered = {"gpu0": "GPU=1", "gpu1": "GPU=1", "cpu0": "CPU=1", "cpu1": "CPU=1"}
    with cluster(tmp_path_factory.mktemp("cluster"), offered) as running:
        yield running


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def did(report: dict[str, Any]) -> set[str]:
    return {what for frame in report["frames"] for what in frame["stages"].values()}


def task_runs(workers: Cluster) -> list[str]:
    """Return the names of the task runs that workers said they did."""
    return [name for worker in workers.workers for name in re.findall(r"Task run '(.+?)' - ", workers.log(worker))]


def on_dask(nightisp: Terminal, address: str, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = nightisp("flow", "run", "--json", "--runner", "dask", "--address", address, *arguments, status=status)
    report: dict[str, Any] = json.loads(done.out)
    return report


def test_stages_go_to_workers_that_have_what_they_need(workers: Cluster, nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 3)
    here = render(nightisp, *PNG, "--store", "here", "--output", "of-here")
    there = on_dask(nightisp, workers.address, *PNG, "--store", "there", "--output", "of-there")
    assert [f["outcome"] for f in there["frames"]] == ["rendered"] * 3
    assert [f["stages"] for f in there["frames"]] == [f["stages"] for f in here["frames"]]
    assert pictures(tmp_path / "of-here") == pictures(tmp_path / "of-there")
    assert len(pictures(tmp_path / "of-there")) == 3
    stages = {name: set(re.findall(r"Task run '(\w+) · frame", workers.log(name))) for name in workers.workers}
    on_gpu, on_cpu = stages["gpu0"] | stages["gpu1"], stages["cpu0"] | stages["cpu1"]
    assert {"denoise", "white_balance", "tone", "refine", "super_resolution"} <= on_gpu
    assert {"ingest", "export"} == on_cpu
    assert not on_gpu & on_cpu
    assert not any("temporary server" in workers.log(name) for name in workers.workers)


def test_a_group_is_one_task_run_and_faults_stay_with_frames(
    workers: Cluster, nightisp: Terminal, tmp_path: Path
) -> None:
    write_frames(tmp_path / "data", 6)
    how = (*PNG, *PLAIN, "--batch", "3", "--store", "store")
    report = on_dask(nightisp, workers.address, *how)
    assert [f["outcome"] for f in report["frames"]] == ["rendered"] * 6
    said = task_runs(workers)
    assert {"ingest to export · 3 pictures from frame0", "ingest to export · 3 pictures from frame3"} <= set(said)
    again = on_dask(nightisp, workers.address, *how)
    assert did(again) == {"cached"}
    assert task_runs(workers) == said, "nothing was sent"
    (tmp_path / "data" / "frame1.dng").write_bytes(b"not a raw")
    write_frame(tmp_path / "data" / "frame9.dng", 9)
    mixed = on_dask(nightisp, workers.address, *how, status=3)
    outcomes = {f["frame"]: f["outcome"] for f in mixed["frames"]}
    assert outcomes == {**{f"frame{n}": "rendered" for n in (0, 2, 3, 4, 5, 9)}, "frame1": "failed"}


def test_who_cannot_be_reached_is_named(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 1)
    how = ("flow", "run", "--runner", "dask", "--store", "store")
    assert "no Dask scheduler answers" in nightisp(*how, "--address", "tcp://127.0.0.1:9", status=2).err
    assert "cannot reach the embedded Prefect" in nightisp(*how, "--address", "tcp://192.0.2.1:8786", status=2).err
    assert "expected for example tcp://" in nightisp(*how, "--address", "scheduler", status=2).err
    assert "nobody is there to address" in nightisp("flow", "run", "--address", "tcp://127.0.0.1:9", status=2).err
    assert "leave out --engine local" in nightisp(*how, "--engine", "local", status=2).err


def test_a_resource_that_nobody_offers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "_PATIENCE_S", 0.1)
    offered: set[str] = set()
    offers = runners._Offers(lambda: offered)
    assert offers.wanted("CPU") == {}, "any worker decodes"
    with pytest.raises(RunnerError, match="no worker offers GPU"):
        offers.wanted("GPU")
    offered |= {"GPU", "CPU"}
    assert (offers.wanted("CPU"), offers.wanted("GPU")) == ({"CPU": 1}, {"GPU": 1})


def test_without_an_address_workers_are_started_here(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 2)
    render(nightisp, *PNG, *PLAIN, "--store", "here", "--output", "of-here")
    done = nightisp(
        "flow", "run", "--json", "--runner", "dask", *PNG, *PLAIN, "--store", "there", "--output", "of-there"
    )
    assert [f["outcome"] for f in json.loads(done.out)["frames"]] == ["rendered"] * 2
    assert pictures(tmp_path / "of-here") == pictures(tmp_path / "of-there")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Server]]:
    with serving() as server, bucket(server.settings, __name__, monkeypatch) as url:
        yield url, server


def test_a_worker_is_killed_and_the_object_store_fails(
    s3: tuple[str, Server], nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers see nothing but a bucket; one is killed as it computes, each ninth request fails, all are slow."""
    url, server = s3
    monkeypatch.setenv("NIGHTISP_LEASE", "4")
    for number in range(4):
        write_frame(tmp_path / "data" / f"frame{number}.dng", number, height=160, width=240)
    render(nightisp, *PNG, "--store", "here", "--output", "of-here")
    put_frames(tmp_path / "data", f"{url}/raws")
    server.every, server.slow = 9, 0.005
    offered = {f"gpu{n}": "GPU=1" for n in range(4)}
    with cluster(tmp_path / "cluster", offered, NIGHTISP_CACHE=str(tmp_path / "elsewhere")) as workers:
        command = [*PROGRAM, "flow", "run", "--json", *PNG]
        where = ["--input", f"{url}/raws", "--store", f"{url}/store", "--output", "of-there"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NIGHTISP_CACHE": str(tmp_path / "cache")}
        full = [*command, *where, "--runner", "dask", "--address", workers.address]
        with subprocess.Popen(full, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as run:
            try:
                killed = _kill_one_at_work(workers)
                report = json.loads(run.communicate(timeout=300)[0])
            finally:
                run.kill()
    assert run.returncode == 0
    assert [f["outcome"] for f in report["frames"]] == ["rendered"] * 4
    assert pictures(tmp_path / "of-here") == pictures(tmp_path / "of-there")
    assert len(pictures(tmp_path / "of-there")) == 4
    assert workers.workers[killed].returncode == -signal.SIGKILL
    assert server.failed > 5


def _kill_one_at_work(workers: Cluster) -> str:
    """Kill a worker that has begun with the networks, and give its name."""
    until = time.monotonic() + 120
    with Client(workers.address, set_as_default=False) as client:
        while time.monotonic() < until:
            named = {address: str(w["name"]) for address, w in client.scheduler_info(n_workers=-1)["workers"].items()}
            for address, name in named.items():
                log = workers.log(name)
                if client.processing().get(address) and re.search(r"'denoise · \w+' - Finished", log):
                    workers.workers[name].kill()
                    return name
            time.sleep(0.05)
    raise AssertionError("no worker came to the networks")


def test_ray_gives_the_same_bits(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 2)
    render(nightisp, *PNG, *PLAIN, "--store", "here", "--output", "of-here")
    done = nightisp(
        "flow", "run", "--json", "--runner", "ray", *PNG, *PLAIN, "--store", "there", "--output", "of-there"
    )
    report = json.loads(done.out)
    assert [f["outcome"] for f in report["frames"]] == ["rendered"] * 2
    assert pictures(tmp_path / "of-here") == pictures(tmp_path / "of-there")
    assert len(pictures(tmp_path / "of-there")) == 2
