"""`nightisp flow`: render pictures."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightisp.cli import completion, deploy, watch
from nightisp.cli.common import (
    AddressOption,
    BatchOption,
    DeviceOption,
    EngineName,
    LookOption,
    MemoryOption,
    NameOption,
    ParamsOption,
    RunnerName,
    RunnerOption,
    SetOption,
    StoreOption,
    WeightsOption,
    WorkersOption,
    memory_budget,
    scheduler,
)
from nightisp.cli.logs import VerboseOption, listen

if TYPE_CHECKING:
    from nightisp.cli.common import Render
    from nightisp.run import Options, Report

app = typer.Typer(help="Render pictures.", no_args_is_help=True)


app.command()(watch.watch)
app.command()(deploy.deploy)
app.command()(deploy.serve)


@app.command()
def run(
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="PLACE",
            help="Raw files, folders of them, and URLs of either (s3://bucket/nights); repeatable. [default: data/]",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the finished pictures. [default: output/]")
    ] = None,
    name: NameOption = "{frame}",
    store: StoreOption = None,
    weights: WeightsOption = None,
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    frames: Annotated[
        str,
        typer.Option(
            "--frames", metavar="GLOB", help="Only frames whose name matches.", autocompletion=completion.raws
        ),
    ] = "*",
    until: Annotated[
        str, typer.Option("--until", metavar="STAGE", help="Stop after this stage.", autocompletion=completion.stages)
    ] = "export",
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="prefect records the run for its UI; local runs the same without.")
    ] = EngineName.prefect,
    runner: RunnerOption = RunnerName.threads,
    address: AddressOption = None,
    batch: BatchOption = 1,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")] = False,
    draft: Annotated[
        bool, typer.Option("--draft", help="A quarter of width and height, in about a tenth of the time.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would run, and why.")] = False,
    verbose: VerboseOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")] = False,
) -> None:
    """Render raws into finished pictures; stages whose artifacts are in the store are not run again."""
    if address and runner is RunnerName.threads:
        raise typer.BadParameter("without --runner dask or ray nobody is there to address", param_hint="--address")
    if engine is EngineName.local and runner is not RunnerName.threads:
        raise typer.BadParameter(
            "workers are sent their work by Prefect; leave out --engine local", param_hint="--runner"
        )
    with ExitStack() as at_work:
        render = None if dry_run else at_work.enter_context(scheduler(engine))  # it comes up beside all that follows
        from nightisp.params import DRAFT
        from nightisp.run import Options

        listen(verbose=verbose)
        options = Options(
            inputs=tuple(inputs or ["data"]),
            output=output or Path("output/draft" if draft else "output"),
            store=store,
            weights=weights,
            params=params,
            look=look,
            name=name,
            settings=(*(DRAFT if draft else ()), *(settings or ())),
            frames=frames,
            until=until,
            device=device,
            workers=workers,
            memory=memory_budget(memory),
            recursive=recursive,
            runner=runner.value,
            address=address,
            batch=batch,
        )
        if render is None:
            _tell(options, as_json)
            return
        report = _run(options, engine, render, as_json=as_json)
    if report.unrecorded:
        typer.echo(f"warning: {report.unrecorded}", err=True)
        sys.stdout.flush()
        os._exit(report.status)  # leaving by the door, Prefect would try for minutes to tell what nobody hears
    if report.status:
        raise typer.Exit(report.status)


def _run(options: Options, engine: EngineName, render: Render, *, as_json: bool) -> Report:
    from nightisp.batch import Stop
    from nightisp.cli.progress import Progress, interruptible
    from nightisp.pipeline import NAMES
    from nightisp.publish import check_writable
    from nightisp.run import as_json as to_json
    from nightisp.run import check

    stop = Stop()
    engine_at_work, _ = check(options)
    if options.until == NAMES[-1]:
        check_writable(options.output)
    with Progress(quiet=as_json) as progress, interruptible(stop, engine_at_work.flush):
        if engine is EngineName.prefect:
            progress.say("starting Prefect")
        report = render(options, progress, stop)
    if as_json:  # while the server still writes down what it was told
        typer.echo(json.dumps(to_json(report), ensure_ascii=False))
    else:
        progress.close_with(report)
    return report


def _tell(options: Options, as_json: bool) -> None:
    from nightisp.explain import explain
    from nightisp.params import as_settings
    from nightisp.run import begin

    engine, _, batch, _ = begin(options)
    rows = [
        {"frame": plan.source.frame, "stage": stage, "would": todo, "why": why}
        for plan in batch.plans
        for stage, todo, why in explain(engine, plan, options.until)
    ]
    pictures = {plan.source.frame: plan.source.picture for plan in batch.plans}
    sidecars = {plan.source.frame: plan.own for plan in batch.plans if plan.own}
    if as_json:
        told = {"stages": rows, "pictures": pictures, "sidecars": sidecars, "refused": [r.error for r in batch.refused]}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        for row in rows:
            typer.echo(f"{row['frame'][:24]:<24} {row['stage']:<17} {row['would']:<8} {row['why']}")
        for frame, picture in pictures.items():
            if picture != frame:
                typer.echo(f"{frame[:24]:<24} is to be called  {picture}")
        for frame, own in sidecars.items():
            typer.echo(f"{frame[:24]:<24} has a sidecar     {' '.join(as_settings(own))}")
        for refused in batch.refused:
            typer.echo(f"refused: {refused.error}", err=True)
    if batch.refused:
        raise typer.Exit(3)
