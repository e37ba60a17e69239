"""The report: what it says is what the store holds, whatever is missing; and its page is inert and stands alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightisp.batch import perform, prepare
from nightisp.cli import patience
from nightisp.engine import Engine
from nightisp.errors import ArtifactNotFoundError
from nightisp.export import EncodedPicture
from nightisp.image import CFA, DisplayImage, LinearImage, Mosaic, Window
from nightisp.models.weights import Compute, Library
from nightisp.params import load
from nightisp.pipeline import NAMES, PIPELINE
from nightisp.report.distribution import BINS, STOPS, distribution
from nightisp.report.drawings import histogram, tone_plot
from nightisp.report.light import confidence_of
from nightisp.report.page import page
from nightisp.report.report import Report, as_json, as_page, look
from nightisp.stages import tone
from nightisp.stages.white_balance import to_gains
from nightisp.store import Store
from tests.frames import SHIPPED, write_frame, write_frames
from tests.terminal import Terminal, render

HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)>'&{{ 7 * 7 }}"""


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of those that stand in `texts`."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {"script": "", "style": "", "h2": "", "title": ""}
        self._open: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.texts:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class Project:
    """A store of rendered frames, and reports of it."""

    def __init__(self, folder: Path) -> None:
        library = Library([folder / "weights", SHIPPED])
        self.folder = folder
        self.engine = Engine(Store(folder / "store"), library, Compute(library, "cpu"))

    def render(self, *raws: Path, tree: dict[str, Any] | None = None, until: str = "export", name: str = "") -> None:
        for plan in prepare(self.engine, tree or {}, raws, until=until).plans:
            named = replace(plan, source=replace(plan.source, frame=name or plan.source.frame))
            perform(self.engine, named, until, None)

    def look(self, *names: str, limit: int = 20, longest: int = 2048) -> Report:
        tell = lambda *_: None  # noqa: E731
        return look(self.engine.store, names, self.engine.networks, limit=limit, longest=longest, tell=tell)

    def artifact(self, stage: str) -> Path:
        (path,) = (self.engine.store.folder / stage).glob("*.zarr")
        return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One frame, rendered by the default parameters; to be looked at only."""
    project = Project(tmp_path_factory.mktemp("rendered"))
    project.render(write_frame(project.folder / "in" / "one.dng", 1, height=96, width=128))
    return project


def test_it_tells_of_every_stage_what_its_artifact_says(rendered: Project) -> None:
    (frame,) = rendered.look().frames
    assert [stage.name for stage in frame.stages] == list(NAMES)
    assert not frame.problems
    for stage in frame.stages:
        recorded = json.loads((rendered.artifact(stage.name) / "zarr.json").read_bytes())["attributes"]
        assert (stage.key, stage.seconds, stage.device) == (recorded["key"], recorded["seconds"], recorded["device"])
        assert stage.precision == recorded.get("precision", "")
        assert {p.name for p in stage.parameters} == recorded["params"].keys()
        assert stage.size == sum(f.stat().st_size for f in rendered.artifact(stage.name).rglob("*") if f.is_file())
        assert not stage.changed
        assert stage.thumbnail
    assert frame.size == (128, 96)
    assert frame.after
    assert (frame.after.width, frame.after.height) == (128, 96)
    assert frame.before
    assert frame.facts == (("Camera", "nightisp tiny"), ("ISO", "1600"))


def test_nothing_is_computed_and_nothing_written(rendered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a report computes nothing")

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in rendered.folder.rglob("*")}

    monkeypatch.setattr(Engine, "_compute", never)
    before = files()
    first = as_page(rendered.look())
    assert as_page(rendered.look()) == first
    assert files() == before


def test_it_tells_how_often_an_artifact_was_used_again(project: Project) -> None:
    raw = write_frame(project.folder / "one.dng", 1)
    project.render(raw)
    project.render(raw, tree={"tone": {"gamma": 2.8}})
    (frame,) = project.look().frames
    before = {stage["stage"]: stage["hits"] for stage in as_json(project.look())["frames"][0]["stages"]}
    assert before == {stage.name: stage.hits for stage in frame.stages}
    project.render(raw, tree={"tone": {"gamma": 2.8}})
    after = {stage.name: stage.hits for stage in project.look().frames[0].stages}
    assert after["export"] == before["export"] + 1


def test_changed_parameters_are_marked_with_their_default(project: Project) -> None:
    raw = write_frame(project.folder / "one.dng", 1)
    project.render(raw)
    project.render(raw, tree={"tone": {"gamma": 2.8}, "white_balance": {"method": "as_shot"}})
    report = project.look()
    (frame,) = report.frames  # the newest of the two
    changed = {f"{s.name}.{p.name}": (p.value, p.default) for s in frame.stages for p in s.changed}
    assert changed == {"tone.gamma": ("2.8", "3.2"), "white_balance.method": ("as_shot", "fc4")}
    text = as_page(report).decode()
    assert "changed; default <code>3.2</code>" in text
    assert text.count("changed; default") == 2
    assert as_json(report)["frames"][0]["stages"][5]["changed"] == {"gamma": "2.8"}
    (older,) = frame.others
    assert f"<code>{older[:12]}</code>" in text
    (before,) = project.look(older[:12]).frames
    assert (before.frame, before.stages[-1].key, before.others) == ("one", older, (frame.stages[-1].key,))
    assert not [s for s in before.stages if s.changed]


def test_where_a_parameter_was_set_is_marked(project: Project) -> None:
    raw = write_frame(project.folder / "one.dng", 1)
    raw.with_name("one.nightisp.yaml").write_text("tone: {exposure_ev: 1, gamma: 2.2}\nexport: {format: png}\n")
    look = {"tone": {"gamma": 2.5, "exposure_ev": 2}, "color": {"strength": 0.5}}
    layered = load(None, ["tone.gamma=2.8", "white_balance.method=as_shot"], look, "looks/harbor.yaml")
    project.render(raw, tree=layered)
    report = project.look()
    (frame,) = report.frames
    marked = {f"{s.name}.{p.name}": p.origin for s in frame.stages for p in s.parameters if p.origin}
    assert marked == {
        "white_balance.method": "--set",
        "color.strength": "look harbor",
        "tone.exposure_ev": "one.nightisp.yaml",
        "tone.gamma": "--set",
        "export.format": "one.nightisp.yaml",
    }
    assert '<span class="tag">look harbor</span>' in as_page(report).decode()
    assert as_json(report)["frames"][0]["stages"][5]["origins"] == {
        "exposure_ev": "one.nightisp.yaml",
        "gamma": "--set",
    }


def test_of_older_artifacts_the_sidecar_is_known(project: Project) -> None:
    raw = write_frame(project.folder / "one.dng", 1)
    raw.with_name("one.nightisp.yaml").write_text("tone: {exposure_ev: 1}\n")
    with pytest.MonkeyPatch.context() as before:
        before.setattr("nightisp.params.origins", lambda *_: {})
        project.render(raw)
    (frame,) = project.look().frames
    marked = {f"{s.name}.{p.name}": p.origin for s in frame.stages for p in s.parameters if p.origin}
    assert marked == {"tone.exposure_ev": "one.nightisp.yaml"}


@pytest.mark.parametrize("stage", ["denoise", "color", "export"])
@pytest.mark.parametrize("harm", ["removed", "damaged"])
def test_an_artifact_that_is_missing_or_damaged_is_a_line_and_no_more(project: Project, stage: str, harm: str) -> None:
    project.render(write_frame(project.folder / "one.dng", 1))
    artifact = project.artifact(stage)
    if harm == "removed":
        shutil.rmtree(artifact)
    else:
        chunk = next(path for path in (artifact / "samples" / "c").rglob("*") if path.is_file())
        chunk.write_bytes(b"\0" * chunk.stat().st_size)
    project.render(write_frame(project.folder / "two.dng", 2))
    report = project.look("one", "two")
    one, two = report.frames
    assert report.status == 3
    assert not two.problems
    assert stage in [name for line in one.problems for name in line.partition(":")[0].split(", ")]
    assert len(one.problems) == (2 if harm == "removed" and stage != "export" else 1)
    whole = [s.name for s in one.stages if not s.problem]
    if harm == "damaged":  # its attributes lead further back all the same
        assert whole == [name for name in NAMES if name != stage]
    elif stage != "export":
        assert whole == list(NAMES[NAMES.index(stage) + 1 :])
    assert (one.after is None) == (stage == "export")
    text = as_page(report).decode()
    assert "shown in part" in text
    assert "`nightisp flow run`" in text


def test_a_frame_without_a_picture_is_left_out_unless_it_is_named(project: Project) -> None:
    project.render(write_frame(project.folder / "one.dng", 1))
    project.render(write_frame(project.folder / "two.dng", 2), until="denoise")
    assert [frame.frame for frame in project.look().frames] == ["one"]
    (two,) = project.look("two").frames
    assert two.before
    assert two.after is None
    assert two.stages[-1].problem.startswith("has not run; the store holds this frame up to denoise")
    assert as_page(project.look("two"))


def test_an_export_that_cannot_be_read_at_all_is_told(project: Project) -> None:
    project.render(write_frame(project.folder / "one.dng", 1))
    (project.artifact("export") / "zarr.json").write_text("{")
    project.render(write_frame(project.folder / "two.dng", 2))
    report = project.look()
    assert [frame.frame for frame in report.frames] == ["two"]
    assert len(report.damaged) == 1
    assert report.status == 3
    assert "its attributes cannot be read" in as_page(report).decode()


def test_an_artifact_of_another_nightisp_is_a_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.render(write_frame(project.folder / "one.dng", 1))

    def other(stored: Any, state: dict[str, Any]) -> None:
        raise TypeError("unexpected keyword argument 'halation'")

    monkeypatch.setattr(LinearImage, "restore", other)
    (frame,) = project.look().frames
    assert [line.partition(":")[0] for line in frame.problems] == ["demosaic", "color"]
    assert "another nightisp wrote it" in frame.problems[0]


def test_frames_are_bounded_the_newest_first(project: Project) -> None:
    for raw in write_frames(project.folder / "in", 3):
        project.render(raw)
    report = project.look(limit=2)
    assert [frame.frame for frame in report.frames] == ["frame2", "frame1"]
    assert report.left_out == 1
    assert "1 older picture is left out" in " ".join(as_page(report).decode().split())
    assert len(project.look("frame0", "frame1", "frame2", limit=2).frames) == 3


def test_an_unknown_name_is_an_error_with_the_nearest(rendered: Project, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"onee: no frame or key of that name .* Did you mean one\?"):
        rendered.look("onee")
    with pytest.raises(ArtifactNotFoundError, match="holds no finished picture; render one with"):
        Project(tmp_path).look()


def test_the_page_stands_alone_and_can_be_used_by_all(rendered: Project) -> None:
    content = as_page(rendered.look())
    page = Page(content)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href"):
            if name in attributes:
                assert str(attributes[name]).startswith(("data:", "#")), (tag, attributes[name])
        for name in ("aria-labelledby",):
            assert name not in attributes or attributes[name] in ids
    assert page.all("img")
    assert all("alt" in attributes and attributes["width"] for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("input"))
    assert all("aria-label" in a or "aria-hidden" in a for a in page.all("svg"))
    assert b"http://" not in content
    assert b"https://" not in content
    assert page.all("html") == [{"lang": "en"}]


def test_the_policy_lets_in_this_style_and_this_script_alone(rendered: Project) -> None:
    page = Page(as_page(rendered.look()))
    (policy,) = [str(m["content"]) for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        assert len(page.all(kind)) == 1
        digest = base64.b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_a_hostile_name_is_only_text(project: Project) -> None:
    project.render(write_frame(project.folder / "one.dng", 1), name=HOSTILE)
    plain = Page(as_page(project.look()))
    assert plain.texts["h2"] == HOSTILE
    assert plain.texts["title"] == f"{HOSTILE} · nightisp"
    assert len(plain.all("script")) == 1
    assert not [a for a in plain.all("img") if a.get("src") == "x"]


def test_half_a_character_in_a_name_does_no_harm() -> None:
    assert b"one? " in page("report.html.j2", report=Report((), 1, ("one\udcff is damaged",)))


def test_linear_light_is_counted_in_stops() -> None:
    samples = np.array([[-0.5, 0.25], [1.0, 2.0**-3]], np.float32)
    measured = distribution(Mosaic(samples, cfa=CFA.RGGB))
    assert measured.scale == "stops"
    assert measured.black == {"R": 1, "G": 0, "B": 0}
    assert measured.white == {"R": 0, "G": 0.5, "B": 0}
    assert measured.at_black() == pytest.approx(1 / 3)
    low, high = STOPS
    place = int(BINS * (-3 - low) / (high - low))
    assert np.flatnonzero(measured.shares["B"]).tolist() == [place]
    assert sum(measured.shares["R"]) == 0


def test_only_what_is_visible_is_counted() -> None:
    samples = np.zeros((4, 4), np.float32)
    samples[1:3, 1:3] = 1
    measured = distribution(Mosaic(samples, cfa=CFA.BGGR, window=Window(1, 1, 2, 2)))
    assert set(measured.white.values()) == {1.0}
    assert set(measured.black.values()) == {0.0}


def test_display_light_is_counted_from_black_to_white() -> None:
    samples = np.zeros((2, 2, 3), np.float32)
    samples[..., 0] = 1
    samples[0, 0, 1] = np.nan
    measured = distribution(DisplayImage(samples))
    assert measured.scale == "display"
    assert measured.white == {"R": 1, "G": 0, "B": 0}
    assert measured.black == {"R": 0, "G": 0.75, "B": 1}
    assert measured.shares["R"][-1] == 1
    assert measured.shares["B"][0] == 1
    assert histogram(measured)["R"].startswith("M0 40V40.00h1")


def test_a_histogram_of_nothing_is_flat() -> None:
    outlines = histogram(distribution(Mosaic(np.zeros((2, 2), np.float32), cfa=CFA.RGGB)))
    assert set(re.findall(r"V([\d.]+)h1", outlines["R"])) == {"40.00"}


def test_the_curve_is_that_of_the_stage() -> None:
    params = tone.ToneParams(exposure_ev=1.0, gamma=2.0)
    scene = np.full((1, 1, 3), 0.18, np.float32)
    picture = tone.tone(LinearImage(scene, space="srgb"), params)
    plot = tone_plot(params)
    assert plot.middle == pytest.approx(float(picture.samples[0, 0, 0]), abs=1e-6)
    first, *_, last = re.findall(r"[\d.]+ ([\d.]+)", plot.curve)
    assert float(last) == 0.0  # two stops above white are white, at the top
    assert 80 < float(first) < 100


def test_where_fc4_looked_is_what_it_pooled_the_light_from(rendered: Project) -> None:
    """A map that another preparation gave would pool to other gains than those of the artifact."""
    from nightisp.models.evaluation import evaluate
    from nightisp.stages import white_balance as stage

    (frame,) = rendered.look().frames
    assert frame.light
    names = stage.WhiteBalanceParams().weights
    assert tuple(looked.weights for looked in frame.light.looked) == names
    assert all(0 < looked.half < 1 for looked in frame.light.looked)
    assert not frame.light.unseen
    place = NAMES.index("denoise")
    mosaic = rendered.engine.store.read("denoise", frame.stages[place].key, PIPELINE[place].gives)
    networks = rendered.engine.networks
    gains = []
    for name in names:
        confidence = confidence_of(name, mosaic, networks)
        sees = stage.read_sees(name, networks(name).card)
        matrix = stage.camera_to_seen(mosaic.shot.color_matrices, sees)
        seen = stage.as_seen(stage.to_half_rgb(mosaic.samples, mosaic.cfa), sees, matrix)
        pooled = (evaluate(networks(name), seen)[1] * confidence).sum(axis=(1, 2))
        gains.append(to_gains(stage.in_camera(pooled, matrix)))
    assert frame.light.gains == pytest.approx(tuple(np.mean(gains, axis=0)), rel=1e-4)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("as_shot", "FC4 had no part in this: white_balance.method is as_shot."),
        ("other weights", "not those any more that this balance was found by"),
        ("no weights", "no weights of this name"),
        ("no mosaic", "cannot be shown without the mosaic that it saw"),
    ],
)
def test_why_it_cannot_be_shown_where_fc4_looked(project: Project, how: str, said: str) -> None:
    raw = write_frame(project.folder / "one.dng", 1)
    tree = {"white_balance": {"method": "as_shot"}} if how == "as_shot" else {}
    project.render(raw, tree=tree)
    folders: Sequence[Path] = [SHIPPED]
    if how == "other weights":
        other = project.folder / "other"
        other.mkdir()
        shutil.copy(SHIPPED / "denoise_unet.safetensors", other / "fc4.safetensors")
        folders = [other, SHIPPED]
    elif how == "no weights":
        folders = [project.folder / "empty"]
    elif how == "no mosaic":
        shutil.rmtree(project.artifact("denoise"))
    networks = Compute(Library(folders), "cpu")
    report = look(project.engine.store, ["one"], networks, limit=1, tell=lambda *_: None)
    light = report.frames[0].light
    assert light
    assert not light.looked
    assert said in light.unseen
    assert said in as_page(report).decode()


def test_a_page_carries_no_exif(rendered: Project) -> None:
    (frame,) = rendered.look().frames
    assert frame.after
    content = base64.b64decode(frame.after.address.partition(",")[2])
    assert content[:3] == b"\xff\xd8\xff"
    assert b"Exif" not in content
    stored = rendered.engine.store.read("export", frame.stages[-1].key, EncodedPicture)
    assert b"Exif" in stored.content


def test_large_pictures_are_shrunk_and_the_page_says_so(rendered: Project) -> None:
    report = rendered.look(longest=64)
    (frame,) = report.frames
    assert frame.after
    assert (frame.after.width, frame.after.height) == (64, 48)
    assert "at 64 × 48 of 128 × 96" in as_page(report).decode()


def test_the_command_writes_a_page_and_tells(nightisp: Terminal, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 2)
    render(nightisp)
    done = nightisp("report")
    assert done.out == "wrote 2 pictures to report.html\n"
    first = (tmp_path / "report.html").stat().st_mtime_ns
    told = json.loads(nightisp("report", "frame1", "--json").out)
    assert told["page"] == "report.html"
    assert [frame["frame"] for frame in told["frames"]] == ["frame1"]
    assert [stage["stage"] for stage in told["frames"][0]["stages"]] == list(NAMES)
    assert (tmp_path / "report.html").stat().st_mtime_ns != first
    shutil.rmtree(next((tmp_path / "artifacts" / "tone").glob("*.zarr")))
    partly = nightisp("report", "--to", "pages/partly.html", status=3)
    assert "incomplete: frame" in partly.err
    assert (tmp_path / "pages" / "partly.html").is_file()
    assert "a page is written as .html" in nightisp("report", "--to", "page.txt", status=2).err
    assert "no frame or key of that name" in nightisp("report", "frame7", status=2).err
    assert not list(tmp_path.glob(".nightisp-*"))


def test_who_waits_is_told_on_standard_error(
    nightisp: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_frames(tmp_path / "data", 1)
    render(nightisp)
    assert nightisp("report").err == ""
    monkeypatch.setattr(patience, "AFTER_S", 0.0)
    assert nightisp("report").err == "reading frame0\n"
