"""What must hold for any picture: pixels keep their places, storage costs nothing that could be seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.engine import stage_key
from nightisp.export import EXPORT, ExportParams
from nightisp.image import CFA, DisplayImage, Mosaic, Samples
from nightisp.noise import add_noise
from nightisp.params import canonical
from nightisp.pipeline import PIPELINE
from nightisp.stages import STAGES
from nightisp.stages.tone import PUBLISHED_CURVE, ToneCurve
from nightisp.store import Store
from tests.frames import CLASSICAL
from tests.strategies import MODEST, SHOT, as_ingested, cfas, noise, orientations, samples_of_mosaics, upright
from tests.tolerance import STORAGE_OVER_NOISE

# Shot noise is one over the photoelectrons that white level stands for. Read noise is in units of white level squared.
SENSORS = {
    "full frame, 100,000 electrons, ISO 50": (1 / 100_000, (3.0 / 100_000) ** 2),
    "full frame, ISO 100": (1 / 60_000, (3.5 / 60_000) ** 2),
    "phone, ISO 50": (1 / 6_000, (2.5 / 6_000) ** 2),
    "full frame, ISO 3200": (1 / 1_900, (2.0 / 1_900) ** 2),
    "full frame, ISO 25600": (1 / 240, (1.8 / 240) ** 2),
    "phone, ISO 6400": (1 / 50, (1.5 / 50) ** 2),
}
SIGNALS = (0.0, 1e-4, 1e-3, 0.01, 0.03, 0.06, 0.13, 0.26, 0.51, 0.99)


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("gain", [1.0, 2.3])
def test_float16_costs_less_than_a_tenth_of_the_noise(sensor: str, gain: float) -> None:
    """Just above a power of two float16 is coarsest; gains move samples and noise alike."""
    shot, read = SENSORS[sensor]
    rng = np.random.default_rng(8)
    for signal in SIGNALS:
        noisy = gain * add_noise(np.full((100, 100), signal), shot, read, rng)
        stored = Mosaic(noisy.astype(np.float32), cfa=CFA.BGGR).rounded().samples
        error = np.sqrt(np.mean((stored - noisy) ** 2))
        assert error < STORAGE_OVER_NOISE * gain * np.sqrt(shot * signal + read), signal


@pytest.mark.parametrize("sensor", SENSORS)
def test_sixteen_bits_cost_less_than_a_tenth_of_the_noise_in_display_light(sensor: str) -> None:
    """The curve is flattest at the top, where what is left of the noise is least."""
    shot, read = SENSORS[sensor]
    rng, curve = np.random.default_rng(9), ToneCurve(PUBLISHED_CURVE)
    for signal in SIGNALS[2:]:
        noisy = add_noise(np.full((100, 100, 3), signal), shot, read, rng).astype(np.float32)
        display = curve(noisy) ** np.float32(1 / 3.2)
        stored = DisplayImage(display).rounded().samples
        assert np.sqrt(np.mean((stored - display) ** 2)) < STORAGE_OVER_NOISE * display.std(), signal


def classical(stage: Any, **given: dict[str, Any]) -> Any:
    """Return the default parameters of a stage, without networks."""
    return stage.params.model_validate(given.get(stage.name, CLASSICAL.get(stage.name, {})))


def small_chain(image: Any) -> Any:
    for stage in STAGES:
        image = stage(image, classical(stage)).rounded()
    return image


def test_the_same_bytes_in_memory_and_through_the_store(tmp_path: Path) -> None:
    start = as_ingested(noise(33, 46, low=-0.05, high=1.1), CFA.GBRG, SHOT.model_copy(update={"orientation": 8}))
    in_memory = EXPORT(small_chain(start.rounded()), ExportParams())
    store, preview = Store(tmp_path / "store"), np.zeros((1, 1, 3), np.uint8)
    image: Any = start.rounded()
    for place, stage in enumerate(STAGES):
        store.write(stage.name, f"{place:064x}", stage(image, classical(stage)).rounded(), preview, {})
        image = store.read(stage.name, f"{place:064x}", stage.gives)
    through_store = EXPORT(image, ExportParams())
    assert through_store.content == in_memory.content
    assert through_store.state() == in_memory.state()


@MODEST
@given(samples=samples_of_mosaics(low=0.05, high=0.75, smallest=3), cfa=cfas, orientation=orientations)
def test_turning_the_camera_turns_the_picture(samples: Samples, cfa: CFA, orientation: int) -> None:
    plain, turned = (
        small_chain(as_ingested(samples, cfa, SHOT.model_copy(update={"orientation": o}))) for o in (1, orientation)
    )
    assert np.array_equal(turned.visible(), upright(plain.visible(), orientation))


@MODEST
@given(
    samples=samples_of_mosaics(low=0.05, high=0.75, smallest=8),
    cfa=cfas,
    down=st.integers(0, 1),
    right=st.integers(0, 1),
)
def test_a_shifted_crop_is_a_shifted_picture(samples: Samples, cfa: CFA, down: int, right: int) -> None:
    """Cutting a row or a column off changes the phase, the padding and nothing inside; gains given, not measured."""
    whole, cropped = (
        develop(as_ingested(part, phase)).visible()
        for part, phase in ((samples, cfa), (samples[down:, right:].copy(), cfa.shifted(down, right)))
    )
    assert np.abs(whole[down:, right:][2:-2, 2:-2] - cropped[2:-2, 2:-2]).max(initial=0) < 1e-6


def develop(image: Any) -> Any:
    given: dict[str, Any] = {"white_balance": {"method": "gains", "gains": (1.5, 1, 1.8)}}
    for stage in STAGES:
        image = stage(image, classical(stage, **given))
    return image


class Library:
    """Digests of weights that there are not."""

    def digest(self, name: str) -> str:
        return f"digest of {name}"


def keys(**given: dict[str, Any]) -> dict[str, str]:
    found, upstream = {}, "raw"
    for stage in PIPELINE:
        params = stage.params.model_validate(given.get(stage.name, {}))
        upstream = found[stage.name] = stage_key(stage, params, Library(), upstream)
    return found


def changed(**given: dict[str, Any]) -> list[str]:
    before = keys()
    return [name for name, key in keys(**given).items() if key != before[name]]


def test_keys_change_from_the_stage_on() -> None:
    names = [stage.name for stage in PIPELINE]
    assert changed(tone={"gamma": 2.8}) == names[names.index("tone") :]
    assert changed(denoise={"strength": 0.5}) == names[names.index("denoise") :]
    assert changed(export={"quality": 90}) == ["export"]
    assert changed() == []


def test_defaults_written_out_are_the_same_key() -> None:
    written = {stage.name: json.loads(json.dumps(canonical(stage.params()))) for stage in PIPELINE}
    assert changed(**written) == []
    assert changed(tone={"gamma": "3.2", "exposure_ev": 0}) == []  # as YAML or a command line may give them
    assert changed(white_balance={"weights": ["fc4", "fc4_2", "fc4_3"]}) == []


def test_keys_are_sha256() -> None:
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys().values())
    assert len(set(keys().values())) == len(PIPELINE)
