"""The heap: freed memory stays with the process, where glibc's malloc is asked to keep it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import pytest

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt and tunables are glibc's")

CODE = """
import sys, threading
import numpy as np
from nightisp.models.heap import keep_freed_memory
kept = sys.argv[1] == "kept" and keep_freed_memory()
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1000
before = resident()
def work():
    for _ in range(3):
        np.ones(100_000_000, np.uint8)
thread = threading.Thread(target=work)
thread.start(); thread.join()
print(kept, resident() - before)
"""


@glibc_only
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept_and_used_again(kept: bool) -> None:
    asked = "kept" if kept else "not"
    done = subprocess.run([sys.executable, "-c", CODE, asked], capture_output=True, text=True, check=True)
    said, megabytes = done.stdout.split()
    assert said == str(kept)
    if kept:
        assert 90 < float(megabytes) < 190  # once, not three times
    else:
        assert float(megabytes) < 50


GIVEN_BACK = """
import numpy as np
from nightisp.models.heap import keep_freed_memory, release_freed_memory, resident
keep_freed_memory()
before = resident()
first, fence = np.ones(100_000_000, np.uint8), np.ones(1_000_000, np.uint8)
del first
kept = resident()
release_freed_memory(above=kept + 50_000_000)
still = resident()
release_freed_memory(above=kept - 50_000_000)
print((kept - before) / 1e6, (still - kept) / 1e6, (resident() - before) / 1e6)
"""


@glibc_only
def test_what_is_kept_is_given_back_only_where_the_process_holds_more_than_it_may() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    kept, still, left = map(float, done.stdout.split())
    assert kept > 90
    assert abs(still) < 20
    assert left < 30


BEGIN = "from nightisp.__main__ import begin_without_cached_pieces; begin_without_cached_pieces()\n"
TELL = "import os, sys; print(sys.argv[1:], sys.flags.utf8_mode, os.getpid(), os.environ.get('GLIBC_TUNABLES'))\n"


def begun(code: str, *given: str, told: str = "", **how: Any) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if told:
        environment["GLIBC_TUNABLES"] = told
    line = [sys.executable, *(("-X", "utf8", "-c", code) if code else ("-",)), *given]
    return subprocess.run(line, capture_output=True, text=True, check=True, env=environment, **how).stdout.splitlines()


@glibc_only
@pytest.mark.parametrize(
    ("told", "then"),
    [
        ("", "glibc.malloc.tcache_count=0"),
        ("glibc.malloc.mxfast=64", "glibc.malloc.mxfast=64:glibc.malloc.tcache_count=0"),
    ],
)
def test_a_process_begins_once_more_as_it_was_called(told: str, then: str) -> None:
    before, again, after = begun(TELL + "sys.stdout.flush()\n" + BEGIN + TELL, "--a b", "ü", told=told)
    called, _, said = before.rpartition(" ")
    assert called.startswith("['--a b', 'ü'] 1 ")
    assert said == str(told or None)
    assert again == after == f"{called} {then}"  # the same process number


@glibc_only
def test_a_process_goes_on_where_the_environment_says_a_number_or_the_program_is_read_from_a_pipe() -> None:
    chosen = "glibc.malloc.tcache_count=7"
    lines = begun("print('here'); " + BEGIN + TELL, told=chosen)
    assert lines[0] == "here"
    assert len(lines) == 2
    assert lines[1].endswith(f" {chosen}")
    (line,) = begun("", "given", input="import sys; sys.argv[0] = 'nightisp'\n" + BEGIN + TELL)
    assert line.startswith("['given']")
    assert line.endswith(" None")


@glibc_only
def test_a_process_whose_tunables_are_taken_away_goes_on() -> None:
    taken = "import os; print('here', flush=True); os.environ.pop('GLIBC_TUNABLES', None)\n"
    *begun_so_often, line = begun(taken + BEGIN + TELL, timeout=60)
    assert begun_so_often == ["here", "here"]
    assert line.endswith(" None")
    assert "NIGHTISP_BEGUN" not in begun(BEGIN + "import os; print(*os.environ)")[0].split()


FEATURES = """
import torch
from nightisp.models.heap import keep_freed_memory, resident
from nightisp.models.denoise_unet import DenoiseUNet
keep_freed_memory()
network = DenoiseUNet().eval().bfloat16().to(memory_format=torch.channels_last)
with torch.inference_mode():
    network(torch.zeros(1, 4, 64, 64))
    before = resident()
    for size in ((512, 512), (512, 400), (300, 512), (300, 400), (512, 512), (480, 508), (512, 512)):
        network(torch.zeros(1, 4, *size))
print((resident() - before) / (512 * 512 * 64 * 2))
"""


@glibc_only
def test_features_find_room_where_others_were() -> None:
    # Three features of the full size live at once: they take the room of 5 to 6, without the tunable of 11 to 14.
    (features,) = begun(BEGIN + FEATURES)
    assert 3 < float(features) < 8
