"""What commands that write a page share: a check of its name, and a word to who waits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.status import Status

AFTER_S = 2.0
"""Seconds until something is said: who does not wait needs no telling."""


class Patience:
    """Says on standard error what is under way, once it takes longer than `AFTER_S`.

    A live line on a terminal; elsewhere a line a frame.
    """

    def __init__(self, doing: str) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._doing, self._begun, self._last = doing, time.monotonic(), ""
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._status:
            self._status.stop()

    def tell(self, frame: str, stage: str) -> None:
        """Hear what is under way."""
        if time.monotonic() - self._begun < AFTER_S:
            return
        if not self._console.is_terminal:
            if frame != self._last:
                self._console.print(f"{self._doing} {frame}")
            self._last = frame
            return
        from rich.status import Status
        from rich.text import Text

        now = Text(f"{self._doing} {stage} · {frame}")
        if self._status:
            self._status.update(now)
        else:
            self._status = Status(now, console=self._console)
            self._status.start()


def check_page(to: Path) -> None:
    """Raise `OutputError` unless a page can be written there: before an hour is spent on it."""
    from nightisp.errors import OutputError
    from nightisp.publish import check_writable

    if to.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{to}: {to.suffix or 'no suffix'}; a page is written as .html: name it so with --to")
    check_writable(to.parent)
