"""LibRaw in a child process: whatever becomes of it, one file is lost, with a reason, and the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from nightisp import decoding, decoding_child, libraw
from nightisp.errors import DecoderError, ParamsError, RawFileError, is_transient
from nightisp.raw import IngestParams, RawFile, ingest, inspect
from tests.frames import CLASSICAL, write_frame
from tests.terminal import Terminal

REPOSITORY = Path(__file__).parents[1]
SETTINGS = [f"{stage}.{name}={value}" for stage, given in CLASSICAL.items() for name, value in given.items()]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let files misbehave as their names say."""
    children: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(decoding, "_CHILD", "tests.faulty_decoder")
    monkeypatch.setattr(decoding, "_idle", children)
    yield
    while children:
        decoding._bury(children.pop())


def test_a_child_that_an_earlier_file_did_harm_to_costs_no_other_file(
    faulty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_frame(tmp_path / "a.dng", 1)
    decoding.decode(path)
    (child,) = decoding._idle
    answers, answer = [], decoding._answer

    def dying(process: subprocess.Popen[bytes], request: tuple[object, ...]) -> object:
        answers.append(process.pid)
        if len(answers) == 1:
            process.kill()
        return answer(process, request)

    monkeypatch.setattr(decoding, "_answer", dying)
    assert decoding.decode(path).samples is not None
    assert answers[0] == child.pid
    assert len(set(answers)) == 2


def test_the_child_gives_the_same_bits(tmp_path: Path) -> None:
    path = write_frame(tmp_path / "a.dng", 1, height=47, width=63)
    here, there = libraw.decode(path), decoding.decode(path)
    assert here.samples is not None
    assert there.samples is not None
    assert np.array_equal(here.samples, there.samples)
    assert here.samples.dtype == there.samples.dtype
    assert (here.cfa, here.shot) == (there.cfa, there.shot)
    assert decoding.facts(path) == replace(here, samples=None)
    there.samples[0, 0] = 1  # may be written to, as an array of one's own


def test_a_raw_that_was_looked_at_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded, decode = write_frame(tmp_path / "a.dng", 1), [], libraw.decode

    def counted(path: Path, room: libraw.Room) -> libraw.Decoded:
        decoded.append(path)
        return decode(path, room)

    monkeypatch.setattr(libraw, "decode", counted)
    monkeypatch.setattr(decoding_child, "_kept", None)
    child = decoding_child

    def room(_photosites: int) -> None:
        return None

    assert child.facts(path, room).samples is None
    samples = child.decode(path, room).samples
    assert samples is not None
    assert np.array_equal(samples, decode(path).samples)
    assert len(decoded) == 1
    child.decode(path, room)
    assert len(decoded) == 2, "the samples were kept for one request"
    child.facts(path, room)
    write_frame(path, 2)
    changed = child.decode(path, room).samples
    assert len(decoded) == 4, "the file is another one now"
    assert not np.array_equal(changed, samples)
    child.facts(path, room)
    other = child.decode(write_frame(tmp_path / "b.dng", 3), room).samples
    assert not np.array_equal(other, changed)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", r"LibRaw crashed on it \(SIGSEGV\)"),
        ("abort", r"LibRaw crashed on it \(SIGABRT\)"),
        ("leave", "ended with status 7"),
        ("grow", "more memory than a raw of its size needs"),
    ],
)
def test_a_fault_costs_its_file_only(faulty: None, tmp_path: Path, name: str, message: str) -> None:
    bad, good = write_frame(tmp_path / f"{name}.dng", 1), write_frame(tmp_path / "good.dng", 2)
    expected = ingest(RawFile(good), IngestParams()).samples
    for look in (lambda: inspect(bad), lambda: ingest(RawFile(bad), IngestParams())):
        with pytest.raises(DecoderError, match=rf"{name}\.dng: .*{message}.*[Ll]eave it out") as caught:
            look()
        assert not is_transient(caught.value), "another try would end the same way"
        assert np.array_equal(ingest(RawFile(good), IngestParams()).samples, expected)


def test_a_hang_ends(faulty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = write_frame(tmp_path / "hang.dng", 1)
    monkeypatch.setenv(decoding.SECONDS, "0.5")
    begun = time.monotonic()
    with pytest.raises(DecoderError, match=r"hang\.dng: decoding it took longer than 1 s.*NIGHTISP_DECODE_SECONDS"):
        inspect(bad)
    assert time.monotonic() - begun < 10
    monkeypatch.delenv(decoding.SECONDS)
    assert inspect(write_frame(tmp_path / "good.dng", 2)).width == 64


def test_large_pictures_have_room(faulty: None, tmp_path: Path) -> None:
    samples = decoding.decode(write_frame(tmp_path / "large.dng", 1)).samples
    assert samples is not None
    assert samples.shape == (8000, 10000)
    assert np.array_equal(samples[:2].ravel(), np.arange(20_000, dtype=np.uint16))
    assert samples[-1, -1] == (80_000_000 - 1) % 2**16


def test_a_run_goes_on(faulty: None, nightisp: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crash, abort, hang and hunger in one folder with two good frames: those are rendered, each of these is named."""
    monkeypatch.setenv(decoding.SECONDS, "3")
    for n, name in enumerate(("crash", "abort", "hang", "grow", "good-1", "good-2")):
        write_frame(tmp_path / "in" / f"{name}.dng", n)
    run = ["flow", "run", "--engine", "local", "--device", "cpu", "--input", "in", "--json"]
    done = nightisp(*run, *(word for setting in SETTINGS for word in ("--set", setting)), status=3)
    frames = {frame["frame"]: frame for frame in json.loads(done.out)["frames"]}
    assert {name for name, frame in frames.items() if frame["outcome"] == "rendered"} == {"good-1", "good-2"}
    assert all(f"{name}.dng: " in frames[name]["error"] for name in ("crash", "abort", "hang", "grow"))


def test_children_are_kept_few_and_replaced(faulty: None, tmp_path: Path) -> None:
    path = write_frame(tmp_path / "who.dng", 1)
    first = decoding.facts(path)
    assert decoding.facts(path) == first
    assert first.height == int(first.shot.camera), "a group of its own, which the terminal's Ctrl-C does not reach"
    os.kill(int(first.shot.camera), signal.SIGKILL)  # while it waits, as by a system short of memory
    psutil.wait_procs([psutil.Process(int(first.shot.camera))], timeout=5)
    assert decoding.facts(path).shot.camera != first.shot.camera
    with ThreadPoolExecutor(12) as pool:
        seen = {found.shot.camera for found in pool.map(decoding.facts, [path] * 60)}
    assert 1 <= len(seen) <= 4


def test_an_interrupted_answer_is_not_taken_for_the_next(
    faulty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, good = write_frame(tmp_path / "wait.dng", 1), write_frame(tmp_path / "good.dng", 2, height=50, width=70)
    inspect(good)  # its child is there
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            inspect(slow)  # takes 1 s
    finally:
        signal.signal(signal.SIGINT, before)
    assert (inspect(good).height, inspect(good).width) == (50, 70)


@pytest.mark.parametrize("text", ["never", "0", "-3", "nan", "1e99"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(decoding.SECONDS, text)
    with pytest.raises(ParamsError, match=rf"NIGHTISP_DECODE_SECONDS is '{text}'; expected seconds"):
        inspect(write_frame(tmp_path / "a.dng", 1))


def test_what_an_import_puts_first_for_a_while_is_not_for_children(
    faulty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "places").mkdir()
    (tmp_path / "places" / "typing.py").write_text("raise ImportError('another typing')\n")
    monkeypatch.syspath_prepend(tmp_path / "places")
    assert decoding.decode(write_frame(tmp_path / "a.dng", 1)).samples is not None


def test_names_relative_to_the_folder_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, folder in enumerate(("one", "two")):
        write_frame(tmp_path / folder / "a.dng", n, height=48 + 2 * n)
    for n, folder in enumerate(("one", "two")):
        monkeypatch.chdir(tmp_path / folder)
        assert inspect(Path("a.dng")).height == 48 + 2 * n
    with pytest.raises(RawFileError, match=r"^b\.dng: no such file"):
        inspect(Path("b.dng"))


def test_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    from nightisp.refusals import check_size

    with pytest.raises(RawFileError, match=r"a\.dng: it claims 100000 x 100000 photosites; expected 268 megapixels"):
        check_size(tmp_path / "a.dng", 100_000, 100_000)
    check_size(tmp_path / "a.dng", 2**14, 2**14)


@pytest.mark.parametrize("name", ["who", "hang"])
def test_children_die_with_their_parent(tmp_path: Path, name: str) -> None:
    """Killed without a word: a child that waits reads the end of its input; one that hangs has its alarm."""
    path = write_frame(tmp_path / f"{name}.dng", 1)
    program = f"""
import threading, time
from pathlib import Path
from nightisp import decoding
decoding._CHILD = "tests.faulty_decoder"
threading.Thread(target=decoding.facts, args=(Path({str(path)!r}),), daemon=True).start()
time.sleep(60)
"""
    environment = {**os.environ, decoding.SECONDS: "4", "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.5)  # it has read its request by now
    assert children[0].is_running()
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert gone


def test_a_fork_leaves_the_children_to_its_parent(tmp_path: Path) -> None:
    """In a process of its own, without threads: both sides decode by turns, and neither gets the other's answer."""
    first = write_frame(tmp_path / "a.dng", 1, height=48)
    second = write_frame(tmp_path / "b.dng", 2, height=60)
    program = f"""
import os
from pathlib import Path
from nightisp import decoding
a, b = Path({str(first)!r}), Path({str(second)!r})
assert decoding.facts(a).height == 48
pid = os.fork()
path, height = (a, 48) if pid else (b, 60)
assert all(decoding.facts(path).height == height for _ in range(50))
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert decoding.facts(b).height == 60
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_child_imports_little() -> None:
    program = (
        "import sys, nightisp.decoding_child; print({'torch', 'prefect', 'zarr', 'cv2', 'typer'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
