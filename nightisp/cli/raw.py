"""`nightisp raw`: look at raw files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at raw files.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A raw file, or a PNG with its JSON beside it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a raw file tells: camera, sensor, levels, white balance, matrices, noise."""
    from nightisp.raw import inspect

    summary = inspect(file)
    shot = summary.shot.model_dump(mode="json")
    facts = {
        "file": str(file),
        "camera": summary.shot.camera,
        "height": summary.height,
        "width": summary.width,
        "megapixels": round(summary.megapixels, 2),
        "cfa": summary.cfa.value,
        **{name: value for name, value in shot.items() if name not in ("exif", "camera")},
    }
    if as_json:
        typer.echo(json.dumps({**facts, "exif": shot["exif"]}, ensure_ascii=False, indent=2))
        return
    for name, value in facts.items():
        if name == "color_matrices":
            for matrix in value:
                typer.echo(f"xyz_to_camera     (illuminant {matrix['illuminant']}) {matrix['xyz_to_camera']}")
        elif value not in (None, "", []):
            typer.echo(f"{name:<17} {value}")
