"""The Prefect flow: what its UI shows, what it computes, and that it is quiet."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nightisp.pipeline import NAMES
from tests.cluster import cluster
from tests.frames import write_frames

REPOSITORY = Path(__file__).parents[1]
MAIN = "from nightisp.__main__ import program; program()"
DOWNSTREAM = list(NAMES[NAMES.index("tone") :])

pytestmark = pytest.mark.server


def run(
    home: Path, *arguments: str, server: str | None = None, code: str = MAIN, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **settings}
    if server:
        environment["PREFECT_API_URL"] = server
    command = [sys.executable, "-c", code, "flow", "run", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """A standing Prefect server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/health", process)
            yield f"http://127.0.0.1:{port}/api"
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the Prefect server ended by itself"
        try:
            urllib.request.urlopen(address, timeout=2).read()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the Prefect server does not answer")


def ask(server: str, what: str, **filters: Any) -> list[dict[str, Any]]:
    """Ask Prefect's API, in pages of its own limit."""
    request = urllib.request.Request(
        f"{server}/{what}/filter", json.dumps({"limit": 200, **filters}).encode(), {"Content-Type": "application/json"}
    )
    answer: list[dict[str, Any]] = json.loads(urllib.request.urlopen(request, timeout=20).read())
    return answer


def task_runs(server: str, flow_run: str) -> dict[str, str]:
    """Return name -> state of the task runs of a flow run; they arrive as events, so wait until they are final."""
    for _ in range(100):
        runs = ask(server, "task_runs", flow_runs={"id": {"any_": [flow_run]}})
        if runs and all(r["state_type"] in ("COMPLETED", "FAILED") for r in runs):
            return {r["name"]: r["state_name"] for r in runs}
        time.sleep(0.2)
    pytest.fail("the task runs do not come to an end")


def newest(server: str) -> dict[str, Any]:
    return ask(server, "flow_runs", sort="START_TIME_DESC", limit=1)[0]


def test_a_run_on_a_server_reads_well_there(server: str, home: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 2)
    (tmp_path / "in" / "broken.dng").write_bytes(b"no raw")
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]

    first = run(home, *options, "--json", server=server)
    assert first.returncode == 3, first.stderr  # one frame is broken, the rest goes on
    report = json.loads(first.stdout)
    frames = [f["frame"] for f in report["frames"] if f["outcome"] == "rendered"]
    assert len(frames) == 2
    assert [f["frame"] for f in report["frames"] if f["outcome"] == "failed"] == ["broken"]
    states = task_runs(server, newest(server)["id"])
    assert states == {f"{stage} · {frame}": "Completed" for stage in NAMES for frame in frames}

    second = run(home, *options, "--json", "--set", "tone.gamma=2.8", server=server)
    states = task_runs(server, newest(server)["id"])
    for frame in frames:
        done = {stage: states[f"{stage} · {frame}"] for stage in NAMES}
        assert done == {stage: "Completed" if stage in DOWNSTREAM else "Cached" for stage in NAMES}
    for result in json.loads(second.stdout)["frames"]:
        if result["outcome"] == "rendered":
            assert [stage for stage, did in result["stages"].items() if did == "computed"] == DOWNSTREAM

    shown = {made["key"]: made for made in reversed(ask(server, "artifacts", sort="CREATED_DESC"))}
    rows = json.loads(shown["pictures"]["data"])
    assert {row["picture"]: row["outcome"] for row in rows} == dict.fromkeys(frames, "rendered") | {"broken": "failed"}
    assert shown["summary"]["data"].count("data:image/jpeg;base64,") == 2
    assert "broken" in shown["summary"]["data"]
    assert shown["progress"]["data"] == 100
    assert newest(server)["tags"] == ["auto"]


def test_the_embedded_server_is_used_quietly(tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 1)
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    done = run(tmp_path / "home", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("rendered ")
    assert len(lines) == 4, done.stderr  # the picture, the table of one line and its head, the sum
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 1


def test_the_embedded_server_keeps_the_record(server: str, home: Path, tmp_path: Path) -> None:
    (raw,) = write_frames(tmp_path / "in", 1)
    before = newest(server)["id"]
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    assert run(home, *options).returncode == 0
    flow_run = newest(server)  # the same data base
    assert flow_run["id"] != before
    assert (flow_run["state_type"], flow_run["tags"]) == ("COMPLETED", ["auto"])
    assert set(task_runs(server, flow_run["id"])) == {f"{name} · {raw.stem}" for name in NAMES}


def test_a_server_that_a_profile_names_is_told(server: str, home: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 1)
    elsewhere = tmp_path / "home"
    elsewhere.mkdir()
    (elsewhere / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{server}"\n')
    before = len(ask(server, "flow_runs"))
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    done = run(elsewhere, *options)
    assert done.returncode == 0, done.stderr
    assert len(ask(server, "flow_runs")) == before + 1


def test_an_embedded_server_that_does_not_come_up_is_a_clear_error(home: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 1)
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    environment = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path / 'no' / 'folder' / 'x.db'}"
    }
    done = run(home, *options, **environment)
    assert done.returncode == 2
    assert "unable to open database file" in done.stderr
    assert "does not come up" in done.stderr
    assert "--engine local" in done.stderr
    assert not list(tmp_path.glob("out/*"))


def test_nothing_of_the_server_is_loaded_into_the_run(home: Path, tmp_path: Path) -> None:
    """It would take as long as the server itself takes to start."""
    write_frames(tmp_path / "in", 1)
    code = (
        "import atexit, sys; from nightisp.cli import main; atexit.register("
        "lambda: print([name for name in sys.modules if name.startswith('prefect.server.')])); main()"
    )
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    done = run(home, *options, code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_is_found_in_the_store_is_recorded_to_the_last(server: str, home: Path, tmp_path: Path) -> None:
    frames = [raw.stem for raw in write_frames(tmp_path / "in", 20)]
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    assert run(home, *options, "--engine", "local").returncode == 0
    assert run(home, *options).returncode == 0
    cached = {f"{name} · {frame}": "Cached" for name in NAMES for frame in frames}
    assert task_runs(server, newest(server)["id"]) == cached


def test_what_standing_workers_do_is_recorded_of_every_run(server: str, home: Path, tmp_path: Path) -> None:
    """Each run has a server of its own, and Prefect keeps to the first one that a process was told of."""
    frames = [raw.stem for raw in write_frames(tmp_path / "in", 2)]
    with cluster(tmp_path / "cluster", {"one": "GPU=1"}) as workers:
        how = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
        for store in ("first", "second"):
            done = run(home, *how, "--store", str(tmp_path / store), "--runner", "dask", "--address", workers.address)
            assert done.returncode == 0, done.stderr
            completed = {f"{name} · {frame}": "Completed" for name in NAMES for frame in frames}
            assert completed.items() <= task_runs(server, newest(server)["id"]).items(), store
        assert "Unable to connect" not in workers.log("one")


@pytest.fixture
def embedded(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from flows.embedded import beside

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    with beside() as found:
        assert found is not None
        yield found


def test_one_embedded_server_serves_several_runs_and_is_replaced_if_it_dies(embedded: Any) -> None:
    from prefect.settings import PREFECT_API_URL

    def answers(url: str | None) -> bool:
        return bool(urllib.request.urlopen(f"{url}/health", timeout=20).read() == b"true")

    before, told = PREFECT_API_URL.value(), []
    for _ in range(3):
        with embedded.reported_to():
            told.append(PREFECT_API_URL.value())
            assert answers(told[-1])
        assert PREFECT_API_URL.value() == before
        if len(told) == 2:
            embedded._process.kill()
            embedded._process.wait()
    assert told[0] == told[1] != told[2]
    process = embedded._process
    process.terminate()  # as a shutdown does to all processes at once
    time.sleep(0.5)
    assert answers(told[2])
    embedded.end()
    assert process.returncode == 0
    with pytest.raises(OSError, match="refused"):
        answers(told[2])


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5])
def test_a_server_that_is_ended_while_it_comes_up_says_nothing(home: Path, seconds: float) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    }
    command = [sys.executable, "-P", "-m", "flows.embedded"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        time.sleep(seconds)
        process.stdin.close()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_the_engines_give_the_same_bytes(server: str, home: Path, tmp_path: Path) -> None:
    (raw,) = write_frames(tmp_path / "in", 1)
    raw.with_name(f"{raw.stem}.nightisp.yaml").write_text("tone: {gamma: 2.2, exposure_ev: 1}\nexport: {format: png}\n")
    pictures, own = {}, {}
    for engine in ("local", "prefect"):
        out = tmp_path / engine
        done = run(
            home,
            *("--input", str(tmp_path / "in"), "--output", str(out), "--store", str(tmp_path / f"store-{engine}")),
            *("--engine", engine, "--json", "--set", "tone.gamma=2.8"),
            server=server,
        )
        assert done.returncode == 0, done.stderr
        pictures[engine] = next(out.glob("*.png")).read_bytes()
        own[engine] = json.loads(done.stdout)["frames"][0]["sidecar"]
    assert pictures["local"] == pictures["prefect"]
    assert own["local"] == own["prefect"] == {"tone": {"exposure_ev": 1}, "export": {"format": "png"}}


def test_a_server_that_cannot_be_reached_is_a_clear_error(home: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 1)
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    done = run(home, *options, server="http://127.0.0.1:9/api")
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "--engine local" in done.stderr
    assert "Traceback" not in done.stderr


def test_ui_finds_the_server_that_runs(server: str, home: Path) -> None:
    command = [sys.executable, "-c", MAIN, "ui"]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": server}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[0] == f"Prefect's UI: {server.removesuffix('/api')}"
    environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr


def test_ui_starts_a_server_whose_page_asks_it(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", MAIN, "ui", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Prefect's UI: http://127.0.0.1:{port}\n"
        settings = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings", timeout=20).read())
        assert settings["api_url"] == f"http://127.0.0.1:{port}/api"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))


def test_only_faults_of_storage_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.states import Failed

    from nightisp.errors import OutputError
    from tasks.stage import _is_fault_of_storage

    def state(error: Exception) -> Any:
        return Failed(data=error)

    assert _is_fault_of_storage(None, None, state(OSError(5, "Input/output error")))
    assert not _is_fault_of_storage(None, None, state(OutputError("no room")))
    in_passing = OutputError("stale file handle")
    in_passing.transient = True
    assert _is_fault_of_storage(None, None, state(in_passing))
    assert not _is_fault_of_storage(None, None, state(ValueError("bad picture")))


def test_a_foreign_tasks_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("")
    code = "import flows"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"`tasks` is {tmp_path / 'tasks.py'}" in done.stderr


def test_the_embedded_server_ends_with_a_run_that_is_killed(home: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 8)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", MAIN, "flow", "run", "--input", str(tmp_path / "in")]
    command += ["--output", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    servers: list[psutil.Process] = []
    try:
        end = time.monotonic() + 120
        while not servers and time.monotonic() < end and run.poll() is None:
            with contextlib.suppress(psutil.Error):  # a child that has just ended
                children = psutil.Process(run.pid).children()
                servers = [child for child in children if "flows.embedded" in child.cmdline()]
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    assert servers, "the run had no server of its own"
    _, alive = psutil.wait_procs(servers, timeout=60)
    assert alive == []
