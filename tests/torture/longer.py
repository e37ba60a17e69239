"""Kill training and `dvc repro` until they are through; they end as those that nobody disturbed.

python -m tests.torture.longer --kills 20 --seed 1

A command is started again after each kill and goes on from what is there. When it is through, it begins anew in another
folder, until there were enough kills.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nightisp.errors import StoreError
from nightisp.models.weights import Library
from nightisp.store import Store
from tests.clone import BIN, REPOSITORY, clone

MAIN = "from nightisp.__main__ import program; program()"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LEFT = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143, 255, 1}
"""Exit statuses of what was killed; DVC has its own."""


@dataclass
class Subject:
    """Something that is killed: how it begins in a folder, the command, and what it has made, as digests."""

    begin: Callable[[Path], None]
    command: list[str]
    made: Callable[[Path], dict[str, str]]
    sound: Callable[[Path], None] = lambda folder: None


def training(scratch: Path) -> Subject:
    """Return a training of a tiny U-Net, some seconds long."""
    photographs = scratch / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(5)
    for n in range(30):
        small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        cv2.imwrite(str(photographs / f"{n}.png"), cv2.resize(small, (192, 160), interpolation=cv2.INTER_CUBIC))
    settings = ["width=4", "levels=2", "crop=16", "scenes=4", "scale=[0.5, 0.9]", "schedule.steps=400"]
    settings += ["schedule.batch=2", "schedule.validate_every=100", "schedule.checkpoint_every=0.001"]
    settings += ["schedule.precision=float32"]
    command = [sys.executable, "-c", MAIN, "train", "denoise", "--photographs", str(photographs), "--device", "cpu"]
    command += ["--threads", "1", "--runs", "runs", "--output", "weights"]
    command += [word for setting in settings for word in ("--set", setting)]

    def made(folder: Path) -> dict[str, str]:
        return {entry.name: entry.card["content_sha256"] for entry in Library([folder / "weights"]).entries()}

    return Subject(lambda folder: folder.mkdir(), command, made)


def repro(_: Path) -> Subject:
    """Return `dvc repro` over three tiny raws."""

    def made(folder: Path) -> dict[str, str]:
        files = [*(folder / "output").glob("*.jpg"), *(folder / "manifests").glob("*.json")]
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def sound(folder: Path) -> None:
        store = Store(folder / "artifacts")
        for entry in store.entries():
            store.verify(entry)

    def begin(folder: Path) -> None:
        clone(folder, ["a", "b", "c"])

    return Subject(begin, [str(BIN / "dvc"), "repro"], made, sound)


SUBJECTS = {"training": training, "repro": repro}


def torture(name: str, kills: int, seed: int) -> Counter[str]:
    """Kill so often; raise at the first thing that is wrong."""
    rng, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as given:
        scratch = Path(given)
        subject = SUBJECTS[name](scratch)
        whole = scratch / "whole"
        subject.begin(whole)
        begun = time.monotonic()
        if status := ended(started(subject.command, whole)):
            raise AssertionError(f"the undisturbed {name} ended with {status}")
        took, expected = time.monotonic() - begun, subject.made(whole)
        while counts["killed"] < kills:
            folder = scratch / f"run{counts['finished']}"
            subject.begin(folder)
            while True:
                process, number = started(subject.command, folder), rng.choice(SIGNALS)
                wait, group = rng.uniform(0.2, 0.7) * took, rng.random() < 0.5
                try:
                    status = process.wait(wait)
                except subprocess.TimeoutExpired:
                    (os.killpg if group else os.kill)(process.pid, number)
                    status = ended(process)
                    if _lives(process.pid):  # what a killed parent left would be at work beside the next one
                        os.killpg(process.pid, signal.SIGKILL)
                    counts["killed"] += 1
                    counts[f"{number.name}{' to all of its processes' if group else ''}"] += 1
                    if status not in {0, *LEFT}:
                        raise AssertionError(f"{number.name} after {wait:.1f} s: ended with {status}") from None
                try:
                    subject.sound(folder)
                except StoreError as error:
                    raise AssertionError(f"{number.name} after {wait:.1f} s: {error}") from error
                if status == 0 or counts["killed"] >= kills:
                    break
            if status and (again := ended(started(subject.command, folder))):
                raise AssertionError(f"after {counts['killed']} kills, {name} ended with {again}")
            counts["finished"] += 1
            if (found := subject.made(folder)) != expected or not expected:
                raise AssertionError(f"{name} made {found}, undisturbed {expected}")
    return counts


def started(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command as the head of a group of processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(folder if (folder / "nightisp").is_dir() else REPOSITORY)
    environment.pop("NIGHTISP_STORE", None)
    null = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=null, stderr=null, start_new_session=True)


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the exit status."""
    return process.wait(600)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Kill each subject as often as asked, and print the counts."""
    parser = argparse.ArgumentParser(description="Kill training and `dvc repro` until they are through.")
    parser.add_argument("--kills", type=int, default=20, help="of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    given = parser.parse_args()
    for name in given.only:
        for what, count in sorted(torture(name, given.kills, given.seed).items()):
            print(f"{name:<9} {count:>4} {what}", flush=True)


if __name__ == "__main__":
    main()
