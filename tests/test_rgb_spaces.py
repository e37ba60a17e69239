"""Finished pictures in other color spaces and sizes, against published matrices, Little CMS and sums by hand."""

from __future__ import annotations

import importlib.util
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import exiv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from nightisp.errors import StageError
from nightisp.export import JPEG_LONGEST, EncodedPicture, ExportParams, export
from nightisp.icc import built, profile, space_of, srgb_profile
from nightisp.image import DisplayImage, Shot, Window
from nightisp.picture_files import srgb_pixels
from nightisp.preview import preview
from nightisp.rgb_spaces import SPACES, converted
from tests.frames import write_frame
from tests.terminal import Terminal, render

Exact = NDArray[np.float64]

# Linear RGB to XYZ under D65, as IEC 61966-2-1, Apple's Display P3 and Adobe's specification print or imply them.
TO_XYZ = {
    "srgb": [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
    "display_p3": [[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0.0, 0.04511, 1.04394]],
    "adobe_rgb": [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]],
}
PRINTED = 4e-4
"""Of light: matrices of four digits, whose rows each are off by up to half a digit a column."""
WIDE = ("display_p3", "adobe_rgb")
FORMATS = ("jpeg", "png", "tiff")


def light_of(values: Exact, space: str) -> Exact:
    if space == "adobe_rgb":
        return np.asarray(values ** (563 / 256))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def value_of(light: Exact) -> Exact:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def colors(height: int = 40, width: int = 60) -> DisplayImage:
    """Return random colors, the corners of the cube and dark ones among them."""
    rng = np.random.default_rng(7)
    samples = rng.random((height, width, 3), np.float32)
    samples[: height // 2] **= 4
    samples[0, :8] = [[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    return DisplayImage(samples, shot=Shot(exif={"Exif.Image.Model": "EOS 7D"}))


def blocks(height: int = 4, width: int = 6) -> DisplayImage:
    """Return flat blocks of 16 pixels a side, which a JPEG keeps."""
    samples = np.random.default_rng(1).random((height, width, 3), np.float32)
    return DisplayImage(np.repeat(np.repeat(samples, 16, 0), 16, 1))


def decoded(encoded: EncodedPicture) -> NDArray[Any]:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    read: Any = cv2.imdecode(np.frombuffer(encoded.content, np.uint8), flags)
    return np.asarray(read[..., ::-1])


def params(**given: Any) -> ExportParams:
    return ExportParams.model_validate(given)


# --- space ---


@pytest.mark.parametrize("space", WIDE)
def test_the_light_is_the_same_in_every_space(space: str) -> None:
    picture = colors()
    read = decoded(export(picture, params(format="tiff", space=space))) / 65535
    found = light_of(read, space) @ np.array(TO_XYZ[space]).T
    expected = light_of(picture.samples.astype(np.float64), "srgb") @ np.array(TO_XYZ["srgb"]).T
    assert np.abs(found - expected).max() < PRINTED
    assert np.abs(read - picture.samples).max() > 0.05  # the numbers are others


@pytest.mark.parametrize(
    ("space", "srgb", "expected"),
    [
        ("display_p3", (1, 0, 0), (0.9175, 0.2003, 0.1386)),  # as CSS Color 4 has it
        ("display_p3", (0, 1, 0), (0.4584, 0.9853, 0.2983)),
        ("adobe_rgb", (1, 0, 0), (219 / 255, 0, 0)),
        ("adobe_rgb", (0, 1, 0), (144 / 255, 1, 60 / 255)),
    ],
)
def test_known_colors(space: Any, srgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = converted(np.array([[srgb]], np.float32), "srgb", space)[0, 0]
    assert np.abs(found - expected).max() < 0.5 / 255  # Adobe RGB's are known in 8 bits


@pytest.mark.parametrize("space", WIDE)
def test_gray_stays_gray_and_white_is_white(space: str) -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    ramp = DisplayImage(np.repeat(levels.reshape(16, 16, 1), 3, axis=2))
    read = decoded(export(ramp, params(format="png", bit_depth=16, space=space))).astype(int)
    assert np.ptp(read, axis=2).max() <= 1
    assert (read[0, 0] == 0).all()
    assert (read[-1, -1] == 65535).all()
    if space == "display_p3":  # its curve and white are sRGB's
        assert np.abs(read[..., 1].ravel() - levels * 65535).max() <= 1


@pytest.mark.parametrize("space", WIDE)
def test_there_and_back(space: Any) -> None:
    samples = colors().samples
    back = converted(converted(samples, "srgb", space), space, "srgb")
    # Where a power's slope is steep, near black, float32's rounding of the matrix is enlarged.
    assert np.abs(back - samples).max() < 2e-5


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("space", WIDE)
def test_little_cms_shows_the_same_colors(space: str, format_: str) -> None:
    if importlib.util.find_spec("PIL") is None:
        pytest.skip("Pillow is not installed; it is a second opinion only")
    from PIL import Image, ImageCms

    picture = blocks()
    given = {"bit_depth": 8, "quality": 100, "format": format_}
    plain = decoded(export(picture, params(**given))).astype(int)
    with Image.open(BytesIO(export(picture, params(space=space, **given)).content)) as opened:
        ours = ImageCms.ImageCmsProfile(BytesIO(opened.info["icc_profile"]))
        assert ImageCms.getProfileDescription(ours).strip() == SPACES[space].title  # type: ignore[index]
        flags = ImageCms.Flags.NOCACHE | ImageCms.Flags.NOOPTIMIZE
        to_srgb = ImageCms.buildTransform(ours, ImageCms.createProfile("sRGB"), "RGB", "RGB", flags=flags)
        shown = np.asarray(ImageCms.applyTransform(opened, to_srgb)).astype(int)
    # Half a level of rounding in the wide space, enlarged up to fourfold in dark sRGB, and what a JPEG rounds, twice.
    jpeg = format_ == "jpeg"
    assert np.abs(shown - plain).max() <= (6 if jpeg else 4)
    assert np.abs(shown - plain).mean() < (1 if jpeg else 0.6)
    wrong = decoded(export(picture, params(space=space, **given))).astype(int)
    assert np.abs(wrong - plain).mean() > 5  # what it would show without the profile


def test_nan_is_refused_in_any_space_and_size() -> None:
    picture = colors()
    picture.samples[3, 4, 1] = np.nan
    for given in ({"space": "display_p3"}, {"longest": 9}):
        with pytest.raises(StageError, match="NaN"):
            export(picture, params(**given))


@pytest.mark.parametrize("format_", FORMATS)
def test_exif_calls_only_srgb_srgb(format_: str) -> None:
    for space, code in (("srgb", "1"), ("display_p3", "65535"), ("adobe_rgb", "65535")):
        file = exiv2.ImageFactory.open(export(colors(), params(format=format_, space=space)).content)
        file.readMetadata()
        assert file.exifData()["Exif.Photo.ColorSpace"].toString() == code
        assert bytes(file.iccProfile().data()) == profile(space)  # type: ignore[arg-type]


# --- profiles ---


def tags(content: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", content, 128)
    entries = [struct.unpack_from(">4sII", content, 132 + 12 * i) for i in range(count)]
    assert all(offset % 4 == 0 and offset + size <= len(content) for _, offset, size in entries)
    return {name.decode(): content[offset : offset + size] for name, offset, size in entries}


def fixed(content: bytes) -> Exact:
    return np.array(struct.unpack(f">{len(content) // 4}i", content)) / 65536


def test_what_is_built_of_srgb_is_the_profile_that_is_shipped() -> None:
    found, shipped = tags(built(SPACES["srgb"])), tags(srgb_profile())
    for name in shipped:
        if name[1:] == "TRC":
            ours, theirs = (np.frombuffer(t[name][12:], ">u2").astype(int) for t in (found, shipped))
            assert np.abs(ours - theirs).max() <= 1
        else:
            assert found[name] == shipped[name], name


@pytest.mark.parametrize(
    ("space", "colorants"),
    [  # adapted to D50 by Bradford: Apple's Display P3.icc, and Lindbloom's table
        ("display_p3", [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]),
        ("adobe_rgb", [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]),
    ],
)
def test_profiles_hold_the_published_colorants(space: Any, colorants: list[list[float]]) -> None:
    content = profile(space)
    found = tags(content)
    assert struct.unpack_from(">I", content)[0] == len(content)
    assert len(content) % 4 == 0
    assert content[8:24] == b"\x02\x40\0\0mntrRGB XYZ "
    assert content[36:40] == b"acsp"
    matrix = np.stack([fixed(found[f"{c}XYZ"][8:]) for c in "rgb"], axis=1)
    assert np.abs(matrix - colorants).max() < 3e-4  # white points differ in the fourth digit
    assert np.array_equal(matrix.sum(axis=1), fixed(content[68:80]))
    assert found["rTRC"] == found["gTRC"] == found["bTRC"]


def test_the_curve_of_adobe_rgb_is_563_256ths() -> None:
    assert tags(profile("adobe_rgb"))["gTRC"] == b"curv\0\0\0\0\0\0\0\x01\x02\x33"


@pytest.mark.parametrize("metadata", ["keep", "strip"])
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("space", SPACES)
def test_a_file_tells_its_space(space: str, format_: str, metadata: str) -> None:
    assert space_of(export(colors(), params(format=format_, space=space, metadata=metadata)).content) == space


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_file_without_profile_counts_as_srgb(suffix: str) -> None:
    _, content = cv2.imencode(suffix, np.zeros((8, 8, 3), np.uint8))
    assert space_of(content.tobytes()) == "srgb"


# --- what shows a finished picture shows its colors ---


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("space", SPACES)
def test_previews_and_measurements_are_srgb(space: str, format_: str) -> None:
    picture = blocks()
    encoded = export(picture, params(format=format_, space=space, quality=100))
    assert np.abs(preview(encoded, 6).astype(int) - preview(picture, 6)).max() <= 3  # as in Little CMS's test, averaged
    tolerance = {"jpeg": 6, "png": 4, "tiff": 0.1}[format_] / 255
    assert np.abs(srgb_pixels(encoded) - picture.samples).max() < tolerance


# --- size ---


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((40, 60), 30, (20, 30)),
        ((60, 40), 7, (7, 5)),
        ((3, 50), 5, (1, 5)),
        ((40, 60), 59, (39, 59)),
        ((9, 9), 1, (1, 1)),
    ],
)
def test_the_longer_side_is_so_long(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    encoded = export(colors(*size), params(format="png", longest=longest))
    assert decoded(encoded).shape == (*expected, 3)
    file = exiv2.ImageFactory.open(encoded.content)
    file.readMetadata()
    written = [file.exifData()[f"Exif.Photo.Pixel{axis}Dimension"].toString() for axis in "YX"]
    assert written == [str(side) for side in expected]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("longest", [60, 61, 10**6])
def test_nothing_is_enlarged_nor_touched(format_: str, longest: int) -> None:
    given = {"format": format_}
    assert export(colors(), params(longest=longest, **given)) == export(colors(), params(**given))


def test_light_is_averaged_not_its_code() -> None:
    """Black and white in equal parts shine half: 0.735 in sRGB, not 0.5."""
    samples = np.zeros((8, 8, 3), np.float32)
    samples[::2, ::2] = samples[1::2, 1::2] = 1
    assert (decoded(export(DisplayImage(samples), params(format="png", longest=4))) == 188).all()
    samples[samples == 1] = 1.7  # clipped first, or a burnt-out lamp would outshine white
    assert (decoded(export(DisplayImage(samples), params(format="png", longest=4))) == 188).all()


@pytest.mark.parametrize("space", SPACES)
def test_pixels_are_means_of_what_they_cover(space: str) -> None:
    picture = colors(40, 60)
    window = DisplayImage(np.pad(picture.samples, ((1, 2), (3, 1), (0, 0))), window=Window(1, 3, 40, 60))
    read = decoded(export(window, params(format="tiff", longest=6, space=space))) / 65535
    light = light_of(picture.samples.astype(np.float64), "srgb").reshape(4, 10, 6, 10, 3).mean(axis=(1, 3))
    found = light_of(read, space) @ np.array(TO_XYZ[space]).T
    assert np.abs(found - light @ np.array(TO_XYZ["srgb"]).T).max() < PRINTED
    if space == "srgb":
        assert np.abs(read - value_of(light)).max() < 1 / 65535


def test_a_strip_that_is_too_long_for_a_jpeg_fits_when_shrunk() -> None:
    strip = DisplayImage(np.full((2, JPEG_LONGEST + 100, 3), 0.5, np.float32))
    read = decoded(export(strip, params(longest=1000)))
    assert read.shape == (1, 1000, 3)
    assert np.abs(read.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("wrong", [{"longest": 0}, {"longest": -5}, {"longest": 10.5}, {"space": "prophoto"}], ids=str)
def test_params_are_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        params(**wrong)


def test_inputs_are_untouched_and_bytes_are_the_same_again() -> None:
    picture = colors()
    before = picture.samples.copy()
    given = params(longest=17, space="adobe_rgb", format="png")
    assert export(picture, given) == export(colors(), given)
    assert np.array_equal(picture.samples, before)


def test_another_size_and_space_rerun_export_alone(nightisp: Terminal, tmp_path: Path) -> None:
    write_frame(tmp_path / "data" / "one.dng", 1)
    plain = ("--look", "documentary", "--set", "export.format=png")
    (first,) = render(nightisp, *plain)["frames"]
    before = cv2.imread(first["output"])
    (again,) = render(nightisp, *plain, "--set", "export.space=adobe_rgb", "--set", "export.longest=32")["frames"]
    assert [stage for stage, did in again["stages"].items() if did == "computed"] == ["export"]
    content = Path(again["output"]).read_bytes()
    assert space_of(content) == "adobe_rgb"
    shown = preview(EncodedPicture(content, ".png")).astype(int)
    assert shown.shape == (24, 32, 3)
    light = light_of(before[..., ::-1] / 255, "srgb").reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(shown - value_of(light) * 255).max() < 5  # as in Little CMS's test, and half a level of ours
    (back,) = render(nightisp, *plain)["frames"]
    assert set(back["stages"].values()) == {"cached"}
    assert np.array_equal(cv2.imread(back["output"]), before)
