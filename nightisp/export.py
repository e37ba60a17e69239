"""Encode a finished picture as JPEG, PNG or TIFF: the only image writer, and the only place where samples are rounded.

The encoded bytes are the artifact; `nightisp.publish` puts them into a folder. No time, version or machine enters
them, so the same picture and parameters give the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from nightisp.errors import OutputError, StageError
from nightisp.icc import profile
from nightisp.image import DisplayImage, Samples
from nightisp.rgb_spaces import SpaceName, converted, from_light, to_light
from nightisp.rows import in_rows
from nightisp.sharpen import sharpened
from nightisp.shrink import shrunk_to
from nightisp.stage import Params, Stage

JPEG_LONGEST = 65500  # libjpeg's JPEG_MAX_DIMENSION
TIFF_LARGEST = 2**32 - 2**25  # offsets of 32 bits, less room for tags; exiv2 writes no BigTIFF

_PNG_TITLES = {"srgb": b"sRGB", "display_p3": b"Display P3", "adobe_rgb": b"Adobe RGB"}
_EXIF_SRGB, _EXIF_UNCALIBRATED = "1", "65535"  # EXIF knows no third: the profile tells


class ExportParams(Params):
    """How the finished picture is written."""

    format: Literal["jpeg", "png", "tiff"] = Field("jpeg", description="File format")
    bit_depth: Literal["auto", 8, 16] = Field(
        "auto", description="Bits per sample; auto: 8 for jpeg and png, 16 for tiff (jpeg holds 8 only)"
    )
    quality: int = Field(95, ge=1, le=100, description="JPEG quality; png and tiff lose nothing")
    chroma_subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = Field(
        "4:4:4", description="Resolution of color in a JPEG; 4:4:4 keeps all of it"
    )
    longest: int | None = Field(
        None,
        ge=1,
        description="Pixels of the longer side at most, areas averaged in linear light, never enlarged; null: no limit",
    )
    sharpen: float = Field(
        0.0, ge=0, le=3, description="Contrast added at edges of the size written, without halos; 0.5 is moderate"
    )
    space: SpaceName = Field(
        "srgb", description="Color space, its profile goes along; colors beyond sRGB were lost at tone, none comes back"
    )
    metadata: Literal["keep", "strip"] = Field(
        "keep", description="keep: carry the raw's EXIF over; strip: nothing but the color profile"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.format == "jpeg" and self.bit_depth == 16:
            raise ValueError("jpeg holds 8 bits per sample, not 16; set bit_depth to auto, or format to png or tiff")
        return self

    @property
    def bits(self) -> Literal[8, 16]:
        """Bits per sample, with `auto` resolved."""
        if self.bit_depth == "auto":
            return 16 if self.format == "tiff" else 8
        return self.bit_depth


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture as the bytes of a file, with `suffix` .jpg, .png or .tif.

    `left_out` names the EXIF tags of the raw that exiv2 cannot write (an unknown tag, a value that its type or the
    format does not hold): no picture is lost for one tag, and no tag goes unmentioned.
    """

    content: bytes
    suffix: str
    left_out: tuple[str, ...] = ()

    def stored(self) -> NDArray[np.uint8]:
        """Return the bytes as the store keeps them: uint8 (N,)."""
        return np.frombuffer(self.content, np.uint8)

    def state(self) -> dict[str, Any]:
        """Return everything but the bytes, as JSON values; size and digest tell whether a copy is intact."""
        digest = hashlib.sha256(self.content).hexdigest()
        return {"suffix": self.suffix, "left_out": list(self.left_out), "size": len(self.content), "sha256": digest}

    @classmethod
    def restore(cls, stored: NDArray[Any], state: dict[str, Any]) -> Self:
        """Undo `stored` and `state`."""
        return cls(stored.tobytes(), state["suffix"], tuple(state["left_out"]))

    def rounded(self) -> Self:
        """Return the picture itself: bytes are stored as they are."""
        return self

    def settled(self, _stored: NDArray[Any], _source: object) -> Self:
        """Return the picture itself, as `rounded` does."""
        return self


def export(image: DisplayImage, params: ExportParams) -> EncodedPicture:
    """Encode the visible part as a file, with its color profile and the EXIF of the raw.

    Samples are clipped to [0, 1] and rounded to the nearest of 256 or 65536 levels, without dither. The picture
    stands upright already, so Orientation is 1. Which EXIF a picture takes over is decided where the raw is read.

    Where it is to be smaller, or in another space, samples become the light that a display of sRGB makes of them, and
    are encoded anew; a lamp between dark pixels weighs as much as it shines. Other spaces are wider than sRGB, so that
    no color changes, and none is won.

    Parameters
    ----------
    image
        Display light, (H, W, 3), sRGB primaries; any gamma is already applied.
    params
        Format, depth, and what goes with the picture.

    Raises
    ------
    OutputError
        If the format does not hold a picture of this size, or exiv2 cannot write the EXIF as a whole.
    StageError
        If a sample is not a number.

    References
    ----------
    :cite:`srgb`
    """
    samples = _rounded(_laid_out(image, params), params.bits)  # (h, w, 3) uint8 or uint16
    height, width = samples.shape[:2]
    suffix, content = _ENCODERS[params.format](samples, params)
    tags = _exif(image.shot.exif, width, height, params) if params.metadata == "keep" else {}
    content, left_out = _with_metadata(content, tags, profile(params.space) if params.format == "jpeg" else b"")
    return EncodedPicture(content, suffix, left_out)


def _laid_out(image: DisplayImage, params: ExportParams) -> Samples:
    """Return the visible part in the size, sharpness and space asked for; as it is if it has them."""
    visible = image.visible()
    if np.isnan(np.min(visible)):
        raise StageError("the picture holds samples that are not numbers (NaN); export takes values in [0, 1]")
    if params.longest is None or max(visible.shape[:2]) <= params.longest:
        laid_out = converted(visible, "srgb", params.space)
    else:
        laid_out = from_light(shrunk_to(to_light(visible, "srgb"), params.longest), "srgb", params.space)
    return sharpened(laid_out, params.sharpen) if params.sharpen else laid_out


def _rounded(samples: Samples, bits: int) -> NDArray[Any]:
    most, dtype = np.float32(2**bits - 1), np.uint8 if bits == 8 else np.uint16
    return in_rows(lambda part: np.rint(np.clip(part, 0, 1) * most), samples, dtype=dtype)


def _jpeg(samples: NDArray[Any], params: ExportParams) -> tuple[str, bytes]:
    import cv2

    if max(samples.shape) > JPEG_LONGEST:
        raise OutputError(
            f"a picture of {samples.shape[1]} x {samples.shape[0]} pixels is too large for JPEG, whose sides end at "
            f"{JPEG_LONGEST}; set export.format to png or tiff, or export.longest"
        )
    sampling = {
        "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
        "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    }
    chosen = [cv2.IMWRITE_JPEG_QUALITY, params.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    chosen += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling[params.chroma_subsampling]]
    return ".jpg", _opencv(".jpg", samples, chosen)


def _png(samples: NDArray[Any], params: ExportParams) -> tuple[str, bytes]:
    content = _opencv(".png", samples, [])
    # exiv2 gives the chunk no name, which readers complain of. It belongs straight after the header, 33 bytes long.
    chunk = b"iCCP" + _PNG_TITLES[params.space] + b"\0\0" + zlib.compress(profile(params.space), 9)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return ".png", content[:33] + chunk + content[33:]


def _tiff(samples: NDArray[Any], params: ExportParams) -> tuple[str, bytes]:
    import tifffile

    if samples.nbytes > TIFF_LARGEST:
        raise OutputError(
            f"a picture of {samples.shape[1]} x {samples.shape[0]} pixels takes {samples.nbytes / 2**30:.1f} GiB; "
            "TIFF ends at 4; set export.format to png"
        )
    file = BytesIO()
    layout = {"photometric": "rgb", "compression": "zlib", "predictor": True, "byteorder": "<"}
    tifffile.imwrite(file, samples, **layout, metadata=None, software=False, iccprofile=profile(params.space))
    return ".tif", file.getvalue()


_ENCODERS = {"jpeg": _jpeg, "png": _png, "tiff": _tiff}


def _opencv(suffix: str, samples: NDArray[Any], chosen: list[int]) -> bytes:
    import cv2

    done, encoded = cv2.imencode(suffix, cv2.cvtColor(samples, cv2.COLOR_RGB2BGR), chosen)
    if not done:
        raise OutputError(
            f"OpenCV cannot encode {samples.shape[1]} x {samples.shape[0]} pixels as {suffix}; "
            "set export.format to tiff"
        )
    return bytes(encoded)


def _exif(exif: dict[str, str], width: int, height: int, params: ExportParams) -> dict[str, str]:
    """Return the raw's EXIF, exiv2 key -> exiv2 text, with what is true of the picture and not of the raw."""
    tags = dict(sorted(exif.items()))
    if any(key.startswith("Exif.GPSInfo.") for key in tags):
        tags.setdefault("Exif.GPSInfo.GPSVersionID", "2 3 0 0")
    tags |= {
        "Exif.Image.Orientation": "1",
        "Exif.Image.Software": "nightisp",  # no version: it is provenance, and the same key must give the same bytes
        "Exif.Photo.ExifVersion": "48 50 51 50",
        "Exif.Photo.FlashpixVersion": "48 49 48 48",
        "Exif.Photo.ColorSpace": _EXIF_SRGB if params.space == "srgb" else _EXIF_UNCALIBRATED,
        "Exif.Photo.PixelXDimension": str(width),
        "Exif.Photo.PixelYDimension": str(height),
    }
    if params.format == "jpeg":  # EXIF asks for these in a JPEG; in a TIFF they are the layout's
        tags |= {"Exif.Image.XResolution": "72/1", "Exif.Image.YResolution": "72/1", "Exif.Image.ResolutionUnit": "2"}
        tags |= {"Exif.Image.YCbCrPositioning": "1", "Exif.Photo.ComponentsConfiguration": "1 2 3 0"}
    return tags


def _with_metadata(content: bytes, tags: dict[str, str], icc: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the file with EXIF `tags` and the color profile, if any, and the tags that exiv2 cannot write."""
    if not tags and not icc:
        return content, ()
    import exiv2

    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)  # what it would complain of stands in left_out
    picture = exiv2.ImageFactory.open(content)
    picture.readMetadata()
    exif = picture.exifData()
    for key, text in tags.items():
        if _is_writable(key, text):
            exif[key] = text
    if icc:
        picture.setIccProfile(exiv2.DataBuf(icc))
    try:
        picture.writeMetadata()
        picture.readMetadata()
    except exiv2.Exiv2Error as error:
        raise OutputError(
            f"exiv2 cannot write the raw's EXIF into the picture ({error}); set export.metadata to strip"
        ) from error
    written = {datum.key() for datum in picture.exifData()}  # exiv2 drops tags where EXIF outgrows 64 KiB
    file = picture.io()
    try:
        return bytes(file.mmap()), tuple(key for key in tags if key not in written)
    finally:
        file.munmap()


def _is_writable(key: str, text: str) -> bool:
    import exiv2

    try:
        exiv2.ExifData()[key] = text  # tried apart, as a failure leaves an empty tag behind
    except (exiv2.Exiv2Error, ValueError):
        return False
    return True


EXPORT = Stage(
    name="export",
    run=export,
    takes=DisplayImage,
    gives=EncodedPicture,
    params=ExportParams,
    cite=("srgb",),
    imports=("cv2", "exiv2"),
)
