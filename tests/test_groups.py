"""Frames in groups: cut into legs, sent, and each accounted for whatever becomes of its worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nightisp.batch import Batch, FrameResult, Stop
from nightisp.cli.progress import Progress
from nightisp.engine import Engine
from nightisp.groups import Done, Leg, Work, execute_in_groups, legs
from nightisp.pipeline import NAMES
from nightisp.run import Options, Report, begin
from tests.frames import CLASSICAL, write_frames

PLAIN = tuple(f"{stage}.{name}={value}" for stage, values in CLASSICAL.items() for name, value in values.items())


class Quiet:
    """Writes down which frames ended, in their order."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def found(self, batch: Batch) -> None: ...

    def began(self, frame: str, stage: str) -> None: ...

    def ended(self, result: FrameResult) -> None:
        self.ends.append(result.frame)


def options(folder: Path, **more: Any) -> Options:
    fields = {"settings": PLAIN, "workers": 1, "batch": 3, **more}
    return Options(inputs=(folder / "data",), output=folder / "output", store=folder / "store", **fields)


class Sender:
    """Does the work here, and remembers what it was."""

    def __init__(self) -> None:
        self.sent: list[Work] = []

    def __call__(self, work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
        self.sent.append(work)
        return work.perform(stop, done)


def go(given: Options, send: Any, observer: Quiet | None = None, stop: Stop | None = None) -> Report:
    return execute_in_groups(
        given, observer or Quiet(), Stop() if stop is None else stop, send, apart=True, at_once=None
    )


def plan_of(folder: Path, *settings: str) -> Any:
    write_frames(folder / "data", 1)
    return begin(options(folder, settings=settings))[2].plans[0]


def test_legs_part_at_the_networks(tmp_path: Path) -> None:
    default, plain = plan_of(tmp_path), plan_of(tmp_path, *PLAIN)
    todo = dict.fromkeys(NAMES, "compute")
    cut = legs(default, todo, apart=True)
    assert [leg.resource for leg in cut] == ["CPU", "GPU", "CPU"]
    assert [(leg.stages[0], leg.stages[-1]) for leg in cut] == [
        ("ingest", "ingest"),
        ("denoise", "super_resolution"),
        ("export", "export"),
    ]
    assert legs(default, todo, apart=False) == (Leg(NAMES, "GPU"),)
    assert legs(plain, todo, apart=True) == (Leg(NAMES, "CPU"),)


def test_what_is_cached_is_in_no_leg(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    gamma = {name: "cached" if NAMES.index(name) < NAMES.index("tone") else "compute" for name in NAMES}
    assert legs(plan, gamma, apart=True) == (
        Leg(("tone",), "CPU"),
        Leg(("refine", "super_resolution"), "GPU"),
        Leg(("export",), "CPU"),
    )
    only_export = {**dict.fromkeys(NAMES, "skipped"), "super_resolution": "cached", "export": "compute"}
    assert legs(plan, only_export, apart=True) == (Leg(("export",), "CPU"),)
    assert legs(plan, dict.fromkeys(NAMES, "cached"), apart=True) == ()


def test_groups_give_what_single_frames_do(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 7)
    send, observer = Sender(), Quiet()
    report = go(options(tmp_path), send, observer)
    assert [f.outcome for f in report.frames] == ["rendered"] * 7
    assert [len(work.jobs) for work in send.sent] == [3, 3, 1]
    assert observer.ends == [f"frame{n}" for n in range(7)]
    assert all(set(f.stages) == set(NAMES) and set(f.stages.values()) == {"computed"} for f in report.frames)
    assert all(f.output and f.output.is_file() for f in report.frames)
    again = Sender()
    cached = go(options(tmp_path), again)
    assert not again.sent, "what the store holds makes no work"
    assert {did for f in cached.frames for did in f.stages.values()} == {"cached"}


def test_a_group_that_is_cached_in_part_is_sent_in_part(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 4)
    go(options(tmp_path, frames="frame[12]"), Sender())
    send = Sender()
    report = go(options(tmp_path, batch=4), send)
    assert [[job.source.frame for job in work.jobs] for work in send.sent] == [["frame0", "frame3"]]
    assert [f.outcome for f in report.frames] == ["rendered"] * 4


def test_a_fault_is_that_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "data", 3)
    plain = Engine.ensure

    def ensure(self: Engine, plan: Any, name: str, *, wait: bool = True) -> Any:
        if (plan.source.frame, name) == ("frame1", "tone"):
            raise RuntimeError("cosmic ray")
        return plain(self, plan, name, wait=wait)

    monkeypatch.setattr(Engine, "ensure", ensure)
    send = Sender()
    report = go(options(tmp_path), send)
    assert [f.outcome for f in report.frames] == ["rendered", "failed", "rendered"]
    assert report.frames[1].stage == "tone"
    assert "cosmic ray" in str(report.frames[1].error)
    assert report.frames[1].stages["demosaic"] == "computed"
    assert len(send.sent) == 1, "it is not the worker's fault"


def test_who_kills_its_worker_is_found_out_and_the_others_go_on(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 4)
    sizes = []

    def send(work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
        sizes.append(len(work.jobs))
        before = []
        for number, job in enumerate(work.jobs):
            if job.source.frame == "frame2":
                raise MemoryError("the worker is gone")
            alone = Work(work.leg, (job,), work.keys[number : number + 1], each=False)
            before += alone.perform(stop, done)
        return tuple(before)

    report = go(options(tmp_path, batch=4), send)
    assert [f.outcome for f in report.frames] == ["rendered", "rendered", "failed", "rendered"]
    assert "the worker is gone" in str(report.frames[2].error)
    assert sizes == [4, 1, 1]


def test_a_worker_with_other_code_is_told_apart(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 1)

    def send(work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
        return Work(work.leg, work.jobs, ("f" * 64,), each=False).perform(stop, done)

    (frame,) = go(options(tmp_path), send).frames
    assert frame.outcome == "failed"
    assert "has other code or other weights" in str(frame.error)


def test_a_worker_with_another_store_is_told(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 1)

    def send(work: Work, stop: Stop, done: Done) -> list[FrameResult]:
        return [FrameResult(job.source.frame, job.source.path, "rendered") for job in work.jobs]

    (frame,) = go(options(tmp_path), send).frames
    assert frame.outcome == "failed"
    assert "give workers and this machine one --store" in str(frame.error)


def test_after_stop_nothing_is_sent(tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 6)
    stop, send = Stop(), Sender()

    class Stopper(Quiet):
        def ended(self, result: FrameResult) -> None:
            super().ended(result)
            stop.set()

    def slowly(work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
        result = send(work, stop, done)
        stop.wait(5)
        return result

    report = go(options(tmp_path, batch=2), slowly, Stopper(), stop)
    assert report.interrupted
    outcomes = [f.outcome for f in report.frames]
    assert set(outcomes) == {"rendered", "skipped"}
    assert len(send.sent) == 1


def test_of_hundreds_the_closing_table_names_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [FrameResult(f"f{n}", Path(f"f{n}.dng"), "rendered", own={"tone": {"gamma": 2.0}}) for n in range(300)]
    frames[7] = FrameResult("f7", Path("f7.dng"), "failed", error="too dark", stage="denoise")
    with Progress(quiet=False) as progress:
        progress.close_with(Report(frames, 12.0))
        told = capsys.readouterr().err
        assert "f7" in told
        assert "299 of 300 pictures in 12.0 s" in told
        assert len(told.splitlines()) < 5
        progress.close_with(Report(frames[:9], 1.0))
        assert "f8" in capsys.readouterr().err
