# mypy: disallow-subclassing-any=False
"""MWISPNet, a wavelet U-Net of residual channel attention (:cite:`ignatov2020aim`, :cite:`liu2022deepflexisp`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nightisp.models.averages import average

_FEW = 4  # residual blocks in a group, at most, that may round as they like


class MWISPNet(nn.Module):
    """Retouch a display-referred picture as a photographer would, at a quarter of its width and height.

    Attention takes its weights from averages over the whole picture: tiles would each get a look of their own.

    Parameters
    ----------
    widths
        Features at 1/8, 1/16 and 1/32 of the width.
    blocks
        Residual blocks in each of the six groups.
    reduction
        How many times fewer features the channel attention squeezes to.
    """

    def __init__(self, widths: Sequence[int] = (64, 96, 128), blocks: int = 20, reduction: int = 16) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"widths has {len(widths)} levels; expected 3")
        fine, middle, coarse = widths
        # What stays in float32. The finest features carry the picture through all blocks, each of which would round
        # it again: bright skies would be off by half a level of 255. A draft's few blocks are off by a third of one,
        # and are there to be quick.
        self.exact = ("head", "down1", "up3", "tail") if blocks > _FEW else ("head", "up3.1", "tail")

        def group(width: int) -> nn.Module:
            return _Group(width, blocks, reduction)

        self.head = nn.Sequential(nn.AvgPool2d(2), nn.PixelUnshuffle(2), _Analysis())
        self.down1 = nn.Sequential(_convolution(48, fine), nn.PReLU(), group(fine))
        self.down2 = nn.Sequential(_Analysis(), _convolution(4 * fine, middle), nn.PReLU(), group(middle))
        self.down3 = nn.Sequential(_Analysis(), _convolution(4 * middle, coarse), nn.PReLU())
        self.middle = nn.Sequential(group(coarse), group(coarse))
        self.up1 = nn.Sequential(_convolution(coarse, 4 * middle), nn.PReLU(), _Synthesis())
        self.up2 = nn.Sequential(group(middle), _convolution(middle, 4 * fine), nn.PReLU(), _Synthesis())
        self.up3 = nn.Sequential(group(fine), _convolution(fine, 12))
        self.tail = _Synthesis()

    def forward(self, rgb: Tensor, *, binned: bool = False) -> Tensor:
        """Return the retouched picture.

        Parameters
        ----------
        rgb
            float (N, 3, H, W) in [0, 1], display-referred. H and W must be multiples of 32: padding, by reflection
            as in training, is left to the caller.
        binned
            Whether `rgb` is the mean of 2 x 2 pixels already, (N, 3, H / 2, W / 2), which is the network's first step.

        Returns
        -------
        Tensor
            float (N, 3, H / 4, W / 4), not clipped.
        """
        bands = self._bands(rgb, binned=binned)
        fine = self.down1(bands.to(self.down1[0].weight.dtype))  # (N, 64, H/8, W/8)
        middle = _analyzed(fine.to(self.down2[1].weight.dtype), *self.down2)  # (N, 96, H/16, W/16)
        x = self.middle(_analyzed(middle, *self.down3))  # (N, 128, H/32, W/32)
        x = self.up1(x).add_(middle)
        x = self.up2(x).to(fine.dtype).add_(fine)
        group, last = self.up3
        return self.tail(last(group(x).to(last.weight.dtype)))

    def _bands(self, rgb: Tensor, *, binned: bool) -> Tensor:
        """Return what `head` gives, (N, 48, H/8, W/8): averages, pixels apart and their bands are one convolution."""
        haar = self.head[2].weight[:, 0]
        two, three = torch.eye(2).to(haar), torch.eye(3).to(haar)
        filters = torch.einsum("bkl,ip,jq,cd->cijbdkplq", haar, two, two, three).reshape(48, 3, 4, 4)
        if not binned:
            filters = filters.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
        return F.conv2d(rgb.to(haar.dtype), filters, stride=filters.shape[-1])


class _Wavelet(nn.Module):
    """The four Haar filters; a buffer, since the published layout stores them though nobody trains them."""

    def __init__(self) -> None:
        super().__init__()
        h = 0.5
        haar = [[[[h, h], [h, h]]], [[[h, h], [-h, -h]]], [[[h, -h], [h, -h]]], [[[h, -h], [-h, h]]]]
        self.register_buffer("weight", torch.tensor(haar))  # (4, 1, 2, 2), orthonormal


class _Analysis(_Wavelet):
    """Split each feature into its four Haar bands: (N, C, H, W) to (N, 4 C, H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        # Features are independent pictures here: one small convolution, and no filters repeated C times.
        bands = F.conv2d(x.flatten(0, 1).unsqueeze(1), self.weight, stride=2)  # (N C, 4, H/2, W/2)
        return bands.reshape(x.shape[0], -1, *bands.shape[-2:])


class _Synthesis(_Wavelet):
    """Put each feature together from its four Haar bands: (N, 4 C, H, W) to (N, C, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        n, bands, height, width = x.shape
        features = bands // 4
        # All features at once, zeros between them: features that lie side by side stay so, and move in whole pixels.
        mixed = torch.einsum("bij,cd->ijcdb", self.weight[:, 0], torch.eye(features).to(self.weight))
        pixels = F.conv2d(x, mixed.reshape(bands, bands, 1, 1))  # (N, 2 2 C, H, W)
        pixels = pixels.permute(0, 2, 3, 1).reshape(n, height, width, 2, 2, features).transpose(2, 3)
        return pixels.reshape(n, 2 * height, 2 * width, features).permute(0, 3, 1, 2)


def _analyzed(x: Tensor, wavelet: _Analysis, convolution: nn.Conv2d, *after: nn.Module) -> Tensor:
    """Return what a convolution of the Haar bands gives, and what comes after it; the bands are not written down.

    A wavelet of 2 x 2 and a convolution of 3 x 3 behind it are one of 6 x 6 that takes every other pixel, with as many
    multiplications.
    """
    outputs, bands = convolution.weight.shape[:2]
    weight = convolution.weight.reshape(outputs, bands // 4, 4, 3, 3).float()
    both = torch.einsum("ocbuv,bij->ocuivj", weight, wavelet.weight[:, 0].float())
    both = both.reshape(outputs, bands // 4, 6, 6).to(x.dtype, memory_format=torch.channels_last)
    x = F.conv2d(x, both, convolution.bias, stride=2, padding=2)
    for module in after:
        x = module(x)
    return x


class _Group(nn.Module):
    """Run blocks and a closing convolution, and add what came in."""

    def __init__(self, width: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.rg = nn.Sequential(*(_Block(width, reduction) for _ in range(blocks)), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.rg(x).add_(x)


class _Block(nn.Module):
    """Two convolutions, weighted per channel, added to what came in."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.res = nn.Sequential(_convolution(width, width), nn.ReLU(inplace=True), _convolution(width, width))
        self.CA = _ChannelAttention(width, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return self.CA(self.res(x)).add_(x)


class _ChannelAttention(nn.Module):
    """Weight each channel by what the averages of all channels say (squeeze and excite)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, narrow, 1), nn.ReLU(inplace=True), nn.Conv2d(narrow, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(average(x))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def variant(shapes: Mapping[str, torch.Size]) -> dict[str, object]:
    """Return the constructor's arguments that give tensors of these names and shapes."""
    widths = tuple(shapes[name][0] for name in ("down1.0.weight", "down2.1.weight", "down3.1.weight"))
    squeezed = shapes["down1.2.rg.0.CA.conv_du.0.weight"][0]
    inside = [name.split(".")[3] for name in shapes if name.startswith("down1.2.rg.") and ".res." in name]
    return {"widths": widths, "blocks": 1 + max(map(int, inside)), "reduction": widths[0] // squeezed}
