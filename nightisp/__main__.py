"""The command line as a whole process: what has to be settled before it begins, and how it ends."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading

_TUNABLES = "GLIBC_TUNABLES"
_COUNT = "glibc.malloc.tcache_count"
_BEGUN = "NIGHTISP_BEGUN"

_COLLECT = 50_000
"""New objects after which Python looks for cycles among them, for as long as the process lives. By default it looks
hundreds of times while libraries are loaded, whose objects stay: a twentieth of a draft's time. Pictures are in no
cycles, so that memory does not grow by it."""


def program() -> None:
    """Run the command line as the whole of a process, which ends with it.

    What Python does last, to take every module and object apart, takes 0.7 s once PyTorch is loaded, and the system
    does it in no time. All that anyone asked to be done at the end is done: threads joined, exit functions called.
    """
    begin_without_cached_pieces()
    gc.set_threshold(_COLLECT, 20, 20)
    from nightisp.cli import main

    try:
        main()
    except SystemExit as leaving:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the reader of our output has gone
                stream.flush()
        os._exit(leaving.code if isinstance(leaving.code, int) else 0)


def begin_without_cached_pieces() -> None:
    """Begin this process anew, with glibc's malloc told to cache no small pieces for each thread; once.

    PyTorch asks for aligned arrays, of which malloc cuts what is too much: less than 100 bytes, which each thread's
    cache then holds as if they were in use. So a freed array of features between two of them is too small for the next
    one of the same size, and the heap grows by a half. Only the environment tells glibc, and only as a process begins;
    its children inherit it. Nothing is done elsewhere than on Linux with glibc, or where the environment says a number.
    """
    told = os.environ.get(_TUNABLES, "")
    if os.environ.pop(_BEGUN, "") == str(os.getpid()):  # glibc takes tunables away from a program with privileges
        return
    if not sys.platform.startswith("linux") or _COUNT in told or not _has_glibc():
        return
    if not sys.executable or sys.gettrace() or _came_by_a_pipe():  # neither would come as far as here again
        return
    told = ":".join(filter(None, (told, f"{_COUNT}=0")))
    environment = {**os.environ, _TUNABLES: told, _BEGUN: str(os.getpid())}
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 -- this very program


def _came_by_a_pipe() -> bool:
    script = getattr(sys.modules["__main__"], "__file__", None)
    return len(sys.orig_argv) < 2 or "-" in sys.orig_argv or bool(script and not os.path.isfile(script))  # noqa: PTH113


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):  # musl knows no such name
        return False


if __name__ == "__main__":
    program()
