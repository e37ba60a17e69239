"""`nightisp doctor`: tell whether all is here that a run needs."""

from __future__ import annotations

import typer

from nightisp.cli.common import StoreOption, WeightsOption, in_words, open_library, open_store


def doctor(store: StoreOption = None, weights: WeightsOption = None) -> None:
    """Say what a run would find here: versions, device, memory, project, store, weights."""
    import shutil

    import psutil
    import torch

    from nightisp.engine import versions
    from nightisp.params import load
    from nightisp.project import params_file, root

    good = True
    for package, version in versions().items():
        typer.echo(f"{package:<24} {version}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    typer.echo(f"{'CUDA device':<24} {cuda}")
    memory = psutil.virtual_memory()
    typer.echo(
        f"{'cores, memory':<24} {psutil.cpu_count()}, {in_words(memory.available)} free of {in_words(memory.total)}"
    )
    typer.echo(f"{'project':<24} {root() or 'none above this folder: defaults are used'}")
    try:
        load(params_file())
        typer.echo(f"{'parameters':<24} good")
    except Exception as error:
        good = False
        typer.echo(f"{'parameters':<24} {error}")
    try:
        opened = open_store(store)
        free = [
            f", {in_words(shutil.disk_usage(next(p for p in (f, *f.absolute().parents) if p.exists())).free)} free"
            for f in opened.folders
        ]
        typer.echo(f"{'store':<24} {opened.location}{''.join(free)}")
    except Exception as error:
        good = False
        typer.echo(f"{'store':<24} {error}")
    library = open_library(weights)
    problems = {name: problem for name, problem in library.verify().items() if problem}
    typer.echo(
        f"{'weights':<24} {', '.join(e.name for e in library.entries()) or 'none: networks cannot be chosen yet'}"
    )
    for name, problem in problems.items():
        good = False
        typer.echo(f"{'':<24} {name}: {problem}")
    if not good:
        raise typer.Exit(2)
