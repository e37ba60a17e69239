"""Let the process keep the memory that it has freed: a network asks for the same again in the next layer."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

# Parameters of glibc's mallopt, as malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER = 2**31 - 1

PROGRAM = 400_000_000
"""Bytes that Python, the libraries and the weights take, Prefect's client too: nothing of it can be given back."""

MEMORY = 800_000_000
"""Bytes that the features of one tile may take, unless somebody knows better."""


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory, of all sizes and threads, in one heap; return whether it could.

    By default it maps large arrays anew and gives them back each time: the kernel then clears a network's features
    page by page in every layer, which was measured at a third of HAT's and a quarter of the U-Net's time. One heap,
    as those of other threads than the first hold no more than 64 MB. What frames hold at their peak stays the same;
    what the process holds falls by `release_freed_memory` alone. Elsewhere than on Linux with glibc nothing is done,
    as nothing is promised: pictures are the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    done = [mallopt(_TRIM_THRESHOLD, _NEVER), mallopt(_ARENA_MAX, 1)]
    done.append(any(mallopt(_MMAP_THRESHOLD, size) for size in (1 << 30, 1 << 25)))  # before 2.35 no more than 32 MB
    return all(done)


def release_freed_memory(above: int = 0) -> None:
    """Give back what is kept, after a stage or a write: the next may need it in other pieces, or another program.

    Parameters
    ----------
    above
        Bytes that the process may hold without giving any back: the kernel clears each page that is asked for again,
        which costs a picture of 12 megapixels a twentieth of its time, and is needed for larger ones only.
    """
    if keep_freed_memory() and resident() > above:
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Return the bytes of memory that this process holds, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
