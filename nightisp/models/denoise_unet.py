# mypy: disallow-subclassing-any=False
"""The residual U-Net of :cite:`ntire2023night`, after :cite:`ronneberger2015unet`: it denoises a packed mosaic."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class DenoiseUNet(nn.Module):
    """Estimate what must be added to a packed mosaic to take the noise out of it.

    Convolutions are 3 x 3 and have no biases, so that the network scales: brighter in, brighter out. Levels shrink by
    2 x 2 averages and grow by 2 x 2 transposed convolutions, which are added to what the same level held before.

    Parameters
    ----------
    channels
        Planes of the packed mosaic; the published order is R, G, B, G.
    width
        Features at every level.
    levels
        Resolutions from full to coarsest. Height and width must divide by `2 ** (levels - 1)`: 4 as published.
    """

    def __init__(self, channels: int = 4, width: int = 64, levels: int = 3) -> None:
        super().__init__()
        self.levels = levels
        self.last = 2 * levels - 1  # encoder and decoder levels are numbered in one row
        for level in range(1, self.last + 1):
            if level > levels:
                self.add_module(f"deconv{level - levels}", nn.ConvTranspose2d(width, width, 2, stride=2, bias=False))
            if level == 1 or level > levels:
                self.add_module(f"conv{level}_1", _convolution(channels if level == 1 else width, width))
            self.add_module(f"res_conv{level}_1", _convolution(width, width))
            self.add_module(f"res_conv{level}_2", _convolution(width, width))
        self.add_module(f"conv{self.last + 1}_1", _convolution(width, width))
        self.add_module(f"conv{self.last + 2}_1", _convolution(width, channels))

    def forward(self, packed: Tensor) -> Tensor:
        """Return the residual, to be added to the mosaic and clipped by the caller.

        Parameters
        ----------
        packed
            float (N, 4, H, W), linear; the published weights saw BGGR mosaics clipped to `[0, max(3 mean, 0.9)]`.

        Returns
        -------
        Tensor
            float (N, 4, H, W), not clipped, of either sign.
        """
        held = []
        x = packed.to(self.get_submodule("conv1_1").weight.dtype)
        rectified = _in_one_pass if self._may_be_in_one_pass(x) else _one_after_the_other

        def bent(name: str, x: Tensor) -> Tensor:
            return rectified(self.get_submodule(name), x)

        def refined(level: int, x: Tensor) -> Tensor:
            return x + bent(f"res_conv{level}_2", bent(f"res_conv{level}_1", x))

        for level in range(1, self.levels + 1):
            x = bent("conv1_1", x) if level == 1 else F.avg_pool2d(x, 2)  # (N, width, H / 2^k, W / 2^k)
            x = refined(level, x)
            held.append(x)
        held.pop()
        for level in range(self.levels + 1, self.last + 1):
            x = self.get_submodule(f"deconv{level - self.levels}")(x) + held.pop()
            x = bent(f"conv{level}_1", x)  # a line of its own: what it came from need not be kept while it is refined
            x = refined(level, x)
        x = bent(f"conv{self.last + 1}_1", x)
        return self.get_submodule(f"conv{self.last + 2}_1")(x)

    def _may_be_in_one_pass(self, x: Tensor) -> bool:
        """Whether `_in_one_pass` can be had, and no NaN can come up that it would hide."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return False
        if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return False
        # No layer makes its largest value larger than by the sum of its weights' sizes; adding what came in, by 1 more.
        # Where that stays below infinity, nothing is infinite, so nothing is NaN. If the input is, this is not smaller.
        largest = float(x.abs().max())
        for layer in self.children():
            outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            sums = layer.weight.float().abs().sum(dim=[axis for axis in range(4) if axis != outputs])
            largest *= 1 + float(sums.max())
        return bool(largest < torch.finfo(torch.bfloat16).max / 2)


def _one_after_the_other(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    return F.relu(convolution(x), inplace=True)


def _in_one_pass(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve, and write down what comes of it without negative values: the same bits, but that NaN becomes 0.

    In bfloat16 on the CPU writing is what takes time: with AMX a pass of its own takes as long as the convolution.
    """
    one: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, convolution.weight, None, (1, 1), (1, 1), (1, 1), 1, "relu", [], ""
    )
    return one


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def variant(shapes: Mapping[str, torch.Size]) -> dict[str, object]:
    """Return the constructor's arguments that give tensors of these names and shapes."""
    width, channels = shapes["conv1_1.weight"][:2]
    return {
        "channels": channels,
        "width": width,
        "levels": 1 + sum(name.startswith("deconv") for name in shapes),
    }
