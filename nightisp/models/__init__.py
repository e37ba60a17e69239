"""The networks: widths and depths by name, and the way back from a checkpoint's tensors to a name.

Networks are found through a table of strings: a cache key covers the modules that a stage imports, and a change to
one network must not make the pictures of another out of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nightisp.errors import ParamsError, WeightsMismatchError

if TYPE_CHECKING:
    from torch import nn

_CLASSES = {
    "denoise_unet": ("nightisp.models.denoise_unet", "DenoiseUNet"),
    "fc4": ("nightisp.models.fc4", "FC4"),
    "mwispnet": ("nightisp.models.mwispnet", "MWISPNet"),
    "mwispnet_s": ("nightisp.models.mwispnet", "MWISPNet"),
    "hat": ("nightisp.models.hat", "HAT"),
    "hat_s": ("nightisp.models.hat", "HAT"),
    "hat_light": ("nightisp.models.hat", "HAT"),
}

_HAT = {
    "embed_dim": 180,
    "depths": (6, 6, 6, 6, 6, 6),
    "num_heads": (6, 6, 6, 6, 6, 6),
    "window_size": 16,
    "compress_ratio": 3,
    "squeeze_factor": 30,
    "conv_scale": 0.01,
    "overlap_ratio": 0.5,
    "mlp_ratio": 2.0,
    "upscale": 4,
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "denoise_unet": {"channels": 4, "width": 64, "levels": 3},
        "fc4": {"stem": 64, "squeeze": (16, 16, 32, 32, 48, 48, 64), "head": 64},
        "mwispnet": {"widths": (64, 96, 128), "blocks": 20, "reduction": 16},
        "mwispnet_s": {"widths": (48, 72, 96), "blocks": 8, "reduction": 8},
        "hat": _HAT,
        "hat_s": {**_HAT, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24},
        "hat_light": {
            **_HAT,
            "embed_dim": 96,
            "depths": (2, 2),
            "num_heads": (3, 3),
            "window_size": 8,
            "compress_ratio": 2,
            "squeeze_factor": 12,
            "conv_scale": 0.5,  # at 0.01 the convolutions count for little until they have grown
        },
    }
)
"""Published widths and depths, and with `mwispnet_s` and `hat_light` lighter ones; the names are what `build` takes,
their values what it can override."""

# A tensor that every variant of a network has, and no other network.
_MARKS = {
    "denoise_unet": "res_conv1_1.weight",
    "fc4": "backbone.3.squeeze.weight",
    "mwispnet": "down1.2.rg.0.res.0.weight",
    "hat": "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
}


def build(name: str, **overrides: Any) -> nn.Module:
    """Build an untrained network in the published layout, in eval mode.

    Parameters are drawn from torch's global generator, as every module's are: seed it to get the same ones again.

    Parameters
    ----------
    name
        One of `PRESETS`.
    **overrides
        Widths, depths and the like, to differ from the preset; a list counts as a tuple.

    Raises
    ------
    ParamsError
        If there is no such network or override, or its value makes no network.

    Examples
    --------
    >>> build("hat", embed_dim=60, depths=(2, 2), num_heads=(6, 6)).upscale
    4
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise ParamsError(f"{name}: no such network; there are {', '.join(PRESETS)}.{_nearest(name, PRESETS)}")
    for override, value in overrides.items():
        if override not in preset:
            raise ParamsError(
                f"{name}: {override}: no such override; {name} has {', '.join(preset)}.{_nearest(override, preset)}"
            )
        _check(f"{name}: {override}", value, preset[override])
    module, constructor = _CLASSES[name]
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    try:
        network = getattr(import_module(module), constructor)(**{**preset, **arguments})
    except ValueError as error:
        raise ParamsError(f"{name}: {overrides} make no network: {error}") from error
    return network.eval()


def infer(state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Tell which network, and which variant of it, a state dict belongs to, by its names and shapes.

    Parameters
    ----------
    state
        Tensor by name, unwrapped; only `.shape` is looked at.

    Returns
    -------
    name
        One of `PRESETS`; of several presets of one network the nearest.
    overrides
        What differs from that preset. `build(name, **overrides)` fits the tensors if none is missing or odd, which
        is left to the loader to check.

    Raises
    ------
    WeightsMismatchError
        If the tensors belong to no network that nightisp knows.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    name = next((name for name, mark in _MARKS.items() if mark in shapes), None)
    if name is None:
        raise WeightsMismatchError(
            f"tensors named {', '.join(sorted(shapes)[:3]) or '(none)'} ... belong to none of {', '.join(PRESETS)}"
        )
    try:
        found = import_module(_CLASSES[name][0]).variant(shapes)
    except KeyError as error:
        raise WeightsMismatchError(f"{name}: tensor {error.args[0]} is missing") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsMismatchError(f"{name}: names and shapes of the tensors contradict one another") from error
    presets = [key for key, place in _CLASSES.items() if place == _CLASSES[name]]
    differences = {key: {k: v for k, v in found.items() if v != PRESETS[key][k]} for key in presets}
    nearest = min(presets, key=lambda key: len(differences[key]))
    return nearest, differences[nearest]


def _check(name: str, value: Any, published: Any) -> None:
    """Refuse a value that is not of the published one's kind, or not positive."""
    many = isinstance(published, tuple)
    if many != isinstance(value, (list, tuple)):
        raise ParamsError(f"{name}: {value!r}; expected {'several numbers' if many else 'a number'} like {published}")
    kind = int if isinstance(published[0] if many else published, int) else (int, float)
    for number in value if many else (value,):
        if isinstance(number, bool) or not isinstance(number, kind) or number < (kind is int):
            raise ParamsError(
                f"{name}: {value!r}; expected {'whole numbers from 1' if kind is int else 'numbers from 0'}"
            )


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""
