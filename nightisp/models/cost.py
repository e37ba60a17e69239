# mypy: disallow-subclassing-any=False
"""Measure what a network's features take in memory, to choose tiles by."""

from __future__ import annotations

import weakref
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[int, int], float]] = WeakKeyDictionary()
_ONE_AT_A_TIME = Lock()


def bytes_per_sample(network: nn.Module, channels: int, multiple: int = 1) -> float:
    """Return how many bytes of features live at once, at most, for each sample (of all channels) that goes in.

    All storages that the network makes are followed through two runs, on 64 x 64 and 128 x 128 samples; the difference
    leaves out what does not grow with the picture. What the kernels of a library allocate for themselves is not seen.

    Parameters
    ----------
    network
        In eval mode, as it will run: in its precision, on its device.
    channels
        Planes that it takes, as float32.
    multiple
        What height and width must divide by.
    """
    with _ONE_AT_A_TIME:
        known = _KNOWN.setdefault(network, {})
        if (channels, multiple) not in known:
            small, large = (-(-side // multiple) * multiple for side in (64, 128))
            peaks = [_peak(network, channels, side) for side in (small, large)]
            known[channels, multiple] = (peaks[1] - peaks[0]) / (large**2 - small**2)
        return known[channels, multiple]


def _peak(network: nn.Module, channels: int, side: int) -> int:
    device = next(network.parameters(), torch.empty(0)).device
    planes = torch.zeros(1, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), _Watch() as watch:
        network(planes)
    peak: int = watch.peak
    return peak


class _Watch(TorchDispatchMode):
    """Counts the bytes of all storages that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: int = 0
        self.peak: int = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch 2.13 would import its compiler to keep it away from this: a second, 800 modules.
        return False

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and (storage := leaf.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, storage.nbytes())
        return result

    def _free(self, size: int) -> None:
        self.live -= size
