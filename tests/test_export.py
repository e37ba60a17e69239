"""A finished picture as a file: its colors, its profile, its EXIF, its bytes."""

import hashlib
import importlib.util
import struct
from io import BytesIO

import cv2
import exiv2
import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from nightisp.errors import ImageTypeError, NightispError, OutputError, StageError
from nightisp.export import EXPORT, JPEG_LONGEST, EncodedPicture, ExportParams, export
from nightisp.icc import PROFILE_SHA256, srgb_profile
from nightisp.image import DisplayImage, LinearImage, Shot, Window

EXIF = {
    "Exif.Image.Make": "Cánon",
    "Exif.Image.Model": "EOS 7D",
    "Exif.Image.Orientation": "6",
    "Exif.Photo.ExposureTime": "1/8",
    "Exif.Photo.FNumber": "28/10",
    "Exif.Photo.ISOSpeedRatings": "3200",
    "Exif.Photo.DateTimeOriginal": "2021:03:26 21:16:32",
    "Exif.Photo.LensModel": "EF50mm f/1.8",
    "Exif.GPSInfo.GPSLatitudeRef": "N",
    "Exif.GPSInfo.GPSLatitude": "56/1 17/1 543645600/10000000",
}
FORMATS = [
    pytest.param(ExportParams(format="jpeg"), id="jpeg"),
    pytest.param(ExportParams(format="png"), id="png8"),
    pytest.param(ExportParams(format="png", bit_depth=16), id="png16"),
    pytest.param(ExportParams(format="tiff", bit_depth=8), id="tiff8"),
    pytest.param(ExportParams(format="tiff"), id="tiff16"),
]
LOSSLESS = FORMATS[1:]


def picture(height=13, width=18, *, shot=None, **more):
    samples = np.random.default_rng(5).random((height, width, 3), np.float32)
    return DisplayImage(samples, shot=shot or Shot(orientation=6, exif=EXIF), **more)


def flat(red, green, blue, height=16, width=16):
    return DisplayImage(np.full((height, width, 3), (red, green, blue), np.float32))


def decoded(encoded):
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(encoded.content, np.uint8), flags)[..., ::-1]


def reopened(encoded):
    file = exiv2.ImageFactory.open(encoded.content)
    file.readMetadata()
    return file, {datum.key(): datum.toString() for datum in file.exifData()}


# Pixels


@pytest.mark.parametrize("params", LOSSLESS)
def test_round_trip_within_half_a_level(params):
    image = picture()
    read = decoded(export(image, params))
    levels = 2**params.bits - 1
    assert read.dtype == (np.uint8 if params.bits == 8 else np.uint16)
    # Half a level, and what float32 adds to it at 65535.
    assert np.abs(read.astype(np.float64) - image.samples.astype(np.float64) * levels).max() <= 0.5 + 0.01


@pytest.mark.parametrize("params", LOSSLESS)
def test_every_level_comes_back(params):
    levels = 2**params.bits
    ramp = np.arange(levels)
    samples = np.repeat((ramp / (levels - 1)).astype(np.float32).reshape(16, -1, 1), 3, axis=2)
    assert np.array_equal(decoded(export(DisplayImage(samples), params))[..., 1].ravel(), ramp)


def test_channels_are_in_order_and_rounded_to_nearest():
    image = flat(1.0, 0.5, 0.2)
    # 127.5 goes to the even level
    assert decoded(export(image, ExportParams(format="png")))[0, 0].tolist() == [255, 128, 51]
    tiff = export(image, ExportParams(format="tiff")).content
    assert tifffile.imread(BytesIO(tiff))[0, 0].tolist() == [65535, 32768, 13107]
    between = decoded(export(flat(100.4 / 255, 100.6 / 255, 0), ExportParams(format="png")))
    assert between[3, 3].tolist() == [100, 101, 0]


def test_out_of_range_is_clipped():
    read = decoded(export(flat(-0.3, 1.7, 0.5), ExportParams(format="png", bit_depth=16)))
    assert read[0, 0].tolist() == [0, 65535, 32768]


def test_jpeg_keeps_golden_colors():
    for color in ((255, 0, 0), (0, 128, 0), (255, 180, 90), (7, 7, 7), (255, 255, 255)):
        read = decoded(export(flat(*(np.array(color) / 255)), ExportParams()))
        assert np.abs(read.astype(int) - color).max() <= 2, color


def test_quality_and_subsampling_matter():
    image = picture(64, 64)
    sizes = [len(export(image, ExportParams(quality=q)).content) for q in (30, 95, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2
    factors = {}
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        content = export(image, ExportParams(chroma_subsampling=subsampling)).content
        frame = content.index(b"\xff\xc0\x00\x11")
        factors[subsampling] = content[frame + 11]  # sampling factors of Y, a nibble each way
    assert factors == {"4:4:4": 0x11, "4:2:2": 0x21, "4:2:0": 0x22}


@pytest.mark.parametrize("params", FORMATS)
def test_only_the_window_is_written(params):
    image = picture(13, 18, window=Window(2, 3, 9, 11))
    whole = DisplayImage(image.samples[2:11, 3:14].copy(), shot=image.shot)
    assert decoded(export(image, params)).shape == (9, 11, 3)
    assert export(image, params).content == export(whole, params).content


def test_quarter_size_picture_is_written_whole():
    samples = np.random.default_rng(0).random((3, 5, 3), np.float32)
    image = DisplayImage(samples, reduction=4, window=Window(0, 0, 10, 17))
    read = decoded(export(image, ExportParams(format="png")))
    assert np.array_equal(read, np.rint(samples * 255))


@pytest.mark.parametrize("params", FORMATS)
def test_smallest_picture(params):
    assert decoded(export(flat(0, 1, 0, 1, 1), params)).shape == (1, 1, 3)


@pytest.mark.parametrize("params", FORMATS)
def test_input_is_untouched_and_bytes_are_the_same_again(params):
    image = picture()
    before = image.samples.copy()
    first, second = export(image, params), export(picture(), params)
    assert first == second
    assert np.array_equal(image.samples, before)


# Refusals


def test_nan_is_refused():
    image = flat(0.5, 0.5, 0.5)
    image.samples[3, 4, 1] = np.nan
    with pytest.raises(StageError, match="NaN"):
        export(image, ExportParams())


def test_too_large_for_jpeg():
    image = flat(0, 0, 0, 1, JPEG_LONGEST + 1)
    with pytest.raises(OutputError, match=r"65501 x 1 pixels.*65500.*png or tiff"):
        export(image, ExportParams())
    assert decoded(export(image, ExportParams(format="png"))).shape == (1, JPEG_LONGEST + 1, 3)
    assert decoded(export(flat(0, 0, 0, 1, JPEG_LONGEST), ExportParams())).shape == (1, JPEG_LONGEST, 3)


def test_too_large_for_tiff(monkeypatch):
    monkeypatch.setattr("nightisp.export.TIFF_LARGEST", 100)
    with pytest.raises(OutputError, match=r"TIFF ends at 4; set export.format to png"):
        export(picture(), ExportParams(format="tiff"))


def test_linear_light_is_refused():
    with pytest.raises(ImageTypeError, match="export takes a DisplayImage, not a LinearImage"):
        EXPORT(LinearImage(np.zeros((2, 2, 3), np.float32), space="srgb"), ExportParams())


# Parameters


def test_bits_follow_the_format():
    assert [ExportParams(format=f).bits for f in ("jpeg", "png", "tiff")] == [8, 8, 16]
    assert ExportParams(format="png", bit_depth=16).bits == 16


def test_jpeg_of_16_bits_says_what_to_do():
    with pytest.raises(ValidationError, match="jpeg holds 8 bits per sample, not 16; set bit_depth to auto"):
        ExportParams(bit_depth=16)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 0},
        {"quality": 101},
        {"format": "webp"},
        {"bit_depth": 12},
        {"metadata": "some"},
        {"chroma_subsampling": "4:1:1"},
        {"qualty": 90},
    ],
    ids=str,
)
def test_params_are_bounded(wrong):
    with pytest.raises(ValidationError):
        ExportParams(**wrong)


# Color profile


def profile_tags(profile):
    (count,) = struct.unpack_from(">I", profile, 128)
    for i in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        yield name.decode(), profile[offset : offset + size]


def fixed(content):
    return np.array(struct.unpack(f">{len(content) // 4}i", content)) / 65536


def test_profile_is_srgb():
    """Against IEC 61966-2-1, adapted to D50 by Bradford as Lindbloom lists it."""
    profile = srgb_profile()
    tags = dict(profile_tags(profile))
    assert struct.unpack_from(">I", profile)[0] == len(profile)
    assert profile[12:24] == b"mntrRGB XYZ "
    assert profile[36:40] == b"acsp"
    matrix = np.stack([fixed(tags[f"{c}XYZ"][8:]) for c in "rgb"], axis=1)
    red, green, blue = (0.43607, 0.22250, 0.01393), (0.38506, 0.71688, 0.09710), (0.14308, 0.06062, 0.71417)
    srgb_to_xyz_d50 = np.stack([red, green, blue], axis=1)
    assert np.abs(matrix - srgb_to_xyz_d50).max() < 5e-4
    assert np.array_equal(matrix.sum(axis=1), fixed(profile[68:80]))  # white is exactly the connection space's
    for c in "rgb":
        curve = np.frombuffer(tags[f"{c}TRC"][12:], ">u2") / 65535
        x = np.linspace(0, 1, 4001)
        expected = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        assert np.abs(np.interp(x, np.linspace(0, 1, len(curve)), curve) - expected).max() < 2e-5


def test_profile_digest_stands_in_the_code():
    assert hashlib.sha256(srgb_profile()).hexdigest() == PROFILE_SHA256


def test_little_cms_takes_the_profile_for_srgb():
    if importlib.util.find_spec("PIL") is None:
        pytest.skip("Pillow is not installed; it is a second opinion only")
    from PIL import Image, ImageCms

    ours = ImageCms.ImageCmsProfile(BytesIO(srgb_profile()))
    colors = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    exact = ImageCms.Flags.NOCACHE | ImageCms.Flags.NOOPTIMIZE
    to_builtin = ImageCms.buildTransform(ours, ImageCms.createProfile("sRGB"), "RGB", "RGB", flags=exact)
    assert np.array_equal(ImageCms.applyTransform(colors, to_builtin), colors)
    assert ImageCms.getProfileDescription(ours).strip() == "sRGB IEC61966-2-1"


@pytest.mark.parametrize("metadata", ["keep", "strip"])
@pytest.mark.parametrize("params", FORMATS)
def test_profile_is_embedded(params, metadata):
    encoded = export(picture(), params.model_copy(update={"metadata": metadata}))
    file, _ = reopened(encoded)
    assert bytes(file.iccProfile().data()) == srgb_profile()


@pytest.mark.parametrize("params", FORMATS)
def test_pillow_opens_it(params):
    if importlib.util.find_spec("PIL") is None:
        pytest.skip("Pillow is not installed; it is a second opinion only")
    from PIL import Image

    with Image.open(BytesIO(export(picture(), params).content)) as opened:
        assert opened.size == (18, 13)
        assert opened.info["icc_profile"] == srgb_profile()
        exif = opened.getexif()
        assert exif[0x0112] == 1
        assert exif[0x0110] == "EOS 7D"
        assert exif.get_ifd(0x8769)[0x829A] == pytest.approx(1 / 8)
        assert exif.get_ifd(0x8825)[2][2] == pytest.approx(54.36456)


# EXIF


@pytest.mark.parametrize("params", FORMATS)
def test_exif_is_carried_over(params):
    encoded = export(picture(), params)
    _, exif = reopened(encoded)
    assert encoded.left_out == ()
    corrected = {
        "Exif.Image.Orientation": "1",
        "Exif.Image.Software": "nightisp",
        "Exif.Photo.ColorSpace": "1",
        "Exif.Photo.PixelXDimension": "18",
        "Exif.Photo.PixelYDimension": "13",
    }
    assert exif.items() >= (EXIF | corrected).items()


@pytest.mark.parametrize("params", FORMATS)
def test_orientation_is_1_without_any_exif(params):
    _, exif = reopened(export(picture(shot=Shot(orientation=8)), params))
    assert exif["Exif.Image.Orientation"] == "1"
    assert not [key for key in exif if key.startswith("Exif.GPSInfo.")]


@pytest.mark.parametrize("params", FORMATS)
def test_strip_strips(params):
    encoded = export(picture(), params.model_copy(update={"metadata": "strip"}))
    file, exif = reopened(encoded)
    # What is left of Exif.Image in a TIFF is its layout.
    assert not {"Make", "Model", "Orientation", "Software", "DateTime"} & {key.split(".")[2] for key in exif}
    assert not [key for key in exif if not key.startswith("Exif.Image.")]
    assert exif == {} or encoded.suffix == ".tif"
    assert b"EOS 7D" not in encoded.content
    assert file.xmpData().empty()
    assert file.iptcData().empty()
    assert np.array_equal(decoded(encoded), decoded(export(picture(), params)))


@pytest.mark.parametrize("params", FORMATS)
def test_a_tag_that_cannot_be_written_is_named_and_costs_no_other(params):
    wrong = {"Exif.Photo.Nonsense": "1", "Exif.Photo.Flash": "bright", "Exif.Photo.SubjectDistance": "", "tag": "x"}
    encoded = export(picture(shot=Shot(exif=EXIF | wrong)), params)
    _, exif = reopened(encoded)
    assert set(encoded.left_out) == set(wrong)
    assert exif["Exif.Photo.LensModel"] == EXIF["Exif.Photo.LensModel"]
    assert "Exif.Photo.Flash" not in exif


@pytest.mark.parametrize(("format_", "left_out"), [("jpeg", True), ("png", True), ("tiff", False)])
def test_exif_beyond_64_kib_is_named(format_, left_out):
    exif = EXIF | {"Exif.Photo.UserComment": "charset=Ascii " + "x" * 70_000}
    encoded = export(picture(shot=Shot(exif=exif)), ExportParams(format=format_))
    assert encoded.left_out == ("Exif.Photo.UserComment",) * left_out
    assert reopened(encoded)[1]["Exif.Image.Make"] == "Cánon"


def test_layout_of_a_raw_does_not_damage_a_tiff():
    layout = {"Exif.Image.StripOffsets": "7", "Exif.Image.ImageWidth": "5202", "Exif.Image.Compression": "1"}
    layout |= {"Exif.Image.Predictor": "1", "Exif.Image.InterColorProfile": "1 2 3"}
    image = picture(shot=Shot(exif=EXIF | layout))
    tiff = export(image, ExportParams(format="tiff")).content
    assert np.array_equal(tifffile.imread(BytesIO(tiff)), np.rint(image.samples * 65535))
    assert tifffile.TiffFile(BytesIO(tiff)).pages[0].iccprofile == srgb_profile()


def test_order_of_tags_does_not_matter():
    exif = EXIF | {"Exif.Photo.Nonsense": "1", "Exif.Photo.Flash": "bright"}
    forwards, backwards = picture(shot=Shot(exif=exif)), picture(shot=Shot(exif=dict(reversed(exif.items()))))
    for params in (ExportParams(), ExportParams(format="tiff")):
        assert export(forwards, params) == export(backwards, params)


# The artifact


@pytest.mark.parametrize("params", FORMATS)
def test_store_gives_back_the_same(params):
    encoded = EXPORT(picture(shot=Shot(exif={"gibberish": "x"})), params)
    stored = encoded.stored()
    assert stored.dtype == np.uint8
    assert stored.ndim == 1
    assert EncodedPicture.restore(stored, encoded.state()) == encoded
    assert encoded.rounded() is encoded


def test_suffixes():
    suffixes = [export(picture(), ExportParams(format=f)).suffix for f in ("jpeg", "png", "tiff")]
    assert suffixes == [".jpg", ".png", ".tif"]


def test_errors_are_ours():
    assert issubclass(OutputError, NightispError)
    assert issubclass(OutputError, OSError)
