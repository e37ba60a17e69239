"""Denoising: the published clipping by hand, tiles that leave no trace, strength."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from nightisp.anscombe import stabilize  # noqa: E402
from nightisp.bayer import pack  # noqa: E402
from nightisp.cameras import find_camera  # noqa: E402
from nightisp.errors import ImageShapeError, NoGroundError, WeightsMismatchError  # noqa: E402
from nightisp.image import CFA, Mosaic, NoiseFigures, Shot  # noqa: E402
from nightisp.models import build  # noqa: E402
from nightisp.stages.denoise import STAGE, DenoiseParams, denoise  # noqa: E402
from tests.strategies import SHOT, flat, mosaic, noise  # noqa: E402
from tests.tolerance import FLOAT32, NETWORK  # noqa: E402

UNET = DenoiseParams(method="unet", noise="blind", precision="float32")


class Constant(torch.nn.Module):  # type: ignore[misc]
    """Gives one residual for each of the planes R, G, B, G, and keeps what it saw."""

    def __init__(self, *residual: float) -> None:
        super().__init__()
        self.residual = torch.tensor(residual).reshape(1, 4, 1, 1)
        self.seen: Any = None

    def forward(self, planes: Any) -> Any:
        self.seen = planes.numpy()
        return self.residual.expand(planes.shape)


def test_none_returns_the_mosaic_itself() -> None:
    noisy = mosaic(noise(4, 6, low=-0.5, high=2.0))
    assert denoise(noisy, DenoiseParams(method="none")) is noisy
    assert denoise(noisy, DenoiseParams(method="unet", strength=0)) is noisy


@pytest.mark.parametrize("cfa", list(CFA))
def test_binning_keeps_color_and_record(cfa: CFA) -> None:
    given = mosaic(flat((0.1, 0.2, 0.3), 8, 16, cfa), cfa)
    result = denoise(given, DenoiseParams(method="bin"))
    assert np.abs(result.samples - flat((0.1, 0.2, 0.3), 4, 8, cfa)).max() < FLOAT32
    assert (result.cfa, result.shot, result.window[2:]) == (cfa, given.shot, (4, 8))
    assert STAGE.weights(DenoiseParams(method="bin")) == ()


@pytest.mark.parametrize("cfa", list(CFA))
def test_the_network_sees_red_green_blue_green(cfa: CFA) -> None:
    network = Constant(0.01, 0.02, 0.03, 0.04)
    result = denoise(mosaic(flat((0.1, 0.2, 0.3), 8, 16, cfa), cfa), UNET, lambda name: network)
    assert network.seen.shape == (1, 4, 4, 8)
    assert network.seen[0, :, 0, 0] == pytest.approx([0.1, 0.2, 0.3, 0.2])
    assert pack(result.samples, cfa)[2, 3] == pytest.approx([0.11, 0.22, 0.33, 0.24])


def test_published_clipping_in_the_dark() -> None:
    """The mean is small: the network sees 0 to 0.9, the result holds 0 to 1, each from the unclipped mosaic."""
    samples = np.full((8, 8), 0.01, np.float32)
    samples[0, :4] = (-0.2, 0.95, 1.3, 0.95)
    network = Constant(0, 0, 0, 0)
    result = denoise(mosaic(samples), UNET, lambda name: network).samples
    assert 3 * samples.mean() < 0.9
    assert network.seen.min() == 0
    assert network.seen.max() == np.float32(0.9)
    assert result[0, :4] == pytest.approx([0, 0.95, 1, 0.95])
    assert result[4, 4] == np.float32(0.01)


def test_published_clipping_in_the_light() -> None:
    """The mean is 0.5: the network sees 0 to 1.5."""
    samples = np.full((8, 8), 0.5, np.float32)
    samples[0, 0], samples[0, 2] = 1.7, -0.7
    network = Constant(0.125, 0.125, 0.125, 0.125)
    result = denoise(mosaic(samples), UNET, lambda name: network).samples
    assert network.seen.max() == pytest.approx(3 * samples.mean())
    assert 1.4 < network.seen.max() < 1.6
    assert result[0, 0] == 1
    assert result[0, 2] == 0  # -0.7 + 0.125
    assert result[4, 4] == 0.625


def test_strength_blends_linearly() -> None:
    noisy = mosaic(noise(8, 8, low=-0.1, high=1.2))
    network = Constant(0.3, -0.2, 0.1, -0.4)
    full = denoise(noisy, UNET, lambda name: network).samples
    for strength in (0.25, 0.5):
        blended = denoise(noisy, UNET.model_copy(update={"strength": strength}), lambda name: network).samples
        expected = (1 - strength) * noisy.samples + strength * full
        assert np.abs(blended - expected).max() < FLOAT32


def filled() -> Any:
    """A U-Net whose every weight counts: normal, with the variance that keeps a signal's."""
    network = build("denoise_unet", width=8)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = (2 / parameter[0].numel()) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return network


class Frugal:
    """Networks that may take little memory."""

    memory = 10**6

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, _name: str) -> nn.Module:
        return self.network


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(594, 270), (266, 530)])
def test_tiled_is_whole(shape: tuple[int, int], precision: str) -> None:
    network, noisy = filled(), mosaic(noise(*shape, high=0.5))
    params = UNET.model_copy(update={"precision": precision})
    whole = denoise(noisy, params, lambda name: network).samples
    tiled = denoise(noisy, params, Frugal(network)).samples
    assert np.abs(tiled - whole).max() < NETWORK
    assert np.abs(whole - noisy.samples).mean() > 0.01  # it did something


@pytest.mark.parametrize("shape", [(2, 2), (2, 6), (6, 10), (30, 34)])
def test_any_even_size(shape: tuple[int, int]) -> None:
    network = filled()
    assert denoise(mosaic(noise(*shape)), UNET, lambda name: network).samples.shape == shape


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ImageShapeError, match="packed"):
        denoise(mosaic(noise(5, 6)), UNET, lambda name: Constant(0, 0, 0, 0))


def test_weights_are_those_of_the_chosen_method() -> None:
    assert STAGE.weights(DenoiseParams(method="none")) == ()
    assert STAGE.weights(DenoiseParams(method="unet", weights="mine")) == ("mine",)


TOLD = DenoiseParams(method="unet", precision="float32")
SILENT = Constant(0, 0, 0, 0)
PER_COLOR = ((1e-3, 1e-6), (2e-3, 2e-6), (3e-3, 3e-6))


@pytest.mark.parametrize("cfa", list(CFA))
def test_a_network_that_is_told_sees_stabilized_planes(cfa: CFA) -> None:
    network = Constant(0, 0, 0, 0)
    noisy = mosaic(noise(8, 16, low=-0.05, high=1.2), cfa, SHOT.model_copy(update={"noise_profile": PER_COLOR}))
    result = denoise(noisy, TOLD, lambda name: network)
    packed = pack(noisy.samples, cfa)
    for plane, (shot, read) in enumerate((PER_COLOR[0], PER_COLOR[1], PER_COLOR[2], PER_COLOR[1])):
        np.testing.assert_allclose(network.seen[0, plane], stabilize(packed[..., plane], shot, read), rtol=1e-5)
    assert result.noise == NoiseFigures(source="file", figures=PER_COLOR)
    assert result.samples.max() > 1  # nothing is clipped


def test_stabilized_residuals_weigh_more_where_there_is_more_noise() -> None:
    """One deviation of noise: 0.0292 at 0.85 of white with shot noise 1e-3, a thirtieth of that in the dark."""
    samples = np.zeros((8, 8), np.float32)
    samples[:, 4:] = 0.85
    shot = SHOT.model_copy(update={"noise_profile": ((1e-3, 1e-6),)})
    one, none = (
        denoise(mosaic(samples, shot=shot), TOLD, lambda name, r=residual: Constant(r, r, r, r)).samples
        for residual in (1.0, 0.0)
    )
    difference = one - none
    assert difference[4, 6] == pytest.approx((1e-3 * 0.85 + 1e-6) ** 0.5, rel=0.02)
    assert 0.0005 < difference[4, 1] < 0.002


@pytest.mark.parametrize(
    ("shot", "source"),
    [
        (SHOT, "file"),
        (Shot(camera="NIKON CORPORATION NIKON D850", iso=3200), "camera"),
        (Shot(camera="Nikon D850", iso=3200, noise_profile=((0.0, 0.0),)), "camera"),
        (Shot(camera="Nikon D850", iso=10**7), "estimate"),
        (Shot(camera="Nikon D850"), "estimate"),
        (Shot(), "estimate"),
    ],
)
def test_the_noise_is_known_from_file_camera_or_mosaic(shot: Shot, source: str) -> None:
    noisy = mosaic(noise(96, 96, low=0.0, high=0.05), shot=shot)
    found = denoise(noisy, TOLD, lambda name: SILENT).noise
    assert found.source == source
    assert len(found.figures) == 3
    if source == "camera":
        camera = find_camera("Nikon D850")
        assert camera is not None
        assert found.figures[1] == camera.noise(3200)


def test_what_clips_is_not_made_darker() -> None:
    samples = np.full((8, 8), 0.5, np.float32)
    samples[:2, :4] = (1, 1.25, 0.999, 0.2)
    lower, higher = Constant(-3, -3, -3, -3), Constant(3, 3, 3, 3)
    darker = denoise(mosaic(samples), TOLD, lambda name: lower).samples
    assert (darker[:2, :2] == samples[:2, :2]).all()
    assert (darker[:2, 2:4] < samples[:2, 2:4] - 0.01).all()
    assert (darker[2:] < 0.49).all()
    assert (denoise(mosaic(samples), TOLD, lambda name: higher).samples > samples + 0.01).all()


def test_figures_survive_the_store() -> None:
    result = denoise(mosaic(noise(8, 8)), TOLD, lambda name: SILENT)
    assert Mosaic.restore(result.stored(), result.state()).noise == result.noise


@pytest.mark.parametrize("source", ["file", "camera"])
def test_figures_that_are_not_there_are_named_before_any_pixel(source: str) -> None:
    params = DenoiseParams.model_validate({"method": "unet", "noise": source})
    shot = Shot(camera="a camera of nobody", iso=3200)
    with pytest.raises(NoGroundError, match="estimate"):
        STAGE.check(shot, params)
    STAGE.check(shot, DenoiseParams(method="none", noise="file"))
    STAGE.check(SHOT.model_copy(update={"camera": "Nikon D850"}), params)


def card(network: Any, **values: Any) -> Any:
    network.card = values
    return network


def test_weights_say_whether_they_are_to_be_told() -> None:
    noisy = mosaic(noise(8, 8))
    told, blind = card(Constant(0, 0, 0, 0), sees="stabilized"), card(Constant(0, 0, 0, 0))
    assert denoise(noisy, TOLD, lambda name: told).noise.source == "file"
    assert denoise(noisy, TOLD, lambda name: blind).noise.source == "blind"
    assert denoise(noisy, UNET, lambda name: blind).noise.source == "blind"
    with pytest.raises(WeightsMismatchError, match=r"denoise\.noise is blind, but these weights are told"):
        denoise(noisy, UNET, lambda name: told)
    with pytest.raises(WeightsMismatchError, match=r"denoise\.noise is estimate, but these weights are blind"):
        denoise(noisy, DenoiseParams(method="unet", noise="estimate"), lambda name: blind)
