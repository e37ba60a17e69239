"""One stage over all frames, from manifest to manifest: what `dvc repro` runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nightisp import journal
from nightisp.batch import Batch, FrameResult, Stop, named, perform, prepare, render_all
from nightisp.engine import Engine, Plan
from nightisp.errors import NightispError, ParamsError, RawFileError, StageError, is_transient
from nightisp.manifest import Line, path, read, write
from nightisp.params import Tree
from nightisp.pipeline import NAMES, index
from nightisp.publish import check_writable
from nightisp.retry import retried
from nightisp.sources import Source


def run_stage(
    engine: Engine,
    tree: Tree,
    name: str,
    root: Path,
    inputs: Sequence[str | Path],
    output: Path,
    *,
    recursive: bool = False,
    workers: int = 1,
    memory: int = 0,
) -> list[Line]:
    """Ensure a stage for every frame and write its manifest; a frame that fails is a line that says so.

    A fault of the machine (disk, memory, device, or ours) is no fact about a frame: it is raised once all frames were
    tried, and no manifest is written, so that DVC does not take it for the result.

    Parameters
    ----------
    root
        Folder of `manifests`; sources are written relative to it where they lie below it.
    inputs, recursive
        Where `ingest` looks for raws; later stages take the frames of the stage before.
    output
        Where `export` publishes the pictures.
    """
    place = index(name)
    if name == NAMES[-1]:
        check_writable(output)
    if place:
        before = read(path(root, NAMES[place - 1]), NAMES[place - 1])
        batch, lines = _resume(engine, tree, root, before, name)
    else:
        batch = prepare(engine, tree, inputs, recursive=recursive, exclude=[output, *engine.store.folders], until=name)
        lines = {(r.frame, str(r.source)): _failed(root, r) for r in batch.refused}
    lines |= {(p.source.frame, str(p.source.path)): _line(root, p, batch) for p in batch.plans}
    last = output if name == NAMES[-1] else None
    faults: list[Exception] = []
    stop = Stop()

    def render(plan: Plan) -> FrameResult:
        result = FrameResult(plan.source.frame, plan.source.path, stage=name)
        try:
            retried(lambda: perform(engine, plan, name, last), stop.wait)
            result.outcome = "rendered"
        except Exception as error:
            journal.failed(result.frame, name, error)
            if isinstance(error, RawFileError | StageError | ParamsError) and not is_transient(error):
                result.outcome, result.error = "failed", named(plan.source.path, error)  # costs this frame only
            else:
                faults.append(error)
        return result

    results = render_all(batch, render, workers=workers, memory=memory, stop=stop)
    if faults:
        raise faults[0]
    for plan, result in zip(batch.plans, results, strict=True):
        at = (plan.source.frame, str(plan.source.path))
        if result.outcome == "rendered":
            lines[at] = replace(lines[at], key=plan.keys[name])
        else:
            lines[at] = replace(lines[at], key=None, error=result.error, stage=name)
    write(path(root, name), lines.values())
    return list(lines.values())


def _resume(
    engine: Engine, tree: Tree, root: Path, before: Sequence[Line], name: str
) -> tuple[Batch, dict[tuple[str, str], Line]]:
    """Plan the frames that the stage before has; pass on those that failed."""
    plans, lines, photosites = [], {}, {}
    for line in before:
        source = root / line.source
        if line.error:
            lines[(line.frame, str(source))] = line
            continue
        try:
            plan = engine.plan(_source(line, source), tree, name)
        except NightispError as error:  # its sidecar asks for what is not there: costs this frame, not the others
            lines[(line.frame, str(source))] = replace(line, key=None, error=named(source, error), stage=name)
            continue
        plans.append(plan)
        photosites[line.frame] = line.photosites
    return Batch(tuple(plans), (), photosites), lines


def _line(root: Path, plan: Plan, batch: Batch) -> Line:
    source = plan.source
    return Line(
        source.frame,
        _relative(root, source.path),
        digest=source.digest,
        photosites=batch.photosites[source.frame],
        sidecar=source.sidecar,
        overrides=source.overrides,
    )


def _source(line: Line, path: Path) -> Source:
    return Source(line.frame, path, line.digest, line.overrides, sidecar=line.sidecar)


def _failed(root: Path, result: FrameResult) -> Line:
    return Line(result.frame, _relative(root, result.source), error=result.error, stage=result.stage or NAMES[0])


def _relative(root: Path, source: Path) -> str:
    absolute = source.absolute()
    return (
        absolute.relative_to(root.absolute()).as_posix() if absolute.is_relative_to(root.absolute()) else str(absolute)
    )
