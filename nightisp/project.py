"""Where a project's files lie: root, store, weights."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from nightisp.remote import as_path, is_url

MARKS = ("dvc.yaml", "params.yaml")


def root(start: Path | None = None) -> Path | None:
    """Return the nearest folder, upwards from `start`, that holds dvc.yaml and params.yaml; None if there is none."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if all((folder / m).is_file() for m in MARKS)), None)


def outermost(folder: Path) -> Path:
    """Return the project that a temporary copy was made of (`dvc exp run --temp` makes it inside `.dvc`)."""
    parts = folder.parts
    return Path(*parts[: parts.index(".dvc")]) if ".dvc" in parts else folder


def store_location(given: str | Path | None = None) -> str:
    """Return the artifact store, a URL or an absolute path: as given, else NIGHTISP_STORE, else `artifacts` of here.

    Here is the project's folder, or this one.
    """
    chosen = given or os.environ.get("NIGHTISP_STORE") or outermost(root() or Path.cwd()) / "artifacts"
    return str(chosen) if is_url(chosen) else str(as_path(chosen).absolute())


def weights_folders(given: Path | None = None) -> tuple[Path, ...]:
    """Return where weights are looked for: as given, NIGHTISP_WEIGHTS, the project's or this folder's, the package's.

    An editable install has the package's beside the package, in the repository; a wheel has them inside.
    """
    named = os.environ.get("NIGHTISP_WEIGHTS")
    package = Path(str(files("nightisp")))
    project, repository = root(), root(package)
    folders = [
        given,
        Path(named) if named else None,
        (project or Path.cwd()) / "weights",
        repository / "weights" if repository == package.parent else package / "weights",
    ]
    return tuple(dict.fromkeys(folder.absolute() for folder in folders if folder))


def params_file(given: Path | None = None) -> Path | None:
    """Return the params file: as given, else the project's, else None (the defaults)."""
    project = root()
    return given or (project / "params.yaml" if project else None)


def looks_folders(params: Path | None = None) -> tuple[Path, ...]:
    """Return where the user's looks are looked for: `looks` beside `params`, then of the project or of this folder."""
    folders = [params.parent if params else None, root() or Path.cwd()]
    return tuple(dict.fromkeys(folder.absolute() / "looks" for folder in folders if folder))
