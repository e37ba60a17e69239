"""`nightisp weights`: the networks' weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightisp.cli import completion
from nightisp.cli.common import WeightsOption, in_words, open_library

app = typer.Typer(help="List, import and verify the networks' weights.", no_args_is_help=True)


@app.command("list")
def list_(weights: WeightsOption = None) -> None:
    """List the weights that are found, and where."""
    library = open_library(weights)
    entries = library.entries()
    for entry in entries:
        typer.echo(f"{entry.name:<20} {entry.network:<13} {in_words(entry.size):>9}  {entry.digest[:12]}  {entry.path}")
        for name, value in entry.card.items():
            typer.echo(f"    {name}: {value}")
        if entry.problem:
            typer.echo(f"    problem: {entry.problem}")
    if not entries:
        typer.echo(f"no weights in {', '.join(map(str, library.folders))}", err=True)


@app.command("import")
def import_(
    stage: Annotated[
        str,
        typer.Argument(help="denoise, white_balance, refine or super_resolution.", autocompletion=completion.trained),
    ],
    files: Annotated[list[Path], typer.Argument(help="Checkpoints: .pth, .pt, .ckpt or .safetensors.")],
    name: Annotated[str | None, typer.Option("--name", help="Name to store them under.")] = None,
    folder: Annotated[Path | None, typer.Option("--to", help="Folder to store them in. [default: weights/]")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store half precision.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights of the same name.")] = False,
) -> None:
    """Import a published checkpoint: check names and shapes, store it as safetensors with a model card."""
    from nightisp.models.checkpoints import import_checkpoint
    from nightisp.project import root

    target = folder or (root() or Path.cwd()) / "weights"
    written = import_checkpoint(stage, files, target, name, half=half, overwrite=overwrite)
    for path in written:
        typer.echo(f"wrote {path}")
    names = [path.stem for path in written]
    method = {"denoise": "unet", "white_balance": "fc4", "refine": "mwispnet", "super_resolution": "hat"}[stage]
    value = f"[{', '.join(names)}]" if stage == "white_balance" else names[0]
    typer.echo(f"use it in params.yaml:\n{stage}:\n  method: {method}\n  weights: {value}")


@app.command()
def verify(weights: WeightsOption = None) -> None:
    """Read all weights and check them against their cards."""
    problems = open_library(weights).verify()
    bad = {name: problem for name, problem in problems.items() if problem}
    for name, problem in problems.items():
        typer.echo(f"{name}: {problem or 'good'}")
    if bad:
        raise typer.Exit(3)
