"""Read pictures and arrays that come from elsewhere, and write what one network makes of them.

PNG, TIFF, JPEG and NPY. The pipeline's finished pictures are left to `nightisp.export`, which encodes color here too.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nightisp.errors import ImageShapeError, OutputError, RawFileError, RawFileNotFoundError
from nightisp.export import EncodedPicture, ExportParams, export
from nightisp.icc import space_of
from nightisp.image import DisplayImage, Samples
from nightisp.publish import publish
from nightisp.rgb_spaces import converted

READABLE = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy")
WRITABLE: dict[str, Literal["png", "tiff", "npy"]] = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}


def read_picture(path: Path) -> Samples:
    """Read a file as float32 (H, W) or (H, W, C), in [0, 1] where it holds integers.

    PNG and TIFF of 8 or 16 bits are divided by 255 or 65535; a JPEG stands upright, as its EXIF says. NPY holds float,
    taken as it is, or uint8 or uint16. No color profile is applied. Channels are in the order R, G, B.

    Raises
    ------
    RawFileNotFoundError
        If there is no such file.
    RawFileError
        If it cannot be read, is none of these formats, has an alpha channel, or holds what is no picture.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise RawFileError(f"{path}: {suffix or 'no suffix'}; expected one of {', '.join(READABLE)}. Convert it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RawFileNotFoundError(f"{path}: no such file; check its name") from None
    except OSError as error:
        raise RawFileError(f"{path}: cannot be read ({error.strerror or error}); check that it is a file") from error
    return decode_picture(content, path)


def decode_picture(content: bytes, path: Path) -> Samples:
    """Return what `read_picture` does, of the bytes of a file; `path` gives the format and is named in messages."""
    suffix = path.suffix.lower()
    samples = _from_npy(content, path) if suffix == ".npy" else _decoded(content, path, jpeg=suffix.startswith(".j"))
    if samples.dtype == np.uint8 or samples.dtype == np.uint16:
        return np.asarray(samples * np.float32(1 / np.iinfo(samples.dtype).max), np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise RawFileError(f"{path}: holds {samples.dtype}; expected uint8, uint16 or float. Convert it")
    return np.ascontiguousarray(samples, np.float32)


def srgb_pixels(picture: EncodedPicture) -> Samples:
    """Return what a finished picture shows, sRGB float32 (H, W, 3) in [0, 1], in whatever space its file is."""
    samples = decode_picture(picture.content, Path(f"picture{picture.suffix}"))
    return converted(samples, space_of(picture.content), "srgb")


def _from_npy(content: bytes, path: Path) -> NDArray[Any]:
    try:
        samples = np.load(BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RawFileError(f"{path}: is no NPY file ({error}); write it with numpy.save") from error
    if not isinstance(samples, np.ndarray) or samples.ndim not in (2, 3) or 0 in samples.shape:
        shape = getattr(samples, "shape", "several arrays")
        raise RawFileError(f"{path}: holds {shape}; expected one array (H, W) or (H, W, C)")
    return samples


def _decoded(content: bytes, path: Path, *, jpeg: bool) -> NDArray[Any]:
    import cv2

    samples: Any = None
    if content:
        # Only this keeps an alpha channel in sight; but it leaves a JPEG lying as the camera was held.
        chosen = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if jpeg else cv2.IMREAD_UNCHANGED
        try:
            samples = cv2.imdecode(np.frombuffer(content, np.uint8), chosen)
        except cv2.error:
            samples = None
    if samples is None:
        raise RawFileError(f"{path}: cannot be decoded; it is damaged, or its name has another format's suffix")
    if samples.ndim == 3 and samples.shape[2] != 3:
        raise RawFileError(f"{path}: has {samples.shape[2]} channels; expected gray or RGB. Remove its alpha channel")
    return np.asarray(samples if samples.ndim == 2 else samples[..., ::-1])


def check_writable_as(path: Path) -> None:
    """Raise `OutputError` unless the suffix is one that `write_picture` writes."""
    if path.suffix.lower() not in WRITABLE:
        raise OutputError(f"{path}: {path.suffix or 'no suffix'}; expected one of {', '.join(WRITABLE)}")


def write_picture(path: Path, samples: Samples) -> None:
    """Write PNG or TIFF of 16 bits, or NPY in float32; the file is there whole or not at all.

    Parameters
    ----------
    path
        Its suffix is the format.
    samples
        (H, W), or (H, W, 3) in sRGB; (H, W, C) for NPY. PNG and TIFF clip to [0, 1] and round to the nearest of 65536
        levels.

    Raises
    ------
    OutputError
        If the suffix is none of these, the file cannot be written, or the format does not hold so many channels.
    """
    check_writable_as(path)
    format_ = WRITABLE[path.suffix.lower()]
    if format_ == "npy":
        file = BytesIO()
        np.save(file, np.ascontiguousarray(samples, np.float32))
        publish(file.getvalue(), path)
    elif samples.ndim == 2:
        publish(_gray(path, samples), path)
    elif samples.shape[2] == 3:
        params = ExportParams(format=format_, bit_depth=16, metadata="strip")
        publish(export(DisplayImage(np.ascontiguousarray(samples, np.float32)), params).content, path)
    else:
        raise OutputError(f"{path}: {samples.shape[2]} channels; {path.suffix} holds 1 or 3. Name a .npy")


def _gray(path: Path, samples: Samples) -> bytes:
    import cv2

    if np.isnan(samples).any():
        raise ImageShapeError(f"{path}: holds samples that are not numbers (NaN); expected values in [0, 1]")
    levels = np.rint(np.clip(samples, 0, 1) * np.float32(65535)).astype(np.uint16)
    done, encoded = cv2.imencode(path.suffix.lower(), levels)
    if not done:
        raise OutputError(f"{path}: OpenCV cannot encode {levels.shape}; name a file ending in .npy")
    return bytes(encoded)
