"""The flow: every picture through every stage that it needs, each stage of each picture one task run."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect import flow
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote

from flows.embedded import Embedded
from flows.runners import opened
from nightisp.batch import Batch, FrameResult, Performed, Stop
from nightisp.engine import Plan
from nightisp.errors import ServerError
from nightisp.groups import execute_in_groups
from nightisp.journal import LOG
from nightisp.params import DRAFT, Tree, as_settings
from nightisp.run import Begun, Job, Observer, Options, Report, begin, execute
from nightisp.summary import as_markdown, computed
from tasks import stage_task


@dataclass
class Silent:
    """An observer that says nothing: for deployments."""

    def found(self, batch: Batch) -> None:
        """Ignore what was found."""

    def began(self, frame: str, stage: str) -> None:
        """Ignore where a frame is."""

    def ended(self, result: FrameResult) -> None:
        """Ignore that a frame is through."""


@dataclass
class Server:
    """Tells Prefect's server, until it is found gone: pictures are worth more than their record."""

    lost: bool = False

    def told(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Call what asks the server, and give what it answers; None if there is no server any more."""
        if self.lost:
            return None
        try:
            return call(*given, **named)
        except httpx.TransportError:  # Prefect has tried for a while
            self.lost = True
            for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # once is enough, and that is ours to say
            return None


@dataclass
class Hooks:
    """What the caller in this process wants to see and say: no part of the flow's parameters."""

    observer: Observer = field(default_factory=Silent)
    stop: Stop = field(default_factory=Stop)
    begun: Begun | None = None
    report: Report | None = None
    server: Server = field(default_factory=Server)
    on_term: Any = None
    """The caller's handler of SIGTERM, for which Prefect puts its own as long as a flow runs."""


@dataclass
class Shown:
    """Shows how far a run is as an artifact, and passes on what it hears; but for `began` in the flow's thread."""

    observer: Observer
    server: Server
    _artifact: UUID | None = None
    _total: int = 0
    _done: int = 0
    _told: float = 0.0

    def found(self, batch: Batch) -> None:
        """Begin at 0 %."""
        self._total = len(batch.plans)
        about = f"{self._total} pictures."
        self._artifact = self.server.told(create_progress_artifact, 0.0, key="progress", description=about)
        self.observer.found(batch)

    def began(self, frame: str, stage: str) -> None:
        """Pass it on."""
        self.observer.began(frame, stage)

    def ended(self, result: FrameResult) -> None:
        """Tell the server at most once a second, and of the last picture."""
        self._done += 1
        last, now = self._done == self._total, time.monotonic()
        if self._artifact and (last or now - self._told > _TELL_S):
            self.server.told(update_progress_artifact, self._artifact, progress=100 * self._done / self._total)
            self._told = time.monotonic()
        self.observer.ended(result)


_TELL_S = 1.0
_LOST = "Prefect's server cannot be reached any more"

HOOKS: ContextVar[Hooks | None] = ContextVar("hooks", default=None)


@flow(name="nightisp", flow_run_name="render {options.frames} until {options.until}")
def render(options: Options) -> Any:
    """Render night raws: each stage of each picture is a task run, reused artifacts show as Cached."""
    return rendered(options)


def rendered(options: Options) -> Any:
    """Render within a flow run, whoever started it, and return the state that it ends in."""
    hooks = HOOKS.get() or Hooks()
    tell = hooks.server.told
    tell(_tag, options)
    shown = Shown(hooks.observer, hooks.server)
    with _logged(hooks.server), _terminated_by(hooks.on_term):
        if options.runner == "threads" and options.batch == 1:
            report = execute(options, shown, hooks.stop, through=_as_task, begun=hooks.begun)
        else:
            with opened(options) as runner:
                report = execute_in_groups(
                    options,
                    shown,
                    hooks.stop,
                    runner.send,
                    apart=runner.apart,
                    at_once=runner.at_once,
                    begun=hooks.begun,
                )
    hooks.report = report
    tell(create_table_artifact, _table(report), key="pictures", description="What became of each picture.")
    tell(create_markdown_artifact, as_markdown(report), key="summary", description="The pictures, and what went wrong.")
    failed = [f for f in report.frames if f.outcome == "failed"]
    message = f"{sum(f.outcome == 'rendered' for f in report.frames)} of {len(report.frames)} pictures rendered"
    return Failed(message=message) if failed else Completed(message=message)


@contextmanager
def _terminated_by(handler: Any) -> Iterator[None]:
    """Handle SIGTERM as the caller does: what is at work is finished, and nothing else is begun."""
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _logged(server: Server) -> Iterator[None]:
    """Send what is logged of stages to the flow run's logs, unless they are turned off, as with the embedded server."""
    level, propagated, handler = LOG.level, LOG.propagate, APILogHandler()
    LOG.propagate = False  # Prefect prints what comes to the root logger
    if wanted := PREFECT_LOGGING_TO_API_ENABLED.value():
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.propagate = propagated
        if wanted:
            LOG.removeHandler(handler)
            if not server.lost:
                handler.flush()  # whoever runs us may leave as soon as the run is over
            LOG.setLevel(level)


def run(options: Options, observer: Observer, stop: Stop, embedded: Embedded | None = None) -> Report:
    """Run the flow in this process and return its account.

    Parameters
    ----------
    embedded
        A server that is still on its way, as `flows.embedded.beside` gives it. Meanwhile inputs are looked into.
    """
    hooks = Hooks(observer, stop, on_term=signal.getsignal(signal.SIGTERM))
    if not embedded or not embedded.is_wanted():
        return _run(options, hooks)
    hooks.begun = begin(options)
    with embedded.reported_to():
        return _run(options, hooks)


def _run(options: Options, hooks: Hooks) -> Report:
    token = HOOKS.set(hooks)
    try:
        state = render(options, return_state=True)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise ServerError(
            f"Prefect's API at {os.environ.get('PREFECT_API_URL') or 'the embedded server'} cannot be reached. "
            "Start it (`prefect server start`), unset PREFECT_API_URL to use the embedded one, or use --engine local"
        ) from error
    except httpx.TransportError as error:
        if hooks.report is None:
            raise ServerError(f"{_LOST}. Nothing was rendered: start it again, or use --engine local") from error
        hooks.server.lost = True  # it could not be told how the run ended
    except TerminationSignal:  # before the flow came to our handler, or after it
        return hooks.report or Report(interrupted=True)
    finally:
        HOOKS.reset(token)
    if hooks.report is None:
        state.result()  # raises what went wrong
        raise AssertionError("the flow ended without a report")
    if hooks.server.lost:
        hooks.report.unrecorded = f"{_LOST}: the run went on, but its record there ends early"
    return hooks.report


def _tag(options: Options) -> None:
    """Tag the flow run with what tells it from others; task runs have their stage in the name instead.

    A tag of a task run makes Prefect ask for a concurrency slot, 5 ms each; one of the flow run costs nothing more.
    """
    tags = [options.device, *({"draft"} if set(DRAFT) <= set(options.settings) else ())]
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.get_id(), tags=tags)


def _as_task(options: Options, tree: Tree, plan: Plan, name: str) -> Performed:
    state = stage_task(name)(plan.source.frame, quote(Job.of(options, tree, plan)), return_state=True)
    performed: Performed = state.result()  # raises what the stage raised
    return performed


def _table(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "picture": result.frame,
            "outcome": result.outcome,
            "seconds": round(sum(result.seconds.values()), 2),
            "computed": computed(result) or "nothing",
            "file": str(result.output or ""),
            "sidecar": " ".join(as_settings(result.own)),
            "error": result.error or "",
        }
        for result in report.frames
    ]
