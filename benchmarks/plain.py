"""The networks as their papers' releases run them: float32, planes in a row, the U-Net and MWISPNet on the whole
picture, HAT in tiles of 256 with 32 more on each side and attention that writes down all its scores and masks.

The weights are the same, and so are the results; what differs is the arithmetic's order and where it is kept.
"""

from __future__ import annotations

import copy
from types import MethodType

import numpy as np
import torch
from torch import Tensor, nn

from nightisp.models.attention import OverlappingAttention, WindowAttention
from nightisp.models.hat import HAT, _Block
from nightisp.models.mwispnet import MWISPNet, _ChannelAttention
from nightisp.models.padding import cut, grown
from nightisp.models.tiling import Planes

TILE, OVERLAP = 256, 32


def as_published(network: nn.Module) -> nn.Module:
    """Return a float32 copy that lies in memory plane by plane and whose attention is written out."""
    plain = copy.deepcopy(network).float().to(memory_format=torch.contiguous_format)
    forward = {
        MWISPNet: _mwispnet,
        _ChannelAttention: _channel_attention,
        _Block: _block,
        WindowAttention: _window_attention,
        OverlappingAttention: _overlapping_attention,
    }
    for module in plain.modules():
        if type(module) in forward:
            module.forward = MethodType(forward[type(module)], module)
        elif isinstance(module, HAT):
            module._enlarged = MethodType(_enlarged, module)
    return plain


def whole(network: nn.Module, planes: Planes, multiple: int) -> Planes:
    """Run a network on the whole picture: (C, H, W) grown by reflection to a multiple."""
    _, height, width = planes.shape
    return _run(network, cut(planes, (0, grown(height, multiple)), (0, grown(width, multiple))))


def tiled(network: nn.Module, planes: Planes, scale: int = 4) -> Planes:
    """Run HAT in tiles whose surroundings are cut off again, without blending."""
    channels, height, width = planes.shape
    result = np.empty((channels, height * scale, width * scale), np.float32)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(height, top + TILE), min(width, left + TILE)
            first, before = max(0, top - OVERLAP), max(0, left - OVERLAP)
            rows, columns = (first, min(height, bottom + OVERLAP)), (before, min(width, right + OVERLAP))
            enlarged = _run(network, cut(planes, rows, columns))
            core = enlarged[:, (top - first) * scale :, (left - before) * scale :]
            core = core[:, : (bottom - top) * scale, : (right - left) * scale]
            result[:, top * scale : bottom * scale, left * scale : right * scale] = core
    return result


def _run(network: nn.Module, planes: Planes) -> Planes:
    device = next(network.parameters()).device
    with torch.inference_mode():
        seen = torch.from_numpy(np.ascontiguousarray(planes)).unsqueeze(0).to(device)
        return np.asarray(network(seen)[0].cpu().numpy())


def _mwispnet(self: MWISPNet, rgb: Tensor) -> Tensor:
    fine = self.down1(self.head(rgb))
    middle = self.down2(fine)
    x = self.up1(self.middle(self.down3(middle))) + middle
    return self.tail(self.up3(self.up2(x) + fine))


def _channel_attention(self: _ChannelAttention, x: Tensor) -> Tensor:
    return x * self.conv_du(nn.functional.adaptive_avg_pool2d(x, 1))


def _block(self: _Block, x: Tensor, index: Tensor) -> Tensor:
    y = self.norm1(x)
    beside = self.conv_block.cab[:3](y.permute(0, 3, 1, 2))
    beside = beside * self.conv_block.cab[3].attention(nn.functional.adaptive_avg_pool2d(beside, 1))
    x = x + self.attn(y, index) + beside.permute(0, 2, 3, 1) * self.conv_scale
    return x + self.mlp(self.norm2(x))


def _enlarged(self: HAT, x: Tensor) -> Tensor:
    return self.conv_last(self.upsample(x))


def _window_attention(self: WindowAttention, x: Tensor, index: Tensor) -> Tensor:
    n, height, width, features = x.shape
    w, heads, shift = self.window, self.heads, self.shift
    if shift:
        x = x.roll((-shift, -shift), dims=(1, 2))
    windows = _partition(x, w)  # (n windows, w², C)
    q, k, v = self.qkv(windows).reshape(len(windows), w * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q * (features // heads) ** -0.5) @ k.transpose(-2, -1)
    bias = self.relative_position_bias_table[index.view(-1)].view(w * w, w * w, heads)
    scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
    if shift:
        mask = _mask(height, width, w, shift).to(x.device)  # (windows, w², w²): made anew at every call
        scores = scores.view(n, len(mask), heads, w * w, w * w) + mask[None, :, None]
        scores = scores.view(-1, heads, w * w, w * w)
    y = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(len(windows), w * w, features)
    y = _joined(self.proj(y), w, height, width)
    return y.roll((shift, shift), dims=(1, 2)) if shift else y


def _overlapping_attention(self: OverlappingAttention, x: Tensor, index: Tensor) -> Tensor:
    n, height, width, features = x.shape
    w, reach, heads = self.window, self.reach, self.heads
    qkv = self.qkv(self.norm1(x)).reshape(n, height, width, 3, features).permute(3, 0, 4, 1, 2)
    q = _partition(qkv[0].permute(0, 2, 3, 1), w)
    kv = torch.cat((qkv[1], qkv[2]), dim=1)
    around = nn.functional.unfold(kv, reach, stride=w, padding=(reach - w) // 2)
    around = around.view(n, 2, features, reach * reach, -1).permute(1, 0, 4, 3, 2)
    k, v = around.reshape(2, -1, reach * reach, features)
    q, k, v = (t.reshape(len(q), -1, heads, features // heads).transpose(1, 2) for t in (q, k, v))
    scores = (q * (features // heads) ** -0.5) @ k.transpose(-2, -1)
    bias = self.relative_position_bias_table[index.view(-1)].view(w * w, reach * reach, heads)
    scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
    y = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(-1, w * w, features)
    x = x + self.proj(_joined(y, w, height, width))
    return x + self.mlp(self.norm2(x))


def _partition(x: Tensor, w: int) -> Tensor:
    n, height, width, features = x.shape
    x = x.view(n, height // w, w, width // w, w, features)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, w * w, features)


def _joined(windows: Tensor, w: int, height: int, width: int) -> Tensor:
    x = windows.view(-1, height // w, width // w, w, w, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, windows.shape[-1])


def _mask(height: int, width: int, w: int, shift: int) -> Tensor:
    regions = torch.zeros(1, height, width, 1)
    parts = (slice(0, -w), slice(-w, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in parts for c in parts):
        regions[:, rows, columns] = number
    windows = _partition(regions, w).squeeze(-1)
    apart = windows.unsqueeze(1) - windows.unsqueeze(2)
    return apart.masked_fill(apart != 0, -100.0)
