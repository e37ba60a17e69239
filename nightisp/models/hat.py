# mypy: disallow-subclassing-any=False
"""HAT, the hybrid attention transformer for super-resolution (:cite:`chen2023hat`).

Features are kept as (N, H, W, C): attention and normalisation want it so, and a convolution reads it, through a
permuted view, as channels-last memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nightisp.models.attention import OverlappingAttention, WindowAttention, band, relative_index
from nightisp.models.averages import average
from nightisp.models.padding import grown, mirrored

_TAIL_REACH = 2  # pixels that the enlarging layers look to each side: one, and less than one at each larger scale
_MEAN = (0.4488, 0.4371, 0.4040)  # RGB of DIV2K, which the published weights expect to be subtracted


class HAT(nn.Module):
    """Enlarge a display-referred picture.

    Parameters
    ----------
    embed_dim
        Features of a pixel.
    depths
        Hybrid attention blocks in each group.
    num_heads
        Attention heads in each group; they must divide `embed_dim`.
    window_size
        Side of the attention windows, in pixels.
    compress_ratio, squeeze_factor
        How many times fewer features the convolution beside attention, and its channel attention, go through.
    conv_scale
        Weight of that convolution. It leaves no trace in the weights.
    overlap_ratio
        How far, in windows, the keys of overlapping attention reach beyond the queries' window, both sides together.
    mlp_ratio
        Hidden features of the perceptrons, per feature.
    upscale
        Factor of width and height: 1, 2, 3, 4 or 8.
    """

    exact = ("conv_first", "conv_before_upsample", "upsample", "conv_last")
    """What stays in float32: its rounding would show as steps in the picture."""

    def __init__(
        self,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 16,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        upscale: int = 4,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.upscale = upscale
        reach = window_size + int(window_size * overlap_ratio)
        if len(depths) != len(num_heads):
            raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}; expected as many")
        if upscale not in (1, 2, 3, 4, 8):
            raise ValueError(f"upscale is {upscale}; expected 1, 2, 3, 4 or 8")
        if (reach - window_size) % 2:
            raise ValueError(f"windows of {window_size} cannot reach {reach - window_size} pixels out on two sides")
        if embed_dim < max(compress_ratio, squeeze_factor) or any(embed_dim % heads for heads in num_heads):
            raise ValueError(f"{embed_dim} features cannot be compressed, squeezed or shared by heads so")
        self.register_buffer("relative_position_index_SA", relative_index(window_size))
        self.register_buffer("relative_position_index_OCA", relative_index(window_size, reach))

        def perceptron() -> _Perceptron:
            return _Perceptron(embed_dim, int(embed_dim * mlp_ratio))

        def block(place: int, heads: int) -> _Block:
            beside = _ConvolutionBeside(embed_dim, compress_ratio, squeeze_factor)
            shift = window_size // 2 if place % 2 else 0
            return _Block(WindowAttention(embed_dim, window_size, heads, shift), beside, perceptron(), conv_scale)

        def group(depth: int, heads: int) -> _Group:
            overlapping = OverlappingAttention(embed_dim, window_size, reach, heads, perceptron())
            return _Group(embed_dim, [block(place, heads) for place in range(depth)], overlapping)

        self.conv_first = _convolution(3, embed_dim)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        self.layers = nn.ModuleList(group(depth, heads) for depth, heads in zip(depths, num_heads, strict=True))
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _convolution(embed_dim, embed_dim)
        self.conv_before_upsample = nn.Sequential(_convolution(embed_dim, 64), nn.LeakyReLU(inplace=True))
        self.upsample = nn.Sequential(*_upsampling(upscale))
        self.conv_last = _convolution(64, 3)
        self.apply(_initialize)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the enlarged picture.

        Sides that are no multiple of the window are grown by reflection at the bottom and right, and cropped after.

        Parameters
        ----------
        rgb
            float (N, 3, H, W) in [0, 1], display-referred.

        Returns
        -------
        Tensor
            float (N, 3, upscale H, upscale W), not clipped.
        """
        height, width = rgb.shape[-2:]
        mean = rgb.new_tensor(_MEAN).view(3, 1, 1)
        x = self.conv_first((self._whole_windows(rgb) - mean).to(self.conv_first.weight.dtype))
        body = self._body(x.permute(0, 2, 3, 1).to(self.norm.weight.dtype)).permute(0, 3, 1, 2)
        x = self.conv_before_upsample(x + self.conv_after_body(body))
        x = self._enlarged(x) + mean
        return x[..., : height * self.upscale, : width * self.upscale]

    def _enlarged(self, x: Tensor) -> Tensor:
        """Return the picture of the features.

        Nothing between the enlarging layers bends: together they are one convolution at the size before, a tenth of
        the work and without features of sixteen times the pixels. Only the outermost pixels differ, since each layer
        pads with zeros what the one before would have continued: those take the layers as they are.
        """
        layers = nn.Sequential(*self.upsample, self.conv_last)
        if torch.is_grad_enabled():
            return layers(x)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = _as_one(layers, self.upscale, self.conv_last.weight)
        y = F.pixel_shuffle(F.conv2d(x, weight, bias, padding=_TAIL_REACH), self.upscale)
        seen, edge = _TAIL_REACH + 1, self.upscale
        y[..., :edge, :] = layers(x[..., :seen, :])[..., :edge, :]
        y[..., -edge:, :] = layers(x[..., -seen:, :])[..., -edge:, :]
        y[..., :edge] = layers(x[..., :seen])[..., :edge]
        y[..., -edge:] = layers(x[..., -seen:])[..., -edge:]
        return y

    def _body(self, x: Tensor) -> Tensor:
        x = self.patch_embed["norm"](x)  # (N, H, W, C)
        for layer in self.layers:
            x = layer(x, self.relative_position_index_SA, self.relative_position_index_OCA)
        return self.norm(x)

    def _whole_windows(self, rgb: Tensor) -> Tensor:
        for axis in (2, 3):
            size = rgb.shape[axis]
            if size % self.window_size:
                places = torch.from_numpy(mirrored(size, grown(size, self.window_size)))
                rgb = rgb.index_select(axis, places.to(rgb.device))
        return rgb


class _Group(nn.Module):
    """Hybrid blocks, overlapping attention and a convolution, added to what came in."""

    def __init__(self, features: int, blocks: Sequence[nn.Module], overlapping: nn.Module) -> None:
        super().__init__()
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks), "overlap_attn": overlapping})
        self.conv = _convolution(features, features)

    def forward(self, x: Tensor, index: Tensor, overlapping_index: Tensor) -> Tensor:
        y = x
        for block in self.residual_group["blocks"]:
            y = block(y, index)
        y = self.residual_group["overlap_attn"](y, overlapping_index)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Block(nn.Module):
    """Window attention and a convolution side by side, then a perceptron."""

    def __init__(self, attention: nn.Module, beside: nn.Module, perceptron: nn.Module, conv_scale: float) -> None:
        super().__init__()
        features = attention.proj.out_features
        self.norm1 = nn.LayerNorm(features)
        self.attn = attention
        self.conv_block = beside
        self.norm2 = nn.LayerNorm(features)
        self.mlp = perceptron
        self.conv_scale = conv_scale

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        y = self.norm1(x)
        beside, weight = self.conv_block(y.permute(0, 3, 1, 2))
        beside, weight = beside.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1) * self.conv_scale
        y = self.attn(y, index).to(x.dtype)  # under autocast it comes in less
        rows = band(x)
        if rows >= x.shape[1]:
            y = x + y + beside * weight
            return y + self.mlp(self.norm2(y))
        for part, before, other in zip(y.split(rows, 1), x.split(rows, 1), beside.split(rows, 1), strict=True):
            part += before
            part.addcmul_(other, weight)
            part += self.mlp(self.norm2(part))
        return y


class _ConvolutionBeside(nn.Module):
    """Two convolutions through few features, and the weight of each channel: (N, C, H, W) and (N, C, 1, 1)."""

    def __init__(self, features: int, compress_ratio: int, squeeze_factor: int) -> None:
        super().__init__()
        narrow = features // compress_ratio
        self.cab = nn.Sequential(
            _convolution(features, narrow),
            nn.GELU(),
            _convolution(narrow, features),
            _ChannelAttention(features, features // squeeze_factor),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        narrow, bent, wide, attention = self.cab
        x = wide(bent(narrow(x)))
        return x, attention(x)


class _ChannelAttention(nn.Module):
    """Weigh each channel by what the averages of all channels say."""

    def __init__(self, features: int, narrow: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Identity(),  # holds the place of the average
            nn.Conv2d(features, narrow, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, features, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(average(x))


class _Perceptron(nn.Module):
    """Two linear layers, pixel by pixel."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _upsampling(upscale: int) -> list[nn.Module]:
    if upscale == 3:
        return [_convolution(64, 64 * 9), nn.PixelShuffle(3)]
    doublings = upscale.bit_length() - 1
    return [layer for _ in range(doublings) for layer in (_convolution(64, 64 * 4), nn.PixelShuffle(2))]


def _as_one(layers: nn.Module, scale: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the one convolution that linear layers are, but for a pixel shuffle by `scale`.

    What they answer to a single pixel of each feature is the weight, turned around. `like` is one of their weights.
    """
    features, side = like.shape[1], 2 * _TAIL_REACH + 1
    impulses = like.new_zeros(features + 1, features, side, side)  # the last one stays empty: the bias
    impulses[:-1, :, _TAIL_REACH, _TAIL_REACH] = torch.eye(features).to(like)
    answers = F.pixel_unshuffle(layers(impulses), scale)  # (features + 1, 3 scale², side, side)
    weight = (answers[:-1] - answers[-1]).flip(2, 3).transpose(0, 1)
    return weight.contiguous(memory_format=torch.channels_last), answers[-1, :, _TAIL_REACH, _TAIL_REACH]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    table = getattr(module, "relative_position_bias_table", None)
    if table is not None:
        nn.init.trunc_normal_(table, std=0.02)


def variant(shapes: Mapping[str, torch.Size]) -> dict[str, object]:
    """Return the constructor's arguments that give tensors of these names and shapes.

    `conv_scale` leaves no trace and is left out.
    """
    first = "layers.0.residual_group.blocks.0"
    embed = shapes["conv_first.weight"][0]
    groups = sorted({int(name.split(".")[1]) for name in shapes if name.startswith("layers.")})
    blocks = {group: _highest(shapes, f"layers.{group}.residual_group.blocks.") + 1 for group in groups}
    tables = {
        group: shapes[f"layers.{group}.residual_group.blocks.0.attn.relative_position_bias_table"] for group in groups
    }
    window = (_root(tables[0][0]) + 1) // 2
    reach = _root(shapes["layers.0.residual_group.overlap_attn.relative_position_bias_table"][0]) - window + 1
    enlarging = [shape[0] // shape[1] for name, shape in shapes.items() if _is_upsampling(name)]
    return {
        "embed_dim": embed,
        "depths": tuple(blocks.values()),
        "num_heads": tuple(table[1] for table in tables.values()),
        "window_size": window,
        "compress_ratio": embed // shapes[f"{first}.conv_block.cab.0.weight"][0],
        "squeeze_factor": embed // shapes[f"{first}.conv_block.cab.3.attention.1.weight"][0],
        "overlap_ratio": (reach - window) / window,
        "mlp_ratio": shapes[f"{first}.mlp.fc1.weight"][0] / embed,
        "upscale": 3 if enlarging == [9] else 2 ** len(enlarging),
    }


def _is_upsampling(name: str) -> bool:
    return name.startswith("upsample.") and name.endswith(".weight")


def _highest(shapes: Mapping[str, torch.Size], prefix: str) -> int:
    return max(int(name.removeprefix(prefix).partition(".")[0]) for name in shapes if name.startswith(prefix))


def _root(square: int) -> int:
    return math.isqrt(square)
