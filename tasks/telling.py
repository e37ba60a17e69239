"""What a worker's process tells Prefect of its task runs: to the server of this run, and before the run ends."""

from __future__ import annotations

from threading import Thread
from typing import Any

from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL

from tasks.channel import is_sender

_TELL_S = 10.0
_told: set[str | None] = set()


def begin() -> None:
    """Remember which server this process tells: Prefect opens one way to the first, and keeps to it."""
    _told.add(PREFECT_API_URL.value())


def tell_all(*_: Any) -> None:
    """Wait until what this process has to tell is told: a run that has the leg's result may end its server.

    A hook of a leg's task. Who sent the leg itself tells all at its own end.
    """
    if is_sender():
        return
    telling = Thread(target=EventsWorker.instance().wait_until_empty, daemon=True)
    telling.start()
    telling.join(_TELL_S)


async def leave_others(url: str) -> None:
    """Close the way to any other server, so that the next one told is that at `url`."""
    if _told - {url}:
        _told.clear()
        closing = EventsWorker.drain_all(timeout=0, at_exit=False)
        if not isinstance(closing, tuple):
            await closing
