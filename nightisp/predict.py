"""Run one network alone on a picture or a mosaic, as its stage of the pipeline runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightisp.bayer import PHASE, pack, to_half_rgb, to_phase, unpack
from nightisp.errors import ImageShapeError, NoGroundError, ParamsError, WeightsMismatchError
from nightisp.exif import as_color_matrix
from nightisp.image import CFA, DisplayImage, Mosaic, Samples, Shot
from nightisp.models import PRESETS, build
from nightisp.models.weightfile import SUFFIX, read_card
from nightisp.pipeline import nearest
from nightisp.stage import PRECISION, Networks, Params
from nightisp.stages import denoise as denoising
from nightisp.stages import refine as refining
from nightisp.stages import super_resolution as enlarging
from nightisp.stages import white_balance as balancing

if TYPE_CHECKING:
    from nightisp.models.weights import Library

P = TypeVar("P", bound=Params)

_D65 = 21  # EXIF LightSource; a single matrix holds for all lights


class Options(BaseModel):
    """How a network is run; what it has no use for must be left at None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field(min_length=1, description="name of the weights")
    cfa: CFA | None = Field(None, description="color filter array of a mosaic, from its top-left")
    noise: tuple[float, float] | None = Field(None, description="shot and read noise; estimated if None")
    color_matrix: tuple[float, float, float, float, float, float, float, float, float] | None = Field(
        None, description="from XYZ to camera RGB, row by row, as DNG's ColorMatrix"
    )
    tile: int | None = Field(None, description="side of HAT's tiles")
    overlap: int | None = Field(None, description="what a tile of HAT's sees beyond its seams")
    precision: Literal["auto", "float32", "bfloat16"] = Field("float32", description=PRECISION)
    where: str = Field("the input", description="what messages call the samples")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network makes of a picture: float32 samples, and `facts` that are no picture."""

    samples: Samples
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preset:
    """A network as `nightisp models list` shows it."""

    name: str
    parameters: int
    settings: dict[str, Any]


def presets() -> list[Preset]:
    """Return the networks that there are, each built once to count its parameters."""
    return [
        Preset(name, sum(tensor.numel() for tensor in build(name).parameters()), dict(settings))
        for name, settings in PRESETS.items()
    ]


def kind(network: str) -> str:
    """Return which of `KINDS` a preset is a size of: `hat_s` is a `hat`.

    Raises
    ------
    ParamsError
        If there is no such network.
    """
    if network not in PRESETS:
        raise ParamsError(
            f"--network {network}: no such network; there are {', '.join(PRESETS)}{nearest(network, tuple(PRESETS))}"
        )
    return next(name for name in KINDS if network == name or network.startswith(f"{name}_"))


def open_weights(network: str, given: str | None, folders: Sequence[Path]) -> tuple[Library, str]:
    """Find the weights of a network: a file, or a name in `folders`; by default those called like the network.

    Raises
    ------
    ParamsError
        If there is no such network.
    WeightsNotFoundError, WeightsMismatchError
        If there are no such weights, or they are another network's.
    """
    from nightisp.models.weights import Library

    wanted, name = kind(network), given or network
    if name.endswith(SUFFIX):
        folders, name = (Path(name).parent, *folders), Path(name).name.removesuffix(SUFFIX)
    library = Library(folders)
    path = library.find(name)
    found = read_card(path)["network"]
    if found not in PRESETS or kind(found) != wanted:
        raise WeightsMismatchError(f"{path}: holds weights of {found}; expected {wanted}. Name others with --weights")
    return library, name


def predict(network: str, samples: Samples, networks: Networks, options: Options) -> Prediction:
    """Run a network on samples, padded, tiled and encoded as its stage does it.

    Parameters
    ----------
    network
        One of `nightisp.models.PRESETS`.
    samples
        float32. `hat`: sRGB (H, W, 3) in [0, 1]; given back four times as wide and high. `mwispnet`: the same, given
        back at a quarter of width and height. `denoise_unet`: a mosaic, linear, 0 = black level, 1 = white level,
        (H, W) with `options.cfa`, or its planes R, G, B, G (H/2, W/2, 4); given back in the same shape, and `facts`
        say how its noise was known. `fc4`: linear camera RGB (H, W, 3), or such a mosaic, with `options.color_matrix`
        if the weights judge by it; the confidence map (h, w) is given back, its maximum 1, and `facts` hold
        `illuminant` (camera RGB of a neutral, green = 1) and `gains`.
    networks
        Gives the network called `options.weights`.

    Raises
    ------
    ImageShapeError
        If the samples have another shape.
    ParamsError
        If an option is out of bounds, missing, or of no use to this network.
    """
    return KINDS[kind(network)](samples, networks, options)


def _enlarge(samples: Samples, networks: Networks, options: Options) -> Prediction:
    _check_unused("hat", options, "cfa", "noise", "color_matrix")
    chosen = {name: value for name in ("tile", "overlap") if (value := getattr(options, name)) is not None}
    params = _params(
        enlarging.SuperResolutionParams, method="hat", weights=options.weights, precision=options.precision, **chosen
    )
    scale = networks(options.weights).upscale
    image = DisplayImage(_picture("hat", samples, options), reduction=scale)
    return Prediction(enlarging.STAGE(image, params, networks).samples)


def _retouch(samples: Samples, networks: Networks, options: Options) -> Prediction:
    _check_unused("mwispnet", options, "cfa", "noise", "color_matrix", "tile", "overlap")
    params = _params(refining.RefineParams, method="mwispnet", weights=options.weights, precision=options.precision)
    return Prediction(refining.STAGE(DisplayImage(_picture("mwispnet", samples, options)), params, networks).samples)


def _denoise(samples: Samples, networks: Networks, options: Options) -> Prediction:
    _check_unused("denoise_unet", options, "color_matrix", "tile", "overlap")
    told = getattr(networks(options.weights), "card", {}).get("sees") == "stabilized"
    if options.noise and not (told and np.isfinite(options.noise).all() and min(options.noise) >= 0):
        wrong = "expected two variances of 0 or more" if told else f"{options.weights} is blind to it; leave it out"
        raise ParamsError(f"--noise {options.noise[0]:g} {options.noise[1]:g}: {wrong}")
    params = _params(
        denoising.DenoiseParams,
        method="unet",
        weights=options.weights,
        noise="file" if options.noise else "auto",
        precision=options.precision,
    )
    mosaic = _mosaic("denoise_unet", samples, options)
    try:
        denoised = denoising.STAGE(mosaic, params, networks)
    except NoGroundError as error:
        raise NoGroundError(f"{options.where}: its noise cannot be estimated; give --noise SHOT READ") from error
    facts: dict[str, Any] = {"noise": denoised.noise.source}
    if denoised.noise.figures:
        facts["shot_noise"], facts["read_noise"] = denoised.noise.figures[1]
    kept = pack(denoised.samples) if samples.ndim == 3 else np.ascontiguousarray(denoised.visible())
    return Prediction(kept, facts)


def _find_light(samples: Samples, networks: Networks, options: Options) -> Prediction:
    from nightisp.models.evaluation import evaluate

    _check_unused("fc4", options, "noise", "tile", "overlap")
    if samples.ndim == 3 and samples.shape[2] == 3:
        _check_unused("fc4 on RGB", options, "cfa")
        rgb = samples
    else:
        mosaic = _mosaic("fc4", samples, options)
        rgb = to_half_rgb(mosaic.samples, mosaic.cfa)
    network = networks(options.weights)
    sees = balancing.read_sees(options.weights, getattr(network, "card", {}))
    if sees.space == "camera":
        _check_unused(options.weights, options, "color_matrix")
    elif options.color_matrix is None:
        raise ParamsError(
            f"{options.where}: {options.weights} judges the light by the camera's ColorMatrix; give the nine numbers "
            "of one from XYZ to camera RGB: --color-matrix ..."
        )
    matrices = (as_color_matrix(options.color_matrix, _D65),) if options.color_matrix else ()
    matrix = balancing.camera_to_seen(matrices, sees)
    light, _, confidence = evaluate(network, balancing.as_seen(rgb, sees, matrix), options.precision)
    r, g, b = balancing.in_camera(light, matrix)
    gains = balancing.to_gains((r, g, b))
    facts = {"illuminant": [r / g, 1.0, b / g], "gains": list(gains), "most_confident": float(confidence.max())}
    return Prediction(confidence[0] / np.float32(confidence.max()), facts)


KINDS: dict[str, Callable[[Samples, Networks, Options], Prediction]] = {
    "denoise_unet": _denoise,
    "fc4": _find_light,
    "mwispnet": _retouch,
    "hat": _enlarge,
}


def _picture(network: str, samples: Samples, options: Options) -> Samples:
    if samples.ndim != 3 or samples.shape[2] != 3:
        raise ImageShapeError(
            f"{options.where}: is {samples.shape}; {network} takes an RGB picture (H, W, 3)",
            expected="(H, W, 3)",
            actual=samples.shape,
        )
    return np.clip(samples, 0, 1)


def _mosaic(network: str, samples: Samples, options: Options) -> Mosaic:
    shot = Shot(noise_profile=(options.noise,) if options.noise else ())
    if samples.ndim == 3 and samples.shape[2] == 4:
        _check_unused(f"{network} on planes R, G, B, G", options, "cfa")
        return Mosaic(unpack(samples), cfa=PHASE, shot=shot)
    if samples.ndim != 2:
        also = "an RGB picture (H, W, 3), " if network == "fc4" else ""
        expected = f"{also}a mosaic (H, W) or its planes R, G, B, G (H/2, W/2, 4)"
        raise ImageShapeError(
            f"{options.where}: is {samples.shape}; {network} takes {expected}", expected=expected, actual=samples.shape
        )
    if options.cfa is None:
        raise ParamsError(
            f"{options.where}: is a mosaic {samples.shape}; name its color filter array: --cfa RGGB, GRBG, ..."
        )
    at_phase, window = to_phase(samples, options.cfa)
    return Mosaic(at_phase, cfa=PHASE, shot=shot, window=window)


def _check_unused(network: str, options: Options, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ParamsError(f"--{name.replace('_', '-')}: {network} has no use for it; leave it out")


def _params(model: type[P], **values: Any) -> P:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"--{name}: " for name in first["loc"])
        raise ParamsError(f"{where}{first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
