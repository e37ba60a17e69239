"""Networks: layout and numbers of the published ones, what `build` refuses, what `infer` finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nightisp.errors import ParamsError, WeightsMismatchError  # noqa: E402
from nightisp.models import PRESETS, build, denoise_unet, infer  # noqa: E402

SHARED = Path(os.environ.get("NIGHTISP_SHARED", Path(__file__).parents[1] / "../shared"))
GOLDEN = SHARED / "reference" / "golden"
TINY = {"embed_dim": 60, "depths": (2, 2), "num_heads": (6, 6)}
REFERENCE = {
    "denoise_unet": ("denoise_unet", {}),
    "fc4_cwp": ("fc4", {}),
    "mwrcan": ("mwispnet", {}),
    "hat_tiny": ("hat", TINY),
    "hat": ("hat", {}),
    "hat_s": ("hat_s", {}),
}
WAVELETS = ("head.2.weight", "down2.0.weight", "down3.0.weight", "up1.2.weight", "up2.3.weight", "tail.weight")

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden values in {GOLDEN}")


def published_fill(model):
    sys.path.insert(0, str(SHARED / "reference"))
    try:
        from fill import fill
    finally:
        sys.path.pop(0)
    return fill(model, keep=WAVELETS)


def shapes_of(name, **overrides):
    with torch.device("meta"):
        return {key: list(tensor.shape) for key, tensor in build(name, **overrides).state_dict().items()}


@needs_golden
@pytest.mark.parametrize("reference", REFERENCE)
def test_state_dict_has_the_published_names_and_shapes(reference):
    name, overrides = REFERENCE[reference]
    published = json.loads((GOLDEN / "state_dict_keys.json").read_text())[reference]
    assert shapes_of(name, **overrides) == published


@needs_golden
@pytest.mark.parametrize("reference", [name for name in REFERENCE if name != "hat_s"])
def test_outputs_are_the_published_ones(reference):
    name, overrides = REFERENCE[reference]
    network = published_fill(build(name, **overrides))
    with np.load(GOLDEN / f"{reference}.npz") as golden, torch.inference_mode():
        outputs = network(torch.from_numpy(golden["x"]))
        for number, output in enumerate(outputs if isinstance(outputs, tuple) else (outputs,)):
            expected = golden[f"y{number}"]
            assert output.shape == expected.shape
            assert np.abs(output.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
            # A scale that lets an error hide in the largest value is not enough.
            assert np.abs(output.numpy() - expected).mean() <= 1e-4 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("denoise_unet", 516_608, 17),
        ("fc4", 1_705_284, 48),
        ("mwispnet", 23_462_593, 995),
        ("hat", 20_772_507, 864),
        ("hat_s", 9_621_183, 864),
    ],
)
def test_presets_have_the_published_size(name, parameters, tensors):
    with torch.device("meta"):
        network = build(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors
    assert not network.training


@pytest.mark.parametrize(
    ("name", "overrides"),
    [(name, {}) for name in PRESETS]
    + [
        ("denoise_unet", {"width": 24, "levels": 4}),
        ("denoise_unet", {"channels": 5}),
        ("fc4", {"stem": 32, "head": 16, "squeeze": (8, 8, 16, 16, 24, 24, 32)}),
        ("mwispnet_s", {"widths": (16, 24, 32), "blocks": 3}),
        ("mwispnet", {"widths": (16, 24, 32), "blocks": 3}),
        ("hat", TINY),
        ("hat_s", {"depths": (2, 4), "num_heads": (6, 3)}),
        ("hat", {"window_size": 8, "compress_ratio": 4, "squeeze_factor": 20, "mlp_ratio": 4.0, "upscale": 2}),
        ("hat", {"upscale": 3, "overlap_ratio": 0.25}),
    ],
)
def test_infer_finds_the_variant(name, overrides):
    with torch.device("meta"):
        state = build(name, **overrides).state_dict()
    assert infer(state) == (name, overrides)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("hatt", {}, "Did you mean hat?"),
        ("hat", {"embed_dims": 60}, "Did you mean embed_dim?"),
        ("hat", {"depths": 6}, "several numbers"),
        ("hat", {"embed_dim": 61}, "shared by heads"),
        ("hat", {"depths": (2, 2)}, "expected as many"),
        ("hat", {"upscale": 5}, "upscale is 5"),
        ("denoise_unet", {"width": 0}, "whole numbers from 1"),
        ("denoise_unet", {"width": 1.5}, "whole numbers from 1"),
        ("fc4", {"squeeze": (16, 16)}, "expected 7"),
        ("mwispnet", {"widths": (8, 8)}, "expected 3"),
    ],
)
def test_build_refuses(name, overrides, message):
    with pytest.raises(ParamsError, match=message.replace("?", r"\?")):
        build(name, **overrides)


def test_infer_refuses_strange_tensors():
    with pytest.raises(WeightsMismatchError, match="belong to none of"):
        infer({"encoder.weight": torch.zeros(1)})
    with pytest.raises(WeightsMismatchError, match=r"conv1_1\.weight is missing"):
        infer({"res_conv1_1.weight": torch.zeros(1)})


def test_build_is_repeatable_and_takes_lists():
    first, second = (torch.manual_seed(3) and build("denoise_unet", width=8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in first.parameters())
    assert len(build("hat", embed_dim=60, depths=[1], num_heads=[6]).layers) == 1


def test_networks_are_found_without_static_imports():
    """A cache key follows static imports: one network must not enter the key of another."""
    listing = (
        "import sys, nightisp.models; print(*(m for m in sys.modules if m.startswith(('torch', 'nightisp.models.'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_measuring_a_network_imports_no_compiler():
    """PyTorch's own takes a second to import, and nothing here compiles."""
    listing = (
        "import sys; from nightisp.models import build; from nightisp.models.cost import bytes_per_sample; "
        "from nightisp.models.tiling import receptive_field; network = build('denoise_unet', width=4).eval(); "
        "assert bytes_per_sample(network, 4, 4) > 0 < receptive_field(network, 4, 4); "
        "print(*(m for m in sys.modules if m.startswith(('torch._dynamo', 'torch._inductor'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(("size", "sample"), [(0.03, 1.0), (1e20, 1.0), (0.03, float("nan")), (0.03, float("inf"))])
def test_convolving_and_rectifying_in_one_pass_is_the_same_and_hides_nothing(
    size: float, sample: float, monkeypatch
) -> None:
    """Weights so large that features are infinite somewhere, or a picture that is: NaN must come out, not 0."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    torch.manual_seed(0)
    network = build("denoise_unet").eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=size)
    network, picture = network.bfloat16(), torch.rand(1, 4, 24, 32)
    picture[0, 2, 5, 7], sound = sample, (size, sample) == (0.03, 1.0)
    asked = []
    one_pass = denoise_unet._in_one_pass
    monkeypatch.setattr(denoise_unet, "_in_one_pass", lambda *given: asked.append(1) or one_pass(*given))
    with torch.inference_mode():
        fused = network(picture)
        monkeypatch.setattr(type(network), "_may_be_in_one_pass", lambda *_: False)
        torch.testing.assert_close(fused, network(picture), rtol=0, atol=0, equal_nan=True)
    assert bool(asked) == sound
    assert bool(fused.isfinite().all()) == sound


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (33, 33), (64, 48)])
def test_fc4_takes_any_size(size):
    torch.manual_seed(0)
    with torch.inference_mode():
        illuminant, colors, confidence = build("fc4")(torch.rand(1, 3, *size))
    assert torch.isfinite(illuminant).all()
    assert colors.shape[-2:] == confidence.shape[-2:]


def test_fc4_pools_by_confidence():
    torch.manual_seed(0)
    network = build("fc4")
    torch.nn.init.constant_(network.final_convs[4].bias, 0.5)
    with torch.inference_mode():
        illuminant, colors, confidence = network(torch.rand(2, 3, 80, 96))
    pooled = (colors * confidence).sum(dim=(2, 3))
    torch.testing.assert_close(illuminant, pooled / pooled.norm(dim=1, keepdim=True))


def test_wavelets_are_orthonormal():
    from nightisp.models.mwispnet import _Analysis, _Synthesis

    picture = torch.rand(2, 5, 6, 8)
    bands = _Analysis()(picture)
    assert bands.shape == (2, 20, 3, 4)
    torch.testing.assert_close(bands[:, ::4], 2 * torch.nn.functional.avg_pool2d(picture, 2))
    torch.testing.assert_close(_Synthesis()(bands), picture)


@pytest.mark.parametrize("size", [(1, 1), (5, 20), (17, 16)])
def test_hat_takes_any_size(size):
    torch.manual_seed(0)
    network = build("hat", embed_dim=12, depths=(2,), num_heads=(2,), compress_ratio=3, squeeze_factor=6)
    with torch.inference_mode():
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, 4 * size[0], 4 * size[1])


def test_bands_of_rows_are_the_whole(monkeypatch):
    """Attention and the layers beside it run in bands of rows, and nothing shows of that."""
    torch.manual_seed(0)
    small = {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "compress_ratio": 3, "squeeze_factor": 6}
    network = build("hat", **small, conv_scale=1.0).eval()
    for name, parameter in network.named_parameters():
        if "bias_table" in name:
            torch.nn.init.normal_(parameter)
    picture = torch.rand(1, 3, 80, 48)
    whole = network(picture).detach()  # with gradients all is one band
    monkeypatch.setattr("nightisp.models.attention._CACHED", 16 * 48)
    calls = []
    for block in network.layers[0].residual_group["blocks"]:
        block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        banded = network(picture)
    assert len(calls) == 10
    torch.testing.assert_close(banded, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 9), (24, 16)])
@pytest.mark.parametrize("upscale", [1, 2, 3, 4, 8])
def test_the_enlarging_layers_are_one_convolution(upscale: int, size: tuple[int, int]) -> None:
    """What HAT computes in one step is what its layers give one after the other, at the borders too."""
    torch.manual_seed(0)
    tail = {"embed_dim": 12, "depths": (), "num_heads": (), "squeeze_factor": 6, "upscale": upscale}
    network = build("hat", **tail).eval().double()
    features = torch.randn(2, 64, *size, dtype=torch.float64)
    expected = torch.nn.Sequential(*network.upsample, network.conv_last)(features).detach()
    with torch.inference_mode():
        torch.testing.assert_close(network._enlarged(features), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (4, 12), (12, 4), (8, 12)])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_windows_match_the_usual_mask(shift: int, size: tuple[int, int], banded: bool, monkeypatch) -> None:
    """Attention by regions is the attention with one mask per window, and so are its gradients."""
    from nightisp.models.attention import WindowAttention, relative_index

    torch.manual_seed(0)
    window, heads, (height, width) = 4, 2, size
    attention = WindowAttention(6, window, heads, shift).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    x, index = torch.randn(2, height, width, 6, dtype=torch.float64, requires_grad=True), relative_index(window)

    def region(length: int) -> torch.Tensor:
        return torch.bucketize(torch.arange(length), torch.tensor([length - window, length - shift]), right=True)

    regions = region(height)[:, None] * 3 + region(width)
    expected = torch.empty_like(x)
    rolled = x.roll((-shift, -shift), (1, 2))
    bias = attention.relative_position_bias_table[index].permute(2, 0, 1)
    for top in range(0, height, window):
        for left in range(0, width, window):
            here = (slice(None), slice(top, top + window), slice(left, left + window))
            q, k, v = attention.qkv(rolled[here]).reshape(2, window**2, 3, heads, 3).permute(2, 0, 3, 1, 4)
            inside = regions[here[1:]].flatten()
            scores = q @ k.mT / 3**0.5 + bias
            if shift:
                scores = scores - 100.0 * (inside[:, None] != inside)
            expected[here] = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, window, window, 6))
    expected = expected.roll((shift, shift), (1, 2))
    if banded:
        monkeypatch.setattr("nightisp.models.attention._CACHED", 2 * window * width)
        with torch.inference_mode():
            torch.testing.assert_close(attention(x, index), expected)
        return
    found, toward = attention(x, index), torch.randn(2, height, width, 6, dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    parameters = (x, *attention.parameters())
    gradients = (torch.autograd.grad((result * toward).sum(), parameters) for result in (found, expected))
    for ours, usual in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, usual)


@pytest.mark.parametrize(
    ("name", "overrides", "size"),
    [
        ("denoise_unet", {"width": 4}, (4, 8, 8)),
        ("fc4", {}, (3, 40, 40)),
        ("mwispnet", {"widths": (4, 4, 4), "blocks": 1, "reduction": 2}, (3, 64, 64)),
        ("hat", {"embed_dim": 12, "depths": (2,), "num_heads": (2,), "squeeze_factor": 6}, (3, 32, 32)),
    ],
)
def test_every_parameter_learns(name, overrides, size):
    torch.manual_seed(0)
    network = build(name, **overrides)
    output = network(torch.rand(1, *size))
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
