"""Sidecars: parameters of one picture, in a small file beside its raw."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightisp.errors import ParamsError
from nightisp.params import parse_yaml

SUFFIX = ".nightisp.yaml"
LARGEST = 64 * 1024
"""Bytes: ten times what all parameters of all stages take."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar and what it sets: stage -> parameter -> value, plain values that any file format holds."""

    path: Path
    tree: dict[str, Any]


def paths(raw: Path) -> tuple[Path, Path]:
    """Return where a raw's sidecar may lie: `photo.dng.nightisp.yaml`, before `photo.nightisp.yaml`."""
    return raw.with_name(raw.name + SUFFIX), raw.with_name(raw.stem + SUFFIX)


def read(raw: Path) -> Sidecar | None:
    """Read the sidecar of a raw; None if it has none. Names and bounds are not checked here.

    It is `photo.dng.nightisp.yaml`, or `photo.nightisp.yaml` for every raw of this stem. A folder of raws may come from
    anyone: no link is followed, nothing large is read, and nothing is built but plain values.

    Raises
    ------
    ParamsError
        If the sidecar is no small YAML file of stages and parameters; the message names it.
    """
    for path in paths(raw):
        if os.path.lexists(path):
            return Sidecar(path, _parse(_text(path), path))
    return None


def _text(path: Path) -> str:
    # Without O_NONBLOCK a pipe would be waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ParamsError(f"{path}: is no file; a sidecar is a text file of parameters: move what lies there")
            content = file.read(LARGEST + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ParamsError(f"{path}: is a link, and none is followed; copy the file itself beside the raw") from None
        if error.errno == errno.EISDIR:
            raise ParamsError(f"{path}: is a folder; a sidecar is a text file of parameters: rename it") from None
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror or error}); make it readable, or remove it"
        ) from error
    if len(content) > LARGEST:
        raise ParamsError(
            f"{path}: is larger than {LARGEST // 1024} KiB; leave in it what differs for this picture, or remove it"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); save it as such") from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    tree = parse_yaml(text, path, ours=False)
    if foreign := _foreign(tree):
        raise ParamsError(f"{path}: {foreign}; expected numbers, true, false, null, text (in quotes) and lists of them")
    return tree


def _foreign(value: Any) -> str:
    """Return what is no value of JSON, which is what manifests and records hold; '' if everything is."""
    if isinstance(value, Mapping):
        names = next((f"{name!r} is no name" for name in value if not isinstance(name, str)), "")
        return names or next((found for inner in value.values() if (found := _foreign(inner))), "")
    if isinstance(value, list):
        return next((found for inner in value if (found := _foreign(inner))), "")
    plain = value is None or isinstance(value, bool | int | float | str)
    return "" if plain else f"{str(value)[:40]!r} is a {type(value).__name__}"
