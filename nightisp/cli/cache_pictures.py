"""`nightisp cache show`, `export` and `diff`: artifacts as pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightisp.cli import completion
from nightisp.cli.common import StoreOption, age, in_words, open_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nightisp.lineage import Artifact

Name = Annotated[
    str,
    typer.Argument(
        help="A frame, FRAME~1 for the one before its newest, or a key's first letters.",
        autocompletion=completion.frames,
    ),
]

_NARROWEST, _WIDEST = 480, 1600  # pixels of each picture where two are compared


def show(
    name: Name,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Where pictures go. [default: NAME-stages]")
    ] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only this stage.", autocompletion=completion.stages)
    ] = None,
    longest: Annotated[
        int, typer.Option("--longest", min=0, help="Longer side of the pictures in pixels; 0 for full size.")
    ] = 2400,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all attributes as JSON, one object a line; make no pictures.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Show every stage of a picture: files to look at, a contact sheet, and what is known of each.

    NN_STAGE.png is a picture of the stage's samples, NN_STAGE_mosaic.png of its photosites in gray; contact_sheet.png
    has them all. How linear light was made visible is said of each.
    """
    from nightisp.image import Mosaic
    from nightisp.pipeline import index
    from nightisp.preview import shown, shown_as_gray
    from nightisp.views import contact_sheet

    opened, chain = open_store(store), _chain(name, stage, store)
    if as_json:
        for artifact in chain:
            typer.echo(json.dumps({"path": str(artifact.entry.path), **artifact.attributes}, ensure_ascii=False))
        return
    folder = to or Path(f"{name.replace('~', '-')}-stages")
    tiles = []
    for artifact in chain:
        image, number = artifact.read(opened), index(artifact.stage)
        views = [("", *shown(image, longest or None))]
        if isinstance(image, Mosaic):
            views.append(("_mosaic", *shown_as_gray(image, longest or None)))
        for what, pixels, how in views:
            _write_png(folder / f"{number:02d}_{artifact.stage}{what}.png", pixels)
            tiles.append((pixels, (f"{number} {artifact.stage}{what.replace('_', ' ')}", in_brief(artifact), how)))
        at = artifact.attributes
        typer.echo(
            f"{artifact.stage:<17} {artifact.entry.key[:12]} {in_words(artifact.entry.size()):>9} "
            f"{age(at['created']):>5} {at['seconds']:>7.2f} s  {in_brief(artifact)}"
        )
        typer.echo(f"{'':<17} shown: {views[0][2]}")
    _write_png(folder / "contact_sheet.png", contact_sheet(tiles))
    typer.echo(f"wrote {len(tiles)} pictures and contact_sheet.png to {folder}")


def export(
    name: Name,
    to: Annotated[Path, typer.Argument(help="A file: .png to look at; .tif, .npy or .dng to work on.")],
    stage: Annotated[
        str | None, typer.Option("--stage", help="Which stage. [default: the last]", autocompletion=completion.stages)
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write one stage of a picture as a file.

    PNG is to look at: upright, linear light made visible as `cache show` does it. TIFF, of 16 bits, and NPY, float32,
    hold the samples as they are, TIFF clipped to [0, 1] and upright, linear where the stage's light is. DNG holds a
    mosaic that no white balance was applied to, with the raw's metadata, for other raw converters.
    """
    import numpy as np

    from nightisp.dng import write_dng
    from nightisp.errors import ParamsError
    from nightisp.export import EncodedPicture
    from nightisp.image import DisplayImage, LinearImage, Mosaic
    from nightisp.orientation import orient
    from nightisp.picture_files import srgb_pixels, write_picture
    from nightisp.preview import shown
    from nightisp.publish import publish

    artifact = _chain(name, stage, store)[-1]
    image, how = artifact.read(open_store(store)), "as it is"
    suffix = to.suffix.lower()
    if suffix == ".png":
        pixels, how = shown(image)
        _write_png(to, pixels)
    elif suffix == ".dng":
        if not isinstance(image, Mosaic):
            raise ParamsError(f"{to}: {artifact.stage} gives no mosaic; a DNG holds one: choose --stage denoise")
        write_dng(image, to)
    elif suffix not in (".npy", ".tif", ".tiff"):
        raise ParamsError(f"{to}: {suffix or 'no suffix'}; expected .png, .tif, .npy or .dng")
    elif isinstance(image, EncodedPicture):
        write_picture(to, srgb_pixels(image))
    elif suffix == ".npy":
        write_picture(to, image.samples)
    elif isinstance(image, DisplayImage):
        write_picture(to, orient(image.visible(), image.shot.orientation))
    else:
        how = f"linear {image.space + ' RGB' if isinstance(image, LinearImage) else 'photosites'}, clipped to [0, 1]"
        upright = orient(np.clip(image.visible(), 0, 1), image.shot.orientation)
        publish(_linear_tiff(np.rint(upright * np.float32(65535)).astype(np.uint16)), to)
    typer.echo(f"wrote {artifact.stage} of {name} to {to} ({how})")


def diff(
    one: Name,
    other: Name,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="A PNG of both and their difference.")] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Compare as this stage left them.", autocompletion=completion.stages)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")] = False,
    store: StoreOption = None,
) -> None:
    """Tell what made two pictures different, and how far they are apart.

    All that differs on the way to them is listed: parameters, weights, code, the raw. Distances are PSNR, the mean and
    the largest difference of samples, for finished light SSIM and CIEDE2000 as well.
    """
    from nightisp.errors import ParamsError
    from nightisp.lineage import differences
    from nightisp.preview import shown
    from nightisp.views import contact_sheet, difference

    if to and to.suffix.lower() != ".png":
        raise ParamsError(f"--to {to}: {to.suffix or 'no suffix'}; expected .png")
    opened, chains = open_store(store), (_chain(one, stage, store), _chain(other, stage, store))
    a, b = (chain[-1] for chain in chains)
    if a.stage != b.stage:
        raise ParamsError(f"{one} ends at {a.stage}, {other} at {b.stage}; choose --stage {_common(chains)}")
    pictures = a.read(opened), b.read(opened)
    found, differs = difference(*pictures), differences(*chains)
    numbers = {
        "psnr": found.psnr if math.isfinite(found.psnr) else None,
        **{name: getattr(found, name) for name in ("ssim", "ciede2000", "mean", "largest")},
    }
    if as_json:
        typer.echo(json.dumps({"stage": a.stage, "differs": differs, "identical": not found.largest, **numbers}))
    else:
        for name, (ours, theirs) in differs.items():
            typer.echo(f"{name}: {_value(ours)} -> {_value(theirs)}")
        if not found.largest:
            typer.echo(f"{a.stage}: the samples are the same")
        else:
            typer.echo(
                f"{a.stage}: "
                + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if value is not None)
            )
    if to:
        differ = f"difference x {found.amplified:.3g}"
        tiles = [(*shown(picture), name) for picture, name in zip(pictures, (one, other), strict=True)]
        wide = max(_NARROWEST, min(_WIDEST, tiles[0][0].shape[1]))
        labeled = [(pixels, (name, how)) for pixels, how, name in tiles]
        sheet = contact_sheet([*labeled, (found.picture, (differ,))], width=wide)
        _write_png(to, sheet)
        if not as_json:
            typer.echo(f"wrote {to}")


def in_brief(artifact: Artifact) -> str:
    """Return the parameters of an artifact that are not the defaults, in one line."""
    return " ".join(f"{name}={value}" for name, value in artifact.unusual.items())


def _chain(name: str, stage: str | None, store: str | None) -> tuple[Artifact, ...]:
    """Return the artifacts that led to a picture, up to a stage, if one is named."""
    from nightisp.errors import ArtifactNotFoundError
    from nightisp.lineage import lineage
    from nightisp.pipeline import index

    chain = lineage(open_store(store), name)
    if stage is None:
        return chain
    index(stage)  # raises if there is no such stage
    for place, artifact in enumerate(chain):
        if artifact.stage == stage:
            return chain[: place + 1]
    raise ArtifactNotFoundError(
        f"{name}: has no artifact of {stage} (it has {', '.join(a.stage for a in chain)}); render it, or choose another"
    )


def _common(chains: tuple[tuple[Artifact, ...], ...]) -> str:
    stages = [{artifact.stage for artifact in chain} for chain in chains]
    return next((a.stage for a in reversed(chains[0]) if a.stage in stages[1]), "that both have")


def _value(value: Any) -> str:
    return "-" if value is None else str(value)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    import cv2

    from nightisp.publish import publish

    done, png = cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[..., ::-1])
    assert done
    publish(png.tobytes(), path)


def _linear_tiff(samples: NDArray[np.uint16]) -> bytes:
    """Return a TIFF without a color profile: no profile stands for a camera's own RGB."""
    from io import BytesIO

    import tifffile

    file = BytesIO()
    photometric = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(file, samples, photometric=photometric, compression="zlib", metadata=None, software=False)
    return file.getvalue()
