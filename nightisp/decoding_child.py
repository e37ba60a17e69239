"""The child process of `nightisp.decoding`: reads requests, answers with what LibRaw makes of a file."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nightisp import libraw
from nightisp.decoding import send
from nightisp.errors import DecoderError, NightispError

_kept: tuple[object, libraw.Decoded] | None = None
"""What was decoded last for its facts, and of which state of which file: who looked at a raw may develop it next."""


def decode(path: Path, room: libraw.Room) -> libraw.Decoded:
    """Do as `nightisp.libraw.decode`, without decoding a file that was just looked at again."""
    global _kept
    kept, _kept = _kept, None
    return kept[1] if kept and kept[0] == _state(path) else libraw.decode(path, room)


def facts(path: Path, room: libraw.Room) -> libraw.Decoded:
    """Return all that decoding tells but the samples, which are kept until the next request."""
    global _kept
    _kept = None
    state = _state(path)
    decoded = libraw.decode(path, room)
    _kept = state, decoded
    return replace(decoded, samples=None)


def _state(path: Path) -> object:
    try:
        about = path.stat()
    except OSError:  # `readable` says what is wrong
        return object()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


_FUNCTIONS: dict[str, Callable[[Path, libraw.Room], object]] = {
    "decode": decode,
    "facts": facts,
}
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
