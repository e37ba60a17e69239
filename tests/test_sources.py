import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nightisp import sources
from nightisp.errors import NightispError, ParamsError, RawFileError, RawFileNotFoundError
from nightisp.raw import RawSummary, inspect
from nightisp.sources import (
    RAW_SUFFIXES,
    UNDECODABLE_SUFFIXES,
    Source,
    digest,
    find,
    name_frames,
    preflight,
)

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
RAWS = SHARED / "data" / "raw"


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return paths


def write_dng(path: Path, value: int = 600) -> Path:
    tags = [
        (272, "s", 0, "Acme One", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes((0, 1, 1, 2)), True),
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),
    ]
    samples = np.full((24, 26), value, np.uint16)
    tifffile.imwrite(path, samples, photometric=32803, metadata=None, byteorder="<", extratags=tags)
    return path


# Looking


def test_find_takes_only_raws_and_pngs(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "a.dng", "b.NEF", "c.png", "d.GPR", "e.x3f", "f.raf")
    touch(tmp_path, "c.json", "a.nightisp.yaml", "g.jpg", "h.txt", "i", ".hidden.dng", ".folder/j.dng", "sub/k.dng")
    assert find([tmp_path]) == wanted


def test_find_in_sub_folders_but_the_excluded(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "a.dng", "sub/b.dng", "sub/deep/c.cr2")
    touch(tmp_path, "output/a.png", "artifacts/x/a.dng", ".dvc/d.dng")
    found = find([tmp_path], recursive=True, exclude=[tmp_path / "output", tmp_path / "sub" / ".." / "artifacts"])
    assert found == wanted


def test_find_searches_a_named_folder_even_if_excluded(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "a.dng")
    assert find([tmp_path], exclude=[tmp_path]) == wanted


def test_find_takes_a_named_file_whatever_its_suffix(tmp_path: Path) -> None:
    named = touch(tmp_path, "a.jpg", ".hidden.dng", "out/b.png")
    assert find(named, exclude=[tmp_path / "out"]) == sorted(named)


def test_find_sorts_and_takes_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "b.dng", "a.dng", "sub/a.dng")
    monkeypatch.chdir(tmp_path)
    given = [Path("sub"), Path("b.dng"), tmp_path, Path("sub/../b.dng"), tmp_path / "a.dng"]
    expected = [tmp_path / name for name in ("a.dng", "b.dng", "sub/a.dng")]
    assert [path.resolve() for path in find(given)] == expected
    assert [path.resolve() for path in find(given[::-1])] == expected


def test_find_is_safe_of_loops(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "sub/a.dng")
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again").symlink_to(tmp_path / "sub", target_is_directory=True)
    (found,) = find([tmp_path], recursive=True)
    assert found.resolve() == wanted[0]


def test_find_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RawFileNotFoundError, match=r"none: no such file or folder"):
        find([tmp_path / "none"])
    touch(tmp_path, "a.jpg", "sub/b.dng")
    with pytest.raises(RawFileNotFoundError, match=r"looked for .*\.dng .*\.gpr .*\.png") as caught:
        find([tmp_path])
    assert "--recursive" in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_suffixes_are_lower_case_and_apart() -> None:
    both = RAW_SUFFIXES | UNDECODABLE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in both)
    assert not RAW_SUFFIXES & UNDECODABLE_SUFFIXES
    assert {".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".pef", ".kdc", ".crw"} <= RAW_SUFFIXES


# Content and names


def test_digest_is_of_the_bytes_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "a.dng", tmp_path / "b.NEF"
    for path in (first, second):
        path.write_bytes(b"raw" * 1_000_000)
    assert digest(first) == digest(second) == hashlib.sha256(b"raw" * 1_000_000).hexdigest()


def test_digest_of_a_png_covers_its_json(tmp_path: Path) -> None:
    (png,) = touch(tmp_path, "a.png")
    with pytest.raises(RawFileError, match=r"without a\.json"):
        digest(png)
    beside = tmp_path / "a.json"
    beside.write_text("{}")
    by_hand = hashlib.sha256(hashlib.sha256(b"a.png").digest() + hashlib.sha256(b"{}").digest()).hexdigest()
    assert digest(png) == by_hand
    beside.write_text("{ }")
    assert digest(png) != by_hand


def test_frames_are_called_by_their_stems(tmp_path: Path) -> None:
    paths = touch(tmp_path, "IMG_1.dng", "IMG_2.dng", "x/IMG_3.tar.nef")
    assert list(name_frames(paths).values()) == ["IMG_1", "IMG_2", "IMG_3.tar"]


def test_every_frame_of_a_stem_is_told_apart(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a/IMG_1.CR2", "b/img_1.dng", "c/other.dng")
    short = [hashlib.sha256(path.name.encode()).hexdigest()[:8] for path in paths]
    assert name_frames(paths) == {
        paths[0]: f"IMG_1-cr2-{short[0]}",
        paths[1]: f"img_1-dng-{short[1]}",
        paths[2]: "other",
    }


def test_copies_have_names_of_their_own(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a/1.dng", "b/1.dng", "c/1.dng")
    short = hashlib.sha256(b"1.dng").hexdigest()[:8]
    (taken,) = touch(tmp_path, f"1-DNG-{short}.dng")
    names = name_frames([*paths, taken])
    assert names[taken] == f"1-DNG-{short}"
    assert [names[path] for path in paths] == [f"1-dng-{short}-{n}" for n in (2, 3, 4)]


def test_what_cannot_be_read_has_a_name_too(tmp_path: Path) -> None:
    raw, png = touch(tmp_path, "a.dng", "a.png")  # the PNG has no JSON: a finished picture, perhaps
    missing = tmp_path / "sub" / "A.dng"
    assert name_frames([raw, png, missing]) == {
        raw: f"a-dng-{digest(raw)[:8]}",
        png: "a-png-unread",
        missing: "A-dng-unread",
    }


# Preflight


def test_preflight_tells_good_from_bad(tmp_path: Path) -> None:
    good, plain = write_dng(tmp_path / "good.dng"), write_dng(tmp_path / "plain.dng", 700)
    bad, gpr, png, sidecar = touch(tmp_path, "bad.nef", "c.gpr", "d.png", "good.nightisp.yaml")
    sidecar.write_text("tone: {gamma: 2.8}")
    missing = tmp_path / "z.dng"
    asked: list[Source] = []
    seen = replace(inspect(plain), height=2)

    def known(source: Source) -> RawSummary | None:
        asked.append(source)
        return seen if source.path == plain else None

    looked, refused = preflight(name_frames([plain, bad, gpr, png, good, missing]), known)
    assert [source for source, _ in looked] == [
        Source("plain", plain, digest(plain), {}),
        Source("good", good, digest(good), {"tone": {"gamma": 2.8}}, sidecar="good.nightisp.yaml"),
    ]
    assert [summary for _, summary in looked] == [seen, inspect(good)]
    assert [refusal.path for refusal in refused] == [bad, gpr, png, missing]
    assert all(str(refusal.path) in str(refusal.error) for refusal in refused)
    assert {source.path for source in asked} == {plain, bad, gpr, good}


def test_preflight_decodes_only_what_is_not_known(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "a.dng")
    whole = path.read_bytes()
    marker = bytes((0, 1, 1, 2))
    assert whole.count(marker) == 1
    known = inspect(path)
    path.write_bytes(whole.replace(marker, bytes((0, 1, 2, 1))))  # no Bayer pattern: only decoding tells
    assert [refusal.path for refusal in preflight({path: "a"}, lambda _: None)[1]] == [path]
    assert preflight({path: "a"}, lambda _: known)[1] == []


def test_preflight_reports_a_bad_sidecar(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "a.dng")
    (tmp_path / "a.nightisp.yaml").write_text("{")
    looked, (refusal,) = preflight({path: "a"}, lambda _: None)
    assert looked == []
    assert isinstance(refusal.error, ParamsError)


def test_preflight_goes_on_after_any_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_dng(tmp_path / f"{name}.dng") for name in "abc"]
    faults = {"a.dng": OSError(5, "Input/output error"), "b.dng": ZeroDivisionError("oh")}

    def look(path: Path) -> None:
        assert threading.current_thread() is not threading.main_thread()
        if path.name in faults:
            raise faults[path.name]

    monkeypatch.setattr(sources, "inspect", look)
    looked, refused = preflight(name_frames(paths), lambda _: None)
    assert [source.path for source, _ in looked] == paths[2:]
    assert "Input/output error" in str(refused[0].error)
    assert "a fault of nightisp, ZeroDivisionError: oh" in str(refused[1].error)
    assert all(isinstance(refusal.error, NightispError) for refusal in refused)


def test_preflight_of_nothing() -> None:
    assert preflight({}, lambda _: None) == ([], [])


@pytest.mark.skipif(not RAWS.is_dir(), reason="the shared camera raws are not here (NIGHTISP_SHARED)")
def test_preflight_of_real_raws(capfd: pytest.CaptureFixture[str]) -> None:
    looked, refused = preflight(name_frames(find([RAWS])), lambda _: None)
    assert len(looked) == 10
    assert [refusal.path.name for refusal in refused] == [
        "gopro_hero7__GOPR8513.GPR",
        "phone_10bit_bayer_halide.png",
    ]
    assert capfd.readouterr().err == ""


def test_a_pair_is_one_source(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    fields = {"black_level": 0, "white_level": 1000, "cfa_pattern": [0, 1, 1, 2]}
    (tmp_path / "a.json").write_text(json.dumps(fields))
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6), 500, np.uint16))
    ((looked,), refused) = preflight(name_frames(find([tmp_path])), lambda _: None)
    assert (looked[0].frame, looked[0].digest, refused) == ("a", digest(tmp_path / "a.png"), [])
    assert (looked[1].height, looked[1].width) == (4, 6)
