"""Run very many small frames: every one accounted for, memory flat, the last as quick as the first; and lose a server.

python -m tests.torture.load --frames 1000 --engines local prefect

The frames are tiny and go through the classical methods, so that what is measured is everything around the pixels:
files, store, Prefect, its database. Seconds of a frame are told by when pictures arrive in the output folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.frames import CLASSICAL, write_frames

MAIN = "from nightisp.__main__ import program; program()"
REPOSITORY = Path(__file__).parents[2]
SLOWER = 1.2
"""How many times as long the last frames may take as the first."""
GROWTH = 48 * 2**20
"""Bytes that a run may grow by from its second fifth to its end."""
ENOUGH = 200
"""Frames from which on time and memory are judged; fewer are over too soon."""
_SETTINGS = [f"{stage}.{name}={value}" for stage, given in CLASSICAL.items() for name, value in given.items()]


def run(folder: Path, engine: str, api: str | None = None) -> subprocess.Popen[bytes]:
    """Start a run over the frames in `folder`/in."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if api:
        environment["PREFECT_API_URL"] = api
    command = [sys.executable, "-c", MAIN, "flow", "run", "--engine", engine, "--device", "cpu", "--json"]
    command += ["--input", str(folder / "in"), "--output", str(folder / "out"), "--store", str(folder / "store")]
    command += [word for setting in _SETTINGS for word in ("--set", setting)]
    with (folder / "told.json").open("wb") as told, (folder / "errors.txt").open("wb") as errors:
        return subprocess.Popen(command, env=environment, stdout=told, stderr=errors)


def finished(folder: Path, process: subprocess.Popen[bytes], look: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Look at a run until it ends; return what it told, with its exit status as `status`."""
    while process.poll() is None:
        look()
        time.sleep(0.2)
    text = (folder / "told.json").read_text()
    return {**(json.loads(text) if text.strip() else {"frames": []}), "status": process.returncode}


def many(frames: int, engine: str, folder: Path) -> dict[str, float]:
    """Run `frames` frames, cold and again; raise at whatever is wrong, and return the figures."""
    write_frames(folder / "in", frames)
    sizes: list[tuple[float, int]] = []

    def look() -> None:
        with contextlib.suppress(psutil.Error):
            sizes.append((time.time(), psutil.Process(process.pid).memory_info().rss))

    process = run(folder, engine)
    told = finished(folder, process, look)
    said = (folder / "errors.txt").read_text()
    _account(told, frames, said)
    pictures = sorted(path.stat().st_mtime for path in (folder / "out").glob("[!.]*"))
    if len(pictures) != frames:
        raise AssertionError(f"{len(pictures)} pictures of {frames} frames")
    fifth = frames // 5
    first = (pictures[2 * fifth] - pictures[fifth]) / fifth
    last = (pictures[-1] - pictures[-1 - fifth]) / fifth
    before = [size for at, size in sizes if pictures[fifth] <= at <= pictures[2 * fifth]]
    after = [size for at, size in sizes if pictures[-1 - fifth] <= at <= pictures[-1]]
    growth = statistics.median(after) - statistics.median(before)
    again = finished(folder, run(folder, engine))
    _account(again, frames, (folder / "errors.txt").read_text())
    if any("computed" in frame["stages"].values() for frame in again["frames"]):
        raise AssertionError("the second run computed something")
    figures = {
        "ms a frame, second fifth": 1000 * first,
        "ms a frame, last fifth": 1000 * last,
        "MB, second fifth": statistics.median(before) / 2**20,
        "MB grown by, last fifth": growth / 2**20,
        "s, cold": told["wall_seconds"],
        "s, cached": again["wall_seconds"],
    }
    if frames < ENOUGH:
        return figures
    if last > SLOWER * first:
        raise AssertionError(f"the last frames took {last / first:.2f} times as long as the first: {figures}")
    if growth > GROWTH:
        raise AssertionError(f"the run grew: {figures}")
    return figures


def lost_server(frames: int, folder: Path) -> Counter[str]:
    """Kill the Prefect server when a third of the pictures are there, see how the run ends, and go on with another."""
    write_frames(folder / "in", frames)
    with server(folder) as (process, api):
        flow = run(folder, "prefect", api)

        def look() -> None:
            if process.poll() is None and len(list((folder / "out").glob("*.jpg"))) >= frames // 3:
                process.kill()

        told = finished(folder, flow, look)
        lost = process.poll() is not None
    if not lost:
        raise AssertionError("the run was over before the server was killed")
    said = (folder / "errors.txt").read_text()
    if "Traceback" in said:
        raise AssertionError(f"no clear word: {said[-2000:]}")
    if told["status"] not in (0, 3) and "cannot be reached" not in said:
        raise AssertionError(f"the run ended with {told['status']} and said: {said[-2000:]}")
    done = len(list((folder / "out").glob("*.jpg")))
    with server(folder) as (_, api):
        again = finished(folder, run(folder, "prefect", api))
    _account(again, frames, (folder / "errors.txt").read_text())
    cached = sum("computed" not in frame["stages"].values() for frame in again["frames"])
    if cached < done:
        raise AssertionError(f"{done} pictures were there, and only {cached} were not computed again")
    return Counter({"pictures there when the run without a server ended": done, "not computed again": cached})


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a Prefect server on loopback, and give its process and the address of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.txt").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    api, end = f"http://127.0.0.1:{port}/api", time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=3):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError((folder / "server.txt").read_text()[-2000:])
            time.sleep(0.3)
        yield process, api
    finally:
        process.terminate()
        process.wait(30)


def _account(told: dict[str, Any], frames: int, said: str) -> None:
    outcomes = Counter(frame["outcome"] for frame in told["frames"])
    if outcomes != Counter({"rendered": frames}) or told["status"]:
        raise AssertionError(f"exit status {told['status']}, {dict(outcomes)} of {frames} frames: {said[-2000:]}")
    if "database is locked" in said:
        raise AssertionError(said[-2000:])


def main() -> None:
    """Run as many frames as asked, and print the figures."""
    parser = argparse.ArgumentParser(description="Run very many frames, and lose a server.")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--engines", nargs="*", choices=("local", "prefect"), default=("local", "prefect"))
    parser.add_argument("--lost", type=int, default=60, help="frames of the run that loses its server; 0: no such run")
    given = parser.parse_args()
    for engine in given.engines:
        with tempfile.TemporaryDirectory() as scratch:
            for name, value in many(given.frames, engine, Path(scratch)).items():
                print(f"{engine:<8} {value:>9.1f} {name}", flush=True)
    if given.lost:
        with tempfile.TemporaryDirectory() as scratch:
            for name, count in lost_server(given.lost, Path(scratch)).items():
                print(f"lost     {count:>9} {name}", flush=True)


if __name__ == "__main__":
    main()
