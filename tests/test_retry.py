"""Faults that may pass are tried again, whoever schedules; all others are not."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nightisp import retry
from nightisp.batch import FrameResult, Performed, Stop
from nightisp.engine import Engine, Plan
from nightisp.errors import RawFileError
from nightisp.manifest import path as manifest_path
from nightisp.manifest import read as read_manifest
from nightisp.retry import WAITS_S, retried
from nightisp.run import Options, execute, open_engine
from nightisp.stage_run import run_stage
from tests.frames import write_frames


def in_passing() -> RawFileError:
    error = RawFileError("its tags cannot be read")
    error.transient = True
    return error


def damaged() -> RawFileError:
    return RawFileError("its samples are damaged")


def disk_failed() -> OSError:
    return OSError(errno.EIO, "Input/output error")


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


class Fails:
    """Fails so often, then answers."""

    def __init__(self, times: int, error: Callable[[], Exception]) -> None:
        self.left, self.error, self.calls = times, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error()
        return "done"


@pytest.mark.parametrize("error", [in_passing, disk_failed])
def test_what_may_pass_is_tried_three_times(error: Callable[[], Exception]) -> None:
    waited: list[float] = []
    assert retried(Fails(2, error), waited.append) == "done"  # type: ignore[arg-type, func-returns-value]
    assert waited == [1, 5] == list(WAITS_S)
    call = Fails(3, error)
    with pytest.raises(type(error())):
        retried(call, lambda _: False)
    assert call.calls == 3


@pytest.mark.parametrize("error", [damaged, disk_full, KeyboardInterrupt])
def test_what_stays_is_tried_once(error: Callable[[], Exception]) -> None:
    call = Fails(1, error)
    with pytest.raises(type(error())):
        retried(call, lambda _: pytest.fail("waited"))
    assert call.calls == 1


def test_nobody_waits_after_stop() -> None:
    stop, call = Stop(), Fails(1, disk_failed)
    threading.Timer(0.1, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(OSError, match="Input/output"):
        retried(call, lambda _: stop.wait(30))
    assert time.monotonic() - begun < 10
    assert call.calls == 1
    assert Stop().wait(0) is False


class Quiet:
    def found(self, batch: Any) -> None: ...

    def began(self, frame: str, stage: str) -> None: ...

    def ended(self, result: FrameResult) -> None: ...


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Counter[str]]:
    """Make `Engine.ensure` fail for frame0 so many times; nobody waits."""
    monkeypatch.setattr(retry, "WAITS_S", (0, 0))

    def injected(times: int, error: Callable[[], Exception]) -> Counter[str]:
        ensure, counts = Engine.ensure, Counter[str]()

        def failing(engine: Engine, plan: Plan, name: str, **how: Any) -> Any:
            counts[plan.source.frame] += 1
            if plan.source.frame == "frame0" and counts["frame0"] <= times:
                raise error()
            return ensure(engine, plan, name, **how)

        monkeypatch.setattr(Engine, "ensure", failing)
        return counts

    return injected


CASES = [(2, in_passing, 3, True), (2, disk_failed, 3, True), (3, disk_failed, 3, False), (1, damaged, 1, False)]


@pytest.mark.parametrize(("times", "error", "tried", "succeeds"), CASES)
def test_the_local_engine(
    tmp_path: Path,
    attempts: Callable[..., Counter[str]],
    times: int,
    error: Callable[[], Exception],
    tried: int,
    succeeds: bool,
) -> None:
    write_frames(tmp_path / "in", 2)
    options = Options(inputs=(tmp_path / "in",), store=tmp_path / "store", until="ingest", device="cpu")
    counts = attempts(times, error)
    outcomes = [f.outcome for f in execute(options, Quiet(), Stop()).frames]
    assert outcomes == ["rendered" if succeeds else "failed", "rendered"]
    assert counts == {"frame0": tried, "frame1": 1}


def test_a_scheduler_tries_again_by_itself(tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 1)
    options = Options(inputs=(tmp_path / "in",), store=tmp_path / "store", until="ingest", device="cpu")
    calls = []

    def through(*given: Any) -> Performed:
        calls.append(given)
        raise disk_failed()

    (frame,) = execute(options, Quiet(), Stop(), through).frames
    assert (frame.outcome, len(calls)) == ("failed", 1)


@pytest.mark.parametrize(("times", "error", "tried", "succeeds"), CASES)
def test_dvc(
    tmp_path: Path,
    attempts: Callable[..., Counter[str]],
    times: int,
    error: Callable[[], Exception],
    tried: int,
    succeeds: bool,
) -> None:
    write_frames(tmp_path / "in", 2)
    engine = open_engine(tmp_path / "store", None, "cpu")
    counts = attempts(times, error)

    def run() -> None:
        run_stage(engine, {}, "ingest", tmp_path, [tmp_path / "in"], tmp_path / "out", memory=10**9)

    if error is disk_failed and not succeeds:  # a fault of the machine: no manifest says that the frame is bad
        with pytest.raises(OSError, match="Input/output"):
            run()
        assert not manifest_path(tmp_path, "ingest").exists()
    else:
        run()
        lines = {line.frame: line.error for line in read_manifest(manifest_path(tmp_path, "ingest"), "ingest")}
        assert (lines["frame0"] is None) is succeeds
        assert lines["frame1"] is None
    assert counts == {"frame0": tried, "frame1": 1}


def test_a_raw_that_stays_unreadable_is_no_result_for_dvc(
    tmp_path: Path, attempts: Callable[..., Counter[str]]
) -> None:
    write_frames(tmp_path / "in", 1)
    attempts(3, in_passing)
    with pytest.raises(RawFileError, match="tags cannot be read"):
        run_stage(open_engine(tmp_path / "store", None, "cpu"), {}, "ingest", tmp_path, [tmp_path / "in"], tmp_path)
    assert not manifest_path(tmp_path, "ingest").exists()
