"""`nightisp compare`: variants of pictures side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightisp.cli import completion
from nightisp.cli.common import (
    DeviceOption,
    LookOption,
    MemoryOption,
    ParamsOption,
    StoreOption,
    WeightsOption,
    WorkersOption,
    memory_budget,
)
from nightisp.cli.logs import VerboseOption, listen
from nightisp.cli.patience import check_page

if TYPE_CHECKING:
    from nightisp.compare import Comparison


def compare(
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="STAGE.NAME=VALUE,...",
            help="Values to compare, of up to two parameters.",
            autocompletion=completion.settings,
        ),
    ],
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", help="Raw files, and folders of them; repeatable. [default: data/]")
    ] = None,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The page.")] = Path("compare.html"),
    store: StoreOption = None,
    weights: WeightsOption = None,
    params: ParamsOption = None,
    look: LookOption = None,
    frames: Annotated[
        str,
        typer.Option(
            "--frames", metavar="GLOB", help="Only frames whose name matches.", autocompletion=completion.raws
        ),
    ] = "*",
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")] = False,
    longest: Annotated[
        int, typer.Option("--longest", min=0, help="Pixels of the longer side of pictures in the page; 0: all.")
    ] = 1024,
    verbose: VerboseOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")] = False,
) -> None:
    """Render pictures in variants, and show them side by side in one page, with how far each is from the first.

    `--set tone.gamma=2.2,3.2` compares two; a second parameter makes a grid of it. A parameter with a single value
    holds for all. Only stages downstream of what changes are computed. Pictures go into the page, not to output/.
    """
    from nightisp.batch import Stop
    from nightisp.cli.progress import Progress, interruptible
    from nightisp.compare import compare as run
    from nightisp.publish import publish
    from nightisp.report.page import page
    from nightisp.run import Options, open_engine

    listen(verbose=verbose)
    check_page(to)
    options = Options(
        inputs=tuple(inputs or [Path("data")]),
        store=store,
        weights=weights,
        params=params,
        look=look,
        settings=tuple(settings),
        frames=frames,
        device=device,
        workers=workers,
        memory=memory_budget(memory),
        recursive=recursive,
    )
    stop = Stop()
    flush = open_engine(store, weights, device).flush
    with Progress(quiet=as_json) as progress, interruptible(stop, flush):
        compared = run(options, progress, stop, longest)
    publish(page("compare.html.j2", compared=compared), to)
    if as_json:
        typer.echo(json.dumps({"page": str(to), **_numbers(compared)}, ensure_ascii=False))
    else:
        count = sum(len(variants) for _, variants in compared.frames)
        typer.echo(f"wrote {count} variants of {len(compared.frames)} pictures to {to}")
    if compared.status:
        raise typer.Exit(compared.status)


def _numbers(compared: Comparison) -> dict[str, Any]:
    from math import isfinite

    return {
        "parameters": {axis.name: axis.values for axis in compared.axes},
        "frames": [
            {
                "frame": frame,
                "variants": [
                    {
                        "settings": dict(variant.settings),
                        "key": variant.key or None,
                        "error": variant.error or None,
                        "psnr": variant.psnr if variant.psnr is not None and isfinite(variant.psnr) else None,
                        "ciede2000": variant.difference,
                        "computed": variant.computed,
                        "seconds": round(variant.seconds, 4),
                    }
                    for variant in variants
                ],
            }
            for frame, variants in compared.frames
        ],
        "refused": [refused.error for refused in compared.refused],
        "wall_seconds": round(compared.wall_seconds, 3),
    }
