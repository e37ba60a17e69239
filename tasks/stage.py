"""One Prefect task a stage, made from the stage table."""

from __future__ import annotations

from functools import cache
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from nightisp.errors import is_transient
from nightisp.pipeline import PIPELINE, index
from nightisp.retry import WAITS_S
from nightisp.run import Job


@cache
def stage_task(name: str) -> Task[..., Any]:
    """Return the task of a stage: `task(frame, job)` performs it and answers with keys, never with samples.

    Prefect caches nothing: the store is the cache, and an artifact found there shows as `Cached`. Only faults of the
    disk or the network are tried again; a bad picture stays bad. Task runs carry no tags: each tag makes Prefect ask
    the server for a concurrency slot, which was measured at 2 s a task.
    """
    stage = PIPELINE[index(name)]

    def run(frame: str, job: Job) -> Any:  # noqa: ARG001 - `frame` names the task run
        performed = job.perform(name)
        if all(outcome.did == "cached" for outcome in performed.outcomes):
            key = performed.outcomes[-1].key
            return Completed(name="Cached", message=f"the store holds {key[:12]}", data=performed)
        return performed

    return task(
        run,
        name=name,
        description=stage.summary,
        task_run_name=f"{name} · {{frame}}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(WAITS_S),
        retry_delay_seconds=list(WAITS_S),
        retry_condition_fn=_is_fault_of_storage,
    )


def _is_fault_of_storage(_task: Any, _run: Any, state: Any) -> bool:
    return is_transient(state.result(raise_on_failure=False))
