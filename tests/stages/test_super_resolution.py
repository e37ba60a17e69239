"""Super-resolution: exactly the oriented visible size, every pixel in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

torch = pytest.importorskip("torch")

from nightisp.errors import WeightsMismatchError  # noqa: E402
from nightisp.image import DisplayImage, Samples  # noqa: E402
from nightisp.models import build  # noqa: E402
from nightisp.orientation import orient  # noqa: E402
from nightisp.stages.refine import RefineParams, refine  # noqa: E402
from nightisp.stages.super_resolution import STAGE, SuperResolutionParams, super_resolution  # noqa: E402
from tests.strategies import MODEST, SHOT, noise, orientations, sides, upright  # noqa: E402
from tests.tolerance import FLOAT32  # noqa: E402

HAT = SuperResolutionParams(method="hat")


class Average(torch.nn.Module):  # type: ignore[misc]
    def forward(self, rgb: Any) -> Any:
        return torch.nn.functional.avg_pool2d(rgb, 4)


class Nearest(torch.nn.Module):  # type: ignore[misc]
    upscale = 4

    def forward(self, rgb: Any) -> Any:
        return torch.nn.functional.interpolate(rgb, scale_factor=self.upscale, mode="nearest")


def quartered(pixels: Samples, orientation: int) -> DisplayImage:
    """Let `refine` make a picture smaller, by averaging, and turn it."""
    picture = DisplayImage(pixels, shot=SHOT.model_copy(update={"orientation": orientation}))
    return refine(picture, RefineParams(method="mwispnet"), lambda name: Average())


@MODEST
@given(height=sides, width=sides, orientation=orientations)
def test_every_block_comes_back_to_its_place(height: int, width: int, orientation: int) -> None:
    """Each pixel of the stored picture is the mean of its block of 4 x 4, wherever orientation moves it."""
    pixels = noise(height, width, 3)
    found = super_resolution(quartered(pixels, orientation), HAT, lambda name: Nearest())
    grown = np.pad(pixels, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
    means = grown.reshape(grown.shape[0] // 4, 4, grown.shape[1] // 4, 4, 3).mean(axis=(1, 3))
    stored = means.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    assert found.samples.shape == upright(pixels, orientation).shape
    assert np.abs(found.samples - upright(stored, orientation)).max() < FLOAT32
    assert (found.reduction, found.window) == (1, (0, 0, *found.samples.shape[:2]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(101, 130), (98, 103), (100, 96)])
def test_lanczos_puts_a_ramp_where_it_was(orientation: int, shape: tuple[int, int]) -> None:
    """A shift by a single pixel is 0.005 in rows (red) or in columns (green)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] * 0.005
    pixels = np.stack([rows, columns, np.full(shape, 0.5)], axis=-1).astype(np.float32)
    found = super_resolution(quartered(pixels, orientation), SuperResolutionParams(method="lanczos")).samples
    expected = upright(pixels, orientation)
    assert found.shape == expected.shape
    shift = (found - expected)[24:-24, 24:-24].mean(axis=(0, 1)) / 0.005
    assert np.abs(shift).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (50, 66)])
@pytest.mark.parametrize("method", ["lanczos", "none"])
def test_sizes_without_a_network(shape: tuple[int, int], method: Any) -> None:
    small = quartered(noise(*shape, 3), orientation=8)
    found = super_resolution(small, SuperResolutionParams(method=method))
    if method == "none":
        assert found is small
    else:
        assert found.samples.shape == (shape[1], shape[0], 3)
        assert found.samples.min() >= 0
        assert found.samples.max() <= 1


def test_the_real_network() -> None:
    torch.manual_seed(6)
    network = build("hat", embed_dim=12, depths=(1,), num_heads=(2,), squeeze_factor=4)
    params = SuperResolutionParams(method="hat", tile=32, overlap=16)
    for shape in ((2, 5), (131, 150)):
        found = super_resolution(quartered(noise(*shape, 3), orientation=7), params, lambda name: network)
        assert found.samples.shape == (shape[1], shape[0], 3)
        assert np.isfinite(found.samples).all()


def test_tiles_leave_no_trace_of_what_is_local() -> None:
    small = quartered(noise(300, 212, 3), orientation=3)
    whole, tiled = (
        super_resolution(small, SuperResolutionParams(method="hat", tile=tile, overlap=16), lambda name: Nearest())
        for tile in (256, 32)
    )
    assert np.abs(tiled.samples - whole.samples).max() < FLOAT32


def test_full_size_passes_through() -> None:
    full = DisplayImage(noise(6, 8, 3), shot=SHOT)
    for method in ("hat", "lanczos", "none"):
        assert super_resolution(full, SuperResolutionParams(method=method)) is full


def test_weights_of_another_factor() -> None:
    class Twice(Nearest):
        upscale = 2

    small = quartered(noise(16, 16, 3), 1)
    with pytest.raises(WeightsMismatchError, match=r"enlarge x2; the picture needs x4.*weights import"):
        super_resolution(small, HAT, lambda name: Twice())


def test_what_rides_along() -> None:
    small = quartered(noise(16, 24, 3), 5)
    found = super_resolution(small, HAT, lambda name: Nearest())
    assert found.shot == SHOT.model_copy(update={"orientation": 1})
    assert found.balance == small.balance


def test_orient_and_upright_agree() -> None:
    """What these tests compare with is not what they test."""
    pixels = noise(3, 5, 3)
    assert all(np.array_equal(orient(pixels, o), upright(pixels, o)) for o in range(1, 9))


def test_weights_are_those_of_the_chosen_method() -> None:
    assert STAGE.weights(SuperResolutionParams(method="lanczos")) == ()
    assert STAGE.weights(SuperResolutionParams(method="hat", weights="mine")) == ("mine",)
