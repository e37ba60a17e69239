import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightisp.anscombe import expected, restore, stabilize
from nightisp.noise import add_noise

FIGURES = [(1e-3, 1e-6), (4e-3, 1e-5), (1e-4, 1e-8), (2e-3, 0.0), (0.0, 1e-5)]


def test_stabilized_by_hand() -> None:
    # 0.01 is one photoelectron at shot noise 0.01: 2 sqrt(1 + 3/8) - 2 sqrt(3/8).
    by_hand = 2 * np.sqrt(1.375) - 2 * np.sqrt(0.375)
    assert stabilize(np.float32([0.01]), 0.01, 0.0)[0] == pytest.approx(by_hand, rel=1e-6)
    # A tenth of white in deviations of read noise, where there is no other.
    assert stabilize(np.float32([0.1]), 0.0, 1e-4)[0] == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(("shot", "read"), FIGURES)
def test_black_stays_black(shot: float, read: float) -> None:
    assert stabilize(np.zeros(3, np.float32), shot, read).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("shot", "read"), FIGURES)
@pytest.mark.parametrize("light", [0.02, 0.1, 0.5, 1.0])
def test_the_variance_is_one_everywhere(shot: float, read: float, light: float) -> None:
    noisy = add_noise(np.full(200_000, light, np.float32), shot, read, np.random.default_rng(1))
    assert stabilize(noisy, shot, read).std() == pytest.approx(1, abs=0.035)


@pytest.mark.parametrize(("shot", "read"), FIGURES)
@pytest.mark.parametrize("light", [0.0, 0.001, 0.01, 0.1, 1.0])
def test_the_mean_of_noise_comes_back_without_bias(shot: float, read: float, light: float) -> None:
    """The inverse that squares, which is what the transform alone suggests, misses by a quarter of a photoelectron."""
    noisy = add_noise(np.full(400_000, light, np.float32), shot, read, np.random.default_rng(2))
    mean = stabilize(noisy, shot, read).mean(dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(shot * light + read)
    assert restore(mean, shot, read) == pytest.approx(light, abs=4e-2 * shot + 6e-3 * deviation)


@given(st.floats(0, 1), st.floats(0, 0.02), st.floats(1e-9, 1e-4))
def test_expected_is_the_inverse_of_restore(light: float, shot: float, read: float) -> None:
    samples = np.float32([light])
    assert restore(expected(samples, shot, read), shot, read)[0] == pytest.approx(light, abs=1e-5)


def test_figures_broadcast_over_planes() -> None:
    samples = np.random.default_rng(3).random((5, 6, 4), dtype=np.float32)
    shot, read = np.float32([1e-3, 2e-3, 3e-3, 2e-3]), np.float32([1e-6, 2e-6, 3e-6, 2e-6])
    whole = stabilize(samples, shot, read)
    assert whole.dtype == np.float32
    for plane in range(4):
        np.testing.assert_array_equal(whole[..., plane], stabilize(samples[..., plane], shot[plane], read[plane]))


def test_brighter_is_never_darker() -> None:
    stabilized = np.linspace(-20, 200, 5000, dtype=np.float32)
    assert np.all(np.diff(restore(stabilized, 1e-3, 1e-6)) >= 0)
