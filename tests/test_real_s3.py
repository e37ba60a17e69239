"""A real S3 server, Ceph's: exclusive creation, leases, artifacts and whole runs; most tests are those of moto's."""

# ruff: noqa: F401 - tests are imported to be run here, too, with the fixture `s3` of this module

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import ceph as ceph_module
from tests.ceph import Ceph, ceph, programs
from tests.frames import write_frames
from tests.s3 import bucket, put_frames
from tests.terminal import Terminal, render
from tests.test_objects import (
    CLASSICAL_SETTINGS,
    hosts_compute_nothing_twice,
    test_a_host_that_vanishes_delays_its_frames_only,
    test_a_lease_that_is_not_renewed_is_taken_over,
    test_a_newer_format_is_refused,
    test_any_zarr_reader_opens_it,
    test_it_is_not_there_until_its_root_is_written,
    test_one_at_a_time_holds_a_lease,
    test_one_of_many_creates_an_object,
    test_the_objects_of_an_artifact_are_written_together,
    test_what_cannot_be_is_told,
    test_what_is_damaged_is_found,
    test_who_slept_too_long_leaves_the_lease_to_others,
)

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not programs(), reason="Ceph is not installed (apt-get install ceph-mon ceph-osd radosgw)"),
]


@pytest.fixture(scope="module")
def real() -> Iterator[Ceph]:
    with ceph() as server:
        yield server


@pytest.fixture
def s3(real: Ceph, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a bucket of this test's own, in place of the one that moto's server would have."""
    with bucket(real.settings, request.node.name, monkeypatch) as url:
        yield url


def test_a_run_from_bucket_to_bucket_gives_the_same_bits(
    s3: str, nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTISP_CACHE", str(tmp_path / "cache"))
    write_frames(tmp_path / "data", 3)
    put_frames(tmp_path / "data", f"{s3}/raws")
    how = ("--set", "export.format=png", *CLASSICAL_SETTINGS)
    there = ("--input", f"{s3}/raws", "--store", f"{s3}/store", "--output", "of-there")
    did = []
    for where in (("--store", "here", "--output", "of-here"), there, there):
        frames = render(nightisp, *how, *where)["frames"]
        did.append({what for frame in frames for what in frame["stages"].values()})
    assert did == [{"computed"}, {"computed"}, {"cached"}]
    here, there_too = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("of-here", "of-there")
    )
    assert len(here) == 3
    assert here == there_too
    nightisp("cache", "verify", "--store", f"{s3}/store")


def test_hosts_compute_nothing_twice(s3: str, tmp_path: Path) -> None:
    hosts_compute_nothing_twice(s3, tmp_path, hosts=2, frames=4)


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    wrong = ceph_module.SETTINGS_FILE.replace("endpoint=", "endpoint=nowhere:")
    monkeypatch.setattr(ceph_module, "SETTINGS_FILE", wrong)
    with pytest.raises(AssertionError, match="radosgw ended"), ceph():
        pass
    assert list(tmp_path.iterdir()) == []
    left = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    assert not [command for command in left if str(tmp_path) in command]
