"""What goes between who sends work and who does it while it goes on: each frame that ends, and the wish to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter

from nightisp.batch import FrameResult, Stop, Stopping
from nightisp.groups import Done, Work

RESULT: TypeAdapter[FrameResult] = TypeAdapter(FrameResult)
_HERE: dict[str, tuple[Stop, Done]] = {}
_LOOK_S = 1.0


def stop_name(work: str) -> str:
    """Return what the wish to stop a piece of work is called on Dask."""
    return f"{work}-stop"


@contextmanager
def sent(work: Work, stop: Stop, done: Done) -> Iterator[Work]:
    """Give the work as it is to be sent; as long as this lasts, what this process does of it is heard at once."""
    given = replace(work, id=uuid4().hex)
    _HERE[given.id] = (stop, done)
    try:
        yield given
    finally:
        del _HERE[given.id]


def is_sender() -> bool:
    """Tell whether work that this process sent is under way, here or elsewhere."""
    return bool(_HERE)


def listener(work: Work) -> tuple[Stopping, Done]:
    """Return how the process that does the work hears and is heard; where there is no way, the end tells all."""
    if work.id in _HERE:
        return _HERE[work.id]
    worker = _dask_worker()
    if worker is None:
        return Stop(), lambda _: None
    return _DaskStop(stop_name(work.id)), lambda result: worker.log_event(
        work.id, RESULT.dump_python(result, mode="json")
    )


def _dask_worker() -> Any:
    try:
        from distributed import get_worker
    except ImportError:
        return None
    try:
        return get_worker()
    except ValueError:
        return None


@dataclass
class _DaskStop:
    """Looks at most once a second whether the sender wants to stop."""

    name: str
    _is_set: bool = False
    _looked: float = 0.0
    _event: Callable[[], Any] | None = None

    def __bool__(self) -> bool:
        from distributed import Event

        now = time.monotonic()
        if not self._is_set and now - self._looked > _LOOK_S:
            self._looked = now
            self._is_set = bool(Event(self.name).is_set())
        return self._is_set

    def wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        return bool(self)
