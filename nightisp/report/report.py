"""The report: what became of frames, as a page and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightisp.errors import ArtifactNotFoundError
from nightisp.report.chains import finished, starts_of
from nightisp.report.page import page
from nightisp.report.view import FrameView, Tell, frame_view
from nightisp.store import Store

LONGEST = 2048
"""Pixels of the longer side that a page carries of a picture: about 0.6 MB a frame."""


@dataclass(frozen=True, slots=True)
class Report:
    """Frames that were looked at, how many were left out, and exports that tell not even whose they are."""

    frames: tuple[FrameView, ...]
    left_out: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """Exit status: 0 all shown, 3 something is missing or damaged."""
        return 3 if self.damaged or any(frame.problems for frame in self.frames) else 0


def look(
    store: Store, names: Sequence[str], networks: Any, *, limit: int, longest: int = LONGEST, tell: Tell
) -> Report:
    """Look at frames of a store.

    Parameters
    ----------
    names
        Of frames; none: all that have a finished picture, the newest first, and of these at most `limit`.
    networks
        `nightisp.models.weights.Compute`, for where FC4 looked.
    longest
        Bound of the longer side of the two large pictures; 0: none.
    tell
        Called before each artifact that is read.

    Raises
    ------
    ArtifactNotFoundError
        If there is nothing to show: no finished picture, or none of a name.
    """
    counted = store.hits()
    if names:
        starts = starts_of(store, names)
        return Report(tuple(frame_view(store, start, networks, longest, tell, counted) for start in starts))
    found = finished(store)
    if not found.starts and not found.damaged:
        raise ArtifactNotFoundError(
            f"{store.location}: holds no finished picture; render one with `nightisp flow run`, or name another --store"
        )
    shown = found.starts[:limit]
    frames = tuple(frame_view(store, start, networks, longest, tell, counted) for start in shown)
    return Report(frames, len(found.starts) - len(shown), found.damaged)


def as_page(report: Report) -> bytes:
    """Return a report as one HTML file."""
    return page("report.html.j2", report=report)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as the object that `report --json` prints: all numbers of the page, no picture."""
    return {
        "frames": [_frame(frame) for frame in report.frames],
        "left_out": report.left_out,
        "damaged": list(report.damaged),
    }


def _frame(frame: FrameView) -> dict[str, Any]:
    found = frame.light
    return {
        "frame": frame.frame,
        "width": frame.size[0] if frame.size else None,
        "height": frame.size[1] if frame.size else None,
        "light": found
        and {"method": found.method, "gains": found.gains, "as_shot": found.as_shot, "angle": found.angle},
        "problems": list(frame.problems),
        "stages": [
            {
                "stage": stage.name,
                "key": stage.key,
                "seconds": stage.seconds,
                "bytes": stage.size,
                "device": stage.device,
                "precision": stage.precision or None,
                "created": stage.created,
                "hits": stage.hits,
                "changed": {parameter.name: parameter.value for parameter in stage.changed},
                "origins": {parameter.name: parameter.origin for parameter in stage.parameters if parameter.origin},
                "at_black": dict(stage.distribution.black) if stage.distribution else None,
                "at_white": dict(stage.distribution.white) if stage.distribution else None,
            }
            for stage in frame.stages
            if not stage.problem
        ],
    }
