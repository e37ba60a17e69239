"""What is logged of stages: a line for each stage of each frame, on the logger `nightisp`, by the standard library.

Nobody hears it unless a handler is added: `--verbose` adds one, a flow run on a Prefect server another. Each record has
`frame` and `stage` as attributes, so that handlers can tell them apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

LOG = logging.getLogger("nightisp")
LOG.addHandler(logging.NullHandler())  # or Python would print errors by itself, beside our own


def computed(
    frame: str, stage: str, key: str, seconds: float, size: Callable[[], int], where: Mapping[str, str]
) -> None:
    """Log that a stage was computed and kept.

    Parameters
    ----------
    seconds
        That it took to compute.
    size
        Gives the bytes of the artifact; asked only if somebody listens.
    where
        Device, and precision if a network was at work.
    """
    if LOG.isEnabledFor(logging.INFO):
        _tell(frame, stage, f"computed in {seconds:.2f} s, {_kept(key, size)}, {', '.join(where.values())}")


def cached(frame: str, stage: str, key: str, size: Callable[[], int]) -> None:
    """Log that the store holds what a stage would give."""
    if LOG.isEnabledFor(logging.INFO):
        _tell(frame, stage, f"cached, {_kept(key, size)}")


def damaged(frame: str, stage: str, error: Exception) -> None:
    """Log that an artifact cannot be read, so that it is made anew."""
    LOG.warning("%s · %s: made anew: %s", frame, stage, error, extra={"frame": frame, "stage": stage})


def failed(frame: str, stage: str, error: Exception) -> None:
    """Log that a stage gave nothing."""
    named = type(error).__name__
    LOG.error("%s · %s: failed: %s: %s", frame, stage, named, error, extra={"frame": frame, "stage": stage})


def _kept(key: str, size: Callable[[], int]) -> str:
    try:
        return f"{size() / 1e6:.2f} MB, key {key[:12]}"
    except OSError:  # pruned meanwhile, by somebody else
        return f"key {key[:12]}"


def _tell(frame: str, stage: str, what: str) -> None:
    LOG.info("%s · %s: %s", frame, stage, what, extra={"frame": frame, "stage": stage})
