"""Run a network over a picture of any size, whole or in tiles, in bounded memory.

Arrays in, arrays out: (C, H, W) float32 on the caller's side, the network's device and precision inside. Nothing is
clipped here. A tile that fails is an error that names it; no part of a picture stays empty.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from nightisp.errors import DeviceError, ImageShapeError, ParamsError, StageError
from nightisp.models.cost import bytes_per_sample
from nightisp.models.evaluation import Planes, Precision, evaluate, prepared, resolved
from nightisp.models.heap import MEMORY
from nightisp.models.padding import cut, grown

__all__ = ["MEMORY", "Planes", "Precision", "blended", "evaluate", "exact", "receptive_field", "whole"]

_SMALL = 128  # no tile is smaller, whatever the memory
_REACH: WeakKeyDictionary[nn.Module, dict[tuple[int, int], int]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class _Span:
    """One tile along one axis: what the network sees, and within it the core that this tile answers for."""

    start: int
    stop: int
    core_start: int
    core_stop: int


def whole(
    network: nn.Module,
    planes: Planes,
    *,
    multiple: int = 1,
    scale: Fraction | int = 1,
    precision: Precision = "float32",
    **given: Any,
) -> Planes:
    """Run a network over the whole picture, grown by reflection at the bottom and right to what the network takes.

    Parameters
    ----------
    network
        In eval mode, on the device to be used.
    planes
        float32 (C, H, W), of any size.
    multiple
        What height and width must divide by.
    scale
        Height of the output over that of the input.
    precision, **given
        As for `evaluate`.

    Returns
    -------
    NDArray
        float32 (C', ceil(scale H), ceil(scale W)).
    """
    height, width = _size(planes)
    seen = cut(planes, (0, grown(height, multiple)), (0, grown(width, multiple)))
    (output, *_) = evaluate(network, seen, precision, **given)
    scale = Fraction(scale)
    return np.ascontiguousarray(output[:, : -(-height * scale // 1), : -(-width * scale // 1)])


def exact(
    network: nn.Module,
    planes: Planes,
    *,
    tile: int | None = None,
    memory: int = MEMORY,
    overlap: int | None = None,
    multiple: int = 1,
    precision: Precision = "float32",
) -> Planes:
    """Run a convolutional network in tiles and get what `whole` gives, to the rounding of float32.

    Tiles are as large as `memory` allows by the measured cost of the network, as the more there are the more is
    computed twice; where the device has less after all, they are halved.

    Each tile sees `overlap` more on every side, which is cut off again; at the picture's border it ends with the
    picture, so that the convolutions pad there as they would for the whole. Only for networks of finite receptive
    field.

    Parameters
    ----------
    network
        In eval mode, on the device to be used; its output is as large as its input.
    planes
        float32 (C, H, W), of any size.
    tile
        Side of the part that one tile answers for, in samples, rounded up to `multiple`; by `memory` if not given.
    memory
        Bytes that the features of one tile may take.
    overlap
        What a tile sees more on each side, rounded up to `multiple`; measured if not given.
    multiple
        Product of the network's strides: tiles start at its multiples, and the picture is grown to one by reflection.
    precision
        As for `evaluate`.

    Returns
    -------
    NDArray
        float32 (C', H, W).
    """
    size = _size(planes)
    channels = planes.shape[0]

    def margin(tile: int) -> int:
        if overlap is not None or max(size) <= tile:
            return overlap or 0
        return receptive_field(network, channels, multiple)

    if tile is None:
        tile = max(size)
        if tile > _SMALL:
            tile = _affordable(network, channels, multiple, precision, memory, margin(_SMALL))
    while True:
        try:
            return _exactly(network, planes, tile, margin(tile), multiple, precision)
        except DeviceError:
            if tile <= _SMALL:
                raise
        tile //= 2  # the same picture, in more steps


def _affordable(
    network: nn.Module, channels: int, multiple: int, precision: Precision, memory: int, overlap: int
) -> int:
    """Return the side of the largest tiles whose features fit into so much memory, their overlap not counted."""
    device = next(network.parameters(), torch.empty(0)).device
    cost = bytes_per_sample(prepared(network, resolved(precision, device)), channels, multiple)
    return max(_SMALL, int((memory / max(cost, 1)) ** 0.5) - 2 * overlap)


def _exactly(
    network: nn.Module, planes: Planes, tile: int, overlap: int, multiple: int, precision: Precision
) -> Planes:
    size = _size(planes)
    rows, columns = (_spans(side, tile, overlap, multiple, whole_multiples=True) for side in size)
    result: Planes | None = None
    for down, across, output in _tiles(network, planes, rows, columns, 1, precision):
        if result is None:
            result = np.empty((output.shape[0], *size), np.float32)
        core = output[:, down.core_start - down.start :, across.core_start - across.start :]
        target = result[:, down.core_start : down.core_stop, across.core_start : across.core_stop]
        target[...] = core[:, : target.shape[1], : target.shape[2]]
    assert result is not None
    return result


def blended(
    network: nn.Module,
    planes: Planes,
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
    scale: int = 1,
    precision: Precision = "float32",
) -> Planes:
    """Run a network of unlimited receptive field in tiles whose seams are blended.

    Two tiles that meet share `2 * overlap` samples across their seam; over them one fades out linearly while the
    other fades in. Nothing fades at the picture's own border.

    Parameters
    ----------
    network
        In eval mode, on the device to be used.
    planes
        float32 (C, H, W), of any size.
    tile
        Side of the part between two seams, at most; rounded up to `multiple`.
    overlap
        What a tile sees more on each side that is a seam; rounded up to `multiple`.
    multiple
        Where tiles may start: HAT's window, so that no tile need be padded inside the picture.
    scale
        Height of the output over that of the input.
    precision
        As for `evaluate`.

    Returns
    -------
    NDArray
        float32 (C', scale H, scale W).
    """
    size = _size(planes)
    spans = [_spans(side, tile, overlap, multiple, whole_multiples=False) for side in size]
    fades = [_fades(axis, side, scale) for axis, side in zip(spans, size, strict=True)]
    result: Planes | None = None
    for down, across, output in _tiles(network, planes, spans[0], spans[1], scale, precision):
        if result is None:
            result = np.zeros((output.shape[0], size[0] * scale, size[1] * scale), np.float32)
        target = result[:, scale * down.start : scale * down.stop, scale * across.start : scale * across.stop]
        target += output * fades[0][down][:, None] * fades[1][across]
    assert result is not None
    return result


def receptive_field(network: nn.Module, channels: int, multiple: int = 1) -> int:
    """Measure how far a network looks, in samples to each side, rounded up to `multiple`; once per network.

    One NaN goes in, and all that it touches is NaN in the output: a measurement that no weight can hide from, zero
    or not. It is made at each place that strides tell apart, on the CPU, where convolutions do not mix neighbors.
    A gap in the field of more than 16 samples, as a dilation could make it, might be overlooked.

    Parameters
    ----------
    network
        Its output is as large as its input.
    channels
        Planes that it takes.
    multiple
        Product of its strides.

    Raises
    ------
    StageError
        If it looks further than 256 samples, as every network does that averages over the picture.
    """
    known = _REACH.setdefault(network, {})
    if (channels, multiple) not in known:
        known[channels, multiple] = grown(_reach(network, channels, multiple), multiple)
    return known[channels, multiple]


def _reach(network: nn.Module, channels: int, multiple: int) -> int:
    probe = copy.deepcopy(network).float().cpu().eval()
    for side in (grown(side, multiple) for side in (64, 128, 256, 512, 1024)):
        center = side // 2 // multiple * multiple
        reach = 0
        for place in range(center, center + multiple):
            planes = torch.zeros(1, channels, side, side)
            planes[..., place, place] = torch.nan
            with torch.inference_mode():
                touched = probe(planes).isnan().nonzero()[:, 2:]
            reach = max(reach, int((touched - place).abs().max()) if len(touched) else 0)
            if reach > center // 2:  # it may go on beyond the border, after a gap
                break
        else:
            return reach
    raise StageError(f"{type(network).__name__} looks further than 256 samples; it cannot be tiled exactly")


def _spans(size: int, tile: int, overlap: int, multiple: int, *, whole_multiples: bool) -> list[_Span]:
    """Divide an axis evenly into cores of at most `tile`, each with its overlap as far as the picture goes."""
    if tile < 1 or overlap < 0:
        raise ParamsError(f"tile is {tile} and overlap is {overlap}; expected a tile from 1 and an overlap from 0")
    tile, overlap = grown(tile, multiple), grown(overlap, multiple)
    count = -(-size // tile)
    step = grown(-(-size // count), multiple)  # no narrow tile at the end, where there is little to see
    end = grown(size, multiple) if whole_multiples else size
    return [
        _Span(max(0, start - overlap), min(end, start + step + overlap), start, min(size, start + step))
        for start in range(0, size, step)
    ]


def _fades(spans: list[_Span], size: int, scale: int) -> dict[_Span, Planes]:
    """Return each tile's weights along its axis: at every sample those of all tiles add up to 1."""
    place = (np.arange(size * scale) + 0.5) / scale
    total = np.zeros(size * scale)
    weights = {}
    for span in spans:
        weight = np.ones_like(place)
        if span.start > 0:
            weight = np.minimum(weight, (place - span.start) / (2 * (span.core_start - span.start) or 1))
        if span.stop < size:
            weight = np.minimum(weight, (span.stop - place) / (2 * (span.stop - span.core_stop) or 1))
        weights[span] = np.where((place > span.start) & (place < span.stop), np.clip(weight, 0, 1), 0)
        total += weights[span]
    return {
        span: (weight / total)[span.start * scale : span.stop * scale].astype(np.float32)
        for span, weight in weights.items()
    }


def _tiles(
    network: nn.Module, planes: Planes, rows: list[_Span], columns: list[_Span], scale: int, precision: Precision
) -> Iterator[tuple[_Span, _Span, Planes]]:
    for number, (down, across) in enumerate(product(rows, columns), start=1):
        where = (
            f"tile {number} of {len(rows) * len(columns)} "
            f"(rows {down.start} to {down.stop}, columns {across.start} to {across.stop})"
        )
        (output, *_) = evaluate(
            network, cut(planes, (down.start, down.stop), (across.start, across.stop)), precision, where=where
        )
        expected = (scale * (down.stop - down.start), scale * (across.stop - across.start))
        if output.shape[1:] != expected:
            raise ImageShapeError(
                f"{where}: {type(network).__name__} gives {output.shape[1:]}; expected {expected}",
                expected=expected,
                actual=output.shape[1:],
            )
        yield down, across, output


def _size(planes: Planes) -> tuple[int, int]:
    if planes.ndim != 3 or 0 in planes.shape:
        raise ImageShapeError(
            f"planes are {planes.shape}; expected (C, H, W), none of them 0", expected="(C, H, W)", actual=planes.shape
        )
    return planes.shape[1], planes.shape[2]
