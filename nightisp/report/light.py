"""What light a picture was balanced for, and where FC4 looked to find it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.bayer import to_half_rgb
from nightisp.errors import NightispError
from nightisp.image import Mosaic, Samples, Triple
from nightisp.metrics import angular_error
from nightisp.orientation import orient
from nightisp.preview import preview
from nightisp.report.pictures import Embedded, embedded
from nightisp.stage import Networks
from nightisp.stages.white_balance import as_seen, camera_to_seen, read_sees, to_gains

_LONGEST = 480
_DARKEST = 0.3  # what FC4 passed over stays visible, without color


@dataclass(frozen=True, slots=True)
class Looked:
    """Where one FC4 model looked: the picture, dark and gray where it trusted little.

    `half` is the share of the picture's area that holds half of its confidence.
    """

    weights: str
    picture: Embedded
    half: float


@dataclass(frozen=True, slots=True)
class Light:
    """The gains of the mosaic, and how they were found; `unseen` says why there is nothing in `looked`."""

    method: str
    gains: Triple
    as_shot: Triple | None
    angle: float | None
    looked: tuple[Looked, ...] = ()
    unseen: str = ""


def light(balanced: Mosaic, before: Mosaic | str, attributes: Mapping[str, Any], networks: Any) -> Light:
    """Tell the light of a balanced mosaic.

    Parameters
    ----------
    balanced
        What `white_balance` gave.
    before
        What it took; or why that is not there.
    attributes
        Of the artifact: its parameters, and the digests of the weights that it was made with.
    networks
        `nightisp.models.weights.Compute`.
    """
    gains, neutral = balanced.balance.gains, balanced.shot.as_shot_neutral
    as_shot = to_gains(neutral) if neutral is not None and min(neutral) > 0 else None
    # Gains are one over the light, so that the angle is between the lights that they stand for.
    angle = None if as_shot is None else float(angular_error(1 / np.array(gains), 1 / np.array(as_shot)))
    looked: tuple[Looked, ...] = ()
    try:
        names = tuple(attributes["weights"])
        unseen = _cannot(names, before, attributes, networks)
        if not unseen and isinstance(before, Mosaic):
            shown = preview(balanced, _LONGEST)
            looked = tuple(_looked(name, before, shown, networks) for name in names)
    except NightispError as error:
        unseen = f"where FC4 looked cannot be shown: {error}"
    return Light(balanced.balance.method, gains, as_shot, angle, looked, unseen)


def _cannot(names: tuple[str, ...], before: Mosaic | str, attributes: Mapping[str, Any], networks: Any) -> str:
    if not names:
        return f"FC4 had no part in this: white_balance.method is {attributes['params'].get('method')}."
    if isinstance(before, str):
        return f"Where FC4 looked cannot be shown without the mosaic that it saw: {before}"
    for name in names:
        if networks.library.digest(name) != attributes["weights"][name]:
            return f"The weights called {name} are not those any more that this balance was found by."
    return ""


def _looked(name: str, mosaic: Mosaic, shown: NDArray[np.uint8], networks: Networks) -> Looked:
    import cv2

    confidence = confidence_of(name, mosaic, networks)
    upright = orient(confidence[..., np.newaxis], mosaic.shot.orientation)
    size = shown.shape[1], shown.shape[0]
    spread = np.asarray(cv2.resize(np.ascontiguousarray(upright), size, interpolation=cv2.INTER_LINEAR))
    trust = (spread / max(float(spread.max()), 1e-9))[..., np.newaxis]  # (h, w, 1), 1 where it is highest
    picture = np.asarray(shown / 255, np.float32)
    passed_over = _DARKEST * picture.mean(axis=-1, keepdims=True)
    return Looked(name, embedded(passed_over + trust * (picture - passed_over)), _half(confidence))


def confidence_of(name: str, mosaic: Mosaic, networks: Networks) -> Samples:
    """Return FC4's confidence in each place of a mosaic, float32 (h, w), not negative, near a 32nd of its size.

    Prepared as the stage prepares it, by the stage's own functions.
    """
    from nightisp.models.evaluation import evaluate

    network = networks(name)
    sees = read_sees(name, getattr(network, "card", {}))
    matrix = camera_to_seen(mosaic.shot.color_matrices, sees)
    _, _, confidence = evaluate(network, as_seen(to_half_rgb(mosaic.samples, mosaic.cfa), sees, matrix))
    return np.asarray(confidence[0])


def _half(confidence: Samples) -> float:
    """Return the share of places that hold half of the confidence, the most trusted first."""
    ordered = np.sort(confidence.ravel().astype(np.float64))[::-1]
    if ordered.sum() <= 0:
        return 1.0
    return float((np.searchsorted(np.cumsum(ordered), ordered.sum() / 2) + 1) / ordered.size)
