"""The child process of `nightisp.decoding`: reads requests, answers with what LibRaw makes of a file."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

from nightisp import libraw
from nightisp.decoding import send
from nightisp.errors import DecoderError, NightispError

_FUNCTIONS = {"header": libraw.header, "decode": libraw.decode, "facts": libraw.facts}
_OPENING = 512 * 2**20
_PER_PHOTOSITE = 32
"""Bytes: LibRaw holds a sensor's samples up to twice, a linear DNG's of four colors, and their copy comes on top."""


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not mix with the answers
    import exiv2  # noqa: F401 - before the address space is measured
    import rawpy  # noqa: F401

    while True:
        try:
            what, path, folder, seconds = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own parent
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)  # the default action ends the process, C code or not
        try:
            answer = _answer(what, path, folder, _address_space())
        finally:
            _limit(None)
        try:
            send(answers, answer)
        except BrokenPipeError:
            os._exit(0)  # nobody is left to be told
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(what: str, path: Path, folder: str, base: int) -> tuple[bool, object]:
    try:
        if folder:
            os.chdir(folder)
        try:
            room = base + _OPENING + 2 * path.stat().st_size  # exiv2 and LibRaw may each map the file
        except OSError:
            room = base + _OPENING  # `readable` says what is wrong
        _limit(room)
        return True, _FUNCTIONS[what](path, lambda photosites: _limit(room + _PER_PHOTOSITE * photosites))
    except MemoryError:
        return False, DecoderError(
            f"{path}: decoding it asks for more memory than a raw of its size needs, so it is damaged. "
            "Copy it again, or leave it out"
        )
    except (NightispError, OSError) as error:
        return False, error
    except Exception as error:
        return False, DecoderError(
            f"{path}: it cannot be decoded ({type(error).__name__}: {error}). Copy it again, or leave it out"
        )


def _address_space() -> int:
    """Return the bytes of address space in use, 0 where the system does not tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def _limit(size: int | None) -> None:
    """Let this process have so many bytes of address space, or as many as it wants; only Linux holds to it."""
    import resource

    if not sys.platform.startswith("linux"):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = hard if size is None or (hard != resource.RLIM_INFINITY and hard < size) else size
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))


if __name__ == "__main__":
    main()
