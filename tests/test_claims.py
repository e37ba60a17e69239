"""Two processes at one store: nothing is computed twice, nobody waits for the dead, nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from nightisp import claims
from nightisp.pipeline import NAMES
from tests.frames import CLASSICAL, nobody, write_frames
from tests.terminal import PROGRAM

REPOSITORY = Path(__file__).parents[1]
KEY = "ab" * 32
HOLD = (
    "import sys; from pathlib import Path; from nightisp.claims import claim\n"
    "held = claim(Path(sys.argv[1]), sys.argv[2]); print('held', flush=True); sys.stdin.read()"
)

pytestmark = pytest.mark.skipif(claims.fcntl is None, reason="there are no locks on this system")


def holder(store: Path) -> subprocess.Popen[str]:
    """A process that has claimed the key until it is killed, or its input ends."""
    command = [sys.executable, "-c", HOLD, str(store), KEY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_claim_keeps_others_waiting_until_it_is_released(tmp_path: Path) -> None:
    got = threading.Event()
    first = claims.claim(tmp_path, KEY)

    def again() -> None:
        claims.claim(tmp_path, KEY).release()
        got.set()

    other = threading.Thread(target=again)
    other.start()
    assert not got.wait(0.2)
    claims.claim(tmp_path, "cd" * 32).release()  # another key is free
    first.release()
    assert got.wait(10)
    other.join()
    assert list((tmp_path / claims.FOLDER).iterdir()) == []
    first.release()  # nothing happens


def test_one_at_a_time_among_many(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            held = claims.claim(tmp_path, KEY)
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.0005)
            inside[0] -= 1
            held.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]


def test_the_dead_hold_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path)
    waited: list[float] = []

    def look(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) > 8:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        claims.claim(tmp_path, KEY, look)
    process.kill()
    process.communicate()
    assert (tmp_path / claims.FOLDER / KEY).exists()
    claims.claim(tmp_path, KEY).release()
    assert max(waited) <= 0.25


def test_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    process = holder(tmp_path)
    (tmp_path / claims.FOLDER / "left").touch()
    claims.sweep(tmp_path)
    assert [path.name for path in (tmp_path / claims.FOLDER).iterdir()] == [KEY]
    process.communicate("")
    claims.sweep(tmp_path)
    assert list((tmp_path / claims.FOLDER).iterdir()) == []


def test_where_nothing_can_be_written_every_claim_is_granted(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with nobody():
        claims.claim(tmp_path, KEY).release()
        claims.claim(tmp_path, KEY).release()
    tmp_path.chmod(0o755)


def test_without_locks_every_claim_is_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(claims.fcntl, "flock", refuses)
    one, two = claims.claim(tmp_path, KEY), claims.claim(tmp_path, KEY)
    one.release()
    two.release()


def test_two_runs_at_once_compute_nothing_twice(tmp_path: Path) -> None:
    frames = 8
    write_frames(tmp_path / "in", frames)
    command = [*PROGRAM, "flow", "run", "--engine", "local"]
    command += ["--device", "cpu", "--json", "--input", str(tmp_path / "in"), "--store", str(tmp_path / "store")]
    for stage, values in CLASSICAL.items():
        command += [word for name, value in values.items() for word in ("--set", f"{stage}.{name}={value}")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    runs = [
        subprocess.Popen(
            [*command, "--output", str(tmp_path / f"out{n}")], stdout=subprocess.PIPE, text=True, env=environment
        )
        for n in range(2)
    ]
    told = [json.loads(run.communicate(timeout=300)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    did = Counter(
        (stage, did) for report in told for frame in report["frames"] for stage, did in frame["stages"].items()
    )
    assert {stage: did[stage, "computed"] for stage in NAMES} == dict.fromkeys(NAMES, frames)
    pictures = [sorted(path.read_bytes() for path in (tmp_path / f"out{n}").glob("*.jpg")) for n in range(2)]
    assert len(pictures[0]) == frames
    assert pictures[0] == pictures[1]
    assert list((tmp_path / "store" / claims.FOLDER).iterdir()) == []
