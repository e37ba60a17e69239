"""Kill `nightisp flow run` over and over; after each kill the store is sound, and a rerun ends as an undisturbed run.

python -m tests.torture.kills --kills 200 --seed 1
python -m tests.torture.kills --kills 30 --engine prefect

Each process is forked from one that has imported everything: a cycle takes about a second. A chosen point is the moment
before the n-th change to the disk (a file opened for writing, a folder made, a rename, a removal): Python's
audit events tell of each, so that nothing in nightisp has to know of the harness.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nightisp.errors import StoreError
from nightisp.store import Store
from tests.frames import CLASSICAL, write_frames

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove"}
_SETTINGS = [f"{stage}.{name}={value}" for stage, given in CLASSICAL.items() for name, value in given.items()]


def command(folder: Path, engine: str) -> list[str]:
    """Return the arguments of the run that is killed."""
    given = ["flow", "run", "--engine", engine, "--device", "cpu", "--workers", "2", "--input", str(folder / "in")]
    given += ["--output", str(folder / "out"), "--store", str(folder / "store")]
    return [*given, *(word for setting in _SETTINGS for word in ("--set", setting))]


def started(arguments: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a process that runs the command line with these arguments; return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        from nightisp.cli import main

        prepare()
        sys.argv = ["nightisp", *arguments]
        main()
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    """Wait for a process; return its exit status, or the signal that killed it as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_change(folder: Path, number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return what makes a process act before its n-th change to a file below `folder`."""
    root, seen = str(folder), [0]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        writes = event in _CHANGES or (event == "open" and isinstance(given[2], int) and given[2] & os.O_ACCMODE)
        if not writes or not given or not str(given[0]).startswith(root):
            return
        seen[0] += 1
        if seen[0] == number:
            act()

    return lambda: sys.addaudithook(hook)


def changes(folder: Path, engine: str) -> int:
    """Run undisturbed in `folder`; return how many changes to the disk that takes."""
    told, tell = os.pipe()
    root = str(folder)

    def prepare() -> None:
        def hook(event: str, given: tuple[Any, ...]) -> None:
            writes = event in _CHANGES or (event == "open" and isinstance(given[2], int) and given[2] & os.O_ACCMODE)
            if writes and given and str(given[0]).startswith(root):
                os.write(tell, b".")

        sys.addaudithook(hook)

    status = ended(started(command(folder, engine), prepare))
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        count = len(pipe.read())
    if status:
        raise SystemExit(f"the undisturbed run ended with {status}")
    return count


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file that a run left; of an artifact's record, with its times, what decides pixels.

    Logs of use stay out: each process has its own, and they are kept for 30 days.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or ".use" in name.parts or name.parts[0] == "in":
            continue
        content = path.read_bytes()
        if path.name == "zarr.json" and path.parent.suffix == ".zarr":
            record = json.loads(content)["attributes"]
            content = json.dumps([record["key"], record["state"], record["params"], record["upstream"]]).encode()
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def check_store(folder: Path) -> None:
    """Raise `StoreError` if any artifact that is to be seen is not sound, byte for byte."""
    store = Store(folder / "store")
    for entry in store.entries():
        store.verify(entry)


def torture(kills: int, seed: int, say: Callable[[str], None] = lambda _: None, engine: str = "local") -> Counter[str]:
    """Kill so often, half at random moments, half at chosen points; raise at the first thing that is wrong.

    Returns
    -------
    Counter
        Of the signals and kinds of moment, of runs that the signal came too late for, and of changes to the disk.
    """
    import zarr  # noqa: F401

    import nightisp.cli.flow
    import nightisp.run  # noqa: F401 - imported before the fork

    if engine == "prefect":
        import flows.render  # noqa: F401

    rng, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "work"
        os.environ["PREFECT_HOME"] = str(Path(scratch) / "prefect")
        write_frames(folder / "in", 3)
        steps = changes(folder, engine)
        expected = contents(folder)
        begun = time.monotonic()
        clean(folder)
        ended(started(command(folder, engine)))
        took = time.monotonic() - begun
        counts["changes to the disk"] = steps
        while counts["killed"] < kills:
            clean(folder)
            number, chosen = SIGNALS[counts["runs"] % 3], counts["runs"] // 3 % 2 == 0
            counts["runs"] += 1
            if chosen:
                point = rng.randint(1, steps)
                where = f"{number.name} before change {point}"
                pid = started(
                    command(folder, engine), at_change(folder, point, lambda n=number: os.kill(os.getpid(), n))
                )
            else:
                wait = rng.uniform(0, took)
                where = f"{number.name} after {wait:.3f} s"
                pid = started(command(folder, engine))
                time.sleep(wait)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            status = ended(pid)
            if status == 0 and contents(folder) == expected:
                counts["finished before the signal took effect"] += 1
            else:
                if status not in (-number, 130):
                    raise AssertionError(f"{where}: ended with {status}, and not all was there")
                counts["killed"] += 1
                counts[f"{number.name} {'chosen' if chosen else 'random'}"] += 1
            try:
                check_store(folder)
            except StoreError as error:
                raise AssertionError(f"{where}: {error}") from error
            partial = contents_of_pictures(folder)
            if not partial.items() <= expected.items():
                raise AssertionError(f"{where}: a wrong picture: {partial.items() - expected.items()}")
            if again := ended(started(command(folder, engine))):
                raise AssertionError(f"{where}: the rerun ended with {again}")
            if (found := contents(folder)) != expected:
                raise AssertionError(f"{where}: the rerun differs: {sorted(found.items() ^ expected.items())[:6]}")
            if counts["runs"] % 25 == 0:
                say(f"{counts['killed']} of {kills} killed")
    return counts


def contents_of_pictures(folder: Path) -> dict[str, str]:
    """Return the pictures that stand in the output folder, temporary files apart."""
    pictures = (folder / "out").glob("[!.]*.*")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}


def clean(folder: Path) -> None:
    """Remove what runs left."""
    for name in ("store", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)


def main() -> None:
    """Kill as often as asked, and print the counts."""
    parser = argparse.ArgumentParser(description="Kill `nightisp flow run`, and see that nothing is lost.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("local", "prefect"), default="local")
    given = parser.parse_args()
    begun = time.monotonic()
    counts = torture(given.kills, given.seed, lambda what: print(what, flush=True), given.engine)
    for name, count in sorted(counts.items()):
        print(f"{count:>6} {name}")
    print(f"{time.monotonic() - begun:>6.0f} s, nothing wrong")


if __name__ == "__main__":
    main()
