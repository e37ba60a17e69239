"""`nightisp flow watch`: render what arrives in a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightisp.cli.common import (
    DeviceOption,
    EngineName,
    LookOption,
    MemoryOption,
    NameOption,
    ParamsOption,
    SetOption,
    StoreOption,
    WeightsOption,
    WorkersOption,
    memory_budget,
    scheduler,
)
from nightisp.cli.logs import VerboseOption, listen

if TYPE_CHECKING:
    from nightisp.batch import Stop
    from nightisp.cli.common import Render
    from nightisp.cli.progress import Progress
    from nightisp.run import Options


def watch(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Where raws arrive.")],
    output: Annotated[Path, typer.Option("--output", help="Folder of the finished pictures.")] = Path("output"),
    name: NameOption = "{frame}",
    store: StoreOption = None,
    weights: WeightsOption = None,
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="prefect makes a flow run of whatever arrived together.")
    ] = EngineName.local,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")] = False,
    settled: Annotated[
        float, typer.Option("--settled", min=0.1, help="Seconds without a change that make a raw complete.")
    ] = 2.0,
    verbose: VerboseOption = False,
) -> None:
    """Render each raw once when it has arrived completely, until Ctrl-C.

    What lies there at the start is rendered too, unless the store has it: after a restart nothing is computed twice. A
    raw that changes, or whose sidecar does, is rendered again; one that fails is named, and tried again once it
    changes. The exit status is 3 if a picture failed.
    """
    from nightisp.batch import Stop
    from nightisp.cli.progress import Progress, interruptible
    from nightisp.errors import RawFileNotFoundError
    from nightisp.publish import check_writable
    from nightisp.run import Options, check_settings
    from nightisp.watch import Watch

    listen(verbose=verbose)
    for folder in folders:
        if not folder.is_dir():
            raise RawFileNotFoundError(f"{folder}: no such folder; make it, or name the one where raws arrive")
    options = Options(
        inputs=tuple(folders),
        output=output,
        store=store,
        weights=weights,
        params=params,
        look=look,
        name=name,
        settings=tuple(settings or ()),
        device=device,
        workers=workers,
        memory=memory_budget(memory),
    )
    at_work, _ = check_settings(options)
    check_writable(output)
    watched = Watch(folders, recursive, [output, *at_work.store.folders], settled)
    stop, failed = Stop(), False
    typer.echo(f"watching {', '.join(map(str, folders))}; Ctrl-C ends it", err=True)
    with scheduler(engine) as render, interruptible(stop, at_work.flush):
        while not stop:
            if arrived := watched.ready(time.monotonic()):
                with Progress(quiet=False) as progress:
                    failed |= _render(render, options, arrived, progress, stop)
            stop.wait(min(1.0, settled / 2))
    if failed:
        raise typer.Exit(3)


def _render(render: Render, options: Options, arrived: list[Path], progress: Progress, stop: Stop) -> bool:
    """Render some raws and tell whether one failed."""
    from nightisp.errors import RawFileNotFoundError

    try:
        report = render(options.model_copy(update={"inputs": tuple(arrived)}), progress, stop)
    except RawFileNotFoundError as error:  # gone again before it was opened
        typer.echo(f"error: {error}", err=True)
        return True
    progress.close_with(report)
    return any(frame.outcome == "failed" for frame in report.frames)
