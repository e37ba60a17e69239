"""Files that are there whole or not at all."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.errors import OutputError
from nightisp.publish import LONGEST_NAME, check_writable, claim, is_published, publish, target
from nightisp.usage import beside

OUTPUT = Path("output")


@pytest.mark.parametrize("frame", ["IMG_8210", "Straße 夜", "a.b.c", "IMG_1-nef", "Ω" * 100, "-x", "50% & more"])
def test_an_ordinary_name_is_kept(frame):
    assert target(OUTPUT, frame, ".jpg") == OUTPUT / f"{frame}.jpg"


@pytest.mark.parametrize(
    ("frame", "beginning"),
    [
        ("../../etc/passwd", "_.._etc_passwd-"),
        ("/etc/passwd", "_etc_passwd-"),
        (r"..\night", "_night-"),
        ("a/b", "a_b-"),
        ("..", "frame-"),
        (".", "frame-"),
        ("", "frame-"),
        (".hidden", "hidden-"),
        ("a\nb\0c", "a_b_c-"),
        ("CON", "CON-"),
        ("nul.old", "nul_old-"),
        ("C:night", "C_night-"),
        ("\udcff", "_-"),
    ],
)
def test_a_dangerous_name_is_made_safe(frame, beginning):
    path = target(OUTPUT, frame, ".jpg")
    assert path.parent == OUTPUT
    assert path.name.startswith(beginning)
    assert len(path.name) == len(beginning) + 8 + 4


@pytest.mark.parametrize("frame", ["a" * 300, "夜" * 90, "a" * 252])
def test_an_overlong_name_is_cut_between_characters(frame):
    name = target(OUTPUT, frame, ".jpg").name
    assert LONGEST_NAME - 4 < len(name.encode()) <= LONGEST_NAME
    assert name.endswith(".jpg")


def test_two_frames_never_share_a_name():
    frames = ["a/b", "a_b", "a\\b", "a:b", "..a_b", "x" * 300, "x" * 301, "", ".", "..", "frame", "con", "con."]
    assert len({target(OUTPUT, frame, ".jpg") for frame in frames}) == len(frames)


@given(st.text(max_size=300))
def test_no_name_leaves_the_folder(frame):
    path = target(OUTPUT, frame, ".tif")
    assert path.parent == OUTPUT
    assert path.name not in (".tif", "..")
    assert not path.name.startswith(".")
    assert len(os.fsencode(path.name)) <= LONGEST_NAME
    assert path.suffix == ".tif"


@pytest.mark.parametrize("frame", ["IMG_1", "Straße 夜", "a" * 300, "\udcff", "../up"])
def test_publishing_under_such_a_name(tmp_path, frame):
    path = target(tmp_path, frame, ".jpg")
    assert publish(b"light", path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"light"


def test_identical_file_is_left_alone(tmp_path):
    path = tmp_path / "a.jpg"
    assert publish(b"light", path)
    os.utime(path, ns=(10**18, 10**18))
    before = path.stat()
    assert not publish(b"light", path)
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("altered", [b"lighT", b"ligh", b""])
def test_altered_file_is_written_again(tmp_path, altered):
    path = tmp_path / "a.jpg"
    path.write_bytes(altered)
    assert publish(b"light", path)
    assert path.read_bytes() == b"light"


def test_deleted_file_and_folder_are_written_again(tmp_path):
    path = tmp_path / "new" / "deep" / "a.jpg"
    assert publish(b"light", path)
    path.unlink()
    path.parent.rmdir()
    assert publish(b"light", path)


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        publish(b"light", tmp_path / "a.jpg")
    finally:
        os.umask(before)
    assert (tmp_path / "a.jpg").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, failure):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OutputError if isinstance(failure, OSError) else KeyboardInterrupt) as raised:
        publish(b"light", path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.jpg"]
    assert path.read_bytes() == b"old"
    if isinstance(failure, OSError):
        message = str(raised.value)
        assert str(path) in message
        assert "No space left on device" in message
        assert "free some space" in message


def test_name_appears_only_when_the_bytes_are_on_disk(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.jpg", []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        steps.append(("fsync", path.exists(), os.fstat(descriptor).st_size))
        fsync(descriptor)

    def watched_replace(source, destination):
        steps.append(("replace", path.exists(), Path(source).stat().st_size))
        assert Path(source).parent == path.parent
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    publish(b"light", path)
    assert steps == [("fsync", False, 5), ("replace", False, 5)]


def test_a_folder_of_the_name(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(OutputError, match=r"a\.jpg: .*folder has the picture's name"):
        publish(b"light", tmp_path / "a.jpg")


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "output").write_text("")
    for attempt in (
        lambda: publish(b"light", tmp_path / "output" / "a.jpg"),
        lambda: check_writable(tmp_path / "output"),
        lambda: check_writable(tmp_path / "output" / "deep"),
    ):
        with pytest.raises(OutputError, match=r"output.*cannot be written .*--output"):
            attempt()


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("io.open", refuse)
    for attempt in (lambda: publish(b"light", tmp_path / "a.jpg"), lambda: check_writable(tmp_path)):
        with pytest.raises(OutputError, match=r"Permission denied.*make it writable.*--output"):
            attempt()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses new folders to root too")
def test_a_file_system_that_takes_nothing():
    with pytest.raises(OutputError, match=r"/proc/nightisp: cannot be written"):
        check_writable(Path("/proc/nightisp"))


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    check_writable(tmp_path / "new" / "output")
    check_writable(tmp_path / "new" / "output")
    assert list((tmp_path / "new" / "output").iterdir()) == []


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    output, marks = tmp_path / "out", tmp_path / "out" / ".nightisp"
    marks.mkdir(parents=True)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = [folder / f".nightisp-{int(dead.stdout)}-0123@{platform.node()}.tmp" for folder in (output, marks)]
    kept = [beside(output / "a.jpg"), marks / ".nightisp-1-0123@another.machine.tmp", output / ".nightisp-notes.txt"]
    for path in (*left, *kept):
        path.touch()
    check_writable(output)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


# --- who owns a picture ---


A, B = Path("card-a/IMG_1.dng"), Path("card-b/IMG_1.dng")


def nobodys(_: Path) -> bool:
    return False


def test_a_claim_is_kept_by_its_raw(tmp_path: Path) -> None:
    first = claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys)
    assert first == tmp_path / "IMG_1.jpg"
    first.write_bytes(b"altered by hand")
    assert claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys) == first
    assert is_published(first)


def test_a_raw_that_was_moved_or_changed_in_its_place_keeps_its_name(tmp_path: Path) -> None:
    path = claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys)
    path.write_bytes(b"first")
    assert claim(tmp_path, "IMG_1", ".jpg", B, "a" * 64, nobodys) == path
    assert claim(tmp_path, "IMG_1", ".jpg", B, "c" * 64, nobodys) == path
    assert claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys) != path  # it is B's now


def test_the_picture_of_another_raw_gets_another_name(tmp_path: Path) -> None:
    """IMG_1 of two cards, rendered in two runs into one folder."""
    claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys).write_bytes(b"first")
    second = claim(tmp_path, "IMG_1", ".jpg", B, "b" * 64, nobodys)
    assert second == tmp_path / "IMG_1-bbbbbbbb.jpg"
    second.write_bytes(b"second")
    assert claim(tmp_path, "IMG_1", ".jpg", B, "b" * 64, nobodys) == second


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """The camera's own JPEG, or the raw PNG itself, where pictures go beside the raws."""
    (tmp_path / "IMG_1.jpg").write_bytes(b"the camera's")
    assert claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys) == tmp_path / "IMG_1-aaaaaaaa.jpg"
    assert not is_published(tmp_path / "IMG_1.jpg")


def test_the_very_picture_is_taken_over(tmp_path: Path) -> None:
    """Its mark was lost, as where `output/` was copied without hidden files."""
    (tmp_path / "IMG_1.jpg").write_bytes(b"ours")
    assert claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, lambda path: path.read_bytes() == b"ours").name == "IMG_1.jpg"


def test_two_files_that_are_not_ours_leave_no_name(tmp_path: Path) -> None:
    for name in ("IMG_1.jpg", "IMG_1-aaaaaaaa.jpg"):
        (tmp_path / name).write_bytes(b"not ours")
    with pytest.raises(OutputError, match="is not nightisp's"):
        claim(tmp_path, "IMG_1", ".jpg", A, "a" * 64, nobodys)
