"""Faults of disk or network pass by themselves: try again before a picture is given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nightisp.errors import is_transient

T = TypeVar("T")

WAITS_S = (1, 5)
"""Seconds to wait before each further attempt; every scheduler waits as long, so that they give up alike."""


def retried(call: Callable[[], T], stopped: Callable[[float], bool]) -> T:
    """Return what `call` returns, called again after a fault that may pass; three times in all.

    Parameters
    ----------
    stopped
        Waits so many seconds; true at once if nothing further is to be begun, whereupon the fault is raised.
    """
    for seconds in WAITS_S:
        try:
            return call()
        except Exception as error:
            if not is_transient(error) or stopped(seconds):
                raise
    return call()
