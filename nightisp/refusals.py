"""Why a file cannot be developed: one place for every cause, in words that name the file and the remedy."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightisp.errors import RawFileError, RawFileNotFoundError, UnsupportedSensorError

_TO_DNG = "Convert it to DNG (Adobe DNG Converter), or leave it out"

# Name of rawpy's exception -> what it means for the file.
CAUSES = {
    "LibRawFileUnsupportedError": "LibRaw knows no raw format or camera like it",
    "LibRawNotImplementedError": "LibRaw knows the format but cannot decode this kind of it",
    "LibRawRequestForNonexistentImageError": "it holds no raw picture",
    "LibRawDataError": "its samples are damaged",
    "LibRawIOError": "truncated or damaged, LibRaw meets its end too early",
    "LibRawTooBigError": "its picture is larger than LibRaw takes, or its header is damaged",
    "LibRawUnsufficientMemoryError": "decoding it needs more memory than there is, or its header is damaged",
    "LibRawMemPoolOverflowError": "decoding it needs more memory than there is, or its header is damaged",
    "LibRawBadCropError": "its visible area lies outside the sensor's, so its header is damaged",
    "LibRawInputClosedError": "it was closed while LibRaw read it",
    "LibRawNoThumbnailError": "it holds no preview",
    "LibRawUnsupportedThumbnailError": "its preview cannot be decoded",
    "LibRawOutOfOrderCallError": "LibRaw was not ready to decode it",
    "LibRawCancelledByCallbackError": "decoding it was broken off",
    "LibRawUnspecifiedError": "LibRaw cannot decode it and does not say why",
    "NotSupportedError": "rawpy and LibRaw do not fit together",
}
LARGEST = 2**28
"""Most photosites of a raw: 268 megapixels, more than any Bayer sensor has; its mosaic takes 1 GiB."""

_COMPRESSIONS = {9: "VC-5 (GoPro's GPR)", 34892: "lossy JPEG", 52546: "JPEG XL"}
_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"RIFF": "WebP or film",
}


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say plainly why a file cannot be opened; other faults of the disk pass as they are, for another try may help.

    Raises
    ------
    RawFileNotFoundError, RawFileError
    """
    try:
        path.as_posix().encode()
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise RawFileError(f"{path}: it is a folder; expected a raw file. Name the folder as --input")
        if not stat.S_ISREG(about.st_mode):  # a pipe or a device: to read it may take for ever
            raise RawFileError(f"{path}: it is no file that can be kept; expected a raw file. Copy the raw there")
        if not about.st_size:
            raise RawFileError(f"{path}: it is empty; expected a raw file. Copy it again")
        with path.open("rb") as file:
            file.read(1)
        yield
    except FileNotFoundError as error:
        raise RawFileNotFoundError(f"{path}: no such file; check its name") from error
    except PermissionError as error:
        raise RawFileError(f"{path}: it may not be read; give yourself the right (chmod u+r)") from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        why = "it is a link to itself" if error.errno == errno.ELOOP else "its name is too long"
        raise RawFileError(f"{path}: {why}; expected a raw file. Copy the raw there under another name") from error
    except UnicodeEncodeError as error:
        raise RawFileError(f"{path.as_posix()!a}: its name is no UTF-8, which LibRaw needs; rename it") from error


def truncated(path: Path, size: int, needed: int) -> RawFileError:
    """Return the error for a file of `size` bytes that should hold `needed`."""
    return RawFileError(f"{path}: truncated, it holds {size} bytes and its samples end at {needed}; copy it again")


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse a raw that claims more photosites than any sensor has, before memory is asked for."""
    if height * width > LARGEST:
        raise RawFileError(
            f"{path}: it claims {height} x {width} photosites; expected {LARGEST // 10**6} megapixels at most. "
            "Its header is damaged: copy it again, or leave it out"
        )


def not_bayer(path: Path, what: str) -> UnsupportedSensorError:
    """Return the error for a photograph that is no Bayer mosaic."""
    return UnsupportedSensorError(f"{path}: {what}; nightisp develops Bayer mosaics (2 x 2, RGB) only. Leave it out")


def refusal(path: Path, compression: int | None, exception: str, words: str) -> RawFileError:
    """Return the error for a file that LibRaw refused: by rawpy's exception and words, and the samples' TIFF code."""
    codec, suffix = _COMPRESSIONS.get(compression or 0), path.suffix.lower()
    if exception == "LibRawFileUnsupportedError":
        with path.open("rb") as file:
            head = file.read(16)
        picture = next((name for magic, name in _PICTURES.items() if head.startswith(magic)), None)
        if picture:
            return RawFileError(f"{path}: it is a finished {picture}; expected a camera's raw. Leave it out")
        if codec or suffix == ".gpr":
            codec = codec or _COMPRESSIONS[9]
            return RawFileError(f"{path}: its samples are compressed by {codec}, which LibRaw lacks. {_TO_DNG}")
        if suffix == ".x3f":
            return not_bayer(path, "it is a Foveon raw, three colors at each place")
    cause = CAUSES.get(exception, words)
    remedy = "Copy it again" if exception in ("LibRawIOError", "LibRawDataError") else _TO_DNG
    refused = RawFileError(f"{path}: {cause}; expected a raw that LibRaw decodes. {remedy}")
    # To LibRaw too a failing disk and a file that ends too early look the same; the latter is found in preflight, which
    # reads a file once.
    refused.transient = exception == "LibRawIOError"
    return refused
