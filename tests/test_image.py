"""The states of a picture: what they refuse, what they store, what comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.errors import ImageShapeError
from nightisp.image import CFA, Balance, DisplayImage, Image, LinearImage, Mosaic, Shot, Window
from tests.strategies import MODEST, SHOT, cfas, images, noise
from tests.tolerance import FLOAT16, UINT16

STATES = [
    Mosaic(noise(6, 8, low=-0.1, high=1.2), cfa=CFA.GRBG, shot=SHOT, window=Window(1, 2, 3, 5)),
    LinearImage(
        noise(5, 7, 3, low=-0.1, high=3.0),
        space="srgb",
        shot=SHOT,
        balance=Balance(gains=(1.5, 1.0, 2.25), method="as_shot"),
    ),
    DisplayImage(noise(3, 4, 3), shot=SHOT, window=Window(2, 0, 10, 15), reduction=4),
]
by_state = pytest.mark.parametrize("image", STATES, ids=lambda image: type(image).__name__)


def test_cfa_counts_from_any_corner() -> None:
    assert [CFA.RGGB.color_at(*place) for place in ((0, 0), (0, 1), (1, 0), (1, 1), (-1, -1), (4, 7))] == list("RGGBBG")
    assert CFA.RGGB.shifted(1, 0) == CFA.GBRG
    assert CFA.RGGB.shifted(0, 1) == CFA.GRBG
    assert CFA.RGGB.shifted(-1, 3) == CFA.BGGR


@MODEST
@given(cfas, st.integers(-3, 3), st.integers(-3, 3))
def test_cfa_shifted_agrees_with_color_at(cfa: CFA, rows: int, columns: int) -> None:
    moved = cfa.shifted(rows, columns)
    assert all(moved.color_at(y, x) == cfa.color_at(y + rows, x + columns) for y in (0, 1) for x in (0, 1))


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (np.zeros((2, 2), np.float64), "float64 (2, 2)"),
        (np.zeros((2, 2), np.uint16), "uint16 (2, 2)"),
        (np.zeros((2, 2, 3), np.float32), "float32 (2, 2, 3)"),
        (np.zeros(4, np.float32), "float32 (4,)"),
    ],
)
def test_mosaic_refuses_other_samples(samples: np.ndarray, found: str) -> None:
    with pytest.raises(ImageShapeError) as caught:
        Mosaic(samples, cfa=CFA.RGGB)
    assert found in str(caught.value)
    assert "float32 (H, W)" in str(caught.value)
    assert caught.value.actual == samples.shape


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 1), (2, 2, 4), (1, 2, 2, 3)])
def test_images_refuse_other_channels(shape: tuple[int, ...]) -> None:
    for make in (lambda s: LinearImage(s, space="camera"), DisplayImage):
        with pytest.raises(ImageShapeError, match=r"expected float32 \(H, W, 3\)"):
            make(np.zeros(shape, np.float32))


@pytest.mark.parametrize("window", [(0, 0, 5, 4), (1, 0, 4, 4), (-1, 0, 2, 2), (0, 0, 0, 4), (0, 3, 2, 2)])
def test_window_must_lie_inside(window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageShapeError, match="window"):
        Mosaic(np.zeros((4, 4), np.float32), cfa=CFA.RGGB, window=Window(*window))


def test_window_is_the_whole_array_unless_given() -> None:
    assert Mosaic(noise(4, 6), cfa=CFA.RGGB).window == (0, 0, 4, 6)
    assert DisplayImage(noise(4, 6, 3), reduction=4).window == (0, 0, 16, 24)


def test_visible() -> None:
    mosaic, _, reduced = STATES
    assert np.array_equal(mosaic.visible(), mosaic.samples[1:4, 2:7])
    assert reduced.visible().shape == (3, 4, 3)  # whole pixels, though rows 2 to 12 of 12 are seen
    full = DisplayImage(reduced.samples, window=Window(1, 1, 2, 2))
    assert np.array_equal(full.visible(), reduced.samples[1:3, 1:3])


def test_records_refuse_unknown_names() -> None:
    with pytest.raises(ValueError, match="extra"):
        Shot.model_validate({"isoo": 100})
    with pytest.raises(ValueError, match="frozen"):
        SHOT.iso = 100


@by_state
def test_state_comes_back_through_json(image: Image) -> None:
    back = type(image).restore(image.stored(), json.loads(json.dumps(image.state(), allow_nan=False)))
    assert type(back) is type(image)
    assert back.state() == image.state()
    for name in image.state():
        assert getattr(back, name) == getattr(image, name)
        assert type(getattr(back, name)) is type(getattr(image, name))
    assert back.samples.dtype == np.float32


@by_state
def test_what_is_in_memory_is_what_is_stored(image: Image) -> None:
    rounded = image.rounded()
    assert np.array_equal(rounded.stored(), image.stored())
    assert rounded.state() == image.state()
    bound = UINT16 if isinstance(image, DisplayImage) else FLOAT16 * np.abs(image.samples)
    error = np.abs(rounded.samples - image.samples)
    assert np.all(error <= bound)
    assert error.max() > 0


def test_storage_dtypes() -> None:
    assert [image.stored().dtype for image in STATES] == [np.float16, np.float16, np.uint16]


def test_stored_keeps_negative_noise_and_highlights() -> None:
    samples = np.array([[-0.0123, 0.0], [1.0, 7.5]], np.float32)
    back = Mosaic(samples, cfa=CFA.RGGB).rounded().samples
    assert np.allclose(back, samples, rtol=FLOAT16)
    assert back[0, 1] == 0
    assert back[1, 0] == 1


def test_stored_never_overflows_to_infinity() -> None:
    samples = np.array([[1e6, -1e6]], np.float32)
    assert Mosaic(samples, cfa=CFA.RGGB).rounded().samples.tolist() == [[65504, -65504]]


@MODEST
@given(images())
def test_rounded_twice_is_rounded_once(image: Image) -> None:
    once = image.rounded()
    assert np.array_equal(once.rounded().samples, once.samples)
    assert once.rounded().state() == once.state() == image.state()


@by_state
def test_settled_is_rounded_in_memory_of_its_own(image: Image) -> None:
    rounded, stored = image.rounded(), image.stored()
    own = image.with_samples(image.samples.copy())
    settled = own.settled(stored, image)
    assert np.array_equal(settled.samples, rounded.samples)
    assert settled.state() == rounded.state()
    assert settled.samples is own.samples


@by_state
def test_settled_leaves_alone_what_others_may_read(image: Image) -> None:
    before, expected = image.samples.copy(), image.rounded().samples
    behind_a_view = image.with_samples(image.samples[:])
    fixed = image.with_samples(image.samples.copy())
    fixed.samples.setflags(write=False)
    across = image.with_samples(np.asfortranarray(image.samples))  # what comes from the store lies row by row
    for mine, source in ((image, image), (behind_a_view, image), (fixed, None), (across, None)):
        held = mine.samples.copy()
        settled = mine.settled(mine.stored(), source)
        assert np.array_equal(settled.samples, expected)
        assert settled.samples.flags.c_contiguous
        assert np.array_equal(mine.samples, held)
    assert np.array_equal(image.samples, before)


@pytest.mark.parametrize("level", [0, 1, 2, 12345, 32767, 32768, 65534, 65535])
def test_every_sixteen_bit_level_survives(level: int) -> None:
    stored = np.full((1, 1, 3), level, np.uint16)
    assert np.array_equal(DisplayImage.restore(stored, {}).stored(), stored)
