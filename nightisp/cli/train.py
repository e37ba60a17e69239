"""`nightisp train`: weights from photographs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from nightisp.cli import completion
from nightisp.cli.common import DeviceOption, open_library
from nightisp.project import params_file

if TYPE_CHECKING:
    from nightisp.training.checkpoints import Progress


def train(
    stage: Annotated[
        str,
        typer.Argument(
            help="denoise, white_balance, refine, super_resolution, or draft, for refinement of drafts.",
            autocompletion=completion.trainings,
        ),
    ],
    photographs: Annotated[
        list[Path] | None, typer.Option("--photographs", help="Folder of finished photographs; repeatable.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="refine only: folder of raws with the pictures that you made of them beside."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", metavar="NAME", help="Weights to begin with. [default: none]")
    ] = None,
    params: Annotated[
        Path | None, typer.Option("--params", help="Settings. [default: training/params.yaml, if it is there]")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; repeatable.")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Where each run keeps checkpoint, curve and metrics.")] = Path(
        "training/runs"
    ),
    output: Annotated[Path, typer.Option("--output", help="Folder for the weights.")] = Path("weights"),
    name: Annotated[str | None, typer.Option("--name", help="What to call the weights. [default: the network]")] = None,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads on the CPU.")] = None,
    sources: Annotated[
        Path | None,
        typer.Option("--sources", help="Table (TSV: file, source, licence) to take the photographs' licenses from."),
    ] = None,
) -> None:
    """Train the network of a stage on photographs; a run that was broken off goes on from its checkpoint."""
    from nightisp.errors import ParamsError
    from nightisp.models.weights import Compute
    from nightisp.training.export import export
    from nightisp.training.loop import limit_threads
    from nightisp.training.loop import train as run
    from nightisp.training.photographs import read_photographs, write_sources
    from nightisp.training.tasks import TRAINERS, open_pairs, open_task, read_params

    default = Path("training/params.yaml")
    chosen = read_params(stage, params or (default if default.is_file() else None), settings or ())
    if bool(photographs) == bool(pairs) or (pairs and stage != "refine"):
        raise ParamsError("expected --photographs FOLDER, or for refine --pairs FOLDER in its place")
    name = name or TRAINERS[stage].name
    compute = Compute(open_library(None), device)
    where = str(compute.device)
    limit_threads(threads)
    if pairs:
        task, card = open_pairs(chosen, pairs, runs / name / "pairs", params_file(None), compute, _say)
    else:
        pictures = read_photographs(photographs or [])
        task, card = open_task(stage, chosen, pictures, compute), pictures.card
        if sources:
            card |= write_sources(pictures, sources, output / "photographs.tsv")
    begun = f"begun with {start}, SHA-256 {compute.library.digest(start)}" if start else ""
    with _Bar(task.schedule.steps, name) as bar:
        first = compute(start) if start else None
        network, progress = run(task, runs / name, where, bar.show, start=first, begun=begun)
    target = output / f"{name}.safetensors"
    notes = [progress.begun] if progress.begun else []
    written = export(task, network, progress, target, device=where, command=_command(), photographs=card, notes=notes)
    figures = ", ".join(f"{k} {v:.4g}" for k, v in written["training"]["metrics"].items())
    typer.echo(f"wrote {target}: {figures}")


def _say(what: str) -> None:
    typer.echo(what, err=True)


def _command() -> str:
    return shlex.join(["nightisp", *sys.argv[1:]])


class _Bar:
    """A bar on a terminal, a line at each validation elsewhere."""

    def __init__(self, steps: int, name: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        if not self._live:
            self._console.width = 1000
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), console=self._console, disable=not self._live)
        self._name, self._steps, self._said = name, steps, 0
        self._task = self._bar.add_task(name, total=steps)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Show a step."""
        said = " ".join(f"{name} {value:.3f}" for name, value in list(progress.metrics.items())[:1])
        self._bar.update(
            self._task, completed=progress.step, description=f"{self._name} loss {progress.loss:.4f} {said}"
        )
        if not self._live and len(progress.curve) > self._said:
            self._said = len(progress.curve)
            everything = " ".join(f"{name} {value:.3f}" for name, value in progress.metrics.items())
            said = f"{progress.step}/{self._steps} {progress.seconds:.0f} s loss {progress.loss:.4f} {everything}"
            self._console.print(said)
