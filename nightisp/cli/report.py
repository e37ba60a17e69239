"""`nightisp report`: one page that shows finished pictures, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nightisp.cli import completion
from nightisp.cli.common import StoreOption, WeightsOption, open_library, open_store
from nightisp.cli.patience import Patience, check_page

LongestOption = Annotated[
    int, typer.Option("--longest", min=0, help="Pixels of the longer side of pictures in the page; 0: all there are.")
]


def report(
    frames: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FRAME]...",
            help="Names of frames, or first letters of keys. [default: all finished ones]",
            autocompletion=completion.frames,
        ),
    ] = None,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The page.")] = Path("report.html"),
    store: StoreOption = None,
    weights: WeightsOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Frames at most where none are named.")] = 20,
    longest: LongestOption = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers of the page as one JSON object.")] = False,
) -> None:
    """Write a page that shows raws before and after, what each stage did to them, and what that cost.

    One HTML file that loads nothing. It shows what the store holds and develops nothing; where FC4 looked is worked out
    anew, if its weights are there. What is missing or damaged is said on the page.
    """
    check_page(to)
    opened = open_store(store)
    from nightisp.models.weights import Compute
    from nightisp.publish import publish
    from nightisp.report.report import as_json as to_json
    from nightisp.report.report import as_page, look

    with Patience("reading") as patience:
        made = look(
            opened,
            frames or (),
            Compute(open_library(weights), "cpu"),
            limit=limit,
            longest=longest,
            tell=patience.tell,
        )
    publish(as_page(made), to)
    if as_json:
        typer.echo(json.dumps({"page": str(to), **to_json(made)}, ensure_ascii=False))
    else:
        count, more = len(made.frames), f", {made.left_out} older left out (--limit)" if made.left_out else ""
        typer.echo(f"wrote {count} picture{'' if count == 1 else 's'} to {to}{more}")
        for problem in [*made.damaged, *(f"{f.frame}: {p}" for f in made.frames for p in f.problems)]:
            typer.echo(f"incomplete: {problem}", err=True)
    if made.status:
        raise typer.Exit(made.status)
