"""Frames side by side: bounded, in order, every one accounted for."""

from __future__ import annotations

import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nightisp import run as run_module
from nightisp.batch import BYTES_PER_PHOTOSITE, Batch, FrameResult, Stop, perform, prepare, render_all, render_frame
from nightisp.engine import Engine, Plan
from nightisp.errors import StageError
from nightisp.models.heap import MEMORY
from nightisp.models.weights import Compute, Library
from nightisp.raw import inspect
from nightisp.run import Options, check_settings, open_engine
from nightisp.sources import Source
from nightisp.store import Store
from tests.frames import SHIPPED, write_frame, write_pair


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


@pytest.mark.parametrize(("budget", "features"), [(400 * 10**6, 10**8), (10**12, MEMORY)])
def test_networks_share_the_memory(tmp_path: Path, budget: int, features: int) -> None:
    engine, _ = check_settings(Options(store=tmp_path, memory=budget, device="cpu"))
    assert engine.networks.memory == features
    assert open_engine(tmp_path, None, "cpu").networks.memory == features, "who names none leaves it as it is"


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

    def fetch(self, plan: Plan, todo: dict[str, str]) -> None:
        """Have no networks."""

    def settle(self, plan: Plan) -> None:
        raise StageError("another fault, which is not to hide the first")


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


def write_dng_without_range(path: Path) -> Path:
    """Write a DNG whose white level is as low as its black level."""
    write_frame(path, 7)
    whole = path.read_bytes()
    white = struct.pack("<HHI", 50717, 4, 1)
    assert whole.count(white) == 1
    at = whole.index(white) + len(white)
    path.write_bytes(whole[:at] + struct.pack("<I", 64) + whole[at + 4 :])
    return path


def test_a_raw_whose_mosaic_is_in_the_store_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library([SHIPPED])
    engine = Engine(Store(tmp_path / "store"), library, Compute(library, "cpu"))
    raws = [write_frame(tmp_path / "in" / "a.dng", 1, height=47, width=63), write_pair(tmp_path / "in" / "b.png", 2)]
    first = prepare(engine, {}, raws, until="ingest")
    for plan in first.plans:
        engine.ensure(plan, "ingest")
    opened: list[Path] = []
    monkeypatch.setattr("nightisp.sources.inspect", lambda path: opened.append(path) or inspect(path))
    again = prepare(engine, {}, raws, until="ingest")
    assert (again, opened) == (first, [])
    damaged = engine.store.entry("ingest", first.plans[0].keys["ingest"])
    (Path(damaged.path) / "zarr.json").write_text("{}")
    assert prepare(engine, {}, raws, until="ingest") == first
    assert opened == raws[:1]


def test_levels_that_make_no_picture_are_refused_in_preflight(tmp_path: Path) -> None:
    library = Library([SHIPPED])
    engine = Engine(Store(tmp_path / "store"), library, Compute(library, "cpu"))
    raws = tmp_path / "in"
    write_frame(raws / "good.dng", 1)
    write_pair(raws / "pair.png", 2, white_level=2048)
    write_dng_without_range(raws / "camera.dng")

    def refused(tree: dict[str, Any]) -> dict[str, str]:
        prepared = prepare(engine, tree, [raws])
        assert {p.source.frame for p in prepared.plans} | {r.frame for r in prepared.refused} == {
            "good",
            "pair",
            "camera",
        }
        return {r.frame: str(r.error) for r in prepared.refused}

    errors = refused({})
    assert set(errors) == {"pair", "camera"}
    for frame, name in (("pair", "pair.png"), ("camera", "camera.dng")):
        assert errors[frame].startswith(f"{raws / name}: white level ")
        assert "set ingest.white_level" in errors[frame]
    # The parameters cure what a file says wrongly, for a batch or for one picture by its sidecar.
    (raws / "pair.png.nightisp.yaml").write_text("ingest: {white_level: 63487}\n")
    assert set(refused({})) == {"camera"}
    assert refused({"ingest": {"black_level": 0}}) == {}
    assert set(refused({"ingest": {"black_level": 65535}})) == {"good", "pair", "camera"}
    for plan in prepare(engine, {"ingest": {"black_level": 0}}, [raws]).plans:
        perform(engine, plan, "ingest", None)
    assert refused({"ingest": {"black_level": 0}}) == {}  # told from the store now


def test_threads_that_open_a_store_at_once_have_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two would wait for its own writes only, and miss what the other has under way."""
    real = run_module.open_store

    def slow(location: str) -> Store:
        time.sleep(0.1)
        return real(location)

    monkeypatch.setattr(run_module, "open_store", slow)
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: open_engine(tmp_path / "store", None, "cpu"), range(4)))
    assert len({id(engine) for engine in engines}) == 1
