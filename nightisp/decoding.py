"""LibRaw in a child process: a crash, a hang or a hunger for memory in it costs one file, and not the run.

Children start when first needed and are kept for the next file; one
that fails is replaced. They die with this process: their input ends with it, and an alarm of their own ends a
decoder that hangs. Ctrl-C does not reach them; what this process makes of it counts.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, cast

from nightisp.errors import DecoderError, ParamsError
from nightisp.libraw import Decoded

SECONDS = "NIGHTISP_DECODE_SECONDS"
"""Environment variable: seconds that a file may take, beside one for each megabyte of it."""

_CHILD = "nightisp.decoding_child"
_PLACES = tuple(sys.path)
"""Where modules are found. Not asked anew: while a thread imports cv2, a `typing` of its own comes first there."""
_SECONDS = 120.0
_MB = 10**6
_PIPE = 2**20  # bytes, what Linux lets anyone have: fewer switches between the two processes
_LENGTH = struct.Struct("<Q")

# As many at once as preflight has threads, and no more than there are cores to decode on.
_AT_ONCE = threading.BoundedSemaphore(max(2, min(4, os.cpu_count() or 1)))
_idle: list[subprocess.Popen[bytes]] = []


def decode(path: Path) -> Decoded:
    """Do as `nightisp.libraw.decode`, in a child process."""
    return cast("Decoded", _ask("decode", path))


def facts(path: Path) -> Decoded:
    """Decode a raw in a child process, and return all but its samples, to save their way."""
    return cast("Decoded", _ask("facts", path))


def seconds_for(path: Path) -> float:
    """Return the time limit of a file: 120 s, or what NIGHTISP_DECODE_SECONDS says, and one for each megabyte.

    Raises
    ------
    ParamsError
        If the variable holds no positive number.
    """
    text = os.environ.get(SECONDS, "")
    try:
        given = float(text or _SECONDS)
    except ValueError:
        given = -1.0
    if not 0 < given <= _MB:
        raise ParamsError(
            f"{SECONDS} is {text!r}; expected seconds above 0 and at most {_MB}. Set it anew, or unset it"
        )
    try:
        return given + path.stat().st_size / _MB
    except OSError:  # the child says what is wrong with the file
        return given


def _ask(what: str, path: Path) -> Any:
    seconds = seconds_for(path)
    folder = "" if path.is_absolute() else os.getcwd()  # noqa: PTH109, a name is wanted
    with _AT_ONCE:
        child, is_new = _taken()
        answer = _asked(child, (what, path, folder, seconds))
        if answer is None and not is_new and child.returncode != -signal.SIGALRM:
            child = _begun()  # perhaps what it decoded before had done it harm
            answer = _asked(child, (what, path, folder, seconds))
        if answer is None:
            raise _fault(path, child.returncode, seconds)
        _idle.append(child)
    good, value = answer
    if good:
        return value
    raise value


def _asked(child: subprocess.Popen[bytes], request: tuple[Any, ...]) -> tuple[bool, Any] | None:
    """Return what the child answers, or None if it ended instead, and is buried."""
    try:
        answer = _answer(child, request)
    except BaseException:  # of Ctrl-C too: half an answer may still be on its way
        child.kill()
        _bury(child)
        raise
    if answer is None:
        _bury(child)
    return answer


def _taken() -> tuple[subprocess.Popen[bytes], bool]:
    """Return a child that waits for work, and whether it was begun for this."""
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return _begun(), True
        if child.poll() is None:
            return child, False
        _bury(child)


def _begun() -> subprocess.Popen[bytes]:
    places = [os.path.abspath(place) for place in _PLACES]  # noqa: PTH100, '' is the current folder
    # One thread of BLAS: each asks for address space, which is limited.
    settings = {"PYTHONPATH": os.pathsep.join(places), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 - no shell
        [sys.executable, "-P", "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what LibRaw says there comes as an exception too
        env={**os.environ, **settings},
        process_group=0,
        pipesize=_PIPE,
    )


def _answer(child: subprocess.Popen[bytes], request: tuple[Any, ...]) -> tuple[bool, Any] | None:
    """Return what the child answers, or None if it ended instead."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        pickle.dump(request, child.stdin)
        child.stdin.flush()
        return cast("tuple[bool, Any]", receive(child.stdout))
    except (BrokenPipeError, EOFError):
        return None


def _bury(child: subprocess.Popen[bytes]) -> None:
    _close(child)
    child.wait()


def _close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _fault(path: Path, status: int, seconds: float) -> DecoderError:
    remedy = "Copy it again, convert it to DNG (Adobe DNG Converter), or leave it out"
    if status == -signal.SIGALRM:
        return DecoderError(
            f"{path}: decoding it took longer than {seconds:.0f} s and was ended. {remedy}; {SECONDS} gives more time"
        )
    if status == -signal.SIGKILL:
        return DecoderError(f"{path}: the process that decoded it was killed, most likely for want of memory. {remedy}")
    if status > 0:
        return DecoderError(
            f"{path}: the process that decodes it ended with status {status}. "
            "If every file is told so, `python -m nightisp.decoding_child </dev/null` says why; else leave it out"
        )
    name = signal.Signals(-status).name if status else "an end without an answer"
    return DecoderError(f"{path}: LibRaw crashed on it ({name}), so it is damaged. {remedy}")


def send(pipe: IO[bytes], value: object) -> None:
    """Write a value, its arrays as they lie in memory."""
    arrays: list[pickle.PickleBuffer] = []
    first = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    lengths = pickle.dumps([len(first), *(view.nbytes for view in views)])
    pipe.write(_LENGTH.pack(len(lengths)) + lengths + first)
    for view in views:
        pipe.write(view)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read a value that `send` wrote; its arrays may be written to.

    Raises
    ------
    EOFError
        If the pipe ends before.
    """
    lengths = pickle.loads(_exactly(pipe, *_LENGTH.unpack(_exactly(pipe, _LENGTH.size))))  # noqa: S301 - of our own child
    first, *arrays = (_exactly(pipe, length) for length in lengths)
    return pickle.loads(first, buffers=arrays)  # noqa: S301


def _exactly(pipe: IO[bytes], count: int) -> bytearray:
    content, done = bytearray(count), 0
    view = memoryview(content)
    while done < count:
        got = cast("io.BufferedIOBase", pipe).readinto(view[done:])
        if not got:
            raise EOFError
        done += got
    return content


@atexit.register
def _let_go() -> None:
    while _idle:
        _bury(_idle.pop())


def _forget() -> None:
    """Leave the children to the process that began them: two that share a pipe would read each other's answers."""
    global _AT_ONCE
    for child in _idle:
        _close(child)
        child.returncode = 0  # no warning about a child that is not this process's
    _idle.clear()
    _AT_ONCE = threading.BoundedSemaphore(max(2, min(4, os.cpu_count() or 1)))


os.register_at_fork(after_in_child=_forget)
