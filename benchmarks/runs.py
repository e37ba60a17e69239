"""What benchmarks run: raws that are made for them, and the program as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nightisp.dng import write_dng
from nightisp.image import CFA, ColorMatrix, Mosaic, Shot
from nightisp.noise import add_noise

ROOT = Path(__file__).parents[1]
MAIN = "from nightisp.__main__ import program; program()"
SHOT = Shot(
    camera="synthetic",
    iso=1600,
    as_shot_neutral=(0.6, 1.0, 0.5),
    noise_profile=((1e-3, 1e-6),),
    color_matrices=(ColorMatrix(xyz_to_camera=((0.8, -0.2, -0.1), (-0.4, 1.2, 0.2), (0.0, 0.1, 0.6)), illuminant=21),),
)
Figures = dict[str, Any]

device = "cpu"
"""Where the networks of all runs are, set once by who measures."""


def synthetic(path: Path, megapixels: float, seed: int = 0) -> Path:
    """Write a raw of smooth light and real noise, three by two."""
    rng = np.random.default_rng(seed)
    height = round((megapixels * 1e6 / 1.5) ** 0.5 / 4) * 4
    width = round(height * 1.5 / 4) * 4
    y, x = (np.linspace(0, 1, side, dtype=np.float32) for side in (height, width))
    waves = np.outer(np.sin(9 * y) ** 2, np.cos(14 * x) ** 2)
    light = 0.02 + 0.3 * waves**3 + 0.1 * (rng.random((height, width), np.float32) > 0.999)
    path.parent.mkdir(parents=True, exist_ok=True)
    noisy = np.minimum(add_noise(light.astype(np.float32), 1e-3, 1e-6, rng), 1)
    write_dng(Mosaic(noisy, cfa=CFA.RGGB, shot=SHOT), path, black_level=512, white_level=15871, bits=14)
    return path


def render(work: Path, raw: Path, *settings: str, store: str = "store") -> Figures:
    """Run `nightisp flow run` in a process of its own; return its account, and the seconds that the process took."""
    begun = time.perf_counter()
    process = _started(work, raw, *settings, store=store)
    report = _report(process, work, store)
    return {**report, "process_seconds": time.perf_counter() - begun}


def in_turn(work: Path, raw: Path, *ways: tuple[str, ...]) -> list[float]:
    """Run `nightisp flow run` in several ways, two seconds of each in turn; return the seconds that each took.

    What else the machine does slows all of them alike then; one after another, the same way differs by 4 % and more.
    """
    processes = [_started(work, raw, *settings, store=f"way{number}") for number, settings in enumerate(ways)]
    took = [0.0] * len(ways)
    for process in processes:
        _signal(process, "suspend")
    while going := [number for number, process in enumerate(processes) if process.poll() is None]:
        for number in going:
            _signal(processes[number], "resume")
            begun = time.perf_counter()
            with suppress(subprocess.TimeoutExpired):
                processes[number].wait(2)
            took[number] += time.perf_counter() - begun
            _signal(processes[number], "suspend")
    for number, process in enumerate(processes):
        _report(process, work, f"way{number}")
    return took


def _signal(process: subprocess.Popen[bytes], what: str) -> None:
    """Suspend or resume a process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        every = psutil.Process(process.pid)
        for each in (every, *every.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                getattr(each, what)()


def _started(work: Path, raw: Path, *settings: str, store: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", MAIN, "flow", "run", "--json", f"--input={raw}", f"--output={work}/{store}-output"]
    command += [f"--store={work}/{store}", f"--weights={ROOT / 'weights'}", f"--device={device}"]
    if not any(setting.startswith("--engine") for setting in settings):
        command.append("--engine=local")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (work / f"{store}.json").open("w") as out, (work / f"{store}.err").open("w") as err:
        return subprocess.Popen([*command, *settings], env=environment, cwd=work, stdout=out, stderr=err)


def _report(process: subprocess.Popen[bytes], work: Path, store: str) -> Figures:
    status = process.wait()
    out = (work / f"{store}.json").read_text()
    if status:
        sys.exit(f"{process.args}: {(work / f'{store}.err').read_text()}{out}")
    report: Figures = json.loads(out)
    return report


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
