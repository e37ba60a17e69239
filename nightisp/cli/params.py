"""`nightisp params`: what the stages are told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightisp.cli.common import LookOption, ParamsOption, SetOption, read_params

app = typer.Typer(help="Show and check parameters.", no_args_is_help=True)


@app.command()
def show(
    raw: Annotated[Path | None, typer.Argument(help="A raw, to show what holds for it: with its sidecar.")] = None,
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
) -> None:
    """Show the parameters of every stage, defaults filled in."""
    from nightisp import sidecar
    from nightisp.errors import RawFileNotFoundError
    from nightisp.lineage import unusual
    from nightisp.params import canonical, for_frame

    tree = read_params(params, settings, look)
    if raw and not raw.is_file():
        raise RawFileNotFoundError(f"{raw}: no such file; expected a raw")
    beside = sidecar.read(raw) if raw else None
    chosen = for_frame(tree, beside.tree, str(beside.path)) if beside else for_frame(tree, {}, "params")
    for name, given in chosen.items():
        values = unusual(name, canonical(given)) if changed else canonical(given)
        if values:
            typer.echo(f"{name}:")
            for parameter, value in values.items():
                typer.echo(f"  {parameter}: {value}")


@app.command()
def check(
    raws: Annotated[
        list[Path] | None, typer.Argument(help="Raws, and folders of them, whose sidecars to check as well.")
    ] = None,
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")] = False,
) -> None:
    """Check parameters: names, bounds, combinations; with raws, each sidecar too, and whether it has a raw."""
    from nightisp import sidecar, sources
    from nightisp.errors import ParamsError
    from nightisp.params import for_frame

    tree = read_params(params, settings, look)
    typer.echo("parameters are good")
    if not raws:
        return
    good, bad, used = 0, 0, set[Path]()
    for raw in sources.find(raws, recursive=recursive):
        used |= {path.absolute() for path in sidecar.paths(raw)}
        try:
            if beside := sidecar.read(raw):
                for_frame(tree, beside.tree, str(beside.path))
                good += 1
        except ParamsError as error:
            bad += 1
            typer.echo(str(error), err=True)
    for folder in filter(Path.is_dir, raws):
        for path in sorted(folder.glob(f"{'**/' if recursive else ''}*{sidecar.SUFFIX}")):
            if path.absolute() not in used:
                bad += 1
                typer.echo(f"{path}: belongs to no raw beside it; name it after its raw, or remove it", err=True)
    typer.echo(f"{good} of {good + bad} sidecars are good")
    if bad:
        raise typer.Exit(3)


@app.command("looks")
def looks_(
    params: ParamsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the looks, shipped ones and those in looks/ beside params.yaml: what for, and what they change."""
    import json

    from nightisp import looks
    from nightisp.params import as_settings
    from nightisp.project import looks_folders

    folders = looks_folders(params)
    for name in looks.paths(folders):
        look = looks.read(name, folders)
        if as_json:
            facts = {"look": name, "path": str(look.path), "description": look.description, "params": look.tree}
            typer.echo(json.dumps(facts, ensure_ascii=False))
            continue
        typer.echo(f"{name:<14} {look.description}")
        typer.echo(f"{'':<14} {' '.join(as_settings(look.tree))}")
