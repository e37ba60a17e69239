"""`nightisp params`: what the stages are told."""

from __future__ import annotations

from typing import Annotated

import typer

from nightisp.cli.common import ParamsOption, SetOption, read_params

app = typer.Typer(help="Show and check parameters.", no_args_is_help=True)


@app.command()
def show(
    params: ParamsOption = None,
    settings: SetOption = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
) -> None:
    """Show the parameters of every stage, defaults filled in."""
    from nightisp.params import canonical, validate
    from nightisp.params import changed as changes
    from nightisp.pipeline import NAMES

    tree = read_params(params, settings)
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
def check(params: ParamsOption = None, settings: SetOption = None) -> None:
    """Check parameters: names, bounds, combinations."""
    read_params(params, settings)
    typer.echo("parameters are good")
