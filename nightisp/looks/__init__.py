"""Named looks: parameters that are laid over the others under one name, shipped here or added by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightisp import params as parameters
from nightisp.errors import ParamsError
from nightisp.params import Tree, read_yaml, validate
from nightisp.pipeline import nearest
from nightisp.project import looks_folders, params_file

SHIPPED = Path(__file__).parent
_NAME = re.compile(r"\w[\w -]*")


@dataclass(frozen=True, slots=True)
class Look:
    """A look: what it is for, where it stands, and the parameters that it sets."""

    name: str
    path: Path
    description: str
    tree: Tree


def paths(folders: Sequence[Path]) -> Mapping[str, Path]:
    """Return the files of all looks by name; of two with one name that of the earlier folder, the shipped ones last."""
    found: dict[str, Path] = {}
    for folder in (*folders, SHIPPED):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def read(name: str, folders: Sequence[Path]) -> Look:
    """Read a look and check what it sets.

    Parameters
    ----------
    name
        Of a file `NAME.yaml` in one of the folders, or of a shipped one; no path.
    folders
        Where the user's looks lie.

    Raises
    ------
    ParamsError
        If there is no such look, or it sets what there is not; the message names its file.
    """
    known = paths(folders)
    if not _NAME.fullmatch(name) or name not in known:
        raise ParamsError(
            f"--look {name}: no such look; there are {', '.join(known)}{nearest(name, tuple(known))} "
            "(your own: looks/NAME.yaml in the project, or beside the file of --params)"
        )
    path = known[name]
    tree: dict[str, Any] = dict(read_yaml(path))
    description = tree.pop("description", "")
    if not isinstance(description, str):
        raise ParamsError(f"{path}: description: {description!r}; expected a line of text")
    validate(tree, str(path))
    return Look(name, path, description, tree)


def read_params(params: Path | None, look: str | None, settings: Sequence[str] = ()) -> parameters.Layered:
    """Return the checked parameters of a run: params file, look and `--set`, each laid over the one before.

    A frame's sidecar goes between look and `--set`, by `nightisp.params.for_frame`.

    Parameters
    ----------
    params
        As given with `--params`; None: that of the project, or the defaults.
    look
        Name of a look, or None.
    settings
        `STAGE.NAME=VALUE`.

    Raises
    ------
    ParamsError
        If one of them sets what there is not, or what does not go with what lies under it; the message names it.
    """
    if look is None:
        return parameters.load(params_file(params), settings)
    chosen = read(look, looks_folders(params))
    return parameters.load(params_file(params), settings, chosen.tree, str(chosen.path))
