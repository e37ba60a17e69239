"""What a raw file's tags say: EXIF to carry over, DNG color tags, where the samples lie.

exiv2 reads the tags of nearly every raw format under one set of names. What it takes for no photograph comes back
empty, as that is for LibRaw to judge; what it fails to read is an error.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from nightisp.errors import RawFileError
from nightisp.image import ColorMatrix, Shot, Triple

_IMAGE_TAGS = ("Make", "Model", "ImageDescription", "DateTime", "Artist", "Copyright")
_EXPOSURE = """
ExposureTime FNumber ExposureProgram SensitivityType ISOSpeedRatings StandardOutputSensitivity RecommendedExposureIndex
ISOSpeed ExposureBiasValue MaxApertureValue SubjectDistance MeteringMode LightSource Flash FocalLength
FocalLengthIn35mmFilm ExposureMode WhiteBalance DigitalZoomRatio SceneCaptureType BrightnessValue DateTimeOriginal
DateTimeDigitized OffsetTime OffsetTimeOriginal OffsetTimeDigitized SubSecTime SubSecTimeOriginal SubSecTimeDigitized
CameraOwnerName BodySerialNumber LensSpecification LensMake LensModel LensSerialNumber
"""
_PHOTO_TAGS = tuple(_EXPOSURE.split())
# A value of nothing in one of these means "not known": it must not be carried on as a fact.
_POSITIVE = {f"Exif.Photo.{name}" for name in ("ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength")}
_WANTED = re.compile(r"Exif\.(Image\d?|SubImage\d+|Photo|GPSInfo)\.\w+")
_TOO_LONG = {"XMLPacket", "OpcodeList1", "OpcodeList2", "OpcodeList3", "UserComment", "MakerNote", "DNGPrivateData"}
_COLOR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_NO_OFFSET = 2**32 - 1  # what Panasonic writes where the samples' place stands in a tag of its own
_UNKNOWN_LIGHTS = (0, 255)
_D65 = 21
# exiv2's words for a file of a format that it does not know.
_NO_PHOTOGRAPH = {
    "kerFileContainsUnknownImageType",
    "kerMemoryContainsUnknownImageType",
    "kerUnsupportedImageType",
    "kerNotAnImage",
    "kerNotAJpeg",
    "kerNotACrwImage",
}

# exiv2's XMP parser is shared by the whole process and not safe for threads.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags of one file: exiv2 key -> exiv2 text."""

    values: dict[str, str]

    def text(self, *keys: str) -> str:
        """Return the first of `keys` that holds anything but blanks, or ''."""
        return next((text for key in keys if (text := self.values.get(key, "").strip(" \0"))), "")

    def numbers(self, *keys: str) -> list[float]:
        """Return the numbers of the first of `keys` that is there; nan for what is no number, such as 0/0."""
        text = next((self.values[key] for key in keys if key in self.values), "")
        return [_number(word) for word in text.split()]

    @property
    def is_dng(self) -> bool:
        """Whether the file calls itself a DNG."""
        return "Exif.Image.DNGVersion" in self.values

    def raw_folders(self) -> Iterator[str]:
        """Yield the TIFF directories that hold samples of the sensor, e.g. `Exif.SubImage1`."""
        for key, text in self.values.items():
            folder, _, name = key.rpartition(".")
            if name == "PhotometricInterpretation" and text in (str(_COLOR_FILTER_ARRAY), str(_LINEAR_RAW)):
                yield folder

    def compression(self) -> int | None:
        """Return the TIFF code of how the samples are compressed, or None."""
        codes = [self.values.get(f"{folder}.Compression", "") for folder in self.raw_folders()]
        return next((int(code) for code in codes if code.isdigit()), None)

    def end_of_samples(self) -> int:
        """Return the offset behind the last byte of the sensor's samples, 0 if the tags do not tell."""
        return max((end for folder in self.raw_folders() for end in self._ends(folder)), default=0)

    def _ends(self, folder: str) -> Iterator[int]:
        for kind in ("Strip", "Tile"):
            offsets, counts = self.numbers(f"{folder}.{kind}Offsets"), self.numbers(f"{folder}.{kind}ByteCounts")
            if len(offsets) != len(counts) or not offsets or max(offsets) >= _NO_OFFSET:
                continue
            if kind == "Strip":
                counts[-1] = min(counts[-1], self._size_of_last_strip(folder, len(offsets)))
            yield from (int(offset + count) for offset, count in zip(offsets, counts, strict=True))

    def _size_of_last_strip(self, folder: str, strips: int) -> float:
        # A whole strip's size may be stated for the last one too, which holds fewer rows: no reason to refuse the file.
        names = ("ImageWidth", "ImageLength", "BitsPerSample", "RowsPerStrip")
        numbers = [self.numbers(f"{folder}.{name}") for name in names]
        if self.text(f"{folder}.Compression") != "1" or any(len(values) != 1 for values in numbers):
            return math.inf
        width, height, bits, rows = (values[0] for values in numbers)
        return max(height - rows * (strips - 1), 0) * math.ceil(width * bits / 8)


def read(path: Path) -> Tags:
    """Read the tags of a file; none if exiv2 does not know the format.

    Raises
    ------
    RawFileError
        If it knows the format and cannot read the tags, or cannot read the file at all.
    """
    import exiv2

    with _ONE_AT_A_TIME:
        exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)
        try:
            photograph = exiv2.ImageFactory.open(str(path))
            photograph.readMetadata()
            is_crw = photograph.mimeType() == "image/x-canon-crw"
            values = {
                datum.key(): _clean(datum.toString())
                for datum in photograph.exifData()
                if _WANTED.fullmatch(datum.key()) and datum.tagName() not in _TOO_LONG
            }
        except exiv2.Exiv2Error as error:
            if exiv2.ErrorCode(error.code).name in _NO_PHOTOGRAPH:
                return Tags({})
            # To exiv2 a failing disk and a file that ends too early look the same, and tags that are left out would
            # give other colors under the same key.
            explained = RawFileError(
                f"{path}: its tags cannot be read ({error.args[-1]}); either the disk failed, or the file is truncated "
                "or damaged. Try again, then copy the file again"
            )
            explained.transient = True
            raise explained from error
    if is_crw:
        # exiv2 makes these up from a code that saturates: 1 s for the 5 s that LibRaw finds.
        values.pop("Exif.Photo.ExposureTime", None)
        values.pop("Exif.Photo.FNumber", None)
    return Tags(values)


def _clean(text: str) -> str:
    # exiv2 gives bytes that are no UTF-8 as lone surrogates, which no file of ours could hold.
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text


def _number(word: str) -> float:
    numerator, _, denominator = word.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        return math.nan


def camera(tags: Tags) -> str:
    """Return make and model, the make not said twice: `Canon EOS D30`, `GoPro HERO8 Black`."""
    make = tags.text("Exif.Image.Make")
    model = tags.text("Exif.Image.Model", "Exif.Image.UniqueCameraModel")
    said = bool(model) and model.split()[0].casefold() in make.casefold().split()
    return model if said else f"{make} {model}".strip()


def captured(tags: Tags) -> str | None:
    """Return the local time of capture, ISO 8601 without zone, or None."""
    for key in ("Photo.DateTimeOriginal", "Image.DateTimeOriginal", "Photo.DateTimeDigitized", "Image.DateTime"):
        found = re.fullmatch(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d:\d\d:\d\d).*", tags.text(f"Exif.{key}"))
        if found and found[1] != "0000":
            return "{}-{}-{}T{}".format(*found.groups())
    return None


def color_matrices(tags: Tags) -> tuple[ColorMatrix, ...]:
    """Return a DNG's ColorMatrix1 and 2 with AnalogBalance and CameraCalibration folded in; () if it has none.

    A light that is not stated counts as D65. The second matrix is left out if either light is not stated, as nothing
    could be interpolated between them.

    References
    ----------
    :cite:`dng171`, "Mapping Camera Color Space to CIE XYZ Space".
    """
    found = {}
    balance = tags.numbers("Exif.Image.AnalogBalance")
    same_profile = tags.text("Exif.Image.CameraCalibrationSignature") == tags.text(
        "Exif.Image.ProfileCalibrationSignature"
    )
    for i in (1, 2):
        matrix = np.array(tags.numbers(f"Exif.Image.ColorMatrix{i}"))
        if matrix.shape != (9,) or not np.isfinite(matrix).all() or not matrix.any():
            continue
        matrix = matrix.reshape(3, 3)
        calibration = np.array(tags.numbers(f"Exif.Image.CameraCalibration{i}"))
        if same_profile and calibration.shape == (9,) and np.isfinite(calibration).all() and calibration.any():
            matrix = calibration.reshape(3, 3) @ matrix
        if len(balance) == 3 and min(balance) > 0:
            matrix = np.diag(balance) @ matrix
        light = next(iter(tags.numbers(f"Exif.Image.CalibrationIlluminant{i}")), 0)
        found[i] = (matrix, int(light))
    if len(found) == 2 and any(light in _UNKNOWN_LIGHTS for _, light in found.values()):
        del found[2]
    return tuple(as_color_matrix(m, _D65 if light in _UNKNOWN_LIGHTS else light) for m, light in found.values())


def as_color_matrix(xyz_to_camera: ArrayLike, illuminant: int) -> ColorMatrix:
    """Return nine numbers, row by row or 3 x 3, as a `ColorMatrix`."""
    rows = np.asarray(xyz_to_camera, np.float64).reshape(3, 3).tolist()
    return ColorMatrix.model_validate({"xyz_to_camera": rows, "illuminant": illuminant})


def as_neutral(camera_rgb: list[float]) -> Triple | None:
    """Return the camera RGB of a neutral with green = 1; None if it is unusable: not positive, or all equal.

    All ones is what files hold that know no white balance; no sensor sees white so.
    """
    if len(camera_rgb) != 3 or not all(math.isfinite(value) and value > 0 for value in camera_rgb):
        return None
    red, green, blue = camera_rgb
    return None if red == green == blue else (red / green, 1.0, blue / green)


def noise_profile(tags: Tags) -> tuple[tuple[float, float], ...]:
    """Return a DNG's NoiseProfile: one pair (shot, read) for all planes or one a plane; () if there is none."""
    folders = [*tags.raw_folders(), "Exif.Image"]
    return as_noise_profile(tags.numbers(*(f"{folder}.NoiseProfile" for folder in folders)))


def as_noise_profile(numbers: list[float]) -> tuple[tuple[float, float], ...]:
    """Return numbers in twos, or () if they do not make one pair or three, all finite and none negative."""
    if len(numbers) not in (2, 6) or not all(math.isfinite(value) and value >= 0 for value in numbers):
        return ()
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def to_carry_over(tags: Tags, shot: Shot) -> dict[str, str]:
    """Return the EXIF that a picture takes over from its raw; what the tags lack is filled from `shot`.

    No maker note, comment, thumbnail or orientation, nothing about how samples lie in the raw, and no value that only
    says that something is not known.
    """
    kept = {}
    for name in _IMAGE_TAGS:
        kept[f"Exif.Image.{name}"] = tags.text(f"Exif.Image.{name}")
    for name in _PHOTO_TAGS:
        # TIFF/EP files, Kodak's among them, keep the tags of the exposure in the first directory.
        kept[f"Exif.Photo.{name}"] = tags.text(f"Exif.Photo.{name}", f"Exif.Image.{name}")
    kept |= {key: tags.text(key) for key in tags.values if key.startswith("Exif.GPSInfo.")}
    for key in _POSITIVE:
        if not _number(kept[key].split()[0] if kept[key] else "") > 0:
            kept[key] = ""
    known = {
        "Exif.Photo.ExposureTime": _ratio(shot.exposure_s),
        "Exif.Photo.FNumber": _ratio(shot.f_number),
        "Exif.Photo.FocalLength": _ratio(shot.focal_length_mm),
        "Exif.Photo.ISOSpeedRatings": str(min(round(shot.iso), 65535)) if shot.iso else "",
        "Exif.Photo.LensModel": shot.lens,
        "Exif.Photo.DateTimeOriginal": (shot.captured or "").replace("-", ":").replace("T", " "),
        "Exif.Image.Model": shot.camera,
    }
    return {key: text for key in kept if (text := kept[key] or known.get(key, ""))}


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    ratio = Fraction(value).limit_denominator(10_000)
    return f"{ratio.numerator}/{ratio.denominator}"
