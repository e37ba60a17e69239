"""`nightisp evaluate`: measure the pipeline against reference pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightisp.cli import completion
from nightisp.cli.common import (
    DeviceOption,
    MemoryOption,
    ParamsOption,
    SetOption,
    StoreOption,
    WeightsOption,
    memory_budget,
)
from nightisp.cli.logs import VerboseOption, listen

if TYPE_CHECKING:
    from rich.table import Table

    from nightisp.evaluate import Evaluation

# Name -> heading and digits; `denoised` is the PSNR of the mosaic, `angle` that of all gains.
_COLUMNS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 4),
    "ciede2000": ("CIEDE2000", 2),
    "denoised": ("mosaic PSNR", 2),
    "angle": ("angle", 2),
    "seconds": ("seconds", 2),
}


def evaluate(
    inputs: Annotated[list[Path], typer.Option("--input", help="Raw files, and folders of them; repeatable.")],
    references: Annotated[Path, typer.Option("--references", help="Folder of pictures with the stems of the raws.")],
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write all numbers as JSON.")] = None,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE", help="Write the means as flat JSON for `dvc metrics`.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Write numeric parameters and means as CSV for `dvc plots`."),
    ] = None,
    store: StoreOption = None,
    weights: WeightsOption = None,
    params: ParamsOption = None,
    settings: SetOption = None,
    frames: Annotated[
        str,
        typer.Option(
            "--frames", metavar="GLOB", help="Only frames whose name matches.", autocompletion=completion.raws
        ),
    ] = "*",
    device: DeviceOption = "auto",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Pictures at once; with more than 1 their seconds mix.")
    ] = 1,
    memory: MemoryOption = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Render raws and measure them against finished pictures: PSNR, SSIM, CIEDE2000, angle of the light, seconds.

    A reference is PNG, TIFF or JPEG of the picture's size. STEM.truth.json beside it may name the illuminant and the
    mosaic without noise (`nightisp synthesize` writes all of them). LPIPS is left out: its weights come with no package
    and cannot be had offline.
    """
    from nightisp.batch import Stop
    from nightisp.cli.progress import Progress, interruptible
    from nightisp.evaluate import as_json, as_metrics, as_row
    from nightisp.evaluate import evaluate as run
    from nightisp.measured import as_csv
    from nightisp.publish import publish
    from nightisp.run import Options

    listen(verbose=verbose)
    options = Options(
        inputs=tuple(inputs),
        store=store,
        weights=weights,
        params=params,
        settings=tuple(settings or ()),
        frames=frames,
        device=device,
        workers=workers,
        memory=memory_budget(memory),
        recursive=recursive,
    )
    stop = Stop()
    with Progress(quiet=False) as progress, interruptible(stop):
        evaluation = run(options, references, progress, stop)
    _show(evaluation)
    for path, content in ((output, as_json(evaluation, options)), (metrics, as_metrics(evaluation))):
        if path:
            publish((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(), path)
    if table:
        row = as_row(evaluation, options)
        publish(as_csv(tuple(row), [tuple(row.values())]).encode(), table)
    if evaluation.status:
        raise typer.Exit(evaluation.status)


def _show(evaluation: Evaluation) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    means, rows = evaluation.means(), [(score.frame, score.stages) for score in evaluation.measured]
    if not rows:
        console.print("nothing was measured")
        return
    console.print(_by_picture([*rows, ("mean", means)]))
    console.print()
    console.print(_by_stage(means))
    for stage, summary in evaluation.angles().items():
        said = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in summary.items())
        console.print(f"{stage}, degrees: {said}")
    did = ", ".join(f"{stage} {count}" for stage, count in evaluation.computed.items())
    console.print(f"computed: {did or 'nothing'}; all else was in the store")
    console.print(f"{len(rows)} of {len(evaluation.frames)} pictures measured in {evaluation.wall_seconds:.1f} s")


def _by_picture(rows: list[tuple[str, dict[str, dict[str, float]]]]) -> Table:
    table = _table("picture", _COLUMNS)
    for frame, stages in rows:
        numbers = {
            **stages["export"],
            "denoised": stages["denoise"].get("psnr"),
            "angle": stages["color"].get("angle"),
            "seconds": sum(stage["seconds"] for stage in stages.values()),
        }
        table.add_row(frame.replace("[", r"\["), *(_shown(name, numbers.get(name)) for name in _COLUMNS))
    return table


def _by_stage(means: dict[str, dict[str, float]]) -> Table:
    columns = [name for name in _COLUMNS if name != "denoised"]
    table = _table("stage, mean", columns)
    for stage, numbers in means.items():
        table.add_row(stage, *(_shown(name, numbers.get(name)) for name in columns))
    return table


def _table(first: str, columns: Iterable[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for name in columns:
        table.add_column(_COLUMNS[name][0], justify="right")
    return table


def _shown(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:.{_COLUMNS[name][1]}f}"
