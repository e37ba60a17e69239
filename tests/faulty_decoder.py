"""A decoder's child process that does to a file what the file's name says: crash, abort, hang, grow, leave."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nightisp import decoding_child, libraw
from nightisp.image import CFA, Shot


def faulty(real: Callable[..., Any]) -> Callable[..., Any]:
    def do(path: Path, room: libraw.Room) -> Any:
        match path.stem.partition("-")[0]:
            case "crash":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "hang":
                ctypes.CDLL(None).sleep(1000)  # in C, where no handler of Python's runs
            case "wait":
                time.sleep(1)
            case "leave":
                os._exit(7)
            case "grow":
                room(48 * 64)
                np.zeros(2 * 2**30, np.uint8)
            case "large":
                room(80_000_000)
                samples = np.arange(80_000_000, dtype=np.uint32).astype(np.uint16).reshape(8000, 10000)
                return libraw.Decoded(samples, 8000, 10000, CFA.RGGB, Shot(camera=""))
            case "who":
                return libraw.Decoded(None, os.getpgid(0), 1, CFA.RGGB, Shot(camera=str(os.getpid())))
        return real(path, room)

    return do


if __name__ == "__main__":
    decoding_child._FUNCTIONS = {name: faulty(real) for name, real in decoding_child._FUNCTIONS.items()}
    decoding_child.main()
