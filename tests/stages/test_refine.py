"""Refinement: sizes and sides for every size and orientation, with networks whose output is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

torch = pytest.importorskip("torch")

from nightisp.image import DisplayImage, Samples, Window  # noqa: E402
from nightisp.models import build  # noqa: E402
from nightisp.stages.refine import STAGE, RefineParams, refine  # noqa: E402
from tests.strategies import MODEST, SHOT, noise, orientations, sides, upright  # noqa: E402
from tests.tolerance import FLOAT32  # noqa: E402

MWISPNET = RefineParams(method="mwispnet", precision="float32")


class Average(torch.nn.Module):  # type: ignore[misc]
    """Gives a quarter of width and height, as MWISPNet does, and keeps the sizes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, rgb: Any, *, binned: bool = False) -> Any:
        self.seen.append(tuple(rgb.shape))
        return torch.nn.functional.avg_pool2d(rgb, 2 if binned else 4)


def display(height: int, width: int, orientation: int = 1, border: tuple[int, int] = (0, 0)) -> DisplayImage:
    """Draw a picture whose visible part is height x width, with `border` above and left of it."""
    top, left = border
    return DisplayImage(
        noise(height + 2 * top, width + 2 * left, 3),
        shot=SHOT.model_copy(update={"orientation": orientation}),
        window=Window(top, left, height, width),
    )


def averaged(pixels: Samples, side: int = 4) -> Samples:
    """Average square blocks; where the last ones are not whole, over what reflection adds."""
    height, width = (-(-length // side) * side for length in pixels.shape[:2])
    grown = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), mode="reflect")
    return grown.reshape(height // side, side, width // side, side, 3).mean(axis=(1, 3))


@MODEST
@given(height=sides, width=sides, orientation=orientations)
def test_a_quarter_of_the_visible_part_upright(height: int, width: int, orientation: int) -> None:
    picture, network = display(height, width, orientation, border=(1, 2)), Average()
    found = refine(picture, MWISPNET, lambda name: network)
    assert np.abs(found.samples - upright(averaged(picture.visible()), orientation)).max() < FLOAT32
    assert found.reduction == 4
    assert found.window[2:] == ((width, height) if orientation > 4 else (height, width))
    assert found.shot == SHOT.model_copy(update={"orientation": 1})
    assert all(side % 32 == 0 for side in network.seen[0][2:])


@MODEST
@given(height=sides, width=sides, orientation=orientations)
def test_half_of_what_was_binned(height: int, width: int, orientation: int) -> None:
    picture, network = display(height, width, orientation, border=(1, 2)), Average()
    found = refine(picture, MWISPNET.model_copy(update={"binned": True}), lambda name: network)
    assert found.reduction == 2
    assert found.window[2:] == ((width, height) if orientation > 4 else (height, width))
    assert np.abs(found.samples - upright(averaged(picture.visible(), 2), orientation)).max() < FLOAT32
    assert all(side % 16 == 0 for side in network.seen[0][2:])


def test_binning_is_the_first_step_of_the_network() -> None:
    torch.manual_seed(4)
    network = build("mwispnet", widths=(8, 8, 8), blocks=1, reduction=4)
    picture = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        binned = network(torch.nn.functional.avg_pool2d(picture, 2), binned=True)
        torch.testing.assert_close(binned, network(picture), rtol=0, atol=1e-5)


def test_wavelets_within_convolutions_give_what_both_give_one_after_the_other() -> None:
    torch.manual_seed(5)
    network = build("mwispnet", widths=(8, 12, 16), blocks=1, reduction=4)
    picture = torch.rand(1, 3, 64, 96)
    haar = network.tail.weight

    def put_together(bands: torch.Tensor) -> torch.Tensor:
        n, features, height, width = bands.shape
        one_by_one = bands.reshape(n * features // 4, 4, height, width)
        return torch.nn.functional.conv_transpose2d(one_by_one, haar, stride=2).reshape(n, -1, 2 * height, 2 * width)

    with torch.inference_mode():
        fine = network.down1(network.head(picture))
        middle = network.down2(fine)
        x = put_together(network.up1[:-1](network.middle(network.down3(middle)))) + middle
        x = put_together(network.up2[:-1](x)) + fine
        torch.testing.assert_close(network(picture), put_together(network.up3(x)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("orientation", "window"),
    [
        (1, (0, 0, 9, 6)),  # 9 x 6 in 12 x 8: three rows too many at the bottom, two columns at the right
        (2, (0, 2, 9, 6)),
        (3, (3, 2, 9, 6)),
        (4, (3, 0, 9, 6)),
        (5, (0, 0, 6, 9)),
        (6, (0, 3, 6, 9)),
        (7, (2, 3, 6, 9)),
        (8, (2, 0, 6, 9)),
    ],
)
def test_the_side_of_what_is_too_much(orientation: int, window: tuple[int, int, int, int]) -> None:
    assert refine(display(9, 6, orientation), MWISPNET, lambda name: Average()).window == window


@pytest.mark.parametrize("orientation", range(1, 9))
def test_none_passes_the_full_size_on_upright(orientation: int) -> None:
    picture = display(7, 10, orientation, border=(2, 1))
    found = refine(picture, RefineParams(method="none"))
    assert np.array_equal(found.samples, upright(picture.visible(), orientation))
    assert found.window == (0, 0, *found.samples.shape[:2])  # the border is cut off, once
    assert found.shot.orientation == found.reduction == 1


def test_clips_to_display_light() -> None:
    class Beyond(Average):
        def forward(self, rgb: Any) -> Any:
            return super().forward(rgb) * 4 - 1.5

    found = refine(display(32, 64), MWISPNET, lambda name: Beyond()).samples
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 40)])
def test_the_real_network(shape: tuple[int, int]) -> None:
    torch.manual_seed(4)
    network = build("mwispnet", widths=(8, 8, 8), blocks=1, reduction=4)
    found = refine(display(*shape, orientation=6), MWISPNET, lambda name: network)
    assert found.samples.shape == (-(-shape[1] // 4), -(-shape[0] // 4), 3)
    assert found.window[2:] == (shape[1], shape[0])
    assert np.isfinite(found.samples).all()


def test_weights_are_those_of_the_chosen_method() -> None:
    assert STAGE.weights(RefineParams(method="none")) == ()
    assert STAGE.weights(RefineParams(method="mwispnet", weights="mine")) == ("mine",)


def test_a_draft_has_weights_of_its_own_unless_the_look_is_the_users() -> None:
    draft = RefineParams(binned=True)
    assert STAGE.weights(draft) == ("mwispnet_draft",)
    assert STAGE.weights(RefineParams(binned=True, draft_weights=None)) == ("mwispnet",)
    assert STAGE.weights(RefineParams(binned=True, weights="mine")) == ("mine",)
    assert STAGE.weights(RefineParams()) == ("mwispnet",)
    asked = []

    def networks(name: str) -> Average:
        asked.append(name)
        return Average()

    refine(display(32, 32), draft, networks)
    assert asked == ["mwispnet_draft"]
