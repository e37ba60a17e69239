"""The hot folder: each raw once, when it is complete, also across restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nightisp.watch import Watch
from tests.frames import write_frame, write_pair
from tests.terminal import Terminal

MAIN = "from nightisp.__main__ import program; program()"


def test_a_raw_is_ready_when_it_has_settled_and_only_once(tmp_path: Path) -> None:
    watched = Watch([tmp_path], settled_s=2)
    assert watched.ready(0) == []
    raw = write_frame(tmp_path / "one.dng", 1)
    assert watched.ready(1) == []
    assert watched.ready(2.5) == []
    assert watched.ready(3) == [raw]
    assert watched.ready(9) == []


def test_a_raw_that_still_grows_is_not_ready(tmp_path: Path) -> None:
    content = write_frame(tmp_path / "elsewhere" / "one.dng", 1).read_bytes()
    raw, watched = tmp_path / "in" / "one.dng", Watch([tmp_path / "in"], settled_s=2)
    raw.parent.mkdir()
    raw.touch()
    assert watched.ready(0) == watched.ready(5) == []  # empty
    for part in range(1, 5):
        raw.write_bytes(content[: part * len(content) // 4])
        assert watched.ready(5 + 1.5 * part) == []
    assert watched.ready(13) == [raw]


def test_what_changes_is_ready_again(tmp_path: Path) -> None:
    raw, watched = write_frame(tmp_path / "one.dng", 1), Watch([tmp_path], settled_s=1)
    watched.ready(0)
    assert watched.ready(1) == [raw]
    (tmp_path / "one.nightisp.yaml").write_text("tone: {gamma: 2.4}\n")
    assert watched.ready(2) == []
    assert watched.ready(3) == [raw]
    (tmp_path / "one.nightisp.yaml").unlink()
    watched.ready(4)
    assert watched.ready(5) == [raw]
    shutil.copy(write_frame(tmp_path / "elsewhere" / "one.dng", 2), raw)
    watched.ready(6)
    assert watched.ready(7) == [raw]
    raw.unlink()
    assert watched.ready(8) == watched.ready(10) == []


def test_an_empty_sidecar_holds_nothing_up(tmp_path: Path) -> None:
    raw, watched = write_frame(tmp_path / "one.dng", 1), Watch([tmp_path], settled_s=1)
    sidecar = tmp_path / "one.nightisp.yaml"
    sidecar.touch()
    watched.ready(0)
    assert watched.ready(1) == [raw]
    sidecar.unlink()
    sidecar.symlink_to("nowhere")  # which is a fault of the raw's, to be told
    watched.ready(2)
    assert watched.ready(3) == [raw]


def test_a_png_waits_for_its_json(tmp_path: Path) -> None:
    png = write_pair(tmp_path / "one.png", 1)
    description, watched = png.with_suffix(".json"), Watch([tmp_path], settled_s=1)
    aside = description.rename(tmp_path / "aside")
    assert watched.ready(0) == watched.ready(5) == []
    aside.rename(description)
    assert watched.ready(6) == []
    assert watched.ready(7) == [png]


def test_folders_that_are_empty_gone_or_excluded(tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "b" / "sub" / "one.dng", 1)
    write_frame(tmp_path / "b" / "output" / "two.dng", 2)
    (tmp_path / "a").mkdir()
    folders = [tmp_path / "a", tmp_path / "gone", tmp_path / "b"]
    flat = Watch(folders, settled_s=1)
    deep = Watch(folders, recursive=True, exclude=[tmp_path / "b" / "output"], settled_s=1)
    for watched in (flat, deep):
        watched.ready(0)
    assert flat.ready(1) == []
    assert deep.ready(1) == [raw]


def test_a_folder_must_be_there(nightisp: Terminal) -> None:
    assert "no such folder" in nightisp("flow", "watch", "nowhere", status=2).err
    Path("in").mkdir()
    assert "Did you mean tone" in nightisp("flow", "watch", "in", "--set", "tune.gamma=2", status=2).err


@contextmanager
def watching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", MAIN, "flow", "watch", "in", "--settled", "0.4"]
    environment = {**os.environ, "NIGHTISP_STORE": str(folder / "store")}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(holds: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.1)


def stopped(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_pictures_appear_and_a_restart_computes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    written = write_frame(tmp_path / "one.dng", 1)
    with watching(tmp_path) as process:
        shutil.copy(written, tmp_path / "in" / "one.dng")
        until((tmp_path / "output" / "one.jpg").is_file, process)
        write_frame(tmp_path / "in" / "two.dng", 2)
        (tmp_path / "in" / "bad.dng").write_text("no picture")
        until((tmp_path / "output" / "two.jpg").is_file, process)
        until(lambda: list((tmp_path / "store").glob("export/*.zarr")), process)
        time.sleep(1)
        status, said = stopped(process)
    assert status == 3
    assert said.count("refused in/bad.dng") == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*.zarr/zarr.json")}
    assert len(before) == 18
    (tmp_path / "in" / "bad.dng").unlink()
    (tmp_path / "output" / "one.jpg").unlink()
    with watching(tmp_path) as process:
        until((tmp_path / "output" / "one.jpg").is_file, process)
        status, said = stopped(process)
    assert status == 0
    assert said.count("nothing, all cached") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*.zarr/zarr.json")} == before


def test_a_sidecar_that_arrives_later_renders_again(tmp_path: Path) -> None:
    write_frame(tmp_path / "in" / "one.dng", 1)
    picture = tmp_path / "output" / "one.jpg"
    with watching(tmp_path) as process:
        until(picture.is_file, process)
        (tmp_path / "in" / "one.nightisp.yaml").write_text("tone:\n  gamma: 2.2\n")
        until(lambda: len(list((tmp_path / "store" / "export").glob("*.zarr"))) == 2, process)
        time.sleep(0.5)
        assert stopped(process)[0] == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "store" / "tone").glob("*.zarr/zarr.json")]
    assert sorted(record["attributes"]["params"]["gamma"] for record in records) == [2.2, 3.2]
