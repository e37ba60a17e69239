"""What `--verbose` does: the lines that `nightisp.journal` logs, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell each stage of each frame on standard error, with time and key.")
]


class _Terminal(logging.Handler):
    """Writes to what standard error is at the moment: a live bar puts itself in its place, so that lines go above."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        sys.stderr.write(self.format(record) + "\n")


def listen(*, verbose: bool) -> None:
    """Write what is logged to standard error from now on, if that is wanted."""
    log = logging.getLogger("nightisp")
    for handler in [h for h in log.handlers if isinstance(h, _Terminal)]:
        log.removeHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.NOTSET)
    if verbose:
        handler = _Terminal()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
