"""Tiled inference: the same as the whole where it promises so, seamless where it cannot be, and never silent."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from nightisp.errors import DeviceError, ImageShapeError, ParamsError, StageError  # noqa: E402
from nightisp.models import build, tiling  # noqa: E402
from nightisp.models.cost import bytes_per_sample  # noqa: E402
from nightisp.models.evaluation import prepared, resolved  # noqa: E402
from nightisp.models.padding import cut, grown, mirrored  # noqa: E402


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return build("denoise_unet", width=8)


def planes_of(channels, height, width, seed=0):
    return np.random.default_rng(seed).random((channels, height, width), np.float32)


def difference(a, b):
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize(
    ("layers", "multiple", "expected"),
    [
        ([torch.nn.Identity()], 1, 0),
        ([torch.nn.Conv2d(1, 1, 3, padding=1)], 1, 1),
        ([torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(1, 1, 5, padding=2)], 1, 3),
        ([torch.nn.Conv2d(1, 1, 3, padding=30, dilation=30)], 1, 30),
        ([torch.nn.Conv2d(1, 1, 3, padding=30, dilation=30)] * 4, 1, 120),
        ([torch.nn.AvgPool2d(2), torch.nn.Upsample(scale_factor=2)], 2, 2),
    ],
)
def test_receptive_field_of_known_networks(layers, multiple, expected):
    network = torch.nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # no weight can hide it
    assert tiling.receptive_field(network, 1, multiple) == expected


def test_receptive_field_of_the_unet(unet):
    # 3 + 4 + 8 + 6 + 3 + 2 samples of convolutions and up to 4 of strides.
    assert tiling.receptive_field(unet, 4, 4) == 32


def test_receptive_field_without_end():
    class Average(torch.nn.Module):
        def forward(self, x):
            return x - x.mean()

    with pytest.raises(StageError, match="Average looks further than 256 samples"):
        tiling.receptive_field(Average(), 1)


@given(height=st.integers(1, 150), width=st.integers(1, 150), tile=st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_exact_tiles_are_the_whole(unet, height, width, tile):
    planes = planes_of(4, height, width)
    whole = tiling.whole(unet, planes, multiple=4)
    tiled = tiling.exact(unet, planes, tile=max(tile, max(height, width) // 6), multiple=4)
    assert difference(tiled, whole) < 1e-5


def test_too_little_overlap_shows(unet):
    """The test above can fail."""
    planes = planes_of(4, 96, 96)
    tiled = tiling.exact(unet, planes, tile=32, overlap=0, multiple=4)
    assert difference(tiled, tiling.whole(unet, planes, multiple=4)) > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (4, 4), (7, 5)])
def test_tiny_pictures(unet, size):
    planes = planes_of(4, *size)
    result = tiling.exact(unet, planes, tile=64, multiple=4)
    assert result.shape == planes.shape
    expected = np.pad(planes, ((0, 0), *((0, -side % 4) for side in size)), mode="reflect")
    with torch.inference_mode():
        expected = unet(torch.from_numpy(expected)[None])[0, :, : size[0], : size[1]].numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_memory_is_bounded_by_the_tile():
    seen = []

    class Witness(torch.nn.Module):
        def forward(self, x):
            seen.append(x.shape[-2:])
            return x

    tiling.exact(Witness(), planes_of(1, 300, 203), tile=64, overlap=12, multiple=4)
    assert len(seen) == 5 * 4
    assert max(max(size) for size in seen) <= 64 + 2 * 12
    assert all(side % 4 == 0 for size in seen for side in size)
    seen.clear()
    tiling.blended(Witness(), planes_of(3, 300, 203), tile=64, overlap=16, multiple=16)
    assert max(max(size) for size in seen) <= 64 + 2 * 16


def test_what_features_take_is_measured():
    # Of 8 and 4 features in float32: the second convolution holds what it takes and what it gives.
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(4, 1, 1))
    assert bytes_per_sample(network, 3) == pytest.approx(4 * (8 + 4), rel=0.01)
    half = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Conv2d(3, 16, 1))
    assert bytes_per_sample(half, 3, 2) == pytest.approx(4 * (3 + 16) / 4, rel=0.01)


def test_the_unet_holds_three_features_of_the_full_size():
    unet = build("denoise_unet").eval()
    # Beside them what comes in, and what the decoder waits for at a quarter of the samples.
    assert bytes_per_sample(unet, 4, 4) == pytest.approx(4 * 64 * 3.25, rel=0.05)
    assert bytes_per_sample(prepared(unet, "bfloat16"), 4, 4) == pytest.approx(2 * 64 * 3.25, rel=0.05)


def test_tiles_are_as_large_as_memory_allows(unet):
    planes, cost, sizes = planes_of(4, 600, 400), bytes_per_sample(unet, 4, 4), []
    tiling.receptive_field(unet, 4, 4)  # measured once, by runs that are not meant here
    unet_seen = unet.register_forward_pre_hook(lambda _, given: sizes.append(max(given[0].shape[-2:])))
    try:
        whole = tiling.exact(unet, planes, multiple=4)
        assert sizes == [600]
        sizes.clear()
        memory = int(400**2 * cost)
        tiled = tiling.exact(unet, planes, memory=memory, multiple=4)
    finally:
        unet_seen.remove()
    assert len(sizes) > 1
    assert 300 < max(sizes) <= 400
    assert difference(tiled, whole) < 1e-5


class Cramped(torch.nn.Module):
    """A convolution on a device that holds so many samples at once."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes, self.layer = most, [], torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        self.sizes.append(tuple(x.shape[-2:]))
        if x.shape[-1] * x.shape[-2] > self.most:
            raise torch.OutOfMemoryError
        return self.layer(x)


def test_less_memory_than_thought_means_smaller_tiles():
    torch.manual_seed(0)
    planes, network = planes_of(1, 500, 700), Cramped(10**9)
    whole = tiling.exact(network, planes)
    network.most, network.sizes = 200**2, []
    assert difference(tiling.exact(network, planes, overlap=1), whole) < 1e-5
    assert network.sizes[0] == (500, 700)
    assert len(set(network.sizes)) > 2
    network.most = 10
    with pytest.raises(DeviceError, match="does not fit into the memory"):
        tiling.exact(network, planes, overlap=1)


def test_a_tile_that_is_halved_sees_what_it_needs(unet):
    """Asked for one tile, which needs no overlap: the halves that a small device takes in its place do."""
    planes, asked = planes_of(4, 200, 200), 512
    whole, evaluate = tiling.exact(unet, planes, multiple=4), tiling.evaluate

    def cramped(network, part, *rest, **more):
        if part.shape[-2] * part.shape[-1] >= 200**2:
            raise DeviceError("no memory")
        return evaluate(network, part, *rest, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiling, "evaluate", cramped)
        assert difference(tiling.exact(unet, planes, tile=asked, multiple=4), whole) < 1e-4


def test_flipped_arrays_are_taken(unet):
    planes = planes_of(4, 40, 48)
    flipped = tiling.exact(unet, planes[:, ::-1, ::-1], multiple=4)
    assert (flipped == tiling.exact(unet, planes[:, ::-1, ::-1].copy(), multiple=4)).all()


def test_auto_where_onednn_is_not_there(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolved("auto", "cpu") == "float32"


@pytest.mark.parametrize(
    ("blocks", "expected"), [(1, ("head.", "up3.1.", "tail.")), (20, ("head.", "down1.", "up3.", "tail."))]
)
def test_reduced_copies_are_made_once_and_leave_what_must_be_exact(blocks, expected):
    network = build("mwispnet", widths=(4, 4, 4), blocks=blocks, reduction=2)
    copy = prepared(network, "bfloat16")
    assert copy is prepared(network, "bfloat16")
    assert copy is not network is prepared(network, "float32")
    types = {name: parameter.dtype for name, parameter in copy.named_parameters()}
    exact = {name for name, dtype in types.items() if dtype == torch.float32}
    assert exact == {name for name in types if name.startswith(expected)}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert len(exact) < len(types)


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mwispnet", {"widths": (4, 4, 4), "blocks": 5, "reduction": 2}),
        ("hat", {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "squeeze_factor": 6}),
        ("denoise_unet", {"width": 4}),
    ],
)
def test_networks_run_in_every_precision(name, given, precision):
    torch.manual_seed(0)
    network = build(name, **given).eval()
    planes = planes_of(4 if name == "denoise_unet" else 3, 64, 64)
    (reference,), (found,) = (tiling.evaluate(network, planes, kind) for kind in ("float32", precision))
    bound = {"float64": 1e-5, "float32": 0, "bfloat16": 2e-2, "float16": 5e-3}[precision]
    assert np.abs(found - reference).max() <= bound * np.abs(reference).max()


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_processor_computes_natively(monkeypatch, native, expected):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolved("auto", "cpu") == expected
    assert resolved("float32", "cpu") == "float32"
    network, planes = build("mwispnet", widths=(4, 4, 4), blocks=1, reduction=2), planes_of(3, 64, 64)
    (auto,), (named,) = (tiling.evaluate(network, planes, precision) for precision in ("auto", expected))
    assert (auto == named).all()


class Marking(torch.nn.Module):
    """Answer with one number per call, enlarged: what each tile contributes can be read from the result."""

    def __init__(self, scale=1):
        super().__init__()
        self.calls, self.scale = 0, scale

    def forward(self, x):
        self.calls += 1
        return torch.full((1, 1, x.shape[2] * self.scale, x.shape[3] * self.scale), float(self.calls))


def test_blend_ramps_only_across_seams():
    result = tiling.blended(Marking(), planes_of(1, 32, 64), tile=32, overlap=8, multiple=1)[0]
    assert np.ptp(result, axis=0).max() == 0  # one row of tiles: nothing fades at the top and bottom
    row = result[0]
    assert (row[:24] == 1).all()
    assert (row[40:] == 2).all()
    np.testing.assert_allclose(np.diff(row[24:40]), 1 / 16, atol=1e-6)
    np.testing.assert_allclose(row + row[::-1], 3, atol=1e-6)


@given(
    height=st.integers(1, 80), width=st.integers(1, 80), tile=st.integers(1, 40), overlap=st.integers(0, 24),
    multiple=st.sampled_from([1, 4, 16]), scale=st.sampled_from([1, 4]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_blend_weights_add_up_to_one(height, width, tile, overlap, multiple, scale):
    enlarge = torch.nn.Upsample(scale_factor=scale)
    planes = planes_of(2, height, width)
    tile = max(tile, max(height, width) // 8 + 1)
    result = tiling.blended(enlarge, planes, tile=tile, overlap=overlap, multiple=multiple, scale=scale)
    np.testing.assert_allclose(result, planes.repeat(scale, 1).repeat(scale, 2), atol=1e-6)


def test_one_tile_is_the_whole_to_the_bit():
    torch.manual_seed(0)
    network = build("hat", embed_dim=12, depths=(2,), num_heads=(2,), squeeze_factor=6)
    planes = planes_of(3, 37, 30)
    tiled = tiling.blended(network, planes, tile=64, overlap=32, multiple=16, scale=4)
    assert np.array_equal(tiled, tiling.whole(network, planes, scale=4))


def test_whole_of_a_shrinking_network():
    network = torch.nn.AvgPool2d(4)
    result = tiling.whole(network, planes_of(3, 45, 65), multiple=32, scale=Fraction(1, 4))
    assert result.shape == (3, 12, 17)


def test_input_stays_untouched_and_may_be_read_only(unet):
    planes = planes_of(4, 16, 16)
    before = planes.copy()
    planes.flags.writeable = False
    tiling.exact(unet, planes, tile=64, multiple=4)
    tiling.blended(torch.nn.Identity(), planes, tile=64, overlap=0)
    assert np.array_equal(planes, before)


class Failing(torch.nn.Module):
    """Fail in one way at the third call."""

    def __init__(self, failure):
        super().__init__()
        self.failure, self.calls = failure, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 3:
            if isinstance(self.failure, Exception):
                raise self.failure
            return x * self.failure
        return x


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (float("nan"), StageError, "gave NaN or infinity"),
        (float("inf"), StageError, "gave NaN or infinity"),
        (RuntimeError("boom"), StageError, "Failing failed: boom"),
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceError, "choose a smaller tile"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), DeviceError, "choose a smaller tile"),
    ],
)
@pytest.mark.parametrize("tiled", [tiling.exact, tiling.blended])
def test_a_failing_tile_is_named(failure, error, message, tiled):
    with pytest.raises(error, match=r"tile 3 of 4 \(rows 8 to 16, columns 0 to 8\)") as caught:
        tiled(Failing(failure), planes_of(1, 16, 16), tile=8, overlap=0)
    assert message in str(caught.value)


def test_bad_input_is_blamed_on_the_input(unet):
    planes = planes_of(4, 8, 8)
    planes[0, 0, 0] = np.nan
    with pytest.raises(StageError, match="its input holds NaN"):
        tiling.whole(unet, planes, multiple=4)


@pytest.mark.parametrize("shape", [(8, 8), (1, 4, 8, 8), (4, 0, 8)])
def test_refuses_other_shapes(unet, shape):
    with pytest.raises(ImageShapeError, match=r"expected \(C, H, W\)"):
        tiling.exact(unet, np.zeros(shape, np.float32), tile=8, multiple=4)


def test_refuses_tiles_of_nothing(unet):
    with pytest.raises(ParamsError, match="tile is 0"):
        tiling.exact(unet, planes_of(4, 8, 8), tile=0, multiple=4)


def test_refuses_a_network_of_another_scale():
    with pytest.raises(ImageShapeError, match="tile 1 of 1"):
        tiling.exact(torch.nn.AvgPool2d(2), planes_of(1, 8, 8), tile=8, overlap=0)


def test_lower_precision_is_near(unet):
    planes = planes_of(4, 32, 32)
    low = tiling.whole(unet, planes, multiple=4, precision="bfloat16")
    assert 0 < difference(low, tiling.whole(unet, planes, multiple=4)) < 0.05


@given(size=st.integers(1, 12), more=st.integers(0, 40))
def test_mirrored_is_numpys_reflection(size, more):
    assert mirrored(size, size + more).tolist() == np.pad(np.arange(size), (0, more), mode="reflect").tolist()


def test_grown_and_cut():
    assert [grown(size, 4) for size in (1, 4, 5)] == [4, 4, 8]
    planes = planes_of(2, 5, 6)
    padded = np.pad(planes, ((0, 0), (0, 3), (0, 2)), mode="reflect")
    assert np.array_equal(cut(planes, (4, 8), (0, 8)), padded[:, 4:8])
    assert np.array_equal(cut(planes, (0, 4), (4, 8)), padded[:, :4, 4:8])
    lying = np.moveaxis(np.ascontiguousarray(np.moveaxis(planes, 0, -1)), -1, 0)
    assert cut(lying, (0, 8), (0, 8)).strides == (4, 64, 8)  # samples of a pixel side by side, as they lay


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    more=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    begin=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_what_is_cut_is_part_of_numpys_reflection(size, more, begin):
    image = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    planes = np.moveaxis(image, -1, 0)
    spans = [(min(first, side + grow - 1), side + grow) for first, side, grow in zip(begin, size, more, strict=True)]
    part = cut(planes, *spans)
    padded = np.pad(planes, ((0, 0), (0, more[0]), (0, more[1])), mode="reflect")
    assert np.array_equal(part, padded[:, slice(*spans[0]), slice(*spans[1])])
