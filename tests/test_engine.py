"""What is computed, and what is not: keys, hits, damage, publishing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nightisp import engine as engine_module
from nightisp import params as parameters
from nightisp.batch import FrameResult, Stop, perform, prepare, render_frame
from nightisp.engine import Engine, Plan
from nightisp.errors import StoreError, WeightsNotFoundError
from nightisp.models.weights import Compute, Library
from nightisp.pipeline import NAMES, PIPELINE
from nightisp.sources import Source
from nightisp.store import Store
from tests.frames import CLASSICAL, SHIPPED, write_frame, write_frames, write_pair
from tests.strategies import MODEST

DOWNSTREAM = list(NAMES[NAMES.index("tone") :])


class Counted:
    """An engine over a store of its own that counts what it computes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library = Library([folder / "weights", SHIPPED])
        self.engine = Engine(Store(folder / "store"), library, Compute(library, "cpu"))
        self.output = folder / "out"
        self.counts: Counter[str] = Counter()
        compute = Engine._compute

        def counting(engine: Engine, plan: Plan, stage: Any, image: Any, claimed: Any) -> float:
            self.counts[stage.name] += 1
            return compute(engine, plan, stage, image, claimed)

        monkeypatch.setattr(Engine, "_compute", counting)

    def render(
        self, inputs: list[Path], tree: dict[str, Any] | None = None, until: str = "export"
    ) -> list[FrameResult]:
        """Render as `flow run` does, and leave in `counts` what that took."""
        self.counts.clear()
        batch = prepare(self.engine, tree or {}, inputs)
        output = self.output if until == "export" else None
        results = [
            render_frame(
                self.engine, plan, until, lambda p, n: perform(self.engine, p, n, output), Stop(), lambda *_: None
            )
            for plan in batch.plans
        ]
        return [*results, *batch.refused]


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(tmp_path, monkeypatch)


def artifact(counted: Counted, stage: str) -> Path:
    (path,) = (counted.engine.store.folder / stage).glob("*.zarr")
    return path


def test_each_change_reruns_what_lies_downstream_and_no_more(counted: Counted, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 2)
    inputs = [tmp_path / "in"]
    counted.render(inputs)
    assert counted.counts == dict.fromkeys(NAMES, 2)
    counted.render(inputs)
    assert not counted.counts
    counted.render(inputs, {"tone": {"gamma": 2.8}})
    assert counted.counts == dict.fromkeys(DOWNSTREAM, 2)
    counted.render(inputs)  # gamma put back
    assert not counted.counts
    counted.render(inputs, {"denoise": {"strength": 0.5}})
    assert counted.counts == dict.fromkeys(NAMES[1:], 2)
    write_frames(tmp_path / "in", 1, first=2)
    counted.render(inputs)
    assert counted.counts == dict.fromkeys(NAMES, 1)


def test_a_renamed_moved_touched_or_copied_raw_is_a_hit(counted: Counted, tmp_path: Path) -> None:
    first = write_frame(tmp_path / "a" / "one.dng", 1)
    counted.render([first])
    second = tmp_path / "b" / "two.dng"
    second.parent.mkdir()
    shutil.copy(first, second)
    (result,) = counted.render([second])
    assert not counted.counts
    assert result.output == tmp_path / "out" / "two.jpg"
    assert result.output.read_bytes() == (tmp_path / "out" / "one.jpg").read_bytes()


@pytest.mark.parametrize("stage", NAMES)
def test_a_removed_artifact_costs_as_little_as_possible(counted: Counted, tmp_path: Path, stage: str) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    shutil.rmtree(artifact(counted, stage))
    (result,) = counted.render([raw])
    if stage == "export":
        assert counted.counts == {"export": 1}
    else:
        assert not counted.counts  # nothing needs it: the picture is there
        assert result.stages[stage] == "skipped"
        counted.render([raw], until=stage)
        assert counted.counts == {stage: 1}


def test_a_damaged_input_is_computed_again_with_what_it_lacks(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    chunk = next(path for path in (artifact(counted, "color") / "samples" / "c").rglob("*") if path.is_file())
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    (result,) = counted.render([raw], {"tone": {"gamma": 2.8}})
    assert counted.counts == dict.fromkeys(["color", *DOWNSTREAM], 1)
    assert result.stages["color"] == "computed"


@pytest.mark.parametrize("harm", ["deleted", "altered", "same size"])
def test_a_picture_that_is_gone_or_altered_is_published_again_and_counts_as_cached(
    counted: Counted, tmp_path: Path, harm: str
) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    picture = tmp_path / "out" / "one.jpg"
    good = picture.read_bytes()
    if harm == "deleted":
        picture.unlink()
    else:
        picture.write_bytes(good[:-1] + (b"!" if harm == "same size" else b"longer"))
    (result,) = counted.render([raw])
    assert picture.read_bytes() == good
    assert not counted.counts
    assert result.stages["export"] == "cached"


def test_a_damaged_picture_in_the_store_is_made_again(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    good = (tmp_path / "out" / "one.jpg").read_bytes()
    chunk = next(path for path in (artifact(counted, "export") / "samples" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"\0" * chunk.stat().st_size)
    (tmp_path / "out" / "one.jpg").unlink()
    counted.render([raw])
    assert counted.counts == {"export": 1}
    assert (tmp_path / "out" / "one.jpg").read_bytes() == good


def test_a_miss_and_a_hit_give_the_same_bytes(counted: Counted, tmp_path: Path) -> None:
    """In memory, stage after stage, and through the store: the same file."""
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    (plan,) = prepare(counted.engine, {}, [raw]).plans
    picture: Any = engine_module.RawFile(raw)
    for stage in PIPELINE:
        picture = (
            stage(picture, plan.params[stage.name]).rounded()
            if stage.device == "cpu"
            else stage(picture, plan.params[stage.name], counted.engine.networks).rounded()
        )
    assert picture.content == (tmp_path / "out" / "one.jpg").read_bytes()


def test_a_raw_that_changes_while_it_is_read_fails_by_name(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    (plan,) = prepare(counted.engine, {}, [raw]).plans
    write_frame(raw, 2)
    result = render_frame(
        counted.engine, plan, "export", lambda p, n: perform(counted.engine, p, n, None), Stop(), lambda *_: None
    )
    assert result.outcome == "failed"
    assert "was changed while it was read" in str(result.error)
    assert not list((counted.engine.store.folder / "ingest").glob("*.zarr"))


def test_a_sidecar_changes_the_stages_that_it_names(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    (tmp_path / "one.nightisp.yaml").write_text("tone: {exposure_ev: 1.0}\n")
    counted.render([raw])
    assert counted.counts == dict.fromkeys(DOWNSTREAM, 1)
    (tmp_path / "one.nightisp.yaml").write_text("tone: {exposure_evv: 1.0}\n")
    (result,) = counted.render([raw])
    assert result.outcome == "failed"
    assert "Did you mean exposure_ev?" in str(result.error)


def test_new_weights_rerun_their_stage_and_what_follows(counted: Counted, tmp_path: Path) -> None:
    import torch

    from nightisp.models import build
    from nightisp.models.checkpoints import import_checkpoint

    raw = write_frame(tmp_path / "one.dng", 1)
    tree = {"denoise": {"method": "unet"}}
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(build("denoise_unet", width=8).state_dict(), tmp_path / "unet.pth")
        import_checkpoint("denoise", [tmp_path / "unet.pth"], tmp_path / "weights", overwrite=True)
        counted.render([raw], tree)
        assert counted.counts == dict.fromkeys(NAMES if seed == 0 else NAMES[1:], 1)
        counted.render([raw], tree)
        assert not counted.counts


def test_keys_stand_for_what_decides_the_samples(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    (plan,) = prepare(counted.engine, {}, [raw]).plans
    for stage in PIPELINE:
        for name, value in OTHER[stage.name].items():
            changed = counted.engine.plan(plan.source, {stage.name: {name: value}}).keys
            differs = [s for s in NAMES if changed[s] != plan.keys[s]]
            assert differs == list(NAMES[NAMES.index(stage.name) :]), f"{stage.name}.{name}"
    other = replace(plan.source, digest=hashlib.sha256(b"other").hexdigest())
    assert not set(counted.engine.plan(other, {}).keys.values()) & set(plan.keys.values())
    elsewhere = replace(plan.source, frame="renamed", path=Path("/elsewhere/renamed.dng"))
    assert counted.engine.plan(elsewhere, {}).keys == plan.keys


OTHER: dict[str, dict[str, Any]] = {
    "ingest": {"black_level": 10.0, "white_level": 9000.0},
    "denoise": {"strength": 0.5, "precision": "bfloat16"},
    "white_balance": {"method": "as_shot", "norm": 3.0, "gains": [2.0, 1.0, 1.5], "percentile": 98.0},
    "demosaic": {"method": "bilinear"},
    "color": {"strength": 0.5, "matrix": "published", "highlights": "published", "second_white_balance": "none"},
    "tone": {"gamma": 2.2, "exposure_ev": 0.5, "curve": [[0, 0], [1, 1]]},
    "refine": {"precision": "bfloat16"},
    "super_resolution": {"method": "lanczos", "tile": 128, "overlap": 32},
    "export": {"quality": 90, "format": "png", "metadata": "strip", "chroma_subsampling": "4:2:0"},
}
"""For parameters of each stage, a value that is not the default."""
SOMEWHERE = Source("one", Path("one.dng"), hashlib.sha256(b"one").hexdigest())


def plain_engine(folder: Path) -> Engine:
    library = Library([folder / "weights", SHIPPED])
    return Engine(Store(folder / "store"), library, Compute(library, "cpu"))


@st.composite
def trees(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Draw some parameters of some stages, each its default or another value."""
    defaults = parameters.defaults()
    chosen = draw(st.sets(st.sampled_from([(s, n) for s, values in OTHER.items() for n in values])))
    tree: dict[str, dict[str, Any]] = {}
    for stage, name in sorted(chosen):
        tree.setdefault(stage, {})[name] = draw(st.sampled_from([defaults[stage][name], OTHER[stage][name]]))
    return tree


@hypothesis_settings(MODEST, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(), trees())
def test_keys_part_where_the_parameters_do(tmp_path: Path, one: dict[str, Any], two: dict[str, Any]) -> None:
    """Two keys are the same if, and only if, all parameters up to their stage are."""
    engine = plain_engine(tmp_path)
    plans = [engine.plan(SOMEWHERE, tree) for tree in (one, two)]
    same = True
    for stage in NAMES:
        a, b = (parameters.canonical(plan.params[stage]) for plan in plans)
        same = same and a == b
        assert (plans[0].keys[stage] == plans[1].keys[stage]) == same


def test_keys_are_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    code = (
        "import hashlib, json, sys; sys.path[:0] = sys.argv[1:]\n"
        "from pathlib import Path; from tests.test_engine import OTHER, SOMEWHERE, plain_engine\n"
        "tree = dict(reversed(OTHER.items()))\n"
        "print(json.dumps(dict(plain_engine(Path('elsewhere')).plan(SOMEWHERE, tree).keys)))"
    )
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", code, root], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == plain_engine(tmp_path).plan(SOMEWHERE, OTHER).keys


def test_the_record_says_what_auto_came_to(counted: Counted, tmp_path: Path) -> None:
    from nightisp.models.evaluation import resolved

    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    said = {
        stage: json.loads((artifact(counted, stage) / "zarr.json").read_text())["attributes"]
        for stage in ("tone", "refine", "super_resolution")
    }
    assert "precision" not in said["tone"]
    assert said["refine"]["precision"] == said["super_resolution"]["precision"] == resolved("auto", "cpu")
    assert said["refine"]["params"]["precision"] == "auto"
    counted.render([raw], {"refine": {"precision": "float32"}})
    others = {path.name for path in (counted.engine.store.folder / "refine").glob("*.zarr")}
    assert len(others) == 2


def test_of_a_pair_every_byte_of_both_files_counts(counted: Counted, tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "one.png", 1)
    counted.render([pair])
    assert counted.counts == dict.fromkeys(NAMES, 1)
    beside = tmp_path / "one.json"
    os.utime(beside, (1, 1))
    counted.render([pair])
    assert not counted.counts
    beside.write_text(beside.read_text() + " ")
    counted.render([pair])
    assert counted.counts == dict.fromkeys(NAMES, 1)


def test_what_comes_after_the_last_stage_need_not_be_there(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    tree = {"super_resolution": {"weights": "hat_that_nobody_has"}}
    with pytest.raises(WeightsNotFoundError):
        counted.engine.plan(replace(SOMEWHERE, path=raw), tree)
    batch = prepare(counted.engine, tree, [raw], until="tone")
    assert not batch.refused
    assert list(batch.plans[0].keys) == list(NAMES[: NAMES.index("tone") + 1])
    assert prepare(counted.engine, {}, [raw]).plans[0].keys.items() >= batch.plans[0].keys.items()


def test_removing_an_artifact_in_the_middle_costs_what_until_needs(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    for stage in ("color", "tone"):
        shutil.rmtree(artifact(counted, stage))
    (result,) = counted.render([raw], until="refine")
    assert not counted.counts
    assert [s for s, did in result.stages.items() if did == "skipped"] == ["color", "tone"]
    counted.render([raw], until="tone")
    assert counted.counts == {"color": 1, "tone": 1}


def test_a_store_that_may_not_be_written_still_gives_what_it_holds(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])

    def refuse(*_: object) -> None:
        raise StoreError("store: cannot be written")

    for name in ("write", "remove"):
        monkeypatch.setattr(Store, name, refuse)
    (tmp_path / "out" / "one.jpg").unlink()
    (result,) = counted.render([raw])
    assert result.outcome == "rendered"
    assert (tmp_path / "out" / "one.jpg").exists()
    (result,) = counted.render([raw], {"tone": {"gamma": 2.8}})
    assert (result.outcome, result.stage, result.output) == ("failed", "tone", None)
    assert str(result.error) == f"{raw}: store: cannot be written"


@pytest.mark.parametrize(("weights", "most"), [(("unet",), 1), ((), 3)])
def test_one_network_at_a_time_uses_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: tuple[str, ...], most: int
) -> None:
    now: list[int] = []
    seen: list[int] = []
    at_once = threading.Barrier(most)

    def watching(image: Any, params: Any, networks: Any) -> Any:
        now.append(1)
        seen.append(len(now))
        at_once.wait(20)  # opens when as many as may be are here
        time.sleep(0.02)
        now.pop()
        return image

    watching.__module__ = PIPELINE[1].module  # whose code enters the key
    watched = replace(PIPELINE[1], run=watching, weights=lambda _: weights)
    monkeypatch.setattr(engine_module, "PIPELINE", (PIPELINE[0], watched, *PIPELINE[2:]))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "unet.safetensors").write_bytes(b"")
    engine = plain_engine(tmp_path)
    write_frames(tmp_path / "in", 3)
    plans = prepare(engine, {}, [tmp_path / "in"], until="denoise").plans
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda plan: engine.ensure(plan, "denoise"), plans))
    assert max(seen) == most


def test_two_frames_of_one_content_are_computed_once(counted: Counted, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_frame(tmp_path / "in" / f"{name}.dng", 1)
    plans = prepare(counted.engine, {}, [tmp_path / "in"]).plans
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda plan: counted.engine.ensure(plan, "export"), plans))
    assert counted.counts == dict.fromkeys(NAMES, 1)


def test_locks_of_frames_that_are_through_are_gone(counted: Counted, tmp_path: Path) -> None:
    """A run over a thousand frames is not to hold nine thousand of them."""
    assert [r.outcome for r in counted.render(write_frames(tmp_path / "in", 2), CLASSICAL)] == ["rendered"] * 2
    assert not counted.engine._locks


def test_a_flipped_bit_costs_no_picture(counted: Counted, tmp_path: Path) -> None:
    """What the next stage reads is checked; it is computed again, and the picture is the same."""
    raws = write_frames(tmp_path / "in", 1)
    (first,) = counted.render(raws, CLASSICAL)
    assert first.output is not None
    good = first.output.read_bytes()
    chunk = next(path for path in (artifact(counted, "tone") / "samples" / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)
    shutil.rmtree(artifact(counted, "refine"))
    shutil.rmtree(artifact(counted, "super_resolution"))
    shutil.rmtree(artifact(counted, "export"))
    first.output.unlink()
    (again,) = counted.render(raws, CLASSICAL)
    assert (again.outcome, counted.counts["tone"], counted.counts["color"]) == ("rendered", 1, 0)
    assert again.output is not None
    assert again.output.read_bytes() == good
    for entry in counted.engine.store.entries():
        counted.engine.store.verify(entry)


def test_attributes_tell_where_an_artifact_comes_from(counted: Counted, tmp_path: Path) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    counted.render([raw])
    attributes = json.loads((artifact(counted, "tone") / "zarr.json").read_text())["attributes"]
    assert attributes["frame"] == "one"
    assert attributes["source"] == {"name": "one.dng", "sha256": hashlib.sha256(raw.read_bytes()).hexdigest()}
    assert attributes["params"]["gamma"] == 3.2
    assert attributes["upstream"] == [artifact(counted, "color").stem]
    assert attributes["key"] == artifact(counted, "tone").stem
    assert attributes["weights"] == {}
    assert attributes["seconds"] >= 0
    assert {"nightisp", "python", "numpy", "zarr", "rawpy"} <= attributes["versions"].keys()
    stored = counted.engine.store.read("tone", attributes["key"], PIPELINE[NAMES.index("tone")].gives)
    assert np.isfinite(stored.samples).all()


def test_the_next_stage_need_not_wait_for_the_store(counted: Counted, tmp_path: Path, monkeypatch: Any) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    (plan,) = prepare(counted.engine, {}, [raw]).plans
    free, written, write = threading.Event(), [], Store.write

    def slowly(store: Store, stage: str, *rest: Any) -> None:
        assert free.wait(30)
        write(store, stage, *rest)
        written.append(stage)

    monkeypatch.setattr(Store, "write", slowly)
    counted.engine.ensure(plan, "ingest", wait=False)
    assert counted.engine.status(plan, "denoise") == {"ingest": "cached", "denoise": "compute"}
    assert counted.engine.ensure(plan, "ingest", wait=False)[0].did == "cached"
    assert not written
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("what is at hand is not read"))
    threading.Timer(0.2, free.set).start()
    counted.engine.ensure(plan, "denoise", wait=False)  # two pictures wait at most: the first is written by now
    assert written[:1] == ["ingest"]
    counted.engine.settle(plan)
    assert written == ["ingest", "denoise"]
    assert not counted.engine._fresh
    assert counted.counts == {"ingest": 1, "denoise": 1}


def test_who_waits_waits_for_another_frame_of_the_same_content(
    counted: Counted, tmp_path: Path, monkeypatch: Any
) -> None:
    raw = write_frame(tmp_path / "one.dng", 1)
    (plan,) = prepare(counted.engine, {}, [raw]).plans
    free, write = threading.Event(), Store.write
    monkeypatch.setattr(Store, "write", lambda *rest: (free.wait(30), write(*rest))[1])
    counted.engine.ensure(plan, "ingest", wait=False)
    threading.Timer(0.3, free.set).start()
    assert counted.engine.ensure(plan, "ingest")[0].did == "cached"
    assert counted.engine.store.holds("ingest", plan.keys["ingest"])
    counted.engine.settle(plan)


def test_a_picture_that_another_frame_failed_to_write_is_not_rendered(
    counted: Counted, tmp_path: Path, monkeypatch: Any
) -> None:
    """Two raws of the same bytes: the second hears that the first has the artifact, which then cannot be written."""
    raw = write_frame(tmp_path / "one.dng", 1)
    (tmp_path / "two.dng").write_bytes(raw.read_bytes())
    one, two = prepare(counted.engine, {}, [raw, tmp_path / "two.dng"]).plans
    free = threading.Event()

    def full(*_: Any) -> None:
        assert free.wait(30)
        raise StoreError("no space left")

    monkeypatch.setattr(Store, "write", full)
    counted.engine.ensure(one, "ingest", wait=False)

    def run(plan: Any, name: str) -> Any:
        done = perform(counted.engine, plan, name, None, wait=False)
        free.set()
        with pytest.raises(StoreError, match="no space left"):
            counted.engine.settle(one)  # the first frame comes to its end before the second
        return done

    result = render_frame(counted.engine, two, "ingest", run, Stop(), lambda *_: None)
    assert result.outcome == "failed"
    assert "another frame of the same content" in str(result.error)
    assert not counted.engine._fresh


@pytest.mark.parametrize("wait", [True, False])
def test_what_cannot_be_written_fails_its_frame_and_no_other(
    counted: Counted, tmp_path: Path, monkeypatch: Any, wait: bool
) -> None:
    raws, write = write_frames(tmp_path / "in", 2), Store.write

    def full(store: Store, stage: str, key: str, *rest: Any) -> None:
        if (stage, key) == ("tone", plans[0].keys["tone"]):
            raise StoreError("no space left")
        write(store, stage, key, *rest)

    plans = prepare(counted.engine, {}, raws).plans
    monkeypatch.setattr(Store, "write", full)
    results = [
        render_frame(
            counted.engine,
            plan,
            "export",
            lambda p, n: perform(counted.engine, p, n, counted.output, wait=wait),
            Stop(),
            lambda *_: None,
        )
        for plan in plans
    ]
    assert [result.outcome for result in results] == ["failed", "rendered"]
    assert "no space left" in str(results[0].error)
    assert not counted.engine._fresh
    monkeypatch.setattr(Store, "write", write)
    counted.counts.clear()
    counted.render(raws)
    assert set(counted.counts) <= {"tone", "refine", "super_resolution", "export"}
    assert not (tmp_path / "out" / "frame0.jpg").is_symlink()
    assert (tmp_path / "out" / "frame0.jpg").is_file()


def test_networks_are_fetched_for_what_is_to_be_computed(counted: Counted, tmp_path: Path) -> None:
    asked: list[tuple[set[str], set[str]]] = []
    counted.engine.networks.fetch = lambda names, modules: asked.append((set(names), set(modules)))
    write_frame(tmp_path / "in" / "a.dng", 1)
    tree = {"denoise": {"method": "none"}}
    counted.render([tmp_path / "in"], tree, until="denoise")
    counted.render([tmp_path / "in"], tree | {"white_balance": {"method": "fc4", "weights": ["fc4"]}})
    counted.render([tmp_path / "in"], tree | {"white_balance": {"method": "fc4", "weights": ["fc4"]}})
    nothing = set[str]()
    assert asked == [(nothing, nothing), ({"fc4", "mwispnet", "hat"}, {"cv2", "exiv2"}), (nothing, nothing)]
