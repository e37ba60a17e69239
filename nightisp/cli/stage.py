"""`nightisp stage`: one stage over all frames, as DVC runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightisp.cli import completion
from nightisp.cli.common import (
    DeviceOption,
    MemoryOption,
    ParamsOption,
    SetOption,
    StoreOption,
    WeightsOption,
    WorkersOption,
    memory_budget,
    read_params,
)
from nightisp.cli.logs import VerboseOption, listen

app = typer.Typer(help="List the stages, or run one over all frames, as DVC does.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the stages in order, with what they take and give."""
    from nightisp.pipeline import PIPELINE

    for stage in PIPELINE:
        typer.echo(f"{stage.name:<17} {stage.takes.__name__:>12} -> {stage.gives.__name__:<15} {stage.summary}")


@app.command()
def run(
    stage: Annotated[str, typer.Argument(help="Name of the stage.", autocompletion=completion.stages)],
    inputs: Annotated[list[Path] | None, typer.Option("--input", help="Raws for ingest. [default: data/]")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Pictures of export. [default: output/]")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")] = False,
    store: StoreOption = None,
    weights: WeightsOption = None,
    params: ParamsOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a frame failed.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run one stage over all frames of the stage before, and write its manifest; without Prefect."""
    import os

    from nightisp.manifest import path
    from nightisp.project import root
    from nightisp.run import check_networks, open_engine
    from nightisp.stage_run import run_stage

    listen(verbose=verbose)
    base = root() or Path.cwd()
    tree = read_params(params, settings)
    budget = memory_budget(memory)
    engine = open_engine(store, weights, device, budget)
    check_networks(engine, tree, stage, device)
    lines = run_stage(
        engine,
        tree,
        stage,
        base,
        inputs or [base / "data"],
        output or base / "output",
        recursive=recursive,
        workers=workers or os.cpu_count() or 1,
        memory=budget,
    )
    failed = [line for line in lines if line.error]
    typer.echo(f"{stage}: {len(lines) - len(failed)} of {len(lines)} frames in {path(Path(), stage)}")
    for line in failed:
        typer.echo(f"  failed in {line.stage}: {line.error}", err=True)
    if failed and strict:
        raise typer.Exit(3)


@app.command()
def measure(store: StoreOption = None, params: ParamsOption = None) -> None:
    """Write what `dvc metrics` and `dvc plots` show: seconds, counts and the tone curve, into measured/."""
    from nightisp.cli.common import open_store
    from nightisp.measured import measure as run
    from nightisp.project import root

    base = root() or Path.cwd()
    for path in run(open_store(store), read_params(params, None), base):
        typer.echo(path.relative_to(base))
