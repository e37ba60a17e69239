"""Deployments: a form that reads well, a run that is started through the API, and what stands in the way of one."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightisp import looks
from tests.frames import CLASSICAL, write_frame
from tests.prefect_server import MAIN, Server, standing

REPOSITORY = Path(__file__).parents[1]
SETTINGS = [f"{stage}.{name}={value}" for stage, chosen in CLASSICAL.items() for name, value in chosen.items()]

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with standing(tmp_path_factory.mktemp("prefect")) as running:
        yield running


def test_a_run_is_started_from_the_form_and_gives_the_same_picture(server: Server, tmp_path: Path) -> None:
    write_frame(tmp_path / "raws" / "one.dng", 1)
    serving = subprocess.Popen(
        [sys.executable, "-c", MAIN, "flow", "serve", "--deployment", "served", "--input", "raws"],
        env=server.environment | {"PREFECT_API_URL": server.api},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "deployed nightisp-develop/served\n", serving.communicate()[1]
        page = serving.stdout.readline()
        deployment = server.ask("deployments/name/nightisp-develop/served")
        assert page.strip().endswith(f"/deployments/deployment/{deployment['id']}")
        assert deployment["parameters"]["inputs"] == [str(tmp_path / "raws")]
        settings = ["tone.gamma=2.8", "export.format=png", *SETTINGS]
        given = {"look": "street", "settings": settings, "name": "{frame}_{look}"}
        begun = server.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": given})
        ended = server.finished(begun["id"])
        assert ended["state_type"] == "COMPLETED", ended["state"]
        assert ended["name"] == "develop * with look street"
    finally:
        serving.terminate()
        serving.communicate(timeout=60)
    options = ["--look", "street", *(word for setting in settings for word in ("--set", setting)), "--engine", "local"]
    here = server.command(tmp_path, "flow", "run", "--input", "raws", "--output", "here", "--store", "own", *options)
    assert here.returncode == 0, here.stderr
    there = (tmp_path / "output" / "one_street.png").read_bytes()
    assert there == (tmp_path / "here" / "one.png").read_bytes()
    stages = _logged(server, begun["id"])
    assert stages[0].startswith("one · ingest: computed in ")
    assert len(stages) == 9


def _logged(server: Server, run: str) -> list[str]:
    """Return what a run logged of stages; logs are sent in batches, so wait for the last."""
    for _ in range(50):
        found = server.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        told = [line["message"] for line in found if line["name"] == "nightisp"]
        if any(" · export: " in line for line in told):
            return told
        time.sleep(0.2)
    pytest.fail(f"no line of the last stage among {found}")


def test_the_form_has_titles_descriptions_choices_and_bounds(server: Server, tmp_path: Path) -> None:
    (tmp_path / "looks").mkdir()
    (tmp_path / "looks" / "harbor.yaml").write_text("tone: {gamma: 2.2}\n")
    done = server.command(tmp_path, "flow", "deploy", "--deployment", "form", "--look", "harbor", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pool"] == "nightisp"
    deployment = server.ask(f"deployments/{told['id']}")
    assert deployment["enforce_parameter_schema"]
    assert deployment["parameters"]["look"] == "harbor"
    assert deployment["job_variables"]["working_dir"] == str(tmp_path)
    if platform.libc_ver()[0] == "glibc":
        assert "glibc.malloc.tcache_count=" in deployment["job_variables"]["env"]["GLIBC_TUNABLES"]
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert set(fields) >= {"inputs", "output", "store", "look", "draft", "settings", "name", "frames"}
    for name, field in fields.items():
        assert field["title"] != name
        assert len(field["description"]) > 20
        assert "default" in field
        assert field["type"] in ("string", "boolean", "array", "integer")
    assert fields["look"]["enum"] == ["(none)", *looks.paths([tmp_path / "looks"])]
    assert "harbor" in fields["look"]["enum"]
    for bad, word in (
        ({"look": "harbour"}, "'harbour' is not one of"),
        ({"draft": "perhaps"}, "is not of type 'boolean'"),
        ({"settings": ["gamma 2.8"]}, "'gamma 2.8' does not match"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.ask(f"deployments/{told['id']}/create_flow_run", {"parameters": bad})
        assert refused.value.code in (409, 422)
        assert word in refused.value.read().decode()


def test_a_worker_of_the_pool_runs_what_is_deployed(server: Server, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    done = server.command(tmp_path, "flow", "deploy", "--deployment", "pooled", "--pool", "mine")
    assert done.returncode == 0, done.stderr
    assert "prefect worker start --type process --pool 'mine'" in done.stdout
    begun = server.ask("deployments/name/nightisp-develop/pooled")
    run = server.ask(f"deployments/{begun['id']}/create_flow_run", {"parameters": {"settings": SETTINGS}})
    worker = subprocess.run(
        [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", "mine", "--run-once"],
        env=server.environment | {"PREFECT_API_URL": server.api},
        cwd=REPOSITORY.parent,  # anywhere: the run is in the deployment's folder
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    ended = server.finished(run["id"])
    assert ended["state_type"] == "COMPLETED", f"{ended['state']}\n{worker.stderr}"
    assert (tmp_path / "output" / "one.jpg").is_file()
    assert (tmp_path / "artifacts").is_dir()


def test_a_name_that_is_taken_is_told_and_may_be_taken_over(server: Server, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    deploy = ("flow", "deploy", "--deployment", "taken")
    assert server.command(one, *deploy).returncode == 0
    assert server.command(one, *deploy).returncode == 0  # one's own is brought up to date
    refused = server.command(other, *deploy)
    assert refused.returncode == 2
    assert f"nightisp-develop/taken: there is such a deployment already, of {one}" in refused.stderr
    served = server.command(one, "flow", "serve", "--deployment", "taken")
    assert served.returncode == 2
    assert "for the work pool nightisp; choose another name with --deployment" in served.stderr
    assert server.command(other, *deploy, "--replace").returncode == 0
    assert f"folder: {other}" in server.ask("deployments/name/nightisp-develop/taken")["tags"]


def test_what_stands_in_the_way_of_a_deployment_is_told(server: Server, tmp_path: Path) -> None:
    nowhere = server.command(tmp_path, "flow", "deploy", api="")
    assert "PREFECT_API_URL is not set" in nowhere.stderr
    assert "nightisp ui" in nowhere.stderr
    down = server.command(tmp_path, "flow", "serve", api="http://127.0.0.1:9/api")
    assert "Prefect's API at http://127.0.0.1:9/api cannot be reached" in down.stderr
    server.ask("work_pools/", {"name": "boxes", "type": "docker"})
    boxes = server.command(tmp_path, "flow", "deploy", "--deployment", "x", "--pool", "boxes")
    assert "work pool boxes: is of type docker; expected process" in boxes.stderr
    look = server.command(tmp_path, "flow", "deploy", "--look", "stret")
    assert re.search(r"--look stret: no such look; .*street", look.stderr)
    for done in (nowhere, down, boxes, look):
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
