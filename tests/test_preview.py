"""Small pictures of every state, with colors by hand."""

import numpy as np
import pytest

from nightisp.export import ExportParams, export
from nightisp.image import CFA, Balance, DisplayImage, LinearImage, Mosaic, Shot, Window
from nightisp.preview import preview


def mosaic_of(color, cfa, height=8, width=12, **more):
    samples = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            samples[y, x] = color["RGB".index(cfa.color_at(y, x))]
    return Mosaic(samples, cfa=cfa, **more)


def shown(red, green, blue):
    """Linear light as a flat picture of it is to look: luminance 1, gamma 2.2, clipped."""
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return [round(255 * min(max(v / luminance, 0), 1) ** (1 / 2.2)) for v in (red, green, blue)]


@pytest.mark.parametrize("cfa", CFA)
def test_flat_mosaic(cfa):
    small = preview(mosaic_of((0.02, 0.05, 0.01), cfa))
    assert small.shape == (4, 6, 3)
    assert small.dtype == np.uint8
    assert (small == shown(0.02, 0.05, 0.01)).all()


def test_greens_are_averaged():
    image = Mosaic(np.tile(np.array([[0.3, 0.1], [0.5, 0.3]], np.float32), (3, 3)), cfa=CFA.RGGB)
    assert (preview(image) == 255).all()  # R = B = 0.3 = (0.1 + 0.5) / 2: neutral


def test_mosaic_window_and_its_phase():
    inner = mosaic_of((0.2, 0.1, 0.05), CFA.RGGB, 7, 9)
    samples = np.pad(inner.samples, ((1, 2), (1, 2)), constant_values=1)
    image = Mosaic(samples, cfa=CFA.BGGR, window=Window(1, 1, 7, 9))  # BGGR moved by (1, 1) is RGGB
    assert np.array_equal(preview(image), preview(inner))
    assert preview(image).shape == (3, 4, 3)


def test_window_of_one_photosite():
    image = mosaic_of((0.2, 0.1, 0.05), CFA.RGGB, 6, 6, window=Window(5, 5, 1, 1))
    assert preview(image).tolist() == [[shown(0.2, 0.1, 0.05)]]


def test_as_shot_neutral_stands_in_until_a_balance_is_applied():
    shot = Shot(as_shot_neutral=(0.5, 1.0, 0.25))
    plain = {"shot": shot}
    balanced = {"shot": shot, "balance": Balance(gains=(1.5, 1, 2), method="gray_world")}
    color = (0.1, 0.2, 0.05)  # neutral under the shot's light
    assert (preview(mosaic_of(color, CFA.GRBG, **plain)) == 255).all()
    assert (preview(mosaic_of(color, CFA.GRBG, **balanced)) == shown(*color)).all()
    samples = np.full((4, 4, 3), color, np.float32)
    assert (preview(LinearImage(samples, space="camera", **plain)) == 255).all()
    assert (preview(LinearImage(samples, space="camera", **balanced)) == shown(*color)).all()
    assert (preview(LinearImage(samples, space="srgb", **plain)) == shown(*color)).all()


def test_exposure_by_percentile_ignores_a_lamp():
    samples = np.full((100, 100, 3), 0.01, np.float32)
    samples[:7, :7] = 50  # 0.49 % of the pixels
    small = preview(LinearImage(samples, space="srgb"))
    assert small[50, 50].tolist() == [255, 255, 255]
    samples[:50] = 0.01 * 0.25
    small = preview(LinearImage(samples, space="srgb"))
    assert small[10, 50].tolist() == [round(255 * 0.25 ** (1 / 2.2))] * 3


def test_exposure_does_not_matter_to_linear_light():
    samples = np.random.default_rng(0).random((20, 30, 3), np.float32)
    one = preview(LinearImage(samples, space="srgb")).astype(int)
    other = preview(LinearImage(samples * np.float32(1e-3), space="srgb")).astype(int)
    assert np.abs(one - other).max() <= 1


def test_display_light_is_shown_as_it_is():
    samples = np.random.default_rng(0).random((20, 30, 3), np.float32)
    image = DisplayImage(samples, window=Window(1, 2, 18, 25))
    assert np.array_equal(preview(image), np.rint(samples[1:19, 2:27] * 255))


def test_shrinking_averages_areas():
    samples = np.random.default_rng(0).random((60, 40, 3), np.float32)
    small = preview(DisplayImage(samples), longest=6)
    assert small.shape == (6, 4, 3)
    blocks = samples.reshape(6, 10, 4, 10, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks * 255).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("shape", "expected"), [((1000, 700), (320, 224)), ((3, 2000), (1, 320)), ((10, 20), (10, 20))]
)
def test_size(shape, expected):
    assert preview(DisplayImage(np.zeros((*shape, 3), np.float32))).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0)), (5, (0, 0)), (6, (0, -1)), (7, (-1, -1)), (8, (-1, 0))],
)
def test_every_state_stands_upright(orientation, corner):
    """The first sample lies where EXIF says: e.g. 6, row 0 is the right side and column 0 the top."""
    samples = np.full((8, 12, 3), 0.001, np.float32)
    samples[:2, :2] = 1
    shot = Shot(orientation=orientation)
    expected = (12, 8, 3) if orientation > 4 else (8, 12, 3)
    small = preview(LinearImage(samples, space="srgb", shot=shot))
    assert small.shape == expected
    assert small[corner].tolist() == [255, 255, 255]
    small = preview(DisplayImage(samples, shot=shot))
    assert small.shape == expected
    assert small[corner].tolist() == [255, 255, 255]
    small = preview(Mosaic(samples[..., 0], cfa=CFA.RGGB, shot=shot))
    assert small.shape == (expected[0] // 2, expected[1] // 2, 3)
    assert small[corner].tolist() == [255, 255, 255]


def images(samples):
    return [Mosaic(samples[..., 0], cfa=CFA.RGGB), LinearImage(samples, space="camera"), DisplayImage(samples)]


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("longest", [320, 5])
def test_what_is_no_number_spoils_nothing_else(kind, longest):
    samples = np.full((40, 40, 3), 0.5, np.float32)
    samples[0, 0], samples[10, 10], samples[20, 20] = np.nan, np.inf, -np.inf
    small = preview(images(samples)[kind], longest)
    clean = preview(images(np.full_like(samples, 0.5))[kind], longest)
    assert np.abs(small[-1].astype(int) - clean[-1]).max() <= 3  # what is infinite moves the exposure a little


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("value", [0, -0.1, np.nan])
def test_dark_is_black(kind, value):
    assert (preview(images(np.full((6, 6, 3), value, np.float32))[kind]) == 0).all()


@pytest.mark.parametrize(
    "params",
    [ExportParams(quality=100), ExportParams(format="png", bit_depth=16), ExportParams(format="tiff")],
    ids=lambda params: params.format,
)
def test_encoded_picture(params):
    samples = np.repeat(np.repeat(np.random.default_rng(0).random((4, 6, 3), np.float32), 16, 0), 16, 1)
    image = DisplayImage(samples, shot=Shot(exif={"Exif.Image.Orientation": "6"}))
    small = preview(export(image, params), longest=6)
    assert small.shape == (4, 6, 3)
    assert np.abs(small.astype(int) - preview(image, longest=6)).max() <= 2


def test_input_is_untouched_and_the_result_the_same_again():
    for image in images(np.random.default_rng(0).random((50, 60, 3), np.float32)):
        before = image.samples.copy()
        assert np.array_equal(preview(image, 20), preview(image, 20))
        assert np.array_equal(image.samples, before)


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="ndarray is no state"):
        preview(np.zeros((2, 2)))


def test_a_large_jpeg_is_shown_as_if_every_pixel_were_decoded():
    y, x = np.mgrid[:2967, :4433].astype(np.float32)  # sides that no eighth divides
    samples = np.stack([0.5 + 0.4 * np.sin(y / 90), 0.5 + 0.4 * np.cos(x / 130), x / 4433], axis=-1)
    image = DisplayImage(samples)
    small = [preview(export(image, ExportParams(format=file))).astype(int) for file in ("jpeg", "png")]
    assert small[0].shape == small[1].shape == (214, 320, 3)
    difference = np.abs(small[0] - small[1])  # the last eighth is whole there, half a small pixel too long
    assert difference.mean() < 2
    assert difference.max() <= 8
