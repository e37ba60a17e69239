"""Feed malformed inputs to runs: each gives a right picture or a named error, and the others of its run go on.

python -m tests.torture.inputs --count 2500 --seed 1

Inputs lie in folders of 25 with one good raw, whose picture must be the same each time. Most folders are rendered
through what `flow run --engine local` calls, in this process; every tenth through the command itself.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.frames import CLASSICAL, write_frame
from tests.malformed import REPOSITORY, Bases, Case, cases

FOLDER = 25
COMMAND_EVERY = 10
SECONDS = 120
"""A folder of 25 small inputs takes about 2 s; a decoder is given 20 s (NIGHTISP_DECODE_SECONDS) and one a megabyte."""
BYTES = 2 * 10**9
"""A run of small raws takes 0.3 GB, two thirds of that Python and its libraries."""

_SETTINGS = tuple(f"{stage}.{name}={value}" for stage, given in CLASSICAL.items() for name, value in given.items())
_FAULT = re.compile(r"a fault of nightisp|Traceback|: (\w+: )?(?!DecoderError)[A-Z]\w*(Error|Exception|Interrupt): ")
_REMEDY = re.compile(
    r"\b(copy|convert|leave|set|rename|correct|add|put|give|write|run again|choose|name|save|remove|try|make|check|"
    r"move|expected|free|unset|report|should|the stages are|correct it|"
    r"such parameter; \w+ has|exceeded maximum size)\b",
    re.IGNORECASE,
)


def run(folder: Path, *, command: bool) -> list[dict[str, Any]]:
    """Render all that lies in `folder`/in; return what became of each frame, as `--json` tells it."""
    given = {"inputs": (folder / "in",), "output": folder / "out", "store": folder / "store"}
    if command:
        words = ["flow", "run", "--engine", "local", "--device", "cpu", "--json", "--input", str(folder / "in")]
        words += ["--output", str(folder / "out"), "--store", str(folder / "store")]
        words += [word for setting in _SETTINGS for word in ("--set", setting)]
        line = [sys.executable, "-c", "from nightisp.__main__ import program; program()", *words]
        done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=SECONDS)
        if done.returncode not in (0, 3) or "Traceback" in done.stderr:
            raise AssertionError(f"the command ended with {done.returncode}: {done.stderr[-3000:]}")
        found = json.loads(done.stdout)
        if found["peak_rss_bytes"] > BYTES:
            raise AssertionError(f"the command took {found['peak_rss_bytes'] / 1e9:.1f} GB")
        frames: list[dict[str, Any]] = found["frames"]
        return frames
    from nightisp.batch import Stop
    from nightisp.run import Options, as_json, execute

    options = Options.model_validate({**given, "settings": _SETTINGS, "device": "cpu"})
    told: list[dict[str, Any]] = as_json(execute(options, _Silent(), Stop()))["frames"]
    return told


class _Silent:
    def found(self, batch: Any) -> None: ...
    def began(self, frame: str, stage: str) -> None: ...
    def ended(self, result: Any) -> None: ...


def picture(path: Path) -> np.ndarray[Any, Any]:
    """Read a finished picture, (H, W, 3)."""
    found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise AssertionError(f"{path}: no picture")
    return found


def judged(case: Case, frame: dict[str, Any], bases: dict[str, np.ndarray[Any, Any]]) -> str:
    """Return what is wrong with what became of an input, '' if nothing is."""
    source = Path(frame["source"])
    if frame["outcome"] == "failed":
        error = frame["error"]
        if case.outcome in ("rendered", "same"):
            return f"refused: {error}"
        if _FAULT.search(error):
            return f"a fault without a name: {error}"
        if not any(
            name in error for name in (source.name, repr(source.name)[1:-1], ascii(source.name)[1:-1], source.stem)
        ):
            return f"the file is not named: {error}"
        return "" if _REMEDY.search(error) else f"no remedy: {error}"
    if frame["outcome"] != "rendered":
        return f"neither rendered nor failed, but {frame['outcome']}"
    if case.outcome == "failed":
        return "rendered, although it must be refused"
    made = picture(Path(frame["output"]))
    if case.outcome == "same" and not np.array_equal(made, bases[case.base]):
        return "not the picture of the undamaged file"
    from nightisp.errors import NightispError
    from nightisp.raw import inspect

    try:
        summary = inspect(source)
    except NightispError as error:
        return f"rendered, but another look refuses it: {error}"
    sides = sorted((summary.height, summary.width))
    longest = frame["sidecar"].get("export", {}).get("longest")
    if sorted(made.shape[:2]) != sides and not longest:
        return f"the picture is {made.shape[:2]}, the raw {sides}"
    return ""


def unsound(store: Path) -> str:
    """Return what is wrong with the samples of finished pictures in a store: not finite, or out of [0, 1]."""
    from nightisp.image import DisplayImage
    from nightisp.store import Store

    opened = Store(store)
    for entry in opened.entries("super_resolution"):
        samples = opened.read(entry.stage, entry.key, DisplayImage).samples
        if not np.isfinite(samples).all() or samples.min() < 0 or samples.max() > 1:
            return f"{entry.attributes['source']['name']}: samples from {samples.min()} to {samples.max()}"
    return ""


def peak_bytes() -> int:
    """Return the most memory held since the last call, where the system tells (Linux)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    reset.write_text("5")
    return int(line.split()[1]) * 1024


def torture(
    count: int, seed: int, say: Callable[[str], None] = lambda _: None, shared: Path | None = None
) -> tuple[Counter[str], list[str]]:
    """Feed so many inputs; return counts of kinds and outcomes, and a line for each thing that is wrong."""
    counts, wrong = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="inputs-") as scratch:
        root = Path(scratch)
        known = Bases(root / "bases", shared)
        pictures = _undamaged(root, known)
        all_cases = cases(known, count, seed)
        for first in range(0, len(all_cases), FOLDER):
            batch = all_cases[first : first + FOLDER]
            folder = root / f"batch{first}"
            faulthandler.dump_traceback_later(SECONDS, exit=True)  # a hang is told of with the place
            begun = time.monotonic()
            try:
                wrong += _folder(folder, batch, pictures, counts, command=first // FOLDER % COMMAND_EVERY == 3)
            except Exception as error:
                wrong.append(f"inputs {first} to {first + len(batch)}: the run broke: {type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()
            counts["longest folder, s"] = max(counts["longest folder, s"], round(time.monotonic() - begun))
            if (peak := peak_bytes()) > BYTES:
                wrong.append(f"inputs {first} to {first + len(batch)}: {peak / 1e9:.1f} GB")
            counts["most memory, MB"] = max(counts["most memory, MB"], peak // 10**6)
            _cleared(folder)
            say(f"{first + len(batch)} of {count}, {len(wrong)} wrong")
    return counts, wrong


def _undamaged(root: Path, bases: Bases) -> dict[str, np.ndarray[Any, Any]]:
    folder = root / "undamaged"
    (folder / "in").mkdir(parents=True)
    for name, content in bases.tiny.items():
        (folder / "in" / f"{name}.dng").write_bytes(content)
    (folder / "in" / "pair.png").write_bytes(bases.png)
    (folder / "in" / "pair.json").write_text(json.dumps(bases.json))
    write_frame(folder / "in" / "good.dng", 77)
    return {frame["frame"]: picture(Path(frame["output"])) for frame in run(folder, command=False)}


def _folder(
    folder: Path,
    batch: list[Case],
    pictures: dict[str, np.ndarray[Any, Any]],
    counts: Counter[str],
    *,
    command: bool,
) -> list[str]:
    inputs = folder / "in"
    inputs.mkdir(parents=True)
    names = {}
    for n, case in enumerate(batch):
        name = case.name if case.name is not None else f"input{n:02}"
        case.write(inputs, name)
        names[f"{name}{case.suffix}"] = case
    write_frame(inputs / "good.dng", 77)
    frames = {Path(frame["source"]).name: frame for frame in run(folder, command=command)}
    wrong = []
    good = frames.pop("good.dng")
    if good["outcome"] != "rendered" or not np.array_equal(picture(Path(good["output"])), pictures["good"]):
        wrong.append(f"the good raw beside them: {good['outcome']} {good['error'] or ''}")
    for name, case in names.items():
        counts[f"kind: {case.kind}"] += 1
        counts["inputs by the command" if command else "inputs in this process"] += 1
        if name not in frames:
            if not (inputs / name).is_dir():  # folders are passed over
                wrong.append(f"{case.kind}, {name!r}: not accounted for")
            counts["folders passed over"] += 1
            continue
        counts[frames[name]["outcome"]] += 1
        if fault := judged(case, frames[name], pictures):
            kept = Path(tempfile.gettempdir()) / "wrong-inputs" / f"{len(os.listdir(inputs))}-{os.urandom(3).hex()}"  # noqa: PTH208
            wrong.append(f"{case.kind}, {name!r}: {fault}; kept in {kept}")
            kept.mkdir(parents=True)
            for path in inputs.glob("*"):
                if path.name.startswith(Path(name).stem) and path.is_file():
                    shutil.copy(path, kept)
    if fault := unsound(folder / "store"):
        wrong.append(fault)
    return wrong


def _cleared(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Feed as many as asked, print the counts, and leave with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Feed malformed inputs to `nightisp flow run`.")
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("NIGHTISP_DECODE_SECONDS", "20")
    shared = Path(os.environ["NIGHTISP_SHARED"]) if "NIGHTISP_SHARED" in os.environ else None
    begun = time.monotonic()
    counts, wrong = torture(given.count, given.seed, lambda what: print(what, flush=True), shared)
    for name, number in sorted(counts.items()):
        print(f"{number:>6} {name}")
    print(*wrong, sep="\n")
    took = f"{time.monotonic() - begun:>6.0f} s"
    if wrong:
        sys.exit(f"{took}, {len(wrong)} wrong")
    print(f"{took}, nothing wrong")


if __name__ == "__main__":
    main()
