"""White balance on the mosaic: one gain a color, so that what is neutral in the scene has equal R, G and B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from nightisp.bayer import apply_gains, colors_in, to_half_rgb
from nightisp.colorimetry import XYZ_D50_TO_ROMM, Matrix, invert, kelvin_to_neutral, xyz_to_camera_at
from nightisp.errors import NoGroundError, WeightsMismatchError
from nightisp.image import Balance, ColorMatrix, Mosaic, Samples, Shot, Triple
from nightisp.stage import Networks, Params, Stage

Method = Literal["fc4", "as_shot", "as_shot_fc4", "gray_world", "shades_of_gray", "white_patch", "gains", "kelvin"]

_WITHOUT_AS_SHOT = (
    "the file holds no usable as-shot white balance, which white_balance.method: {} needs; "
    "choose fc4, gray_world, shades_of_gray, white_patch, gains or kelvin"
)

_WITHOUT_MATRIX = (
    "{} judges the light by the camera's ColorMatrix, and neither the file nor LibRaw has one for {}; "
    "choose white_balance.method: as_shot, gray_world, shades_of_gray, white_patch or gains"
)


class WhiteBalanceParams(Params):
    """Parameters of white balance."""

    method: Method = Field("fc4", description="where the gains come from")
    weights: tuple[str, ...] = Field(
        ("fc4", "fc4_2", "fc4_3"), min_length=1, description="weights of FC4; gains of several are averaged"
    )
    norm: float = Field(2.2, ge=1, le=20, description="p of the Minkowski norm of shades_of_gray")
    percentile: float = Field(99.0, ge=50, le=100, description="percentile of each color that white_patch calls white")
    gains: Triple | None = Field(None, description="R, G, B multipliers for method: gains")
    kelvin: float | None = Field(None, ge=1667, le=25000, description="temperature of the light, K, for method: kelvin")

    @model_validator(mode="after")
    def _given(self) -> WhiteBalanceParams:
        if self.method in ("gains", "kelvin") and getattr(self, self.method) is None:
            raise ValueError(f"method: {self.method} needs white_balance.{self.method}")
        if self.gains is not None and not all(0.05 <= g <= 20 for g in self.gains):
            raise ValueError("gains: each must lie between 0.05 and 20")
        return self


def white_balance(mosaic: Mosaic, params: WhiteBalanceParams, networks: Networks | None = None) -> Mosaic:
    """Multiply each color of the mosaic by a gain, green by 1.

    Takes and gives linear samples, (H, W), not clipped: what saturates is left to `color`, which knows the gains.
    They are kept in `balance`.

    Raises
    ------
    NoGroundError
        If the file or the mosaic gives the method nothing to work from.

    References
    ----------
    :cite:`hu2017fc4`, :cite:`finlayson2004shades`, :cite:`dng171`.
    """
    gains = _gains(mosaic, params, networks)
    return Mosaic(
        apply_gains(mosaic.samples, mosaic.cfa, gains),
        cfa=mosaic.cfa,
        shot=mosaic.shot,
        window=mosaic.window,
        balance=Balance(gains=gains, method=params.method),
    )


def check(shot: Shot, params: WhiteBalanceParams) -> None:
    """Raise `NoGroundError` if the shot gives the method nothing to work from."""
    if params.method in ("as_shot", "as_shot_fc4") and shot.as_shot_neutral is None:
        raise NoGroundError(_WITHOUT_AS_SHOT.format(params.method))
    if params.method == "kelvin" and not shot.color_matrices:
        raise NoGroundError("the file holds no ColorMatrix, which white_balance.method: kelvin needs; choose gains")


def _gains(mosaic: Mosaic, params: WhiteBalanceParams, networks: Networks | None) -> Triple:
    check(mosaic.shot, params)
    match params.method:
        case "gains" if params.gains is not None:
            return params.gains
        case "kelvin" if params.kelvin is not None:
            return to_gains(kelvin_to_neutral(params.kelvin, mosaic.shot.color_matrices))
        case "as_shot":
            return _as_shot(mosaic.shot)
        case "fc4":
            votes = fc4_votes(mosaic, params.weights, networks)
            return _mean(votes)
        case "as_shot_fc4":
            return mix_by_trimmed_mean([_as_shot(mosaic.shot), *fc4_votes(mosaic, params.weights, networks)])
    return to_gains(_statistic(mosaic, params))


def _as_shot(shot: Shot) -> Triple:
    assert shot.as_shot_neutral is not None  # `check` has seen to it
    return to_gains(shot.as_shot_neutral)


def to_gains(illuminant: Triple) -> Triple:
    """Return the gains, green = 1, that make `illuminant` (camera RGB of a neutral) gray."""
    r, g, b = (float(v) for v in illuminant)
    if not (np.isfinite([r, g, b]).all() and min(r, g, b) > 0):
        raise NoGroundError(
            f"the illuminant came out as ({r:.4g}, {g:.4g}, {b:.4g}): this picture holds no light to judge by; "
            "choose white_balance.method: as_shot, gains or kelvin"
        )
    return g / r, 1.0, g / b


def _mean(votes: list[Triple]) -> Triple:
    r, g, b = np.mean(votes, axis=0)
    return float(r), float(g), float(b)


def mix_by_trimmed_mean(votes: list[Triple]) -> Triple:
    """Average the gains without the highest red and the lowest blue: the votes that would make a night look warmest.

    The published successor's rule for as-shot and three networks: of four gains the three lowest for red, the three
    highest for blue. With other numbers of votes one of each is left out all the same; a single vote stands.
    """
    if len(votes) < 2:
        return votes[0]
    red = sorted(v[0] for v in votes)[:-1]
    blue = sorted(v[2] for v in votes)[1:]
    return float(np.mean(red)), 1.0, float(np.mean(blue))


def _statistic(mosaic: Mosaic, params: WhiteBalanceParams) -> Triple:
    """Estimate the illuminant from the visible photosites.

    Negative noise stays in the mean, which it would bias if cut off; a power needs samples clipped to [0, 1].
    """
    colors = colors_in(mosaic.samples, mosaic.cfa, mosaic.window)
    match params.method:
        case "gray_world":
            r, g, b = (float(np.mean([p.mean(dtype=np.float64) for p in colors[c]])) for c in "RGB")
        case "white_patch":
            r, g, b = (
                float(np.percentile(np.concatenate([p.ravel() for p in colors[c]]), params.percentile)) for c in "RGB"
            )
        case _:
            r, g, b = (float(np.mean([_power_mean(p, params.norm) for p in colors[c]])) for c in "RGB")
    return r, g, b


def _power_mean(samples: Samples, norm: float) -> float:
    return float(np.mean(np.clip(samples, 0, 1).astype(np.float64) ** norm) ** (1 / norm))


class Sees(Params):
    """What an FC4 model was trained to see, as its card says under `sees`; the published models see all there is."""

    longest: int | None = Field(None, ge=33, le=4096, description="longer side that the picture is shrunk to")
    brightness: Literal["as_is", "normalized"] = Field("as_is", description="whether all pictures are equally bright")
    space: Literal["camera", "romm"] = Field("camera", description="RGB of the camera, or ROMM RGB by its ColorMatrix")


BRIGHT = 99.0
"""Percentile of the brightest color of each pixel that becomes 1 where brightness is normalized."""

MIDDLE = 3969.0
"""Kelvin halfway, in mired, between standard illuminants A and D65: at it a pair of ColorMatrices is interpolated."""


def fc4_votes(mosaic: Mosaic, names: tuple[str, ...], networks: Networks | None) -> list[Triple]:
    """Ask each FC4 model for the illuminant of the half-size RGB picture, as it sees it; one set of gains a model."""
    assert networks is not None, "fc4 needs networks"
    from nightisp.models import fc4  # noqa: F401 - the key of this stage stands on the network's code
    from nightisp.models.evaluation import Precision, evaluate

    rgb, votes = to_half_rgb(mosaic.samples, mosaic.cfa), []  # (H/2, W/2, 3)
    for name in names:
        network = networks(name)
        sees = read_sees(name, getattr(network, "card", {}))
        if sees.space == "romm" and not mosaic.shot.color_matrices:
            raise NoGroundError(_WITHOUT_MATRIX.format(name, mosaic.shot.camera or "this camera"))
        seen = camera_to_seen(mosaic.shot.color_matrices, sees)
        # In float32 its last bits differ with the number of threads, and later networks make levels of them.
        precision: Precision = "float32" if sees.longest is None else "float64"
        votes.append(to_gains(in_camera(evaluate(network, as_seen(rgb, sees, seen), precision)[0], seen)))
    return votes


def camera_to_seen(matrices: Sequence[ColorMatrix], sees: Sees) -> Matrix | None:
    """Return the matrix from camera RGB to the RGB that a network sees; None if that is camera RGB.

    In ROMM RGB the lamps of the world lie on one curve, whatever camera took them, which leaves less to guess.
    """
    if sees.space == "camera":
        return None
    return np.asarray(XYZ_D50_TO_ROMM @ invert(xyz_to_camera_at(matrices, MIDDLE)))


def in_camera(illuminant: NDArray[Any], camera_to_seen: Matrix | None) -> Triple:
    """Return what a network says of the light as camera RGB."""
    r, g, b = illuminant if camera_to_seen is None else np.linalg.solve(camera_to_seen, illuminant)
    return float(r), float(g), float(b)


def read_sees(name: str, card: Mapping[str, Any]) -> Sees:
    """Return what the card of the weights called `name` says that they see; the published way if it says nothing.

    Raises
    ------
    WeightsMismatchError
        If the card asks for something that this nightisp cannot prepare.
    """
    try:
        return Sees.model_validate(card.get("sees", {}))
    except ValidationError as error:
        raise WeightsMismatchError(
            f"{name}: its card says sees: {card['sees']!r}; expected longest (33 to 4096), brightness (as_is or "
            "normalized) and space (camera or romm); import the weights again, or install the nightisp that they were "
            "trained with"
        ) from error


def as_seen(rgb: Samples, sees: Sees, camera_to_seen: Matrix | None = None) -> Samples:
    """Prepare a half-size picture for FC4.

    Shrinking comes before clipping at black, so that noise below black is averaged out and does not tint the dark.
    Clipping at white comes first of all, before matrix and mean spread what a sensor cannot tell apart.

    Parameters
    ----------
    rgb
        Linear camera RGB, float32 (H, W, 3), 0 = black level, 1 = white level; not clipped.
    sees
        How large and how bright the network wants it.
    camera_to_seen
        3 x 3, from camera RGB to what the network sees; None if that is camera RGB.

    Returns
    -------
    Samples
        Planes, float32 (3, h, w), in [0, 1], encoded by a gamma of 1 / 2.2.
    """
    height, width = rgb.shape[:2]
    if sees.longest is not None and max(height, width) > sees.longest:
        import cv2

        scale = sees.longest / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = np.asarray(cv2.resize(np.minimum(rgb, 1), size, interpolation=cv2.INTER_AREA), np.float32)
    if camera_to_seen is not None:
        rgb = np.minimum(rgb, 1) @ camera_to_seen.T.astype(np.float32)
    if sees.brightness == "normalized":
        bright = float(np.percentile(rgb.max(axis=-1), BRIGHT))
        rgb = rgb / np.float32(max(bright, 1e-6))
    encoded = np.clip(rgb, 0, 1) ** np.float32(1 / 2.2)
    return np.ascontiguousarray(np.moveaxis(encoded, -1, 0))


def _weights(params: WhiteBalanceParams) -> tuple[str, ...]:
    return params.weights if params.method in ("fc4", "as_shot_fc4") else ()


STAGE = Stage(
    name="white_balance",
    run=white_balance,
    takes=Mosaic,
    gives=Mosaic,
    params=WhiteBalanceParams,
    device="gpu",
    weights=_weights,
    check=check,
    cite=("hu2017fc4", "finlayson2004shades", "dng171"),
)
