"""Frames side by side: bounded, in order, every one accounted for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nightisp.batch import BYTES_PER_PHOTOSITE, Batch, FrameResult, Stop, render_all, render_frame
from nightisp.engine import Plan
from nightisp.errors import StageError
from nightisp.sources import Source


def batch(count: int, photosites: int = 100) -> Batch:
    plans = tuple(Plan(Source(f"f{n}", Path(f"f{n}.dng"), str(n)), {}, {}) for n in range(count))
    return Batch(plans, (), {plan.source.frame: photosites for plan in plans})


class Watch:
    """Renders by waiting a little, and sees how many frames are in flight."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self._lock = threading.Lock()

    def __call__(self, plan: Plan) -> FrameResult:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self._lock:
            self.now -= 1
        return FrameResult(plan.source.frame, plan.source.path, "rendered")


@pytest.mark.parametrize(("workers", "frames_in_memory", "most"), [(4, 100, 4), (4, 2.5, 2), (4, 0.1, 1), (1, 100, 1)])
def test_frames_in_flight_are_bounded(workers: int, frames_in_memory: float, most: int) -> None:
    watch, told = Watch(), []
    memory = int(frames_in_memory * 100 * BYTES_PER_PHOTOSITE)
    results = render_all(batch(12), watch, workers=workers, memory=memory, stop=Stop(), done=told.append)
    assert watch.most == most
    assert [r.frame for r in results] == [f"f{n}" for n in range(12)]
    assert sorted(r.frame for r in told) == sorted(r.frame for r in results)


def test_after_stop_no_further_frame_begins() -> None:
    stop, watch = Stop(), Watch()
    results = render_all(batch(20), watch, workers=2, memory=10**9, stop=stop, done=lambda _: stop.set())
    outcomes = [r.outcome for r in results]
    assert 1 <= outcomes.count("rendered") <= 4
    assert outcomes.count("skipped") == 20 - outcomes.count("rendered")


class _Engine:
    """Says of every stage that it is to be computed."""

    def status(self, plan: Plan, until: str) -> dict[str, str]:
        return {"ingest": "compute", "denoise": "compute"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StageError("too dark"), "f0.dng: too dark"),
        (OSError(5, "I/O error"), "f0.dng: denoise: OSError: [Errno 5] I/O"),
    ],
)
def test_what_goes_wrong_is_the_outcome_of_the_frame(error: Exception, said: str) -> None:
    from nightisp.batch import Performed
    from nightisp.engine import Outcome

    def run(plan: Plan, name: str) -> Performed:
        if name == "denoise":
            raise error
        return Performed((Outcome(name, "key", "computed", 1.0),))

    engine: Any = _Engine()
    result = render_frame(engine, batch(1).plans[0], "denoise", run, Stop(), lambda *_: None)
    assert (result.outcome, result.stage) == ("failed", "denoise")
    assert str(result.error).startswith(said)
    assert result.stages == {"ingest": "computed"}
    assert result.seconds == {"ingest": 1.0}
