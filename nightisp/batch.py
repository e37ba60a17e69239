"""Many pictures: find them, look at each before the first pixel, run them side by side, account for every one."""

from __future__ import annotations

import contextlib
import contextvars
import fnmatch
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from nightisp import journal, sources
from nightisp.engine import Did, Engine, Outcome, Plan
from nightisp.errors import NightispError, RawFileNotFoundError, StoreError
from nightisp.image import Shot
from nightisp.naming import Naming, give_names
from nightisp.params import Tree
from nightisp.pipeline import NAMES, PIPELINE, index
from nightisp.raw import RawSummary

BYTES_PER_PHOTOSITE = 130
"""What a frame takes in memory at its peak, HAT's: at 12 megapixels; larger ones take less (benchmarks/README.md)."""

Perform = Callable[[Plan, str], "Performed"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Performed:
    """What one stage did, and where the picture went if it was the last."""

    outcomes: tuple[Outcome, ...]
    output: Path | None = None


@dataclass
class FrameResult:
    """What became of one picture."""

    frame: str
    source: Path
    outcome: Literal["rendered", "failed", "skipped"] = "skipped"
    output: Path | None = None
    error: str | None = None
    stage: str | None = None
    stages: dict[str, Did] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    own: Tree = field(default_factory=dict)  # what its sidecar sets


@dataclass(frozen=True, slots=True)
class Batch:
    """What preflight made of the input."""

    plans: tuple[Plan, ...]
    refused: tuple[FrameResult, ...]
    photosites: dict[str, int]


def prepare(
    engine: Engine,
    tree: Tree,
    inputs: Sequence[str | Path],
    *,
    recursive: bool = False,
    exclude: Sequence[Path] = (),
    frames: str = "*",
    until: str = NAMES[-1],
    naming: Naming | None = None,
    computes: bool = False,
) -> Batch:
    """Find the pictures, look into each, and plan those that can be developed up to a stage.

    Every file is read, and decoded too unless the store holds its mosaic, so that all that cannot be taken is
    named before the first pixel is computed.

    Parameters
    ----------
    naming
        How pictures are called; None: as their frames.
    computes
        Whether this process will compute what is lacking: networks are then fetched while raws are decoded.

    Raises
    ------
    RawFileNotFoundError
        If the input is missing or holds no candidate.
    """
    names = sources.name_frames(sources.find(inputs, recursive=recursive, exclude=exclude))
    paths = [path for path, name in names.items() if fnmatch.fnmatchcase(name, frames)]
    if not paths:
        raise RawFileNotFoundError(f"--frames {frames}: matches none of {', '.join(sorted(names.values())[:20])}")
    ingest = PIPELINE[0]

    def known(source: sources.Source) -> RawSummary | None:
        key = engine.plan(source, tree, ingest.name).keys[ingest.name]
        held = engine.store.holds(ingest.name, key)
        if computes and not (held and engine.store.is_shared):  # to ask elsewhere takes its time
            with contextlib.suppress(NightispError):  # told when the picture's turn comes
                plan = engine.plan(source, tree, until)
                engine.fetch(plan, engine.status(plan, until))
        if held:
            with contextlib.suppress(StoreError):  # gone or damaged since: the raw itself tells
                return RawSummary.of_artifact(source.path, engine.store.entry(ingest.name, key).attributes["state"])
        return None

    looked, refusals = sources.preflight({path: names[path] for path in paths}, known)
    planned, refused, photosites = (
        list[tuple[Plan, Shot]](),
        [FrameResult(names[r.path], r.path, "failed", error=named(r.path, r.error)) for r in refusals],
        {},
    )
    for source, summary in looked:
        try:
            plan = engine.plan(source, tree, until)
            for stage in PIPELINE[: index(until) + 1]:
                stage.check(summary.shot, plan.params[stage.name])
        except NightispError as error:
            refused.append(FrameResult(source.frame, source.path, "failed", error=named(source.path, error)))
        else:
            planned.append((plan, summary.shot))
            photosites[source.frame] = summary.height * summary.width
    naming = naming or Naming()
    named_sources = give_names((plan.source, naming.name(plan.source.frame, shot)) for plan, shot in planned)
    plans = tuple(replace(plan, source=source) for (plan, _), source in zip(planned, named_sources, strict=True))
    return Batch(plans, tuple(refused), photosites)


class Stopping(Protocol):
    """Knows whether it was asked to stop."""

    def __bool__(self) -> bool:
        """Tell whether it was."""

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until asked to stop; tell whether that was asked."""


class Stop:
    """Asks everyone to stop at the next stage."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Begin no further stage."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until asked to stop; tell whether that was asked."""
        return self._event.wait(seconds)


def perform(engine: Engine, plan: Plan, name: str, output: Path | None, *, wait: bool = True) -> Performed:
    """Ensure a stage; if it is the last and `output` is given, publish the picture there.

    Without `wait` its artifact may still be on its way into the store: `render_frame` waits for the last.
    """
    outcomes = engine.ensure(plan, name, wait=wait)
    if output is None or name != NAMES[-1]:
        return Performed(outcomes)
    path, again = engine.publish(plan, output)
    return Performed((*outcomes, *again), path)


def render_frame(
    engine: Engine,
    plan: Plan,
    until: str,
    run: Perform,
    stop: Stopping,
    tell: Callable[[str, str], None],
    since: str = NAMES[0],
) -> FrameResult:
    """Take one picture through all it needs up to `until`; what goes wrong is its own outcome, nobody else's.

    Parameters
    ----------
    since
        First stage to run; those before it only if something after them needs what the store has lost.
    """
    result = FrameResult(plan.source.frame, plan.source.path, own=plan.own)
    _render(engine, plan, until, run, stop, tell, result, since)
    try:
        engine.settle(plan)  # in any case, or what failed would stay in memory
        if result.outcome == "rendered" and not engine.store.holds(until, plan.keys[until]):
            where = engine.store.location
            raise StoreError(f"{where}: another frame of the same content could not write the artifact; run again")
    except Exception as error:
        if result.outcome != "failed":
            journal.failed(result.frame, until, error)
            result.outcome, result.stage, result.error = "failed", until, named(plan.source.path, error)
    return result


def _render(
    engine: Engine,
    plan: Plan,
    until: str,
    run: Perform,
    stop: Stopping,
    tell: Callable[[str, str], None],
    result: FrameResult,
    since: str,
) -> None:
    try:
        status = engine.status(plan, until)
    except StoreError as error:  # a store elsewhere that cannot be reached
        journal.failed(result.frame, until, error)
        result.outcome, result.stage, result.error = "failed", until, named(plan.source.path, error)
        return
    engine.fetch(plan, status)
    for name, todo in status.items():
        if index(name) < index(since):
            continue
        if stop:
            return
        tell(plan.source.frame, name)
        if todo == "skipped":
            result.stages[name] = "skipped"
            continue
        try:
            performed = run(plan, name)
        except NightispError as error:
            journal.failed(result.frame, name, error)
            result.outcome, result.stage, result.error = "failed", name, named(plan.source.path, error)
            return
        except Exception as error:  # a fault of ours, or of the disk: it costs this frame, not the others
            journal.failed(result.frame, name, error)
            result.outcome, result.stage = "failed", name
            result.error = named(plan.source.path, error, f"{name}: ")
            return
        for outcome in performed.outcomes:
            if result.stages.get(outcome.stage) != "computed":
                result.stages[outcome.stage] = outcome.did
            if outcome.did == "computed":
                result.seconds[outcome.stage] = round(result.seconds.get(outcome.stage, 0) + outcome.seconds, 4)
        result.output = performed.output or result.output
    result.outcome = "rendered"


def named(path: Path, error: Exception, where: str = "") -> str:
    """Return what an error says, beginning with the file if it does not name it by itself."""
    if not isinstance(error, NightispError):
        return f"{path}: {where}{type(error).__name__}: {error}"
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def render_all(
    batch: Batch,
    render: Callable[[Plan], FrameResult],
    *,
    workers: int,
    memory: int,
    stop: Stop,
    done: Callable[[FrameResult], None] | None = None,
) -> list[FrameResult]:
    """Run frames in threads, as many at once as `workers` and the memory budget allow; one always may.

    Parameters
    ----------
    memory
        Bytes for all frames in flight together.
    done
        Called in this thread for each frame that ends.

    Returns
    -------
    list of FrameResult
        One for every frame of the batch, in its order.
    """
    results: dict[str, FrameResult] = {}

    def ended(result: FrameResult) -> None:
        results[result.frame] = result
        if done:
            done(result)

    in_flight(
        batch.plans,
        render,
        lambda plan: batch.photosites[plan.source.frame] * BYTES_PER_PHOTOSITE,
        ended,
        workers=workers,
        memory=memory,
        stop=stop,
    )
    return [results.get(p.source.frame) or FrameResult(p.source.frame, p.source.path) for p in batch.plans]


def in_flight(
    items: Sequence[T],
    work: Callable[[T], R],
    cost: Callable[[T], int],
    done: Callable[[R], None],
    *,
    workers: int,
    memory: int,
    stop: Stop,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Work on items in threads, as many at once as `workers` and the memory allow; one always may.

    Parameters
    ----------
    cost
        Bytes that an item takes while it is worked on.
    done
        Called in this thread with what each item became.
    look
        Called in this thread, several times a second.
    """
    running: dict[Future[R], int] = {}
    waiting = list(reversed(items))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="frame")
    try:
        while (waiting and not stop) or running:
            while waiting and not stop and len(running) < workers:
                bytes_ = cost(waiting[-1])
                if running and sum(running.values()) + bytes_ > memory:
                    break
                running[pool.submit(contextvars.copy_context().run, work, waiting.pop())] = bytes_
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            look()
            for future in finished:
                del running[future]
                done(future.result())
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
