"""`nightisp models`: one network alone."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nightisp.cli.common import DeviceOption, in_words

_Nine = tuple[float, float, float, float, float, float, float, float, float]

app = typer.Typer(help="List the networks, or run one alone on a file.", no_args_is_help=True)


class Pattern(StrEnum):
    """Color filter array; `nightisp.image.CFA` would take the time to import NumPy for `--help`."""

    rggb = "RGGB"
    grbg = "GRBG"
    gbrg = "GBRG"
    bggr = "BGGR"


class Precision(StrEnum):
    """What a network computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")] = False,
) -> None:
    """List the networks: parameters, size of their weights in half precision, widths and depths."""
    from nightisp.predict import presets

    found = presets()
    if as_json:
        rows = [{"network": p.name, "parameters": p.parameters, "settings": p.settings} for p in found]
        typer.echo(json.dumps({"networks": rows}))
        return
    for preset in found:
        settings = ", ".join(f"{name} {_brief(value)}" for name, value in preset.settings.items())
        size = in_words(2 * preset.parameters)
        typer.echo(f"{preset.name:<13} {preset.parameters / 1e6:>7.2f} M parameters {size:>9}  {settings}")


def _brief(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


@app.command()
def predict(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="PNG, TIFF or JPEG of 8 or 16 bits, or NPY.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="PNG or TIFF, of 16 bits, or NPY.")],
    network: Annotated[str, typer.Option("--network", help="As `nightisp models list` names them.")],
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="NAME|FILE", help="Weights. [default: called like the network]")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--weights-folder", help="Folder of weights, looked into before the others.")
    ] = None,
    device: DeviceOption = "auto",
    cfa: Annotated[
        Pattern | None, typer.Option("--cfa", help="Color filter array of a mosaic, from its top-left.")
    ] = None,
    noise: Annotated[
        tuple[float, float] | None,
        typer.Option("--noise", metavar="SHOT READ", help="Noise of a mosaic: variance = SHOT x signal + READ."),
    ] = None,
    color_matrix: Annotated[
        _Nine | None,
        typer.Option("--color-matrix", metavar="M11 M12 ... M33", help="From XYZ to camera RGB; fc4 judges by it."),
    ] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of HAT's tiles before enlarging.")] = None,
    overlap: Annotated[int | None, typer.Option("--overlap", help="What HAT's tiles see beyond their seams.")] = None,
    precision: Annotated[Precision, typer.Option("--precision", help="What the network computes in.")] = (
        Precision.float32
    ),
    as_json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write what is no picture: fc4's light, figures of noise."),
    ] = None,
) -> None:
    """Run one network alone on a file, tiled and padded as the pipeline does it.

    hat enlarges an sRGB picture; mwispnet retouches one, to a quarter of width and height. denoise_unet takes a linear
    mosaic, 0 = black level and 1 (65535) = white level, (H, W) with --cfa or (H/2, W/2, 4) as planes R, G, B, G, and
    estimates its noise unless --noise says it. fc4 takes such a mosaic or linear camera RGB with
    --color-matrix, prints the light and the gains against it, and writes where it was confident.
    """
    from nightisp.image import CFA
    from nightisp.models.weights import Compute
    from nightisp.picture_files import check_writable_as, read_picture, write_picture
    from nightisp.predict import Options, open_weights
    from nightisp.predict import predict as run
    from nightisp.project import weights_folders
    from nightisp.publish import publish

    library, name = open_weights(network, weights, weights_folders(folder))
    check_writable_as(output)
    options = Options(
        weights=name,
        cfa=CFA(cfa.value) if cfa else None,
        noise=noise,
        color_matrix=color_matrix,
        tile=tile,
        overlap=overlap,
        precision=precision.value,
        where=str(source),
    )
    prediction = run(network, read_picture(source), Compute(library, device), options)
    write_picture(output, prediction.samples)
    for fact, value in prediction.facts.items():
        shown = value if isinstance(value, list) else [value]
        typer.echo(f"{fact}: {' '.join(v if isinstance(v, str) else f'{v:.4g}' for v in shown)}")
    if as_json:
        publish((json.dumps(prediction.facts, indent=1) + "\n").encode(), as_json)
    typer.echo(f"wrote {output}: {' x '.join(map(str, prediction.samples.shape))}", err=True)
