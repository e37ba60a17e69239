"""`nightisp synthesize`: raws of nights whose finished picture is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    photographs: Annotated[
        list[Path], typer.Option("--photographs", help="Folder of finished photographs; repeatable.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder for raws/ and references/.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many raws.")] = 12,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Use all photographs: no network was trained on any of them.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all that is drawn.")] = 1,
) -> None:
    """Make raws of nights from photographs, those that training holds out, with the pictures they should become."""
    from nightisp.training.nights import write_nights
    from nightisp.training.photographs import read_photographs

    for path in write_nights(read_photographs(photographs, untrained=untrained), output, count=count, seed=seed):
        typer.echo(path)
    typer.echo(f"measure: nightisp evaluate --input {output / 'raws'} --references {output / 'references'}", err=True)
