"""`nightisp params`: what the stages are told."""

from __future__ import annotations

from typing import Annotated

import typer

from nightisp.cli.common import LookOption, ParamsOption, SetOption, read_params

app = typer.Typer(help="Show and check parameters.", no_args_is_help=True)


@app.command()
def show(
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
) -> None:
    """Show the parameters of every stage, defaults filled in."""
    from nightisp.params import canonical, validate
    from nightisp.params import changed as changes
    from nightisp.pipeline import NAMES

    tree = read_params(params, settings, look)
    for name in NAMES:
        lines = (
            changes(tree, name)
            if changed
            else [f"{k}: {v}" for k, v in canonical(validate(tree, "params")[name]).items()]
        )
        if lines:
            typer.echo(f"{name}:")
            for line in lines:
                typer.echo(f"  {line}")


@app.command()
def check(params: ParamsOption = None, look: LookOption = None, settings: SetOption = None) -> None:
    """Check parameters: names, bounds, combinations."""
    read_params(params, settings, look)
    typer.echo("parameters are good")


@app.command("looks")
def looks_(
    params: ParamsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the looks, shipped ones and those in looks/ beside params.yaml: what for, and what they change."""
    import json

    from nightisp import looks
    from nightisp.project import looks_folders

    folders = looks_folders(params)
    for name in looks.paths(folders):
        look = looks.read(name, folders)
        if as_json:
            facts = {"look": name, "path": str(look.path), "description": look.description, "params": look.tree}
            typer.echo(json.dumps(facts, ensure_ascii=False))
            continue
        changes = [
            f"{stage}.{key}={value}" for stage, given in look.tree.items() for key, value in (given or {}).items()
        ]
        typer.echo(f"{name:<14} {look.description}")
        typer.echo(f"{'':<14} {' '.join(changes)}")
