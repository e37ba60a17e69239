"""The command line: what it prints, what it answers with, and what it makes of bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from nightisp.pipeline import NAMES
from tests.frames import SHOT, nobody, write_frame, write_frames, write_pair
from tests.terminal import Terminal, render

MAIN = "from nightisp.__main__ import program; program()"
REPOSITORY = Path(__file__).parents[1]


def test_json_is_one_object_of_the_stated_form(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 2)
    (tmp_path / "data" / "notes.dng").write_text("no picture")
    report = render(nightisp, status=3)
    assert set(report) == {"frames", "wall_seconds", "peak_rss_bytes"}
    assert report["peak_rss_bytes"] > 10**7
    assert [f["outcome"] for f in report["frames"]] == ["rendered", "rendered", "failed"]
    for frame in report["frames"]:
        told = {"frame", "source", "outcome", "output", "error", "failed_in", "sidecar", "stages", "seconds"}
        assert set(frame) == told
    good, _, bad = report["frames"]
    assert good["stages"] == dict.fromkeys(NAMES, "computed")
    assert set(good["seconds"]) == set(NAMES)
    assert Path(good["output"]) == Path("output/frame0.jpg")
    assert cv2.imread(good["output"]).shape == (48, 64, 3)
    assert "notes.dng" in bad["error"]
    assert bad["output"] is None


def test_until_and_frames(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 3)
    report = render(nightisp, "--until", "denoise", "--frames", "frame[12]")
    assert [f["frame"] for f in report["frames"]] == ["frame1", "frame2"]
    assert list(report["frames"][0]["stages"]) == ["ingest", "denoise"]
    assert not (tmp_path / "output").exists()


def test_a_draft_is_quick_and_small_and_shares_what_it_can(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    [draft] = render(nightisp, "--draft")["frames"]
    assert cv2.imread(str(tmp_path / "output" / "draft" / "one.jpg")).shape == (12, 16, 3)
    [finished] = render(nightisp)["frames"]
    assert cv2.imread(str(tmp_path / "output" / "one.jpg")).shape == (48, 64, 3)
    assert [stage for stage, did in finished["stages"].items() if did == "cached"] == ["ingest"]
    assert set(draft["stages"].values()) == {"computed"}
    [again] = render(nightisp, "--draft", "--set", "tone.gamma=2.8", "--output", "elsewhere")["frames"]
    assert [stage for stage, did in again["stages"].items() if did == "computed"] == list(NAMES[5:])
    assert (tmp_path / "elsewhere" / "one.jpg").is_file()


def test_a_dry_run_tells_what_and_why_and_does_nothing(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    first = nightisp("flow", "run", "--dry-run").out
    assert [line.split()[2] for line in first.splitlines()] == ["compute"] * 9
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "output").exists()
    render(nightisp)
    again = nightisp("flow", "run", "--dry-run", "--set", "tone.gamma=2.8").out.splitlines()
    assert [line.split()[2] for line in again] == ["cached"] * 5 + ["compute"] * 4
    assert "tone.gamma: 3.2 -> 2.8" in again[5]
    assert "its input changed" in again[6]


def test_a_name_never_overwrites_another_frames_output(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "a" / "one.dng", 1)
    write_frame(tmp_path / "data" / "b" / "one.dng", 2)
    report = render(nightisp, "--recursive")
    assert len({f["output"] for f in report["frames"]}) == 2


def test_pictures_beside_the_raws_never_replace_what_is_there(nightisp: Terminal, tmp_path: Path) -> None:
    """As the container does: output is input."""
    for name in ("bridge_iso1600.png", "bridge_iso1600.json"):
        (tmp_path / name).write_bytes((REPOSITORY / "data" / name).read_bytes())
    raw = (tmp_path / "bridge_iso1600.png").read_bytes()
    beside = ("--input", ".", "--output", ".", "--set", "export.format=png")
    (frame,) = render(nightisp, *beside)["frames"]
    assert (tmp_path / "bridge_iso1600.png").read_bytes() == raw
    assert Path(frame["output"]).name.startswith("bridge_iso1600-")
    (again,) = render(nightisp, *beside)["frames"]  # our own picture is no candidate
    assert again["output"] == frame["output"]
    assert set(again["stages"].values()) == {"cached"}


def test_a_fault_of_the_machine_is_no_result_of_a_stage(
    nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC would keep it for good: the stage must fail, and its manifest must not be written."""
    from nightisp.errors import StoreError
    from nightisp.store import Store

    def refuse(*_: object) -> None:
        raise StoreError("store: the disk is full")

    write_frames(tmp_path / "data", 2)
    with monkeypatch.context() as broken:
        broken.setattr(Store, "write", refuse)
        assert "the disk is full" in nightisp("stage", "run", "ingest", status=2).err
    assert not (tmp_path / "manifests").exists()
    nightisp("stage", "run", "ingest")


def test_a_later_stages_parameters_do_not_fail_an_earlier_stage(nightisp: Terminal, tmp_path: Path) -> None:
    """Else DVC, which knows what each stage depends on, would keep the failure when they change."""
    from nightisp.dng import write_dng
    from nightisp.image import CFA, Mosaic, Shot
    from tests.frames import MATRIX

    (tmp_path / "data").mkdir()
    shot = Shot(camera="tiny", color_matrices=(MATRIX,))
    samples = np.full((48, 64), 0.1, np.float32)
    write_dng(Mosaic(samples, cfa=CFA.RGGB, shot=shot), tmp_path / "data" / "one.dng")
    as_shot = ("--set", "white_balance.method=as_shot")
    for name in ("ingest", "denoise"):
        assert "1 of 1" in nightisp("stage", "run", name, *as_shot).out
    failed = nightisp("stage", "run", "white_balance", *as_shot)
    assert "one.dng: the file holds no usable as-shot white balance" in failed.err
    assert "1 of 1" in nightisp("stage", "run", "white_balance").out


def test_an_empty_section_of_a_sidecar_changes_nothing(nightisp: Terminal, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "data" / "one.dng", 1)
    render(nightisp, "--set", "tone.gamma=2.0")
    raw.with_name("one.nightisp.yaml").write_text("tone:\n  # gamma: 2.5\n")
    (frame,) = render(nightisp, "--set", "tone.gamma=2.0")["frames"]
    assert set(frame["stages"].values()) == {"cached"}


def test_stage_commands_pass_failed_frames_on(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 1)
    (tmp_path / "data" / "broken.dng").write_text("no picture")
    assert [line.split()[0] for line in nightisp("stage", "list").out.splitlines()] == list(NAMES)
    for name in NAMES:
        done = nightisp("stage", "run", name)
        assert f"{name}: 1 of 2 frames in manifests/{name}.jsonl" in done.out
        assert "failed in ingest" in done.err
    nightisp("stage", "run", "export", "--strict", status=3)
    lines = [json.loads(line) for line in (tmp_path / "manifests/export.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [
        {"frame", "source", "error", "stage"},
        {"frame", "source", "digest", "photosites", "key"},
    ]
    assert lines[1]["source"] == "data/frame0.dng"
    assert (tmp_path / "output" / "frame0.jpg").exists()


def test_a_stage_answers_for_its_own_parameters_alone(nightisp: Terminal, tmp_path: Path) -> None:
    """DVC runs a stage again when its own section changes: a fault of another must not stay in its manifest."""
    write_frame(tmp_path / "data" / "one.dng", 1, shot=SHOT.model_copy(update={"as_shot_neutral": None}))
    as_shot = ("--set", "white_balance.method=as_shot")
    assert "gray_world" in str(render(nightisp, *as_shot, status=3)["frames"][0]["error"])
    for name in ("ingest", "denoise"):
        assert f"{name}: 1 of 1 frames" in nightisp("stage", "run", name, *as_shot, "--strict").out
        nightisp("stage", "run", name, "--set", "super_resolution.method=hat", "--strict")  # which has no weights
    assert "failed in white_balance" in nightisp("stage", "run", "white_balance", *as_shot, "--strict", status=3).err
    nightisp("stage", "run", "white_balance", "--strict")


def test_a_sidecar_without_ground_costs_its_own_frame(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 2)
    (tmp_path / "data" / "frame1.nightisp.yaml").write_text("denoise: {weights: denoise_unet_of_nobody}\n")
    assert "ingest: 2 of 2 frames" in nightisp("stage", "run", "ingest").out
    done = nightisp("stage", "run", "denoise", "--strict", status=3)
    assert "denoise: 1 of 2 frames" in done.out
    assert "frame1.dng: denoise_unet_of_nobody: no weights of this name" in done.err
    frames = render(nightisp, status=3)["frames"]
    assert [f["outcome"] for f in frames] == ["rendered", "failed"]


def test_a_manifest_that_cannot_be_written_is_named(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    (tmp_path / "manifests").write_text("a file in its place")
    assert "manifests/ingest.jsonl: cannot be written" in nightisp("stage", "run", "ingest", status=2).err


def test_a_stage_needs_the_manifest_before_it(nightisp: Terminal) -> None:
    assert "nightisp stage run demosaic" in nightisp("stage", "run", "color", status=2).err


def test_the_cache_can_be_looked_into_and_pruned(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    render(nightisp, "--set", "tone.gamma=2.8")
    name, *listed = nightisp("cache", "list").out.splitlines()
    assert name == "one"
    assert [line.split()[0] for line in listed] == list(NAMES)
    assert "gamma=2.8" in listed[5]
    found = [json.loads(line) for line in nightisp("cache", "list", "--json", "--stage", "tone").out.splitlines()]
    assert [(line["stage"], line["hits"]) for line in found] == [("tone", 0)]
    assert "Did you mean tone?" in nightisp("cache", "list", "--stage", "tine", status=2).err
    assert "9 artifacts are good, 0 damaged" in nightisp("cache", "verify").out
    assert nightisp("cache", "size").out.splitlines()[-1].startswith("all")
    assert "say what to remove" in nightisp("cache", "prune", status=2).err

    chunk = next(p for p in (tmp_path / "artifacts" / "tone").rglob("c/*/*/*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert "8 artifacts are good, 1 damaged" in nightisp("cache", "verify", status=3).out
    nightisp("cache", "verify", "--remove")
    assert "8 artifacts are good, 0 damaged" in nightisp("cache", "verify").out

    assert "would remove 8 artifacts" in nightisp("cache", "prune", "--keep", "0B").out
    assert len(nightisp("cache", "list").out.splitlines()) == 1 + 8
    assert "removed 8 artifacts" in nightisp("cache", "prune", "--keep", "0B", "--yes").out
    assert nightisp("cache", "list").out == ""


def test_unreferenced_artifacts_are_those_of_no_manifest(nightisp: Terminal, tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    write_frame(tmp_path / "data" / "one.dng", 1)
    for name in NAMES:
        nightisp("stage", "run", name)
    render(nightisp, "--set", "tone.gamma=2.8")
    assert "would remove 4 artifacts" in nightisp("cache", "prune", "--unreferenced").out


def test_raw_info(nightisp: Terminal, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    assert "nightisp tiny" in nightisp("raw", "info", raw).out
    facts = json.loads(nightisp("raw", "info", raw, "--json").out)
    assert (facts["height"], facts["width"], facts["cfa"], facts["iso"]) == (48, 64, "RGGB", 1600)


def test_weights_are_imported_listed_and_used(nightisp: Terminal, tmp_path: Path) -> None:
    import torch

    from nightisp.models import build

    torch.manual_seed(0)
    torch.save({"params_ema": build("denoise_unet", width=8).state_dict()}, tmp_path / "unet.pth")
    write_frame(tmp_path / "data" / "one.dng", 1)
    chosen = ("--set", "denoise.weights=denoise_unet_mine")
    missing = nightisp("flow", "run", *chosen, status=2).err
    assert "nightisp weights import denoise FILE" in missing
    assert "denoise.method: none" in missing
    assert "method: unet" in nightisp("weights", "import", "denoise", "unet.pth", "--name", "denoise_unet_mine").out
    weights = ("--weights", "weights")
    assert "denoise_unet_mine" in nightisp("weights", "list", *weights).out
    assert "denoise_unet_mine: good\n" in nightisp("weights", "verify", *weights).out
    report = render(nightisp, *chosen, *weights)
    assert report["frames"][0]["outcome"] == "rendered"


def test_params_and_doctor(nightisp: Terminal) -> None:
    assert "  gamma: 2.8" in nightisp("params", "show", "--set", "tone.gamma=2.8").out
    assert nightisp("params", "show", "--changed", "--set", "tone.gamma=2.8").out == "tone:\n  gamma: 2.8\n"
    assert "good" in nightisp("params", "check").out
    assert "torch" in nightisp("doctor").out


COMMANDS = """
flow/run flow/watch stage/list stage/run cache/list cache/show cache/diff cache/export cache/verify cache/prune
cache/size raw/info weights/list weights/import weights/verify params/show params/check params/looks
doctor ui flow stage cache raw weights params
"""


def test_help_is_quick_since_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from nightisp.cli import main\n"
        "for command in ['', *sys.argv[1:]]:\n"
        "    sys.argv = ['nightisp', *filter(None, command.split('/')), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as leaving: assert not leaving.code, command\n"
        "heavy = {'torch', 'prefect', 'rawpy', 'cv2', 'zarr', 'numpy', 'exiv2', 'psutil', 'ruamel', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *COMMANDS.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("Usage: nightisp ") == 1 + len(COMMANDS.split())
    for option in ("--dry-run", "--strict", "--older-than", "--recursive", "--unreferenced", "--overwrite"):
        assert option in done.stdout


def test_a_fault_of_ours_is_status_1_and_one_line(nightisp: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("nightisp.params.load", fail)
    done = nightisp("params", "check", status=1)
    assert done.err.startswith("error: a fault of nightisp: ZeroDivisionError: by zero")
    assert len(done.err.splitlines()) == 1


def test_what_is_wrong_here_is_found(nightisp: Terminal, tmp_path: Path) -> None:
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "store.json").write_text('{"format": 99}')
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "hat.safetensors").write_bytes(b"cut off")
    done = nightisp("doctor", "--store", "newer", "--weights", "weights", status=2)
    assert "Install a newer nightisp" in done.out
    assert "hat.safetensors: " in done.out
    assert "hat.safetensors: " in nightisp("weights", "verify", "--weights", "weights", status=3).out
    assert "problem: " in nightisp("weights", "list", "--weights", "weights").out
    for command in (["cache", "list"], ["cache", "size"], ["cache", "verify"], ["stage", "run", "ingest"]):
        assert "Install a newer nightisp" in nightisp(*command, "--store", "newer", status=2).err


def test_a_damaged_artifact_is_listed_as_such(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    render(nightisp, "--until", "denoise")
    next((tmp_path / "artifacts" / "denoise").glob("*/zarr.json")).write_text("{")
    assert [line.split()[-1] == "damaged" for line in nightisp("cache", "list").out.splitlines()].count(True) == 1
    again = nightisp("flow", "run", "--dry-run", "--until", "denoise").out.splitlines()[1]
    assert again.split()[2] == "compute"
    assert list(render(nightisp, "--until", "denoise")["frames"][0]["stages"].values()) == ["cached", "computed"]


def test_an_interrupt_is_status_130(nightisp: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nightisp.params.load", interrupt)
    assert nightisp("params", "check", status=130).out == ""


def test_debug_shows_where(nightisp: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from nightisp.errors import ParamsError

    monkeypatch.setenv("NIGHTISP_DEBUG", "")  # which --debug sets
    with pytest.raises(ParamsError, match="Did you mean gamma"):
        nightisp("--debug", "params", "check", "--set", "tone.gama=2")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["flow", "run", "--inputs", "a"], ["flow", "run", "--workers", "0"]]
)
def test_wrong_commands_and_options_are_status_2(nightisp: Terminal, arguments: list[str]) -> None:
    assert arguments[-2 if len(arguments) > 3 else -1].strip("-")[:6] in nightisp(*arguments, status=2).err


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", MAIN, "params", "show"]
    pipe = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert pipe.stdout
    assert pipe.stderr
    pipe.stdout.close()
    assert pipe.stderr.read() == b""
    pipe.stderr.close()
    assert pipe.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "tone.gama=2"],
            "tone.gama: no such parameter; tone has exposure_ev, curve, gamma. Did you mean gamma?",
        ),
        (["--set", "toon.gamma=2"], "toon: no such stage; .* Did you mean tone?"),
        (["--set", "tone.gamma=99"], "tone.gamma: 99: .*less than or equal to 10"),
        (["--set", "gamma=2"], "expected STAGE.NAME=VALUE"),
        (["--set", "white_balance.method=kelvin"], "needs white_balance.kelvin"),
        (["--input", "nowhere"], "nowhere: no such file or folder"),
        (["--input", "empty"], "empty: .*no"),
        (["--output", "data/one.dng"], "one.dng: .*--output"),
        (["--params", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--until", "tine"], "tine: no such stage; .*Did you mean tone?"),
        (["--memory", "lots"], "lots: is no size"),
        (["--memory", "0GB"], "--memory 0GB: leaves no room for any picture"),
        (["--device", "tpu"], "tpu: no such device"),
        (["--frames", "z*"], r"z\*: matches none of one"),
        (
            ["--set", "refine.method=mwispnet", "--set", "refine.weights=mwispnet_of_nobody"],
            "nightisp weights import refine FILE",
        ),
        (["--store", "newer"], "Install a newer nightisp"),
        (["--store", "newer/store.json"], "newer/store.json: is no folder; name another --store"),
        (["--params", "misspelt.yaml"], "misspelt.yaml: tone.gama: no such parameter; .*Did you mean gamma?"),
        (["--params", "data"], "data: cannot be read as YAML"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_clear_line(nightisp: Terminal, tmp_path: Path, arguments: list[str], message: str) -> None:
    import re

    write_frame(tmp_path / "data" / "one.dng", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "store.json").write_text('{"format": 99}')
    (tmp_path / "misspelt.yaml").write_text("tone: {gama: 2}\n")
    done = nightisp("flow", "run", "--engine", "local", *arguments, status=2)
    assert done.err.startswith("error: ")
    assert re.search(message, done.err), done.err
    assert done.out == ""


def test_cuda_without_a_device_is_refused(nightisp: Terminal, tmp_path: Path) -> None:
    import torch

    from nightisp.models import build
    from nightisp.models.checkpoints import import_checkpoint

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    torch.save(build("denoise_unet", width=4).state_dict(), tmp_path / "unet.pth")
    import_checkpoint("denoise", [tmp_path / "unet.pth"], tmp_path / "weights")
    write_frame(tmp_path / "data" / "one.dng", 1)
    options = ("--weights", "weights", "--set", "denoise.method=unet", "--device", "cuda")
    assert "--device cpu" in nightisp("flow", "run", "--engine", "local", *options, status=2).err
    for command in (("flow", "run"), ("stage", "run", "ingest")):  # nor passed over where nothing would use it
        assert "--device cpu" in nightisp(*command, "--device", "cuda", status=2).err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.dng", b"no picture at all", "text.dng"),
        ("empty.nef", b"", "empty.nef"),
        ("lonely.png", b"\x89PNG\r\n\x1a\n", "lonely.json"),
        ("clip.GPR", b"\0" * 100, "clip.GPR"),
    ],
)
def test_bad_pictures_are_named_and_the_rest_goes_on(
    nightisp: Terminal, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    write_frame(tmp_path / "data" / "good.dng", 1)
    (tmp_path / "data" / name).write_bytes(content)
    frames = render(nightisp, status=3)["frames"]
    assert {f["outcome"] for f in frames} == {"rendered", "failed"}
    (error,) = [f["error"] for f in frames if f["error"]]
    assert message in error


def test_a_truncated_raw_is_named(nightisp: Terminal, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "cut.dng", 1)
    raw.write_bytes(raw.read_bytes()[:-500])
    (frame,) = render(nightisp, "--input", raw, status=3)["frames"]
    assert "truncated" in frame["error"]


def test_a_file_that_is_named_is_always_a_candidate(nightisp: Terminal, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (frame,) = render(nightisp, "--input", "notes.txt", status=3)["frames"]
    assert "notes.txt" in frame["error"]


def test_interrupting_leaves_nothing_half_done(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 30)
    command = [sys.executable, "-c", MAIN, "flow", "run", "--engine", "local", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "output").glob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "Traceback" not in err
    done = len(list((tmp_path / "output").glob("*.jpg")))
    assert 1 <= done < 30
    verify = [sys.executable, "-c", MAIN, "cache", "verify"]
    subprocess.run(verify, cwd=tmp_path, env=environment, check=True, capture_output=True)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert len(list((tmp_path / "output").glob("*.jpg"))) == 30


SLOW = (
    "import time; from nightisp.engine import Engine; compute = Engine._compute\n"
    "def slow(self, plan, stage, image, claimed):\n"
    "    if stage.name == 'tone' and plan.source.frame == 'frame1':\n"
    "        print('slow', flush=True); time.sleep(120)\n"
    "    return compute(self, plan, stage, image, claimed)\n"
    "Engine._compute = slow\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_leaving_in_the_middle_of_a_stage_loses_that_stage_alone(tmp_path: Path, number: signal.Signals) -> None:
    write_frames(tmp_path / "data", 2)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    arguments = ["flow", "run", "--engine", "local", "--workers", "1", "--json"]
    command = [sys.executable, "-c", SLOW + MAIN, *arguments]
    run = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout
    assert run.stderr
    assert run.stdout.readline() == "slow\n"
    run.send_signal(number)
    assert run.stderr.readline() == "stopping; Ctrl-C again to leave at once\n"
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "")
    again = [sys.executable, "-c", MAIN, *arguments]
    done = subprocess.run(again, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    first, second = json.loads(done.stdout)["frames"]
    assert set(first["stages"].values()) == {"cached"}
    assert [s for s, did in second["stages"].items() if did == "computed"] == list(NAMES[NAMES.index("tone") :])


@pytest.mark.parametrize(
    ("engine", "kill"),
    [
        ("local", "kill(0, 2)"),
        pytest.param("prefect", "kill(__import__('os').getpid(), 15)", marks=pytest.mark.server),
    ],
)
def test_an_interrupted_report_accounts_for_every_picture(tmp_path: Path, engine: str, kill: str) -> None:
    write_frames(tmp_path / "data", 3)
    stopping = SLOW.replace("print('slow', flush=True); time.sleep(120)", f"__import__('os').{kill}; time.sleep(2)")
    command = [sys.executable, "-c", stopping + MAIN, "flow", "run", "--engine", engine, "--workers", "1", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "PREFECT_HOME": str(tmp_path / "prefect")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == 130, done.stderr
    frames = json.loads(done.stdout)["frames"]
    assert [f["outcome"] for f in frames] == ["rendered", "skipped", "skipped"]
    assert frames[1]["stages"]["tone"] == "computed"  # what was under way is kept
    assert frames[2]["stages"] == {}


def test_a_pair_is_rendered_as_a_raw_is(nightisp: Terminal, tmp_path: Path) -> None:
    write_pair(tmp_path / "data" / "pair.png", 1)
    write_frame(tmp_path / "data" / "raw.dng", 1)
    pair, raw = render(nightisp, "--set", "export.metadata=strip")["frames"]
    assert Path(pair["output"]).read_bytes() == Path(raw["output"]).read_bytes()


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Go to a folder that all may come to, with a raw and a sub-folder that may not be written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.chdir(folder)
        write_frame(folder / "data" / "one.dng", 1)
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0o555)
        folder.chmod(0o777)
        yield folder


def test_an_output_that_may_not_be_written_is_named_before_anything_is_computed(
    nightisp: Terminal, closed: Path
) -> None:
    with nobody():
        error = nightisp("flow", "run", "--engine", "local", "--output", "closed", status=2).err
    assert error.startswith("error: closed: cannot be written (Permission denied); make it writable for you, or")
    assert not (closed / "artifacts").exists()


def test_a_store_that_may_not_be_written_is_named(nightisp: Terminal, closed: Path) -> None:
    with nobody():
        (frame,) = render(nightisp, "--store", "closed", status=3)["frames"]
    assert "one.dng: " in frame["error"]
    assert frame["error"].endswith("closed: cannot be written: Permission denied; name another --store")
