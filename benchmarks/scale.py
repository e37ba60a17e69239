"""What more workers bring: measured on this machine, then simulated for 10 to 1,000 of them.

    python -m benchmarks.scale measure     # some ten minutes; writes benchmarks/scale.json
    python -m benchmarks.scale predict     # checks the simulation against what was measured; writes docs/scale/

Measured is what each process burns for a task run and for a frame: who sends, the Prefect server, its database, the
Dask scheduler, the workers. Pictures are tiny, or the work only sleeps, so that this is what shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from nightisp.batch import FrameResult
from nightisp.groups import Leg, Work

FIGURES = Path(__file__).with_name("scale.json")
REPOSITORY = Path(__file__).parents[1]
CORES = 2
SLEEP_S = 4.0


@dataclass(frozen=True, slots=True)
class Asleep(Work):
    """Work that takes its time and does nothing: a worker elsewhere, as far as all others can tell."""

    seconds: float = 0.0

    @property
    def title(self) -> str:
        """Say what it is."""
        return "asleep"

    def perform(self, *_: object) -> tuple[FrameResult, ...]:
        """Sleep."""
        time.sleep(self.seconds)
        return ()


class Lab:
    """Prefect on a database and Dask workers, each process's seconds on the processor counted by its part."""

    def __init__(self, folder: Path, kind: str, workers: int, threads: int) -> None:
        self.folder, self.kind, self.workers, self.threads = folder, kind, workers, threads

    @contextmanager
    def open(self) -> Iterator[None]:
        from nightisp.cli.ui import SETTINGS
        from tests.cluster import cluster
        from tests.postgres import postgres
        from tests.prefect_server import standing

        home = self.folder / "prefect"
        home.mkdir(parents=True)
        with ExitStack() as stack:
            variables = {**SETTINGS}
            if self.kind == "postgresql":
                database = stack.enter_context(postgres())
                variables["PREFECT_API_DATABASE_CONNECTION_URL"] = database.url
                self._database: int | None = database.pid
            else:
                self._database = None
            self.server = stack.enter_context(standing(home, **variables))
            offered = {f"w{n}": f"GPU={self.threads}" for n in range(self.workers)}
            running = cluster(self.folder / "dask", offered, threads=self.threads, OMP_NUM_THREADS="1")
            self.dask = stack.enter_context(running)
            yield

    def burnt(self) -> dict[str, float]:
        """Return the seconds on the processor so far, by part."""
        parts = {
            "server": [self.server.pid],
            "scheduler": [self.dask.scheduler.pid],
            "workers": [process.pid for process in self.dask.workers.values()],
            **({"database": [self._database]} if self._database else {}),
        }
        return {part: sum(_burnt(pid) for pid in pids) for part, pids in parts.items()}

    def run(self, code: str, *arguments: str) -> dict[str, Any]:
        """Run `python -m benchmarks.scale CODE ...` against the lab, and return what it prints with what was burnt."""
        before, environment = self.burnt(), {**self.server.environment, "PREFECT_API_URL": self.server.api}
        environment["PREFECT_LOGGING_LEVEL"] = "ERROR"
        command = [sys.executable, "-m", "benchmarks.scale", code, "--address", self.dask.address, *arguments]
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
        time.sleep(3)  # what is told later is burnt later
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        told["burnt"] |= {part: seconds - before[part] for part, seconds in self.burnt().items()}
        return told


def _burnt(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def measure() -> dict[str, Any]:
    """Measure frames in groups of several sizes, and sleeping workers in several numbers."""
    from tests.frames import write_frames

    figures: dict[str, Any] = {"cores": os.cpu_count(), "store": store(), "tiny": [], "asleep": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_frames(folder / "data", 120)
        for kind, workers, batch in (
            ("postgresql", 2, 1),
            ("postgresql", 2, 40),
            ("postgresql", 2, 5),
            ("postgresql", 1, 5),
            ("postgresql", 4, 5),
            ("sqlite", 2, 1),
        ):
            lab = Lab(folder / f"tiny-{kind}-{workers}-{batch}", kind, workers, 1)
            with lab.open():
                lab.run("tiny", "--data", str(folder / "data"), "--batch", "40", "--store", str(lab.folder / "warm"))
                told = lab.run(
                    "tiny", "--data", str(folder / "data"), "--batch", str(batch), "--store", str(lab.folder / "cold")
                )
            figures["tiny"].append({"database": kind, "workers": workers, "batch": batch, **told})
            print(figures["tiny"][-1], file=sys.stderr)
        for kind, threads in (("postgresql", 8), ("postgresql", 32), ("postgresql", 128), ("sqlite", 128)):
            lab = Lab(folder / f"asleep-{kind}-{threads}", kind, 4, threads // 4)
            with lab.open():
                lab.run("asleep", "--seconds", "0.1", "--works", str(threads))
                told = lab.run("asleep", "--seconds", str(SLEEP_S), "--works", str(max(64, 6 * threads)))
            figures["asleep"].append({"database": kind, "workers": threads, **told})
            print(figures["asleep"][-1], file=sys.stderr)
    return figures


def store() -> dict[str, dict[str, float]]:
    """Return seconds for writing, reading and finding 12 megapixels in a folder, as mosaic and as RGB."""
    import numpy as np

    from nightisp.image import CFA, LinearImage, Mosaic
    from nightisp.objects import open_store
    from nightisp.preview import preview

    draw = np.random.default_rng(0)
    mosaic = Mosaic(draw.normal(0.1, 0.02, (3000, 4000)).astype(np.float32), cfa=CFA.RGGB).rounded()
    linear = LinearImage(draw.normal(0.1, 0.02, (3000, 4000, 3)).astype(np.float32), space="srgb").rounded()
    told = {}
    for name, stage, picture in (("mosaic", "denoise", mosaic), ("picture", "color", linear)):
        with tempfile.TemporaryDirectory() as folder:
            opened = open_store(folder)
            seen = preview(picture)
            begun = time.perf_counter()
            opened.write(stage, "ab" * 32, picture, seen, {})
            written = time.perf_counter()
            opened.read(stage, "ab" * 32, type(picture))
            read = time.perf_counter()
            for _ in range(100):
                opened.holds(stage, "ab" * 32)
            hit = (time.perf_counter() - read) / 100
            told[name] = {"write": written - begun, "read": read - written, "hit": hit}
    return told


def tiny(address: str, data: Path, batch: int, into: Path) -> dict[str, Any]:
    """Render tiny frames up to the tone curve, without networks."""
    from flows.quiet import settle

    settle()
    from flows.render import Silent, run
    from nightisp.batch import Stop
    from nightisp.run import Options
    from tests.frames import CLASSICAL

    settings = tuple(f"{stage}.{name}={value}" for stage, chosen in CLASSICAL.items() for name, value in chosen.items())
    options = Options(
        inputs=(data,), store=into, settings=settings, until="tone", runner="dask", address=address, batch=batch
    )
    before = time.process_time()
    report = run(options, Silent(), Stop())
    assert all(frame.outcome == "rendered" for frame in report.frames)
    burnt = {"sender": time.process_time() - before}
    computed = sum(sum(frame.seconds.values()) for frame in report.frames)
    frames = len(report.frames)
    groups = -(-frames // batch)
    runs = groups + (len(report.frames[0].stages) * frames if batch == 1 else 0)
    return {
        "frames": frames,
        "groups": groups,
        "task_runs": runs,
        "seconds": report.wall_seconds,
        "in_stages": computed,
        "burnt": burnt,
    }


def asleep(address: str, seconds: float, works: int) -> dict[str, Any]:
    """Send work that only sleeps, as fast as it is taken."""
    from flows.quiet import settle

    settle()
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    from prefect import flow

    from flows.runners import opened
    from nightisp.batch import Stop
    from nightisp.run import Options

    nothing = Asleep(Leg(("tone",), "GPU"), (), (), each=False, seconds=seconds)
    lasted: list[float] = []

    @flow
    def probe() -> None:
        with opened(Options(runner="dask", address=address)) as runner:

            def one(number: int) -> None:
                list(runner.send(replace(nothing, id=str(number)), Stop(), _nobody))

            with ThreadPoolExecutor(runner.at_once) as pool:
                begun, before = time.perf_counter(), time.process_time()
                for ended in [pool.submit(copy_context().run, one, number) for number in range(works)]:
                    ended.result()
                lasted.extend((time.perf_counter() - begun, time.process_time() - before))

    probe()
    return {"task_runs": works, "sleep": seconds, "seconds": lasted[0], "burnt": {"sender": lasted[1]}}


def _nobody(_: FrameResult) -> None:
    return None


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "predict", "tiny", "asleep"))
    parser.add_argument("--address", default="")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--works", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.what == "measure":
        FIGURES.write_text(json.dumps(measure(), indent=1) + "\n")
    elif given.what == "predict":
        from benchmarks.scale_predict import predict

        predict(json.loads(FIGURES.read_text()))
    elif given.what == "tiny":
        print(json.dumps(tiny(given.address, given.data, given.batch, given.store)))
    else:
        print(json.dumps(asleep(given.address, given.seconds, given.works)))


if __name__ == "__main__":
    main(sys.argv[1:])
