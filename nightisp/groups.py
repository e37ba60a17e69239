"""Pictures in groups, each group a unit of work that some worker does: a run over many hosts, or over many thousands.

A run is cut into legs: stages that one worker does in one go, so that the picture stays in its memory. What the store
holds already is found by key before any work is made of it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Literal

from nightisp import journal
from nightisp.batch import (
    BYTES_PER_PHOTOSITE,
    FrameResult,
    Perform,
    Performed,
    Stop,
    Stopping,
    in_flight,
    named,
    perform,
    render_frame,
)
from nightisp.engine import Engine, Plan
from nightisp.errors import StageError, StoreError
from nightisp.params import Tree
from nightisp.pipeline import NAMES, PIPELINE, index
from nightisp.publish import check_writable
from nightisp.retry import retried
from nightisp.run import Begun, Job, Observer, Options, Report, begin, open_engine

Done = Callable[[FrameResult], None]
Send = Callable[["Work", Stop, Done], Iterable[FrameResult]]


@dataclass(frozen=True, slots=True)
class Leg:
    """Consecutive stages that one worker does, and what it must have: GPU where there is a network among them."""

    stages: tuple[str, ...]
    resource: Literal["CPU", "GPU"]


def legs(plan: Plan, todo: Mapping[str, str], *, apart: bool) -> tuple[Leg, ...]:
    """Cut what is to be computed of a plan into legs; none if the store holds all that is needed.

    Parameters
    ----------
    todo
        What `Engine.status` says of the stages.
    apart
        Whether decoding and export may go to workers without a GPU. What lies between two networks does not: it takes
        less time than to write the picture to the store and to read it again (docs/scale.md).
    """
    names = tuple(todo)
    computed = [place for place, name in enumerate(names) if todo[name] == "compute"]
    if not computed:
        return ()
    networks = [place for place in computed if PIPELINE[index(names[place])].weights(plan.params[names[place]])]
    if not networks:
        return (Leg(names[computed[0] : computed[-1] + 1], "CPU"),)
    if not apart:
        return (Leg(names[computed[0] : computed[-1] + 1], "GPU"),)
    first, last = networks[0], networks[-1]
    before = [place for place in computed if place < first]
    after = [place for place in computed if place > last]
    cut = [Leg(names[before[0] : first], "CPU")] if before else []
    cut.append(Leg(names[first : last + 1], "GPU"))
    if after:
        cut.append(Leg(names[last + 1 : after[-1] + 1], "CPU"))
    return tuple(cut)


@dataclass(frozen=True, slots=True)
class Work:
    """One leg of a group of frames as plain values: what a worker is sent.

    `keys` are those of the last stage of the leg, by which a worker with other code or weights is found out. `each`
    says whether every stage of every frame is to be recorded by itself.
    """

    leg: Leg
    jobs: tuple[Job, ...]
    keys: tuple[str, ...]
    each: bool
    id: str = ""

    @property
    def title(self) -> str:
        """What the work is called where it is shown."""
        first, last, count = self.leg.stages[0], self.leg.stages[-1], len(self.jobs)
        stages = first if first == last else f"{first} to {last}"
        frame = self.jobs[0].source.frame
        return f"{stages} · {frame}" if count == 1 else f"{stages} · {count} pictures from {frame}"

    def perform(
        self, stop: Stopping, done: Done, through: Callable[[Job], Perform] | None = None
    ) -> tuple[FrameResult, ...]:
        """Take each frame through the leg in this process.

        Parameters
        ----------
        done
            Called for each frame that is through.
        through
            How a scheduler performs a stage of a job; by default in this thread, tried again where that may help.
        """
        results = []
        for job, key in zip(self.jobs, self.keys, strict=True):
            if stop:
                break
            result = self._one(job, key, stop, through)
            results.append(result)
            done(result)
        return tuple(results)

    def _one(self, job: Job, key: str, stop: Stopping, through: Callable[[Job], Perform] | None) -> FrameResult:
        until = self.leg.stages[-1]
        try:
            engine = open_engine(job.store, job.weights, job.device, job.memory)
            plan = engine.plan(job.source, job.tree, until)
            if plan.keys[until] != key:
                raise StageError(
                    f"{job.source.path}: the worker {platform.node()} has other code or other weights than who sent it "
                    f"the work ({until} has the key {plan.keys[until][:12]}, not {key[:12]}); install the same "
                    "nightisp there, with the same weights"
                )
        except Exception as error:  # of this frame on this worker: the others go on
            return _failed(job, until, error)

        def here(plan: Plan, name: str) -> Performed:
            return retried(lambda: perform(engine, plan, name, None, wait=False), stop.wait)

        run = through(job) if through else here
        return render_frame(engine, plan, until, run, stop, lambda *_: None, since=self.leg.stages[0])


def _anywhere(job: Job) -> Job:
    """Return a job with paths that mean the same to a worker in another folder."""
    source = replace(job.source, path=job.source.path.absolute())
    return replace(job, source=source, weights=job.weights and job.weights.absolute(), output=None)


def _failed(job: Job, stage: str, error: Exception) -> FrameResult:
    journal.failed(job.source.frame, stage, error)
    told = named(job.source.path, error)
    return FrameResult(job.source.frame, job.source.path, "failed", error=told, stage=stage)


def execute_in_groups(
    options: Options,
    observer: Observer,
    stop: Stop,
    send: Send,
    *,
    apart: bool,
    at_once: int | None,
    begun: Begun | None = None,
) -> Report:
    """Render every picture that `options` name by sending work, `options.batch` pictures in a group.

    A picture of which the store holds everything makes no work. Pictures are published by this process.

    Parameters
    ----------
    send
        Does a piece of work somewhere and gives the outcomes; calls `done`, in the thread that called it, for each
        frame as it ends. If it raises, each frame of several that has not ended is sent once more by itself.
    apart
        Whether decoding and export are legs of their own.
    at_once
        Groups under way; None: as memory and cores of this machine allow.
    begun
        What `begin` made of the same options, if it was called already.

    Raises
    ------
    NightispError
        If the options themselves are at fault, so that there is nothing to render.
    """
    if options.until == NAMES[-1]:
        check_writable(options.output)
    engine, tree, batch, since = begun or begin(options)
    observer.found(batch)
    ended: SimpleQueue[FrameResult] = SimpleQueue()
    results: list[FrameResult] = []

    def look() -> None:
        while True:
            try:
                result = ended.get_nowait()
            except Empty:
                return
            results.append(result)
            observer.ended(result)

    def one(group: tuple[Plan, ...]) -> None:
        Group(options, tree, engine, observer, stop, send, apart=apart).render(group, ended.put)

    groups = [batch.plans[at : at + options.batch] for at in range(0, len(batch.plans), options.batch)]
    in_flight(
        groups,
        one,
        lambda group: max(batch.photosites[plan.source.frame] for plan in group) * BYTES_PER_PHOTOSITE,
        lambda _: look(),
        workers=at_once or options.workers or os.cpu_count() or 1,
        memory=options.memory if at_once is None else 10**18,
        stop=stop,
        look=look,
    )
    look()
    seen = {result.frame for result in results}
    results += [FrameResult(p.source.frame, p.source.path) for p in batch.plans if p.source.frame not in seen]
    frames = sorted([*batch.refused, *results], key=lambda result: (result.frame, str(result.source)))
    return Report(frames, time.perf_counter() - since, interrupted=bool(stop))


@dataclass
class Group:
    """Takes a group of frames through all that they need."""

    options: Options
    tree: Tree
    engine: Engine
    observer: Observer
    stop: Stop
    send: Send
    apart: bool

    def render(self, group: tuple[Plan, ...], ended: Done) -> None:
        """Render the group; `ended` is called for each frame, as it ends."""
        alike: dict[tuple[Leg, ...], list[tuple[Plan, FrameResult]]] = {}
        for plan in group:
            result = FrameResult(plan.source.frame, plan.source.path, own=plan.own)
            try:
                todo = self.engine.status(plan, self.options.until)
            except StoreError as error:  # it cannot be reached
                ended(self._failed(plan, result, self.options.until, error))
                continue
            result.stages.update({name: did for name, did in todo.items() if did != "compute"})
            cut = legs(plan, todo, apart=self.apart)
            if cut:
                alike.setdefault(cut, []).append((plan, result))
            else:
                self._finish(plan, result, ended)
        for cut, members in alike.items():
            for leg in cut:
                if not members:
                    break
                members = self._leg(leg, members, ended, is_last=leg is cut[-1])

    def _leg(
        self, leg: Leg, members: list[tuple[Plan, FrameResult]], ended: Done, *, is_last: bool
    ) -> list[tuple[Plan, FrameResult]]:
        """Send a leg, and return the frames that can go on."""
        open_ = {plan.source.frame: (plan, result) for plan, result in members}
        going = []

        def done(told: FrameResult) -> None:
            if told.frame not in open_:  # told before
                return
            plan, result = open_.pop(told.frame)
            result.stages.update(told.stages)
            result.seconds.update(told.seconds)
            if told.outcome != "rendered":
                result.outcome, result.stage, result.error = told.outcome, told.stage, told.error
                ended(result)
            elif is_last:
                self._finish(plan, result, ended)
            else:
                going.append((plan, result))

        self._send(leg, members, done)
        for plan, _ in list(open_.values()):  # the worker vanished: one of several may be what kills it
            if len(members) > 1:
                self._send(leg, [open_[plan.source.frame]], done)
        for plan, result in list(open_.values()):
            ended(result if self.stop else self._failed(plan, result, leg.stages[0], self._lost or StageError(_NOBODY)))
        return going

    _lost: Exception | None = None

    def _send(self, leg: Leg, members: list[tuple[Plan, FrameResult]], done: Done) -> None:
        if self.stop:
            return
        for plan, _ in members:
            self.observer.began(plan.source.frame, leg.stages[0])
        work = Work(
            leg,
            tuple(_anywhere(Job.of(self.options, self.tree, plan)) for plan, _ in members),
            tuple(plan.keys[leg.stages[-1]] for plan, _ in members),
            each=self.options.batch == 1,
        )
        try:
            for told in self.send(work, self.stop, done):
                done(told)
        except Exception as error:  # of whoever schedules, or of a worker that died at it time and again
            journal.failed(work.title, leg.stages[0], error)
            self._lost = error

    def _finish(self, plan: Plan, result: FrameResult, ended: Done) -> None:
        until = self.options.until
        try:
            if not self.engine.store.holds(until, plan.keys[until]):
                raise StoreError(f"{self.engine.store.location}: {_UNSEEN}")
            if until == NAMES[-1]:
                result.output, again = self.engine.publish(plan, self.options.output)
                result.stages.update({outcome.stage: outcome.did for outcome in again})
        except Exception as error:
            ended(self._failed(plan, result, until, error))
        else:
            result.outcome = "rendered"
            ended(result)

    def _failed(self, plan: Plan, result: FrameResult, stage: str, error: Exception) -> FrameResult:
        journal.failed(result.frame, stage, error)
        result.outcome, result.stage, result.error = "failed", stage, named(plan.source.path, error)
        return result


_UNSEEN = (
    "the artifact that a worker made is not here; give workers and this machine one --store, a URL or a shared folder"
)
_NOBODY = "its worker said nothing of it; run again"
