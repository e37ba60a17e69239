"""What the terminal shows while a run goes on, and the table that closes it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

if TYPE_CHECKING:
    from nightisp.batch import Batch, FrameResult, Stop
    from nightisp.run import Report

PATIENCE_S = 10.0
"""How long a stage that is under way may go on after an interrupt."""
_FLUSH_S = 3.0
_MANY = 200


class Progress:
    """A live bar on a terminal, a line a picture elsewhere; always on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        if not self._console.is_terminal:
            self._console.width = 1000  # a log is not folded
        self._live = self._console.is_terminal and not quiet
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
            transient=True,
        )
        self._task: Any = None
        self._where: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, what: str) -> None:
        """Show what goes on before the first picture."""
        if self._live and self._task is None:
            self._task = self._bar.add_task(what, total=None)

    def found(self, batch: Batch) -> None:
        """Show how many pictures there are, and which are refused."""
        for refused in batch.refused:
            self._console.print(f"[red]refused[/] {_safe(refused.error or '')}", soft_wrap=True)
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task("rendering", total=len(batch.plans))

    def began(self, frame: str, stage: str) -> None:
        """Show where each picture is."""
        with self._lock:
            self._where[frame] = stage
            self._describe()

    def ended(self, result: FrameResult) -> None:
        """Count a picture."""
        with self._lock:
            self._where.pop(result.frame, None)
            self._describe()
        self._bar.advance(self._task)
        if result.outcome == "failed":
            where = f" in {result.stage}" if result.stage else ""
            self._console.print(f"[red]failed{where}[/] {_safe(result.error or '')}", soft_wrap=True)
        elif not self._live and result.outcome == "rendered":
            self._console.print(f"rendered {_safe(str(result.output or result.frame))}", soft_wrap=True)

    def close_with(self, report: Report) -> None:
        """Print the closing table."""
        from nightisp.params import as_settings

        table = Table(box=None, pad_edge=False)
        for name, justify in (
            ("picture", "left"),
            ("outcome", "left"),
            ("computed", "left"),
            ("seconds", "right"),
            ("file", "left"),
        ):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        many = len(report.frames) > _MANY  # what failed would be lost among what did not
        for result in report.frames:
            if many and result.outcome == "rendered":
                continue
            computed = [name for name, did in result.stages.items() if did == "computed"]
            table.add_row(
                _safe(result.frame),
                {"rendered": "[green]rendered[/]", "failed": "[red]failed[/]"}.get(result.outcome, result.outcome),
                _span(computed) if result.stages else "",
                f"{sum(result.seconds.values()):.2f}",
                _safe(str(result.output or "")),
            )
        if table.row_count:
            self._console.print(table, soft_wrap=True)
        for result in report.frames:
            if result.own and not many:
                own = " ".join(as_settings(result.own))
                self._console.print(_safe(f"{result.frame}: its sidecar sets {own}"), soft_wrap=True)
        done = sum(result.outcome == "rendered" for result in report.frames)
        self._console.print(f"{done} of {len(report.frames)} pictures in {report.wall_seconds:.1f} s")

    def _describe(self) -> None:
        if self._task is not None:
            at = ", ".join(f"{stage} · {_safe(frame)}" for frame, stage in list(self._where.items())[:3])
            self._bar.update(self._task, description=at or "rendering")


def _span(computed: list[str]) -> str:
    if not computed:
        return "nothing, all cached"
    return computed[0] if len(computed) == 1 else f"{computed[0]} to {computed[-1]}"


def _safe(text: str) -> str:
    return text.replace("[", r"\[")


def _leave() -> None:
    """Leave at once, and take Prefect's embedded server along."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.terminate()
    os._exit(130)


@contextmanager
def interruptible(stop: Stop, flush: Callable[[float], None] = lambda _: None) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM begin no further stage; leave at once on the second, or if a stage takes long.

    Leaving in the middle of a stage loses that stage alone: artifacts and pictures appear whole or not at all, and
    `flush` is given a few seconds to write what is ready.
    """

    def leave() -> None:
        flush(_FLUSH_S)
        _leave()

    impatient: list[threading.Timer] = []

    def on_interrupt(*_: object) -> None:
        if stop:
            leave()
        stop.set()
        print("stopping; Ctrl-C again to leave at once", file=sys.stderr, flush=True)  # noqa: T201
        timer = threading.Timer(PATIENCE_S, leave)
        timer.daemon = True
        timer.start()
        impatient.append(timer)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for timer in impatient:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
