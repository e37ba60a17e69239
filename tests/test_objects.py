"""The artifact store in an object store: whole or not at all, few requests, one host at a time, faults survived."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightisp import remote as remote_module
from nightisp.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError, StoreVersionError
from nightisp.image import CFA, Mosaic, Shot
from nightisp.leases import Leases
from nightisp.objects import ObjectStore, open_store
from nightisp.pipeline import NAMES
from nightisp.remote import Remote
from nightisp.store import Store
from tests.frames import CLASSICAL, write_frames
from tests.s3 import Server, bucket, close, put_frames, serving
from tests.terminal import PROGRAM, Terminal, render

REPOSITORY = Path(__file__).parents[1]
KEY = "ab" * 32
PREVIEW = np.full((4, 6, 3), 7, np.uint8)
CLASSICAL_SETTINGS = [
    word
    for stage, values in CLASSICAL.items()
    for name, value in values.items()
    for word in ("--set", f"{stage}.{name}={value}")
]


def mosaic(height: int = 30, width: int = 40) -> Mosaic:
    samples = np.random.default_rng(0).normal(0.1, 0.05, (height, width)).astype(np.float32)
    return Mosaic(samples, cfa=CFA.BGGR, shot=Shot(iso=800)).rounded()


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(one_server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a bucket of this test's own."""
    one_server.behave()
    with bucket(one_server.settings, request.node.name, monkeypatch) as url:
        one_server.asked.clear()
        yield url
        one_server.behave()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less between attempts."""
    monkeypatch.setattr(remote_module, "WAITS_S", (0.01, 0.02, 0.04, 0.08))


def test_what_is_written_is_read_with_few_requests(s3: str, one_server: Server) -> None:
    store, picture = ObjectStore(s3), mosaic()
    assert not store.holds("denoise", KEY)
    one_server.asked.clear()
    store.write("denoise", KEY, picture, PREVIEW, {"frame": "one"})
    objects = {path.partition(".zarr/")[2] for method, path in one_server.asked if method == "PUT" and ".zarr" in path}
    assert objects == {"zarr.json", "samples/zarr.json", "samples/c/0/0", "preview/zarr.json", "preview/c/0/0/0"}
    assert one_server.asked[-1][1].endswith(f"{KEY}.zarr/zarr.json")
    one_server.asked.clear()
    assert ObjectStore(s3).holds("denoise", KEY)
    assert len(one_server.asked) == 2  # the store's version, once, and the artifact
    one_server.asked.clear()
    read = store.read("denoise", KEY, Mosaic)
    assert [method for method, _ in one_server.asked] == ["GET", "GET"]
    assert read.state() == picture.state()
    np.testing.assert_array_equal(read.samples, picture.samples)


def test_any_zarr_reader_opens_it(s3: str) -> None:
    import zarr

    picture = mosaic(2100, 1100)  # of several chunks
    ObjectStore(s3).write("denoise", KEY, picture, PREVIEW, {})
    group = zarr.open_group(f"{s3}/denoise/{KEY}.zarr", mode="r", use_consolidated=True)
    assert group["samples"].shards == (3072, 2048)
    np.testing.assert_array_equal(group["samples"][...], picture.samples)
    np.testing.assert_array_equal(group["preview"][...], PREVIEW)


def test_it_is_not_there_until_its_root_is_written(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(s3)
    put = Remote.put

    def cut_off(self: Remote, name: str, content: bytes) -> None:
        if name.endswith(".zarr/zarr.json"):
            raise KeyboardInterrupt
        put(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(Remote, "put", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert not store.holds("denoise", KEY)
    with pytest.raises(ArtifactNotFoundError):
        store.read("denoise", KEY, Mosaic)
    assert [entry.key for entry in store.entries()] == [KEY]
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert store.holds("denoise", KEY)


def test_the_objects_of_an_artifact_are_written_together(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, put, all_four, full = ObjectStore(s3), Remote.put, threading.Barrier(4), threading.Event()

    def together(self: Remote, name: str, content: bytes) -> None:
        if not name.endswith(".zarr/zarr.json"):
            all_four.wait(20)
        if full.is_set() and "preview/c" in name:
            raise StoreError("no room")
        put(self, name, content)

    monkeypatch.setattr(Remote, "put", together)
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    assert store.holds("denoise", KEY)
    full.set()
    with pytest.raises(StoreError, match="no room"):
        store.write("tone", KEY, mosaic(), PREVIEW, {})
    assert len(Remote(f"{s3}/tone/{KEY}.zarr").find()) == 3  # the others, but not the root


@pytest.mark.parametrize("harm", ["lost", "cut", "of another", "attributes"])
def test_what_is_damaged_is_found(s3: str, harm: str) -> None:
    store, there = ObjectStore(s3), Remote(f"{s3}/denoise/{KEY}.zarr")
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    shard = there.get("samples/c/0/0")
    if harm == "lost":
        there.remove(["samples/c/0/0"])
    elif harm == "attributes":
        root = json.loads(there.get("zarr.json"))
        root["attributes"]["state"]["shot"]["iso"] = 1
        there.put("zarr.json", json.dumps(root).encode())
    else:
        there.put("samples/c/0/0", shard[:-1] if harm == "cut" else bytes(len(shard)))
    with pytest.raises(ArtifactDamagedError, match=KEY):
        store.read("denoise", KEY, Mosaic)
    with pytest.raises(ArtifactDamagedError):
        store.verify(store.entry("denoise", KEY))
    store.remove(store.entry("denoise", KEY))
    assert list(store.entries()) == []


def test_a_newer_format_is_refused(s3: str) -> None:
    Remote(s3).put("store.json", b'{"format": 99}')
    with pytest.raises(StoreVersionError, match="format 99"):
        ObjectStore(s3)


@pytest.mark.usefixtures("quick")
def test_faults_pass_or_are_told(s3: str, one_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(s3)
    one_server.every = 3
    store.write("denoise", KEY, mosaic(), PREVIEW, {})
    np.testing.assert_array_equal(store.read("denoise", KEY, Mosaic).samples, mosaic().samples)
    assert one_server.failed
    one_server.every = 0
    close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(StoreError, match="cannot be reached") as gone:
        ObjectStore(s3)
    assert gone.value.transient


def test_what_cannot_be_is_told(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="make the bucket"):
        open_store("s3://nobody-made-it/lab").write("denoise", KEY, mosaic(), PREVIEW, {})
    with pytest.raises(StoreError, match="holds credentials"):
        open_store("s3://key:secret@bucket/lab")
    with pytest.raises(StoreError, match="nosuch"):
        open_store("nosuch://bucket/lab")
    monkeypatch.setenv("NIGHTISP_LEASE", "never")
    with pytest.raises(StoreError, match="NIGHTISP_LEASE=never"):
        open_store(s3)


def test_one_of_many_creates_an_object(s3: str) -> None:
    remote, together, names = Remote(s3), threading.Barrier(8), [f"name{number}" for number in range(20)]

    def work(number: int) -> list[str]:
        won = []
        for name in names:
            together.wait(60)
            if remote.create(name, b"%d" % number):
                won.append(name)
        return won

    with ThreadPoolExecutor(8) as threads:
        won = dict(enumerate(threads.map(work, range(8))))
    assert sorted(name for of_one in won.values() for name in of_one) == sorted(names)
    assert all(remote.get(name) == b"%d" % number for number, of_one in won.items() for name in of_one)


@pytest.mark.usefixtures("quick")
def test_what_servers_answer_to_creation(s3: str, one_server: Server) -> None:
    """Amazon's says which condition failed, and that another request was under way; others only that one failed."""
    remote = Remote(s3)
    one_server.answers = [("409 Conflict", "ConditionalRequestConflict")]
    assert remote.create("one", b"1")
    assert not remote.create("one", b"2")
    one_server.answers = 2 * [("412 Precondition Failed", "PreconditionFailed")]
    assert not remote.create("one", b"3")
    assert len(one_server.answers) == 1
    assert remote.get("one") == b"1"


@pytest.mark.parametrize("way", ["overwrites", "says so"])
def test_a_server_that_creates_nothing_exclusively_is_refused(s3: str, one_server: Server, way: str) -> None:
    if way == "overwrites":
        one_server.overwrites = True
    else:
        one_server.answers = [("501 Not Implemented", "NotImplemented")]
    store = ObjectStore(s3)
    with pytest.raises(StoreError, match=f"{s3}: the server .*If-None-Match.*use another server") as refused:
        store.claim(KEY)
    assert not refused.value.transient
    assert not one_server.count("PUT", ".leases")
    one_server.overwrites = False
    one_server.asked.clear()
    for key in (KEY, KEY[::-1]):  # asked once
        store.claim(key).release()
    assert one_server.count("PUT", "store.json") == (1 if way == "overwrites" else 2)
    assert one_server.count("PUT", ".leases") == 2


def test_one_at_a_time_holds_a_lease(s3: str) -> None:
    hosts = [Leases(Remote(s3), 30) for _ in range(4)]
    busy, most, guard = 0, 0, threading.Lock()

    def work(leases: Leases) -> None:
        nonlocal busy, most
        for _ in range(3):
            lease = leases.claim(KEY)
            with guard:
                busy += 1
                most = max(most, busy)
            threading.Event().wait(0.02)
            with guard:
                busy -= 1
            lease.release()
            lease.release()

    threads = [threading.Thread(target=work, args=(leases,)) for leases in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert Remote(s3).find(".leases") == {}


def test_a_lease_that_is_not_renewed_is_taken_over(s3: str) -> None:
    """Clocks are the test's: the second host looks every second of its own."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += 1

    vanished = Leases(Remote(s3), 1e6).claim(KEY)
    heir = Leases(Remote(s3), 60, lambda: now[0], sleep).claim(KEY)
    assert 60 < now[0] < 65
    assert heir.generation == 1
    third = threading.Thread(target=lambda: Leases(Remote(s3), 60).claim(KEY).release())
    third.start()
    third.join(0.5)
    assert third.is_alive()  # the heir works
    heir.release()
    third.join(20)
    assert not third.is_alive()
    vanished.release()
    assert Remote(s3).find(".leases") == {}


def test_a_lease_that_is_renewed_stays(s3: str) -> None:
    now = [0.0]
    holder = Leases(Remote(s3), 1e6)
    lease = holder.claim(KEY)

    def sleep(seconds: float) -> None:
        now[0] += 10
        if now[0] < 300:
            holder.renew()
        else:
            lease.release()

    heir = Leases(Remote(s3), 60, lambda: now[0], sleep).claim(KEY)
    assert (now[0], heir.generation) == (300, 0)
    heir.release()


def test_who_slept_too_long_leaves_the_lease_to_others(s3: str) -> None:
    now = [0.0]
    slept = Leases(Remote(s3), 60, lambda: now[0]).claim(KEY)
    now[0] = 61
    slept.release()
    assert list(Remote(s3).find(".leases")) == [f".leases/{KEY}.0"]


def test_the_flow_gives_the_same_bits_from_a_url(
    s3: str, nightisp: Terminal, tmp_path: Path, one_server: Server
) -> None:
    write_frames(tmp_path / "data", 2)
    how = ("--engine", "local", "--set", "export.format=png", *CLASSICAL_SETTINGS)
    nightisp("flow", "run", *how, "--store", "here", "--output", "of-here")
    nightisp("flow", "run", *how, "--store", s3, "--output", "of-there")
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("of-here", "of-there")
    )
    assert len(here) == 2
    assert here == there
    stores = (Store(tmp_path / "here"), ObjectStore(s3))
    assert len({frozenset((entry.stage, entry.key) for entry in store.entries()) for store in stores}) == 1
    one_server.asked.clear()
    report = render(nightisp, *how[2:], "--store", s3, "--output", "of-there")
    assert {did for frame in report["frames"] for did in frame["stages"].values()} == {"cached"}
    assert not [path for method, path in one_server.asked if method != "GET" or "list-type" in path]
    nightisp("cache", "verify", "--store", s3)
    assert "18 artifacts" in nightisp("cache", "verify", "--store", s3).out
    assert "tone" in nightisp("cache", "list", "--store", s3).out
    assert "tone" in nightisp("cache", "show", report["frames"][0]["frame"], "--store", s3).out
    nightisp("report", "--store", s3)


def test_two_hosts_compute_nothing_twice(s3: str, tmp_path: Path, one_server: Server) -> None:
    hosts_compute_nothing_twice(s3, tmp_path, hosts=3, frames=6)
    roots = [path for method, path in one_server.asked if method == "PUT" and path.endswith(".zarr/zarr.json")]
    assert len(roots) == 6 * len(NAMES)


def hosts_compute_nothing_twice(url: str, folder: Path, hosts: int, frames: int) -> None:
    """Let several processes work on one store at once, and see what each computed."""
    write_frames(folder / "data", frames)
    started = [_host(folder, url, number) for number in range(hosts)]
    told = [json.loads(host.communicate(timeout=240)[0]) for host in started]
    assert [host.returncode for host in started] == [0] * hosts
    did = [
        (f["frame"], stage, what) for report in told for f in report["frames"] for stage, what in f["stages"].items()
    ]
    computed = [(frame, stage) for frame, stage, what in did if what == "computed"]
    assert len(set(computed)) == len(computed) == frames * len(NAMES)


def test_a_host_that_vanishes_delays_its_frames_only(s3: str, tmp_path: Path) -> None:
    write_frames(tmp_path / "data", 3)
    lost = Leases(Remote(s3), 1e6)
    plans = _plans(tmp_path, s3)
    lost.claim(plans[1].keys["denoise"])  # never renewed, as by a host without power
    host = _host(tmp_path, s3, 0, NIGHTISP_LEASE="2")
    report = json.loads(host.communicate(timeout=240)[0])
    assert host.returncode == 0
    assert [frame["outcome"] for frame in report["frames"]] == ["rendered"] * 3
    assert {frame["stages"]["denoise"] for frame in report["frames"]} == {"computed"}


def _host(folder: Path, store: str, number: int, **variables: str) -> subprocess.Popen[str]:
    command = [
        *PROGRAM,
        "flow",
        "run",
        "--engine",
        "local",
        "--json",
    ]
    where = ["--input", str(folder / "data"), "--store", store, "--output", str(folder / f"output{number}")]
    return subprocess.Popen(
        [*command, *where, *CLASSICAL_SETTINGS],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def _plans(folder: Path, store: str) -> list[Any]:
    from nightisp.run import Options, begin

    settings = tuple(CLASSICAL_SETTINGS[1::2])
    return list(begin(Options(inputs=(folder / "data",), store=store, settings=settings, output=folder / "o"))[2].plans)


def test_raws_come_from_a_url_and_follow_it(
    s3: str, nightisp: Terminal, tmp_path: Path, one_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTISP_CACHE", str(tmp_path / "cache"))
    write_frames(tmp_path / "data", 3)
    first = sorted((tmp_path / "data").iterdir())[0]
    (tmp_path / "data" / f"{first.name}.nightisp.yaml").write_text("tone: {gamma: 2.5}\n")
    (tmp_path / "data" / "notes.txt").write_text("not a raw")
    put_frames(tmp_path / "data", f"{s3}/raws")
    how = ("--set", "export.format=png", *CLASSICAL_SETTINGS, "--store", "store")
    here = render(nightisp, *how, "--output", "a")
    there = render(nightisp, *how, "--input", f"{s3}/raws", "--output", "b")
    assert [f["sidecar"] for f in there["frames"]] == [f["sidecar"] for f in here["frames"]]
    assert there["frames"][0]["sidecar"] == {"tone": {"gamma": 2.5}}
    assert {did for frame in there["frames"] for did in frame["stages"].values()} == {"cached"}
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").glob("*.png")} == {
        p.name: p.read_bytes() for p in (tmp_path / "b").glob("*.png")
    }
    assert not one_server.count("GET", "notes.txt")
    one_server.asked.clear()
    Remote(f"{s3}/raws").remove([sorted((tmp_path / "data").glob("*.dng"))[2].name])
    again = render(nightisp, *how, "--input", f"{s3}/raws", "--output", "b")
    assert len(again["frames"]) == 2
    assert not one_server.count("GET", ".dng")  # what has not changed is not brought again
    one = render(nightisp, *how, "--input", f"{s3}/raws/{first.name}", "--output", "b")
    assert [frame["sidecar"] for frame in one["frames"]] == [{"tone": {"gamma": 2.5}}]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    done = nightisp("flow", "run", "--engine", "local", "--input", f"{s3}/none", "--store", "store", status=2)
    assert "no raw photograph there" in done.err
