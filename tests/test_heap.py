"""The heap: freed memory stays with the process, where glibc's malloc is asked to keep it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_is_kept_is_given_back_only_where_the_process_holds_more_than_it_may() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    kept, still, left = map(float, done.stdout.split())
    assert kept > 90
    assert abs(still) < 20
    assert left < 30
