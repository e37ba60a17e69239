"""One picture through the pipeline in memory: for notebooks and other programs, without store or scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightisp import looks, sidecar
from nightisp import params as parameters
from nightisp.errors import RawFileNotFoundError
from nightisp.image import Image
from nightisp.pipeline import NAMES, PIPELINE, index
from nightisp.preview import shown
from nightisp.project import weights_folders
from nightisp.raw import RawFile

if TYPE_CHECKING:
    from nightisp.models.weights import Compute

_LAST = NAMES[-2]  # export makes a file of what this stage gives


def render(
    path: Path | str,
    *,
    until: str = _LAST,
    look: str | None = None,
    weights: Path | str | None = None,
    device: str = "auto",
    **sections: Mapping[str, Any],
) -> NDArray[Any]:
    """Render a raw and return the picture's samples.

    The same bits as `nightisp flow run` gives before it makes a file of them. Parameters are those of the project's
    params.yaml, if there is one, then the look, then the raw's sidecar, then `sections`.

    Parameters
    ----------
    path
        A raw photograph, or a challenge PNG with its JSON beside it.
    until
        The last stage to run.
    look
        Name of a look.
    weights
        Folder of weights, looked into before the others.
    device
        "auto", "cpu", "cuda" or "cuda:N": where networks run.
    **sections
        Parameters by stage: `render("night.dng", tone={"gamma": 2.8}, refine={"method": "none"})`.

    Returns
    -------
    NDArray
        float32; by default sRGB (H, W, 3) in [0, 1], upright. Of an earlier stage the visible samples as it leaves
        them: a mosaic (H, W), linear light or display light (H, W, 3), not turned.

    Raises
    ------
    NightispError
        If the raw, the parameters or the weights are at fault.
    """
    *_, (_, image) = steps(path, until=until, look=look, weights=weights, device=device, **sections)
    return np.array(image.visible())


def steps(
    path: Path | str,
    *,
    until: str = _LAST,
    look: str | None = None,
    weights: Path | str | None = None,
    device: str = "auto",
    **sections: Mapping[str, Any],
) -> Iterator[tuple[str, Image]]:
    """Run a raw through the pipeline and give each stage's name and what it makes, one after the other; see `render`.

    `export`, which makes a file, is left out.
    """
    path = Path(path)
    if not path.is_file():
        raise RawFileNotFoundError(f"{path}: no such file; check its name")
    tree = parameters.Layered(looks.read_params(None, look), sections)
    parameters.validate(tree, "render")
    beside = sidecar.read(path)
    chosen = parameters.for_frame(tree, beside.tree if beside else {}, str(beside.path if beside else path), until)
    networks = _networks(weights_folders(Path(weights) if weights else None), device)
    image: Any = RawFile(path)
    for stage in PIPELINE[: min(index(until), index(_LAST)) + 1]:
        image = stage(image, chosen[stage.name], networks).rounded()
        yield stage.name, image


@cache
def _networks(folders: tuple[Path, ...], device: str) -> Compute:
    """Open weights once for all pictures: networks stay loaded, and are loaded anew where their file is another."""
    from nightisp.models.weights import Compute, Library

    return Compute(Library(folders), device)


def show(image: Image, longest: int | None = None) -> NDArray[Any]:
    """Return what a stage made as an sRGB picture to look at, uint8 (h, w, 3); see `nightisp.preview.shown`."""
    return shown(image, longest)[0]
