"""The Prefect task of a leg: a group of frames through consecutive stages, on whichever worker it comes to."""

from __future__ import annotations

from functools import cache
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from nightisp.batch import FrameResult, Perform, Performed
from nightisp.engine import Plan
from nightisp.groups import Leg, Work
from nightisp.run import Job
from tasks import telling
from tasks.channel import listener
from tasks.stage import stage_task


class Sealed:
    """Work that neither Prefect nor Dask looks into, as they do with collections and dataclasses."""

    def __init__(self, work: Work) -> None:
        self.work = work


@cache
def leg_task(leg: Leg) -> Task[..., tuple[FrameResult, ...]]:
    """Return the task of a leg: `task(title, sealed)` performs it and answers with what became of each frame.

    A fault of one frame is that frame's outcome, so the task fails only if its worker does. With `work.each` every
    stage of every frame is a task run below it.
    """

    def run(title: str, sealed: Sealed) -> tuple[FrameResult, ...]:  # noqa: ARG001 - `title` names the task run
        work = sealed.work
        telling.begin()
        stop, done = listener(work)
        return work.perform(stop, done, _recorded if work.each else None)

    first, last = leg.stages[0], leg.stages[-1]
    return task(
        run,
        name=first if first == last else f"{first} to {last}",
        description=f"Stages of pictures on one worker: {', '.join(leg.stages)}.",
        task_run_name="{title}",
        cache_policy=NO_CACHE,
        persist_result=False,
        on_completion=[telling.tell_all],
        on_failure=[telling.tell_all],
    )


def _recorded(job: Job) -> Perform:
    def run(plan: Plan, name: str) -> Performed:
        state: Any = stage_task(name)(plan.source.frame, quote(job), return_state=True)
        performed: Performed = state.result()  # raises what the stage raised
        return performed

    return run
