"""Cameras that others have measured: noise by ISO, and color matrices.

The table beside this module, `cameras.csv`, was made by `nightisp.training.tables` from darktable's public noise
profiles and from LibRaw's table of color matrices. Its digest stands here, so that the keys of all that is computed
from it change when it does.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from nightisp.errors import NoGroundError
from nightisp.image import Triple

SHA256 = "343150caee6dfcd0c5a5d363d8b9d8363d41116613d95ce9aef023e7594167b6"

_BEYOND = 2.0  # so far outside the measured sensitivities noise still follows from them
_COMPANY = {"corporation", "imaging", "corp", "company", "co", "ltd", "inc", "camera", "ag", "techno", "electric"}


@dataclass(frozen=True, slots=True)
class Camera:
    """What was measured of one model.

    `measured` holds ISO, shot and read noise, the two variances that `nightisp.noise` speaks of, by rising ISO.
    """

    maker: str
    model: str
    xyz_to_camera: tuple[Triple, Triple, Triple] | None
    measured: tuple[tuple[float, float, float], ...]

    def noise(self, iso: float) -> tuple[float, float] | None:
        """Return shot and read noise at an ISO, between the measured ones by straight lines in logarithms.

        Up to a factor of 2 beyond them they grow as an amplifier's gain and its square; None farther off.
        """
        isos, shots, reads = (np.array(column) for column in zip(*self.measured, strict=True))
        if not isos[0] / _BEYOND <= iso <= isos[-1] * _BEYOND:
            return None
        inside = float(np.clip(iso, isos[0], isos[-1]))
        shot, read = (float(np.exp(np.interp(np.log(inside), np.log(isos), np.log(v)))) for v in (shots, reads))
        return shot * iso / inside, read * (iso / inside) ** 2


def find_camera(name: str) -> Camera | None:
    """Return the camera that a raw names, however maker and model are written; None if nobody measured it.

    Examples
    --------
    >>> find_camera("NIKON CORPORATION NIKON D850").model
    'D850'
    """
    return _by_name().get(_plain(name))


@cache
def all_cameras() -> tuple[Camera, ...]:
    """Return every camera of the table, by maker and model.

    Raises
    ------
    NoGroundError
        If the table is not the one that belongs to this nightisp.
    """
    content = files("nightisp").joinpath("cameras.csv").read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise NoGroundError("nightisp/cameras.csv is not the table of this nightisp; install it again")
    return tuple(_camera(row) for row in csv.DictReader(io.StringIO(content.decode("utf-8"))))


def _camera(row: dict[str, str]) -> Camera:
    numbers = [float(number) for number in row["xyz_to_camera"].split()]
    rows = [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers), 3)]
    measured = [[float(number) for number in point.split(":")] for point in row["iso_shot_read"].split()]
    return Camera(
        maker=row["maker"],
        model=row["model"],
        xyz_to_camera=(rows[0], rows[1], rows[2]) if rows else None,
        measured=tuple((iso, shot, read) for iso, shot, read in measured),
    )


@cache
def _by_name() -> dict[str, Camera]:
    return {_plain(f"{camera.maker} {camera.model}"): camera for camera in all_cameras()}


def _plain(name: str) -> str:
    """Return a name in lower case, the maker once, without the words that companies add."""
    maker, *words = re.findall(r"[a-z0-9+]+", name.lower()) or [""]
    return " ".join([maker, *(word for word in words if word != maker and word not in _COMPANY)])
