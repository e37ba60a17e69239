"""One run over many pictures, whoever schedules it: options in, an account of every picture out."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from nightisp import looks, sources
from nightisp import params as parameters
from nightisp.batch import Batch, FrameResult, Performed, Stop, perform, prepare, render_all, render_frame
from nightisp.engine import Engine, Plan
from nightisp.naming import FRAME, Naming
from nightisp.objects import open_store
from nightisp.pipeline import NAMES, PIPELINE, index
from nightisp.project import store_location, weights_folders
from nightisp.publish import check_writable
from nightisp.retry import retried
from nightisp.sources import Source


class Options(BaseModel):
    """What to render, with what, to where: plain values, so that any scheduler can carry them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str | Path, ...] = Field((Path("data"),), description="raw files, folders of them, or URLs of either")
    output: Path = Field(Path("output"), description="folder of the finished pictures")
    store: str | Path | None = Field(None, description="artifact store, folder or URL; by default that of the project")
    weights: Path | None = Field(None, description="folder of weights, looked into before the others")
    params: Path | None = Field(None, description="params file; by default that of the project, or the defaults")
    look: str | None = Field(None, description="name of a look, laid over the params file")
    settings: tuple[str, ...] = Field((), description="STAGE.NAME=VALUE, laid over all of these")
    name: str = Field(FRAME, description="name of each picture, with fields in braces")
    frames: str = Field("*", description="pattern of frame names")
    until: str = Field(NAMES[-1], description="last stage to run")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    workers: int | None = Field(None, ge=1, description="pictures at once; by default the number of cores")
    memory: int = Field(4 * 10**9, gt=0, description="bytes for all pictures in flight")
    recursive: bool = Field(False, description="look into sub-folders")
    runner: Literal["threads", "dask", "ray"] = Field("threads", description="where stages run: here, or on workers")
    address: str | None = Field(None, description="of the workers' scheduler; by default workers of this machine")
    batch: int = Field(1, ge=1, description="pictures a task run; with more than one, stages have no task runs")


class Observer(Protocol):
    """Is told how a run goes on."""

    def found(self, batch: Batch) -> None:
        """Hear what preflight made of the input."""

    def began(self, frame: str, stage: str) -> None:
        """Hear that a frame comes to a stage; called from many threads."""

    def ended(self, result: FrameResult) -> None:
        """Hear that a frame is through."""


@dataclass
class Report:
    """The account of a run: every picture that was found."""

    frames: list[FrameResult] = field(default_factory=list)
    wall_seconds: float = 0.0
    interrupted: bool = False
    unrecorded: str = ""
    """Why whoever schedules does not know of all of it, in words."""

    @property
    def status(self) -> int:
        """Exit status: 0 all rendered, 3 some failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 3 if any(f.outcome == "failed" for f in self.frames) else 0


def memory_budget() -> int:
    """Return the bytes that all pictures in flight may take if nobody says: 60 % of what is free."""
    import psutil

    return int(0.6 * psutil.virtual_memory().available)


def open_engine(store: str | Path | None, weights: Path | None, device: str, memory: int | None = None) -> Engine:
    """Open store and weights, one engine a process for the same three; sweep up what dead processes left.

    Parameters
    ----------
    memory
        Bytes for all pictures in flight; a quarter of them is what the features of a network's tiles may take.
    """
    with _OPENING:  # two engines of one store would not know of each other's writes
        engine = _engine(store_location(store), weights_folders(weights), device)
    if memory is not None:
        engine.networks.limit(memory // 4)
    return engine


_OPENING = threading.Lock()


@cache
def _engine(store: str, weights: tuple[Path, ...], device: str) -> Engine:
    from nightisp.models.weights import Compute, Library

    library = Library(weights)
    engine = Engine(open_store(store), library, Compute(library, device))
    engine.store.sweep()
    return engine


def read_tree(options: Options) -> parameters.Tree:
    """Read and check the parameters of a run."""
    return looks.read_params(options.params, options.look, options.settings)


def check_networks(engine: Engine, tree: parameters.Tree, until: str, device: str) -> None:
    """Raise at once if a network chosen up to a stage has no weights, or the device asked for is not there."""
    chosen = parameters.validate(tree, "params")
    names = [name for stage in PIPELINE[: index(until) + 1] for name in stage.weights(chosen[stage.name])]
    for name in names:
        engine.library.find(name)
    if device not in ("auto", "cpu"):  # those are always there, and to ask takes PyTorch's import
        _ = engine.networks.device


def check(options: Options) -> tuple[Engine, parameters.Tree]:
    """Check all that costs next to nothing: stage, names, parameters, weights, device, and that there is any input.

    Raises
    ------
    NightispError
        If the options are at fault.
    """
    engine, tree = check_settings(options)
    sources.find(options.inputs, recursive=options.recursive, exclude=[options.output, *engine.store.folders])
    return engine, tree


def check_settings(options: Options) -> tuple[Engine, parameters.Tree]:
    """Check stage, names, parameters, weights and device, as `check` does, before there need be any input."""
    index(options.until)
    Naming(options.name)
    tree = read_tree(options)
    engine = open_engine(options.store, options.weights, options.device, options.memory)
    check_networks(engine, tree, options.until, options.device)
    return engine, tree


class Begun(NamedTuple):
    """What is known of a run before its first pixel."""

    engine: Engine
    tree: parameters.Tree
    batch: Batch
    since: float
    """When it began, by `time.perf_counter`."""


def begin(options: Options) -> Begun:
    """Check everything that can be checked before the first pixel: the options, then every input."""
    since = time.perf_counter()
    engine, tree = check(options)
    batch = prepare(
        engine,
        tree,
        options.inputs,
        recursive=options.recursive,
        exclude=[options.output, *engine.store.folders],
        frames=options.frames,
        until=options.until,
        naming=Naming(options.name, options.look),
        computes=options.runner == "threads",
    )
    return Begun(engine, tree, batch, since)


def execute(
    options: Options,
    observer: Observer,
    stop: Stop,
    through: Callable[[Options, parameters.Tree, Plan, str], Performed] | None = None,
    begun: Begun | None = None,
) -> Report:
    """Render every picture that `options` name; what goes wrong with one is written down, and the others go on.

    Parameters
    ----------
    through
        How a scheduler performs one stage of one frame, and tries again what may pass; by default in this thread.
    begun
        What `begin` made of the same options, if it was called already.

    Raises
    ------
    NightispError
        If the options themselves are at fault, so that there is nothing to render.
    """
    output = options.output if options.until == NAMES[-1] else None
    if output:
        check_writable(output)
    engine, tree, batch, since = begun or begin(options)
    observer.found(batch)

    def one_stage(plan: Plan, name: str) -> Performed:
        if through:
            return through(options, tree, plan, name)
        return retried(lambda: perform(engine, plan, name, output, wait=False), stop.wait)

    def one_frame(plan: Plan) -> FrameResult:
        return render_frame(engine, plan, options.until, one_stage, stop, observer.began)

    if engine.store.is_shared:  # hosts that begin with the same raws would wait for one another at each
        at = random.randrange(max(1, len(batch.plans)))  # noqa: S311 - no secret
        batch = replace(batch, plans=batch.plans[at:] + batch.plans[:at])
    workers = options.workers or os.cpu_count() or 1
    rendered = render_all(batch, one_frame, workers=workers, memory=options.memory, stop=stop, done=observer.ended)
    frames = sorted([*batch.refused, *rendered], key=lambda result: (result.frame, str(result.source)))
    return Report(frames, time.perf_counter() - since, interrupted=bool(stop))


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one frame as plain values: what a task is sent, wherever it runs."""

    source: Source
    tree: parameters.Tree
    store: str
    weights: Path | None
    device: str
    memory: int
    output: Path | None

    @classmethod
    def of(cls, options: Options, tree: parameters.Tree, plan: Plan) -> Job:
        """Return the job of a plan."""
        output = options.output if options.until == NAMES[-1] else None
        store = store_location(options.store)
        return cls(plan.source, tree, store, options.weights, options.device, options.memory, output)

    def perform(self, stage: str) -> Performed:
        """Ensure the stage; if it is the last of the run, publish the picture."""
        engine = open_engine(self.store, self.weights, self.device, self.memory)
        return perform(engine, engine.plan(self.source, self.tree, stage), stage, self.output, wait=False)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as the object that `flow run --json` prints."""
    return {
        "frames": [
            {
                "frame": f.frame,
                "source": str(f.source),
                "outcome": f.outcome,
                "output": str(f.output) if f.output else None,
                "error": f.error,
                "failed_in": f.stage,
                "sidecar": f.own,
                "stages": f.stages,
                "seconds": f.seconds,
            }
            for f in report.frames
        ],
        "wall_seconds": round(report.wall_seconds, 3),
        "peak_rss_bytes": peak_rss(),
    }


def peak_rss() -> int:
    """Return the most resident memory that this process has held, in bytes."""
    import resource
    import sys

    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with what the parent held when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
