"""The artifact store: whole or not at all, checked, open to any Zarr reader."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightisp import store as store_module
from nightisp.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError, StoreVersionError
from nightisp.image import CFA, DisplayImage, LinearImage, Mosaic, Shot
from nightisp.store import FORMAT, Store
from tests.frames import nobody

KEY = "ab" * 32
PREVIEW = np.full((4, 6, 3), 7, np.uint8)


def mosaic(height: int = 30, width: int = 40, fill: float | None = None) -> Mosaic:
    samples = np.random.default_rng(0).normal(0.1, 0.05, (height, width)).astype(np.float32)
    return Mosaic(samples if fill is None else np.full_like(samples, fill), cfa=CFA.BGGR, shot=Shot(iso=800)).rounded()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def filled(store: Store) -> Store:
    store.write("denoise", KEY, mosaic(), PREVIEW, {"frame": "one"})
    return store


def chunks(store: Store, array: str = "samples") -> list[Path]:
    folder = store.entry("denoise", KEY).path / array / "c"
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "picture",
    [
        mosaic(),
        LinearImage(np.full((5, 7, 3), -0.25, np.float32), space="srgb"),
        DisplayImage(np.full((5, 7, 3), 0.25, np.float32), reduction=4).rounded(),
    ],
    ids=lambda picture: type(picture).__name__,
)
def test_what_is_written_is_read(store: Store, picture: Any) -> None:
    assert not store.holds("denoise", KEY)
    store.write("denoise", KEY, picture, PREVIEW, {})
    assert store.holds("denoise", KEY)
    read = store.read("denoise", KEY, type(picture))
    assert read.state() == picture.state()
    np.testing.assert_array_equal(read.samples, picture.samples)


def test_any_zarr_reader_opens_it(filled: Store) -> None:
    import zarr

    group = zarr.open(filled.entry("denoise", KEY).path, mode="r")
    assert group.attrs["key"] == KEY
    assert group.attrs["kind"] == "Mosaic"
    assert group["samples"].metadata.dimension_names == ("y", "x")
    np.testing.assert_array_equal(group["preview"][...], PREVIEW)


def test_xarray_opens_it(filled: Store) -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is a development dependency")
    with xarray.open_zarr(filled.entry("denoise", KEY).path, consolidated=False) as opened:
        assert opened["samples"].dims == ("y", "x")
        assert opened.attrs["frame"] == "one"
        np.testing.assert_array_equal(opened["samples"].values.astype(np.float32), mosaic().samples)


def test_chunks_are_near_a_megapixel_and_all_are_written(store: Store) -> None:
    store.write("denoise", KEY, mosaic(1500, 1100, fill=0.0), PREVIEW, {})  # all zero: Zarr would skip them
    assert len(chunks(store)) == 4
    about = json.loads((store.entry("denoise", KEY).path / "samples" / "zarr.json").read_text())
    assert about["chunk_grid"]["configuration"]["chunk_shape"] == [1024, 1024]
    assert [codec["name"] for codec in about["codecs"]][-1] == "crc32c"


@pytest.mark.parametrize("array", ["samples", "preview"])
def test_a_missing_chunk_is_a_miss(filled: Store, array: str) -> None:
    chunks(filled, array)[0].unlink()
    assert not filled.holds("denoise", KEY)
    with pytest.raises(ArtifactDamagedError, match="has 0 of 1 chunks"):
        filled.read("denoise", KEY, Mosaic)


def test_a_truncated_chunk_is_a_miss(filled: Store) -> None:
    (chunk,) = chunks(filled)
    chunk.write_bytes(b"")
    assert not filled.holds("denoise", KEY)


def test_every_flipped_bit_is_found(filled: Store) -> None:
    (chunk,) = chunks(filled)
    good = chunk.read_bytes()
    for at in np.linspace(0, len(good) - 1, 23).astype(int):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        chunk.write_bytes(bad)
        with pytest.raises(ArtifactDamagedError, match="cannot be read"):
            filled.read("denoise", KEY, Mosaic)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"attributes": 3}', b"\xff"])
@pytest.mark.parametrize("name", ["zarr.json", "samples/zarr.json"])
def test_damaged_metadata_is_a_miss(filled: Store, name: str, content: bytes) -> None:
    (filled.entry("denoise", KEY).path / name).write_bytes(content)
    assert not filled.holds("denoise", KEY)
    with pytest.raises(StoreError, match="cannot be read"):
        filled.read("denoise", KEY, Mosaic)


@pytest.mark.parametrize("name", ["zarr.json", "samples/zarr.json", "preview/zarr.json"])
def test_a_flipped_bit_in_metadata_never_changes_the_picture(filled: Store, name: str) -> None:
    file = filled.entry("denoise", KEY).path / name
    good, misses = file.read_bytes(), 0
    for at in range(0, len(good), 5):
        bad = bytearray(good)
        bad[at] ^= 1 << (at // 5 % 8)
        file.write_bytes(bad)
        if filled.holds("denoise", KEY):
            read = filled.read("denoise", KEY, Mosaic)
            np.testing.assert_array_equal(read.samples, mosaic().samples)
            assert read.state() == mosaic().state()
        else:
            misses += 1
    assert misses > len(good) / 5 * 0.8


def test_what_is_not_there_is_said_so(store: Store) -> None:
    with pytest.raises(ArtifactNotFoundError, match="no such artifact"):
        store.read("denoise", KEY, Mosaic)


def test_a_damaged_artifact_makes_room(filled: Store) -> None:
    chunks(filled)[0].unlink()
    filled.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert filled.holds("denoise", KEY)
    assert not list((filled.folder / ".tmp").iterdir())


def test_of_two_writers_of_one_key_the_first_stays(filled: Store) -> None:
    before = chunks(filled)[0].stat().st_mtime_ns
    filled.write("denoise", KEY, mosaic(), PREVIEW, {"frame": "two"})
    assert filled.entry("denoise", KEY).attributes["frame"] == "one"
    assert chunks(filled)[0].stat().st_mtime_ns == before


def test_nothing_is_seen_of_a_write_that_is_cut_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "_place", cut_off)
    with pytest.raises(KeyboardInterrupt):
        store.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert not list(store.entries())
    assert not list((store.folder / ".tmp").iterdir())


def test_sweep_removes_what_dead_processes_left_and_nothing_else(store: Store) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = store.folder / ".tmp" / f"{int(dead.stdout)}-0123"
    ours = store.folder / ".tmp" / f"{os.getpid()}-0123"
    elsewhere = store.folder / ".tmp" / f"{int(dead.stdout)}-0123@another.machine"
    abandoned = store.folder / ".tmp" / f"{os.getpid()}-0123@another.machine"
    for folder in (left, ours, elsewhere, abandoned):
        folder.mkdir(parents=True)
    os.utime(abandoned, (time.time() - 90_000,) * 2)
    assert store.sweep() == 2
    assert sorted((store.folder / ".tmp").iterdir()) == sorted([ours, elsewhere])


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(StoreVersionError, match="Install a newer nightisp"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full.*cache prune"), (errno.EACCES, "cannot be written.*another --store")],
)
def test_a_disk_that_refuses_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    def refuse(path: Path, *_: object) -> None:
        path.mkdir()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store_module, "write_group", refuse)
    with pytest.raises(StoreError, match=message):
        store.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert not list((store.folder / ".tmp").iterdir())


def test_a_store_without_permission_is_named_and_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # others may not come here by the absolute path
    Store(Path("store")).write("denoise", KEY, mosaic(), PREVIEW, {})
    folders = [folder for folder in (tmp_path / "store").rglob("*") if folder.is_dir()]
    for folder in (tmp_path / "store", *folders):
        folder.chmod(0o555)
    try:
        with nobody():
            store = Store(Path("store"))
            np.testing.assert_array_equal(store.read("denoise", KEY, Mosaic).samples, mosaic().samples)
            for attempt in (
                lambda: store.write("denoise", "cd" * 32, mosaic(), PREVIEW, {}),
                lambda: store.remove(store.entry("denoise", KEY)),
            ):
                with pytest.raises(StoreError, match="store: cannot be written: Permission denied; name"):
                    attempt()
        assert store.holds("denoise", KEY)
    finally:
        for folder in (tmp_path / "store", *folders):
            folder.chmod(0o755)


def test_a_chunk_without_permission_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be read is not to be removed and computed again."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    store = Store(Path("store"))
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    chunks(store)[0].chmod(0)
    with nobody(), pytest.raises(StoreError, match="cannot be read: Permission denied") as caught:
        store.read("denoise", KEY, Mosaic)
    assert not isinstance(caught.value, ArtifactDamagedError)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "I/O error"), OSError(errno.EMFILE, "too many")])
def test_a_fault_in_passing_is_not_damage(filled: Store, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import zarr

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(zarr, "open_array", fail)
    with pytest.raises(type(error)):
        filled.read("denoise", KEY, Mosaic)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        store = Store(disk / "store")
        store.write("denoise", KEY, mosaic(), PREVIEW, {})
        with pytest.raises(StoreError, match=r"the disk is full; free space .*cache prune"):
            store.write("denoise", "cd" * 32, mosaic(1000, 1000), PREVIEW, {})
        assert [entry.key for entry in store.entries()] == [KEY]
        assert not list((store.folder / ".tmp").iterdir())
        store.verify(store.entry("denoise", KEY))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_where_the_store_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="store: is no folder; name another --store"):
        Store(tmp_path / "store")


def test_a_rename_that_was_done_but_answered_with_an_error_is_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS asks again where an answer is lost; the server then says that there is no such file."""
    rename = Path.rename

    def answered_late(path: Path, to: Path) -> None:
        rename(path, to)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "rename", answered_late)
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    store.verify(store.entry("denoise", KEY))


def test_a_rename_that_is_refused_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match="cannot be written: Invalid cross-device link"):
        store.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert not list(store.entries())
    assert not list((store.folder / ".tmp").iterdir())


@pytest.mark.parametrize("step", ["write_group", "Store._place"])
def test_a_killed_writer_leaves_nothing_to_be_seen(tmp_path: Path, step: str) -> None:
    """Killed before the chunks are complete, or between the last byte and the new name."""
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from tests.test_store import KEY, PREVIEW, mosaic; from nightisp import store\n"
        "from nightisp.store import Store\n"
        "written = store.write_group\n"
        "def kill(first, *rest):\n"
        "    if isinstance(first, Path): written(first, *rest)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store.{step} = kill\n"
        "Store(Path(sys.argv[1])).write('denoise', KEY, mosaic(), PREVIEW, {})"
    )
    root = str(Path(__file__).parents[1])
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store"), root], check=False)
    assert killed.returncode == -9
    store = Store(tmp_path / "store")
    assert not list(store.entries())
    assert not store.holds("denoise", KEY)
    assert store.sweep() == 1
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    store.verify(store.entry("denoise", KEY))
    assert not list((store.folder / ".tmp").iterdir())


def test_threads_may_write_and_read_one_key_at_the_same_time(store: Store) -> None:
    def write_and_read(n: int) -> int:
        store.write("denoise", KEY, mosaic(), PREVIEW, {"frame": str(n)})
        np.testing.assert_array_equal(store.read("denoise", KEY, Mosaic).samples, mosaic().samples)
        return n

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write_and_read, range(24))) == list(range(24))
    assert not list((store.folder / ".tmp").iterdir())


def test_processes_may_write_one_key_at_the_same_time(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from tests.test_store import PREVIEW, mosaic; from nightisp.store import Store\n"
        "for n in range(20): Store(Path(sys.argv[1])).write('denoise', f'{n:064d}', mosaic(), PREVIEW, {})"
    )
    root = str(Path(__file__).parents[1])
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store"), root]) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    store = Store(tmp_path / "store")
    entries = list(store.entries())
    assert len(entries) == 20
    for entry in entries:
        store.verify(entry)


def test_verify_reads_the_preview_too(filled: Store) -> None:
    filled.verify(filled.entry("denoise", KEY))
    chunk = chunks(filled, "preview")[0]
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert filled.holds("denoise", KEY)  # a look at the metadata does not see it
    with pytest.raises(ArtifactDamagedError, match="preview cannot be read"):
        filled.verify(filled.entry("denoise", KEY))


def test_remove_is_complete(filled: Store) -> None:
    filled.remove(filled.entry("denoise", KEY))
    assert not filled.holds("denoise", KEY)
    assert not list(filled.entries())
    filled.remove(filled.entry("denoise", KEY))  # twice is no error


@pytest.mark.parametrize(("asked", "expected"), [("10", 3), ("1", 1), ("None", 3)])
def test_no_more_chunks_are_in_the_making_than_there_are_cores(asked: str, expected: int) -> None:
    code = "import os; os.cpu_count = lambda: 3; from nightisp.store import zarr_by_cores\n"
    code += "print(zarr_by_cores().config.get('async.concurrency'))"
    environment = os.environ | {"ZARR_ASYNC__CONCURRENCY": asked}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) == expected


def test_what_is_wrong_with_zarr_is_no_damage(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise TypeError("an odd setting")

    monkeypatch.setattr(store_module, "zarr_by_cores", fails)
    with pytest.raises(TypeError):
        filled.read("denoise", KEY, Mosaic)
