"""ICC profiles of the spaces that pictures are written in: build them, and tell them in a file."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightisp.colorimetry import D50_XYZ, adaptation, xy_to_xyz
from nightisp.rgb_spaces import SPACES, WHITE_XY, RGBSpace, SpaceName

# Stands here so that another profile is another code digest, and with it another key.
PROFILE_SHA256 = "c523f7d8e66ee38e5aa0dc238f0d9ac7cb0811a2c971beb55c2a67758c31b1f8"

_POINTS = 1024  # of a curve without formula: straight lines between them lie within 2e-5 of sRGB's
_ICC_IN_JPEG = b"ICC_PROFILE\0\1\1"  # a profile in one segment, as all of ours
_ICC_IN_TIFF = 34675


@cache
def profile(space: SpaceName) -> bytes:
    """Return the ICC profile of a space; that of sRGB is a file, nightisp/srgb.icc."""
    return srgb_profile() if space == "srgb" else built(SPACES[space])


def srgb_profile() -> bytes:
    """Return the ICC profile of IEC 61966-2-1: version 2.4, D50-adapted by Bradford, a curve of 1024 points."""
    return files("nightisp").joinpath("srgb.icc").read_bytes()


def built(space: RGBSpace) -> bytes:
    """Build a display profile of three colorants and one curve, version 2.4, which every reader knows.

    Colorants are adapted to D50 by Bradford and rounded so that white is exactly the connection space's. A power law is
    stated in 256ths, as Adobe RGB's 563/256 is; sRGB's curve is a table. Nothing but the space enters the bytes.

    References
    ----------
    :cite:`icc2001`, :cite:`lam1985bradford`.
    """
    white = np.rint(D50_XYZ * 65536).astype(int)
    exact = adaptation(xy_to_xyz(*WHITE_XY), D50_XYZ) @ space.to_xyz() * 65536
    colorants = np.rint(exact).astype(int)  # columns are red, green, blue
    for row, total in zip(colorants, white, strict=True):
        row[np.argmax(row)] += total - row.sum()
    curve = _curve(space)
    title = space.title.encode("ascii") + b"\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(title)) + title + bytes(78),  # no other script or code
        b"cprt": b"text\0\0\0\0CC0\0",
        b"wtpt": _xyz(white),
        b"rXYZ": _xyz(colorants[:, 0]),
        b"gXYZ": _xyz(colorants[:, 1]),
        b"bXYZ": _xyz(colorants[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    return _assembled(tags, _xyz(white)[8:])


def space_of(content: bytes) -> SpaceName:
    """Return the space of a JPEG, PNG or TIFF by the profile in it; one without a profile of ours counts as sRGB."""
    found = _embedded(content)
    return next((name for name in SPACES if profile(name) == found), "srgb")


def _curve(space: RGBSpace) -> bytes:
    if space.gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(space.gamma * 256))
    levels: NDArray[np.uint16] = np.rint(space.decoded(np.linspace(0, 1, _POINTS)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", _POINTS) + levels.tobytes()


def _xyz(numbers: NDArray[Any]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *numbers)


def _assembled(tags: dict[bytes, bytes], white: bytes) -> bytes:
    """Return header, table and contents, each content once and at a multiple of four bytes."""
    start = 128 + 4 + 12 * len(tags)
    table, contents, places = struct.pack(">I", len(tags)), b"", dict[bytes, int]()
    for name, content in tags.items():
        if content not in places:
            contents += bytes(-len(contents) % 4)
            places[content] = start + len(contents)
            contents += content
        table += name + struct.pack(">II", places[content], len(content))
    contents += bytes(-len(contents) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(contents), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2005, 5, 1, 0, 0, 0, b"acsp")  # a day that never changes, as none may enter
    return header.ljust(68, b"\0") + white.ljust(60, b"\0") + table + contents


def _embedded(content: bytes) -> bytes:
    """Return the color profile in a file, or b''."""
    if content.startswith(b"\x89PNG"):
        return _in_png(content)
    if content.startswith(b"\xff\xd8"):
        at = content.find(_ICC_IN_JPEG)
        # Two bytes before it stands the length of the segment, those two included.
        end = at - 2 + int.from_bytes(content[at - 2 : at]) if at > 0 else 0
        return content[at + len(_ICC_IN_JPEG) : end]
    return _in_tiff(content)


def _in_png(content: bytes) -> bytes:
    at = 8
    while at + 12 <= len(content) and (name := content[at + 4 : at + 8]) != b"IDAT":
        chunk = content[at + 8 : at + 8 + int.from_bytes(content[at : at + 4])]
        if name == b"iCCP":
            return zlib.decompress(chunk[chunk.index(b"\0") + 2 :])
        at += 12 + len(chunk)
    return b""


def _in_tiff(content: bytes) -> bytes:
    from io import BytesIO

    import tifffile

    with tifffile.TiffFile(BytesIO(content)) as file:
        tag = file.pages[0].tags.get(_ICC_IN_TIFF)
        return bytes(tag.value) if tag else b""
