"""What pictures are called: templates, what fills them, and that no two frames of a run get one file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.errors import ParamsError
from nightisp.image import Shot
from nightisp.naming import FIELDS, Naming, give_names
from nightisp.publish import claim, target
from nightisp.sources import Source
from tests.frames import SHOT, write_frame, write_pair
from tests.terminal import Terminal, render

KNOWN = Shot(camera="Canon EOS 7D", lens="EF50mm f/1.8", iso=3200, captured="2021-03-26T21:16:32")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{frame}", "IMG_1"),
        ("{frame}_{look}", "IMG_1_street"),
        ("{camera}-{lens}", "Canon EOS 7D-EF50mm f_1.8"),
        ("{date} {time}", "2021-03-26 21-16-32"),
        ("iso{iso}", "iso3200"),
        ("{{{frame}}}", "{IMG_1}"),
        ("bridge", "bridge"),
        ("Straße 夜 {frame}", "Straße 夜 IMG_1"),
    ],
)
def test_fields_are_filled_in(template: str, name: str) -> None:
    assert Naming(template, "street").name("IMG_1", KNOWN) == name


def test_what_a_raw_does_not_tell_is_said_so() -> None:
    every = "+".join(f"{{{field}}}" for field in FIELDS)
    assert Naming(every).name("a", Shot()) == "a+default+unknown+unknown+unknown+unknown+unknown"
    assert Naming("{date}").name("a", Shot(captured="yesterday")) == "unknown"


def test_a_name_of_a_frame_is_no_template() -> None:
    assert Naming("{frame}_{iso}").name("{camera}{0}", KNOWN) == "{camera}{0}_3200"


@pytest.mark.parametrize(
    ("camera", "name"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("NIKON\\D850", "NIKON_D850"),
        ("a\x07b\x1b[31m", "a_b_[31m"),
        ("a\nb\t c", "a b c"),
        ("a\u202eb\u200bc", "a_b_c"),
        ("...", "unknown"),
        (" C:X ", "C_X"),
    ],
)
def test_what_a_camera_says_of_itself_is_made_a_name(camera: str, name: str) -> None:
    assert Naming("{camera}").name("a", Shot(camera=camera)) == name


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{frme}", r"--name \{frme\}: \{frme\}: no such field; there are \{frame\}, \{look\},.*Did you mean frame"),
        ("{}", r"\{\}: no such field"),
        ("{0}", r"\{0\}: no such field"),
        ("{frame.__class__}", "no such field"),
        ("{frame[0]}", "no such field"),
        ("{frame!r}", r"\{frame!r\}: no such field"),
        ("{frame:>9}", r"\{frame:>9\}: no such field"),
        ("{frame:{iso}}", "no such field"),
        ("{frame", "expected for example"),
        ("frame}", "expected for example"),
        ("a/{frame}", "'/' may not stand in a file's name; choose the folder with --output"),
        ("/{frame}", "'/' may not"),
        ("../{frame}", "'/' may not"),
        ("a\\{frame}", "may not stand"),
        ("C:{frame}", "':' may not"),
        ("{frame}\n", "may not stand"),
        (".{frame}", "empty, or hidden by a dot"),
        ("", "empty, or hidden by a dot"),
        (" ", "empty, or hidden by a dot"),
    ],
)
def test_a_template_that_is_none(template: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        Naming(template)


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=80))
def test_no_name_leaves_the_folder(frame: str, camera: str, lens: str) -> None:
    name = Naming("{camera}{lens}{frame}").name(frame, Shot(camera=camera, lens=lens))
    path = target(Path("output"), name, ".jpg")
    assert path.parent == Path("output")
    assert not path.name.startswith(".")
    assert len(os.fsencode(path.name)) <= 255


def raw(frame: str, digest: str) -> Source:
    return Source(frame, Path(f"{frame}.dng"), digest * 64)


def given_names(*wanted: tuple[Source, str]) -> list[tuple[str, bool]]:
    return [(source.picture, source.yields) for source in give_names(wanted)]


def test_the_first_of_two_raws_has_the_name() -> None:
    one, two, other = raw("one", "1"), raw("two", "2"), raw("other", "3")
    assert given_names((one, "dusk"), (two, "Dusk"), (other, "dawn")) == [
        ("dusk", False),
        ("Dusk", True),
        ("dawn", False),
    ]
    decomposed = "Ko\u0308ln"
    assert given_names((one, "Köln"), (two, decomposed)) == [("Köln", False), (decomposed, True)]


def test_copies_of_a_raw_are_numbered() -> None:
    copies = [raw(f"copy{n}", "1") for n in range(3)]
    assert [name for name, _ in given_names(*((copy, "dusk") for copy in copies))] == ["dusk", "dusk-2", "dusk-3"]


def test_who_yields_claims_no_name_that_is_free_but_keeps_its_own(tmp_path: Path) -> None:
    def claimed(source: Source, *, yields: bool) -> str:
        return claim(tmp_path, "dusk", ".jpg", source.path, source.digest, lambda _: False, yields=yields).name

    one, two = raw("one", "1"), raw("two", "2")
    assert claimed(two, yields=True) == "dusk-22222222.jpg"  # though it comes first
    assert claimed(one, yields=False) == "dusk.jpg"
    assert claimed(one, yields=True) == "dusk.jpg"


# --- on the command line ---


def test_pictures_are_called_as_told_and_not_written_twice(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1, shot=SHOT.model_copy(update={"captured": KNOWN.captured}))
    write_pair(tmp_path / "data" / "two.png", 2)
    name = ("--name", "{frame}_{look}_{date}_{iso}", "--look", "documentary")
    told = json.loads(nightisp("flow", "run", "--dry-run", "--json", *name).out)["pictures"]
    outputs = [Path(frame["output"]) for frame in render(nightisp, *name)["frames"]]
    assert [path.name for path in outputs] == [
        "one_documentary_2021-03-26_1600.jpg",
        "two_documentary_unknown_unknown.jpg",
    ]
    assert list(told.values()) == [path.stem for path in outputs]
    before = [path.stat().st_mtime_ns for path in outputs]
    again = render(nightisp, *name)["frames"]
    assert [Path(frame["output"]) for frame in again] == outputs
    assert {did for frame in again for did in frame["stages"].values()} == {"cached"}
    assert [path.stat().st_mtime_ns for path in outputs] == before
    assert "one_documentary_2021-03-26_1600" in nightisp("flow", "run", "--dry-run", *name).out


def test_frames_that_want_one_name_have_files_of_their_own(nightisp: Terminal, tmp_path: Path) -> None:
    for number, frame in enumerate(("a", "b", "c")):
        write_frame(tmp_path / "data" / f"{frame}.dng", number)
    copy = write_frame(tmp_path / "data" / "d.dng", 0)  # the raw of `a` once more, but brighter
    copy.with_name("d.nightisp.yaml").write_text("tone: {exposure_ev: 1}\n")
    name = ("--name", "{camera}", "--look", "documentary", "--workers", "3")
    frames = render(nightisp, *name)["frames"]
    outputs = {frame["frame"]: Path(frame["output"]) for frame in frames}
    assert outputs["a"].name == "nightisp tiny.jpg"
    assert outputs["d"].name == "nightisp tiny-2.jpg"
    assert all(outputs[frame].name.startswith("nightisp tiny-") for frame in "bc")
    assert len({path.read_bytes() for path in outputs.values()}) == 4
    again = {frame["frame"]: Path(frame["output"]) for frame in render(nightisp, *name)["frames"]}
    assert again == outputs


@pytest.mark.parametrize("command", [("run",), ("watch", "data")])
def test_a_wrong_template_is_refused_before_any_work(
    nightisp: Terminal, tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    said = nightisp("flow", *command, "--name", "{frame}_{lok}", status=2).err
    assert "no such field" in said
    assert "Did you mean look" in said
    assert not (tmp_path / "artifacts" / "ingest").exists()
    assert not (tmp_path / "output").exists()


def test_help_names_every_field(nightisp: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    help_ = " ".join(nightisp("flow", "run", "--help").out.split())
    assert ", ".join(f"{{{field}}}" for field in FIELDS) in help_
