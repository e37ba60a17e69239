"""Everything nightisp raises on purpose.

NightispError
├── RawFileError(ValueError)                  the file is no raw photograph that can be developed
│   ├── DecoderError                          LibRaw crashed on it, or took too long or too much memory
│   ├── UnsupportedSensorError                X-Trans, Foveon, monochrome, sRAW, already demosaiced
│   └── RawFileNotFoundError(FileNotFoundError)   no such file, no such folder
├── ParamsError(ValueError)                   unknown stage, unknown name, out of bounds
├── StageError                                a stage was given something that it does not take
│   ├── ImageShapeError(ValueError)           .expected, .actual
│   ├── ImageTypeError(TypeError)             a LinearImage where a Mosaic is taken
│   └── NoGroundError(ValueError)             the file holds nothing that the chosen method could work from
├── WeightsError
│   ├── WeightsNotFoundError(FileNotFoundError)
│   └── WeightsMismatchError(ValueError)      names, shapes or digest are not what they must be
├── StoreError
│   ├── ArtifactNotFoundError(FileNotFoundError)
│   ├── ArtifactDamagedError                  a chunk is missing or fails its checksum: counts as a miss
│   └── StoreVersionError                     written by a newer nightisp
├── OutputError(OSError)                      a picture cannot be written
├── ServerError(ConnectionError)              the Prefect server cannot be reached
├── RunnerError(ConnectionError)              the workers cannot be reached, or the package for them is missing
├── ProjectError                              no project here, or its files contradict one another
└── DeviceError(RuntimeError)                 no such device, or not enough memory on it

A message says what is wrong, with the value; what was expected; and the command or setting that cures it.
"""

from __future__ import annotations

import errno


class NightispError(Exception):
    """Base of everything nightisp raises on purpose."""


class RawFileError(NightispError, ValueError):
    """The file is no raw photograph that can be developed; `transient` if reading it again may help."""

    transient = False


class DecoderError(RawFileError):
    """LibRaw crashed on the file, or took more time or memory than it was given."""


class UnsupportedSensorError(RawFileError):
    """The file is a photograph, but not a mosaic of 2 x 2 Bayer photosites."""


class RawFileNotFoundError(RawFileError, FileNotFoundError):
    """There is no such file or folder."""


class ParamsError(NightispError, ValueError):
    """A parameter is unknown, misspelt or out of its bounds."""


class StageError(NightispError):
    """A stage was given something that it does not take."""


class ImageShapeError(StageError, ValueError):
    """An array has the wrong shape."""

    def __init__(self, message: str, *, expected: object = None, actual: object = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ImageTypeError(StageError, TypeError):
    """An image is in another state than the stage takes."""


class NoGroundError(StageError, ValueError):
    """The file holds nothing that the chosen method could work from."""


class WeightsError(NightispError):
    """Something is wrong with a network's weights."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """There are no weights of this name."""


class WeightsMismatchError(WeightsError, ValueError):
    """Names, shapes or digest of the weights are not what they must be."""


class StoreError(NightispError):
    """Something is wrong with the artifact store; `transient` if trying again may help."""

    transient = False


class ArtifactNotFoundError(StoreError, FileNotFoundError):
    """The store holds no artifact of this key."""


class ArtifactDamagedError(StoreError):
    """An artifact lacks a chunk, or a chunk fails its checksum."""


class StoreVersionError(StoreError):
    """The store was written by a newer nightisp."""


class OutputError(NightispError, OSError):
    """A finished picture cannot be written; `transient` if trying again may help."""

    transient = False


def is_transient(error: BaseException) -> bool:
    """Tell whether a fault of disk or network may pass by itself.

    Examples
    --------
    >>> is_transient(OSError(errno.EIO, "I/O error")), is_transient(OSError(errno.ENOSPC, "disk full"))
    (True, False)
    """
    passing = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY, errno.EMFILE, errno.ENFILE)
    if isinstance(error, NightispError):
        return getattr(error, "transient", False)
    return isinstance(error, OSError) and error.errno in passing


class ServerError(NightispError, ConnectionError):
    """The Prefect server cannot be reached."""


class RunnerError(NightispError, ConnectionError):
    """The workers of a run cannot be reached, or the package that speaks to them is not installed."""


class ProjectError(NightispError):
    """There is no nightisp project here, or its files contradict one another."""


class DeviceError(NightispError, RuntimeError):
    """The device asked for is not there, or has too little memory."""
