# mypy: disallow-subclassing-any=False
"""Attention in windows, shifted or overlapping, over features kept as (N, H, W, C) (:cite:`chen2023hat`)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def relative_index(window: int, reach: int | None = None) -> Tensor:
    """Tell, for each pair of a query in a window and a key within reach, its row in the table of biases.

    Parameters
    ----------
    window
        Side of the queries' window.
    reach
        Side of the keys' window in overlapping attention, which counts offsets the other way round; rows of keys to
        the upper left come out negative there and count from the table's end, as published: the table has exactly
        as many rows as there are offsets.

    Returns
    -------
    Tensor
        int64 (window², reach²); (window², window²) without `reach`.
    """
    query = np.arange(window)[:, None]
    if reach is None:
        reach = window
        offset = query - np.arange(window) + window - 1
    else:
        offset = np.arange(reach) - query + window - reach + 1  # (window, reach)
    index = offset[:, None, :, None] * (window + reach - 1) + offset[None, :, None, :]
    # NumPy, since PyTorch's arithmetic on the device "meta" imports its compiler: a second.
    return torch.from_numpy(index.reshape(window * window, reach * reach).astype(np.int64))


_CACHED = 1 << 15
"""Pixels whose features stay in the caches from one step to the next."""


class WindowAttention(nn.Module):
    """Let each pixel attend to those of its window.

    Parameters
    ----------
    features, heads
        Features of a pixel, and the heads that share them.
    window
        Side of a window; height and width of the features must be multiples.
    shift
        How far windows lie to the lower right of the picture's corner. The last row and column of windows then hold
        pixels of opposite borders, which do not see one another.
    """

    def __init__(self, features: int, window: int, heads: int, shift: int) -> None:
        super().__init__()
        self.window, self.heads, self.shift = window, heads, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return what pixels, (N, H, W, C), learn from their windows; `index` is `relative_index(window)`."""
        height, w, shift = x.shape[1], self.window, self.shift
        bias = _bias(self.relative_position_bias_table, index)
        bottom, right, corner = _border_masks(w, shift, x.device) if shift else (None, None, None)
        last = height - (w - shift) if shift else height
        rows = band(x, w)
        parts = [
            self._attended(x[:, top : min(top + rows, last)], bias, None, right) for top in range(shift, last, rows)
        ]
        if shift:  # a last row of windows holds pixels of opposite borders
            part = self._attended(torch.cat((x[:, last:], x[:, :shift]), dim=1), bias, bottom, corner)
            parts = [part[:, w - shift :], *parts, part[:, : w - shift]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _attended(self, x: Tensor, bias: Tensor, mask: Tensor | None, last: Tensor | None) -> Tensor:
        """Attend in rows of windows, with one mask for all windows but those of the last column, which have another.

        Masking where it is needed alone keeps the bias one (heads, w², w²) array; the usual mask for every window
        would be as many times larger.
        """
        width = x.shape[2]
        shift, apart = self.shift, self.window - self.shift
        qkv = self.qkv(x)
        y = qkv.new_empty(x.shape)
        right = width - apart if shift else width
        if right > shift:
            self._among_windows(qkv[:, :, shift:right], y[:, :, shift:right], bias, mask)
        if shift:
            around = torch.cat((qkv[:, :, right:], qkv[:, :, :shift]), dim=2)
            part = around.new_empty(*around.shape[:-1], x.shape[-1])
            self._among_windows(around, part, bias, last)
            y[:, :, right:], y[:, :, :shift] = part[:, :, :apart], part[:, :, apart:]
        return self.proj(y)

    def _among_windows(self, qkv: Tensor, into: Tensor, bias: Tensor, mask: Tensor | None) -> None:
        """Attend within whole windows of (N, H, W, 3 C), and write (N, H, W, C)."""
        w, heads = self.window, self.heads
        windows = qkv.unflatten(1, (-1, w)).unflatten(3, (-1, w)).unflatten(5, (3, heads, -1))
        windows = windows.permute(5, 0, 1, 3, 6, 2, 4, 7)  # (3, n, down, across, heads, w, w, d)
        q, k, v = windows.reshape(3, -1, heads, w * w, windows.shape[-1])  # the one copy
        seen = bias if mask is None else bias + mask.to(bias.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        y = y.view(*windows.shape[1:]).permute(0, 1, 4, 2, 5, 3, 6)  # (n, down, w, across, w, heads, d)
        into.unflatten(1, (-1, w)).unflatten(3, (-1, w)).unflatten(5, (heads, -1)).copy_(y)


class OverlappingAttention(nn.Module):
    """Let each window attend to a larger one around it, then run a perceptron pixel by pixel.

    Parameters
    ----------
    features, heads
        Features of a pixel, and the heads that share them.
    window, reach
        Side of the queries' and of the keys' window.
    perceptron
        Takes and gives (N, H, W, C).
    """

    def __init__(self, features: int, window: int, reach: int, heads: int, perceptron: nn.Module) -> None:
        super().__init__()
        self.window, self.reach, self.heads = window, reach, heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((window + reach - 1) ** 2, heads))
        self.norm1 = nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)
        self.norm2 = nn.LayerNorm(features)
        self.mlp = perceptron

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the features, (N, H, W, C); `index` is `relative_index(window, reach)`."""
        bias = _bias(self.relative_position_bias_table, index)
        rows = band(x, self.window)
        parts = [self._attended(x, top, min(top + rows, x.shape[1]), bias) for top in range(0, x.shape[1], rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _attended(self, x: Tensor, top: int, bottom: int, bias: Tensor) -> Tensor:
        """Return some rows of the result."""
        n, height, width, features = x.shape
        w, reach, heads = self.window, self.reach, self.heads
        margin = (reach - w) // 2
        first, last = max(0, top - margin), min(height, bottom + margin)
        q, kv = self.qkv(self.norm1(x[:, first:last])).split((features, 2 * features), dim=-1)
        q = q[:, top - first : bottom - first].unflatten(1, (-1, w)).unflatten(3, (-1, w))
        q = q.unflatten(5, (heads, -1)).permute(0, 1, 3, 5, 2, 4, 6)  # (n, down, across, heads, w, w, d)
        # Zeros beyond the picture, unmasked: as trained.
        beyond = (margin - (top - first), margin - (last - bottom))
        kv = F.pad(kv, (0, 0, margin, margin, *beyond)).unfold(1, reach, w).unfold(2, reach, w)
        kv = kv.unflatten(3, (2, heads, -1)).permute(3, 0, 1, 2, 4, 6, 7, 5)  # (2, n, down, across, heads, reach², d)
        k, v = kv.reshape(2, -1, heads, reach * reach, features // heads)
        y = F.scaled_dot_product_attention(q.reshape(-1, heads, w * w, features // heads), k, v, attn_mask=bias)
        y = y.view(*q.shape).permute(0, 1, 4, 2, 5, 3, 6).reshape(n, bottom - top, width, features)
        y = x[:, top:bottom] + self.proj(y)
        return y + self.mlp(self.norm2(y))


def band(x: Tensor, multiple: int = 1) -> int:
    """Return how many rows of (N, H, W, C) to take at once: all in training, few enough for the caches else."""
    count, height, width, _ = x.shape
    if torch.is_grad_enabled():
        return int(height)
    rows = _CACHED // int(count * width)
    return max(multiple, rows // multiple * multiple)


def _bias(table: Tensor, index: Tensor) -> Tensor:
    return table[index].permute(2, 0, 1).contiguous().unsqueeze(0)  # (1, heads, queries, keys)


@lru_cache(maxsize=8)
def _border_masks(window: int, shift: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return what keeps pixels of opposite borders apart in the last row, column and corner of shifted windows."""

    def apart(down: Tensor, across: Tensor) -> Tensor:
        region = (2 * down[:, None] + across[None, :]).flatten()
        return torch.where(region[:, None] == region[None, :], 0.0, -100.0)

    with torch.inference_mode(False):  # what is kept here may serve training too
        side = (torch.arange(window, device=device) >= window - shift).long()
        nothing = torch.zeros_like(side)
        return apart(side, nothing), apart(nothing, side), apart(side, side)
