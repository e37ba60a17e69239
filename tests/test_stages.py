"""What every stage promises, whatever it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nightisp.errors import ImageTypeError
from nightisp.image import CFA, DisplayImage, Image, LinearImage, Mosaic, Samples, Window
from nightisp.pipeline import PIPELINE
from nightisp.stage import Params, Stage
from nightisp.stages import STAGES
from tests.frames import CLASSICAL, SHIPPED
from tests.strategies import SHOT, as_ingested, flat, mosaic, noise
from tests.tolerance import FLOAT16, UINT16

TURNED = SHOT.model_copy(update={"orientation": 6})
BY_NAME = {stage.name: stage for stage in STAGES}

# Every method of every stage; `networks` below stands in for the weights.
CASES: list[tuple[str, dict[str, Any]]] = [
    *(("denoise", {"method": method}) for method in ("none", "unet")),
    *(
        ("white_balance", {"method": method, "gains": (1.8, 1, 1.4), "kelvin": 3200})
        for method in (
            *("fc4", "as_shot", "as_shot_fc4", "gray_world"),
            *("shades_of_gray", "white_patch", "gains", "kelvin"),
        )
    ),
    *(("demosaic", {"method": method}) for method in ("edge_aware", "bilinear")),
    *(("color", {"matrix": matrix}) for matrix in ("dng", "published", "identity")),
    ("color", {"highlights": "published", "second_white_balance": "none"}),
    ("tone", {}),
    ("tone", {"exposure_ev": 1.5, "gamma": 2.2}),
    *(("refine", {"method": method}) for method in ("none", "mwispnet")),
    *(("super_resolution", {"method": method}) for method in ("none", "lanczos", "hat")),
]
# FC4 looks at the packed mosaic, whose padding is one photosite at most; what surrounds a picture at a quarter of its
# size is what reflection made of its inside.
SEE_PADDING = {("white_balance", "fc4"), ("white_balance", "as_shot_fc4")} | {
    ("super_resolution", method) for method in ("none", "lanczos", "hat")
}


def cases(chosen: list[tuple[str, dict[str, Any]]]) -> pytest.MarkDecorator:
    names = [f"{name}-{'-'.join(str(value) for value in given.values())}" for name, given in chosen]
    return pytest.mark.parametrize(("name", "given"), chosen, ids=names)


each_case = cases(CASES)
every_stage = pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)


@pytest.fixture(scope="module")
def networks() -> Any:
    """Small networks with the shapes of the real ones."""
    torch = pytest.importorskip("torch")

    class UNet(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, planes: Any) -> Any:
            return -0.1 * torch.roll(planes, 1, 1)

    class FC4(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, rgb: Any) -> Any:
            return rgb.mean(dim=(2, 3)) + 0.1, rgb, rgb[:, :1]

    class MWISPNet(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, rgb: Any) -> Any:
            return torch.nn.functional.avg_pool2d(rgb, 4)

    class HAT(torch.nn.Module):  # type: ignore[misc, name-defined]
        upscale = 4

        def forward(self, rgb: Any) -> Any:
            return torch.nn.functional.interpolate(rgb, scale_factor=4, mode="bilinear")

    light = FC4()
    known = {"denoise_unet": UNet(), "fc4": light, "fc4_2": light, "fc4_3": light, "mwispnet": MWISPNet(), "hat": HAT()}
    return known.__getitem__


def params(stage: Stage, given: dict[str, Any]) -> Params:
    return stage.params.model_validate(given)


def picture_for(stage: Stage, height: int = 30, width: int = 42) -> Any:
    """Return what the stage takes, its visible part odd in size and place."""
    window = Window(1, 2, height - 3, width - 5)
    if stage.takes is Mosaic:
        return mosaic(noise(height, width, low=-0.02, high=1.1), shot=TURNED, window=window)
    pixels = noise(height, width, 3, low=0.01, high=0.9)
    if stage.takes is LinearImage:
        return LinearImage(pixels, space="srgb" if stage.name == "tone" else "camera", shot=TURNED, window=window)
    reduction = 4 if stage.name == "super_resolution" else 1
    window = Window(0, 3, 4 * height - 2, 4 * width - 3) if reduction == 4 else window
    return DisplayImage(pixels, shot=TURNED, window=window, reduction=reduction)


def visible_size(image: Image) -> tuple[int, int]:
    """Rows and columns of the photograph, full size, not yet turned if it is to be."""
    rows, columns = image.window[2:]
    return (columns, rows) if image.shot.orientation > 4 else (rows, columns)


@each_case
def test_gives_what_the_table_says(name: str, given: dict[str, Any], networks: Any) -> None:
    stage = BY_NAME[name]
    image = picture_for(stage)
    found = stage(image, params(stage, given), networks)
    assert type(found) is stage.gives
    assert found.samples.dtype == np.float32
    assert found.samples.flags.c_contiguous
    assert np.isfinite(found.samples).all()
    orientation = 1 if name == "refine" else image.shot.orientation
    assert found.shot == image.shot.model_copy(update={"orientation": orientation})
    assert visible_size(found) == visible_size(image)
    if stage.gives is DisplayImage:
        assert found.samples.min() >= 0
        assert found.samples.max() <= 1


@each_case
def test_leaves_its_input_alone(name: str, given: dict[str, Any], networks: Any) -> None:
    stage = BY_NAME[name]
    image = picture_for(stage)
    before = image.samples.copy()
    image.samples.setflags(write=False)  # the store may hand out such an array
    found = stage(image, params(stage, given), networks)
    assert np.array_equal(image.samples, before)
    passes_on = given.get("method") == "none"
    assert np.shares_memory(found.samples, image.samples) <= passes_on


@each_case
def test_gives_the_same_again(name: str, given: dict[str, Any], networks: Any) -> None:
    stage = BY_NAME[name]
    first, second = (stage(picture_for(stage), params(stage, given), networks) for _ in range(2))
    assert np.array_equal(first.samples, second.samples)
    assert first.state() == second.state()


@cases([(name, given) for name, given in CASES if (name, given.get("method")) not in SEE_PADDING])
def test_what_is_outside_the_window_does_not_decide_what_is_inside(
    name: str, given: dict[str, Any], networks: Any
) -> None:
    """Statistics are of the visible part: another border changes pixels near it, at most."""
    stage = BY_NAME[name]
    image = picture_for(stage)
    other = image.samples.copy()
    other[0], other[:, 0] = other[0] * 0.5, other[:, 0] * 0.5
    found, changed = (
        stage(picture, params(stage, given), networks).visible() for picture in (image, image.with_samples(other))
    )
    near = 4 if name in ("demosaic", "denoise") else 0
    inner = (slice(near, None), slice(near, None))
    assert np.array_equal(found[inner], changed[inner])


@every_stage
def test_refuses_other_states(stage: Stage) -> None:
    states = [mosaic(noise(4, 4)), LinearImage(noise(4, 4, 3), space="camera"), DisplayImage(noise(4, 4, 3)), None]
    for image in states:
        if not isinstance(image, stage.takes):
            with pytest.raises(ImageTypeError, match=f"{stage.name} takes a {stage.takes.__name__}, not a"):
                stage(image, stage.params())


@every_stage
def test_record(stage: Stage) -> None:
    assert stage.summary.endswith(".")
    assert stage.module.startswith("nightisp.")
    assert stage.params.model_config["frozen"]
    assert stage.params.model_config["extra"] == "forbid"
    for name, about in stage.params.model_fields.items():
        assert about.description, f"{stage.name}.{name} has no description"
    for name in stage.weights(stage.params()):
        assert (SHIPPED / f"{name}.safetensors").is_file(), f"the defaults need {name}, which is not shipped"
    assert (stage.device == "gpu") == ("weights" in stage.params.model_fields)


def chain(image: Any, networks: Any = None, **given: dict[str, Any]) -> Any:
    """Run all pure stages, without networks unless some are given; each takes what the store would give back."""
    given = given if networks else {**CLASSICAL, **given}
    for stage in STAGES:
        image = stage(image, params(stage, given.get(stage.name, {})), networks).rounded()
    return image


NEURAL = {
    "denoise": {"method": "unet", "strength": 0.5},
    "refine": {"method": "mwispnet"},
    "super_resolution": {"method": "hat"},
}


@pytest.mark.parametrize("cfa", list(CFA))
@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (3, 3), (5, 9), (17, 12)], ids=str)
@pytest.mark.parametrize("orientation", [1, 5, 8])
def test_from_the_smallest_mosaic_on(cfa: CFA, shape: tuple[int, int], orientation: int, networks: Any) -> None:
    """Every phase, padded as ingest does it; the picture has exactly the size of what was visible, upright."""
    shot = SHOT.model_copy(update={"orientation": orientation})
    picture = as_ingested(noise(*shape, low=0.05, high=0.9), cfa, shot)
    for given in ({}, NEURAL):
        found = chain(picture, networks, color={"matrix": "identity"}, **given)  # a matrix may give what clips to 0
        assert found.visible().shape[:2] == (shape if orientation < 5 else shape[::-1])
        assert found.visible().min() > 0
        if given:
            assert found.samples.shape == found.visible().shape


def scene(height: int, width: int) -> Samples:
    """A smooth scene in RGB."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    return np.stack([0.1 + 0.2 * rows, 0.3 - 0.2 * columns, 0.05 + 0.1 * rows * columns], axis=-1).astype(np.float32)


def test_all_phases_of_one_scene_are_one_picture() -> None:
    pixels = scene(40, 52)
    found = []
    for cfa in CFA:
        masks = [flat(tuple(float(c == color) for c in "RGB"), 40, 52, cfa) for color in "RGB"]  # type: ignore[arg-type]
        samples = sum(mask * pixels[..., channel] for channel, mask in enumerate(masks))
        picture = chain(as_ingested(samples, cfa), color={"matrix": "identity"})  # a matrix may give what clips to 0
        found.append(picture.visible()[2:-2, 2:-2])
    for other in found[1:]:
        assert np.abs(other - found[0]).max() < 0.004  # a level of 8 bits


def test_a_flat_gray_card_is_flat_and_gray() -> None:
    card = as_ingested(flat((0.2, 0.4, 0.1), 9, 11, CFA.GRBG), CFA.GRBG)
    found = chain(card).visible()
    assert np.ptp(found) < 4 * FLOAT16 + UINT16


def test_as_shot_neutral_becomes_gray() -> None:
    neutral = np.array(SHOT.as_shot_neutral) * 0.5
    card = as_ingested(flat(tuple(neutral), 8, 8, CFA.RGGB), CFA.RGGB)
    found = chain(card, white_balance={"method": "as_shot"}).visible()
    assert np.ptp(found) < 4 * FLOAT16 + UINT16
