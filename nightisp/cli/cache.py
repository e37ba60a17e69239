"""`nightisp cache`: look into the artifact store, and keep it in bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightisp.cli import cache_pictures, completion
from nightisp.cli.common import StoreOption, age, in_words, open_store, parse_age, parse_size

if TYPE_CHECKING:
    from nightisp.store import Entry, Store

app = typer.Typer(help="Look into the artifact store, and keep it in bounds.", no_args_is_help=True)


@app.command("list")
def list_(
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only this stage.", autocompletion=completion.stages)
    ] = None,
    frame: Annotated[
        str | None, typer.Option("--frame", help="Only this frame.", autocompletion=completion.frames)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    store: StoreOption = None,
) -> None:
    """List artifacts by frame and stage: key, size, age, seconds, hits, parameters that are not the defaults.

    Hits are those of the last 30 days.
    """
    from nightisp.lineage import unusual
    from nightisp.pipeline import NAMES, index

    opened = open_store(store)
    found = [(e, a) for e, a in _read(opened, stage) if frame is None or a.get("frame") == frame]
    if stage and not found:
        index(stage)  # raises if there is no such stage
    found.sort(key=lambda pair: (pair[1].get("frame", ""), _place(pair[0].stage, NAMES), pair[1].get("created", "")))
    counted = opened.hits()
    last = None
    for entry, attributes in found:
        size, times = entry.size(), counted[entry.key]
        if as_json:
            kept = {
                k: attributes.get(k) for k in ("frame", "params", "upstream", "source", "seconds", "created", "damaged")
            }
            typer.echo(json.dumps({"stage": entry.stage, "key": entry.key, "bytes": size, "hits": times, **kept}))
            continue
        name = attributes.get("frame", "?")
        if name != last:
            last = name
            typer.echo(name)
        what = f"  {entry.stage:<17} {entry.key[:12]}"
        if "damaged" in attributes:
            typer.echo(f"{what}  damaged")
            continue
        took = f"{age(attributes['created']):>5} {attributes['seconds']:>7.2f} s {times:>4} hits"
        given = " ".join(f"{k}={v}" for k, v in unusual(entry.stage, attributes.get("params", {})).items())
        typer.echo(f"{what} {in_words(size):>9} {took}  {given}".rstrip())


app.command()(cache_pictures.show)
app.command()(cache_pictures.export)
app.command()(cache_pictures.diff)


@app.command()
def verify(
    store: StoreOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged.")] = False,
) -> None:
    """Read every byte of every artifact against its checksum."""
    from nightisp.errors import StoreError

    opened, good, bad = open_store(store), 0, 0
    for entry in opened.entries():
        try:
            opened.verify(entry)
            good += 1
        except StoreError as error:
            if not entry.exists():
                continue  # removed meanwhile
            bad += 1
            typer.echo(f"damaged: {error}", err=True)
            if remove:
                opened.remove(entry)
    typer.echo(f"{good} artifacts are good, {bad} damaged{' and removed' if bad and remove else ''}")
    if bad and not remove:
        raise typer.Exit(3)


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Written longer ago than this, as 30d.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="SIZE", help="Remove the oldest until this is left, as 20GB.")
    ] = None,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Those that no manifest of this project leads to.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only tell what would be.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove artifacts by age, size or use; a dry run unless `--yes` is given.

    What a running flow has found or made stays.
    """
    from nightisp.errors import ParamsError

    if older_than is None and keep is None and not unreferenced:
        raise ParamsError("cache prune: say what to remove: --older-than AGE, --keep SIZE or --unreferenced")
    opened = open_store(store)
    entries = sorted(((e.modified(), e.size(), e) for e in opened.entries()), key=lambda t: t[0])
    doomed, spared, busy = [], 0, opened.in_use()
    used = _referenced() if unreferenced else set()
    total = sum(size for _, size, _ in entries)
    limit = parse_size(keep) if keep else None
    for modified, size, entry in entries:
        too_old = older_than is not None and time.time() - modified > parse_age(older_than)
        too_much = limit is not None and total > limit
        if not (too_old or too_much or (unreferenced and entry.key not in used)):
            continue
        if entry.key in busy:
            spared += 1
        else:
            doomed.append((size, entry))
            total -= size
    if yes:
        opened.forget()
    for size, entry in doomed:
        typer.echo(f"{'removed' if yes else 'would remove'} {entry.stage}/{entry.key[:12]} {in_words(size)}")
        if yes:
            opened.remove(entry)
    if spared:
        typer.echo(f"kept {spared} artifacts that a running flow uses")
    summary = f"{len(doomed)} artifacts, {in_words(sum(size for size, _ in doomed))}"
    typer.echo(f"{'removed' if yes else 'would remove'} {summary}{'' if yes or not doomed else '; --yes to do so'}")


@app.command()
def size(store: StoreOption = None) -> None:
    """Say how much each stage takes on disk."""
    from nightisp.pipeline import NAMES

    opened = open_store(store)
    total = 0
    for stage in NAMES:
        sizes = [entry.size() for entry in opened.entries(stage)]
        total += sum(sizes)
        typer.echo(f"{stage:<17} {len(sizes):>6} {in_words(sum(sizes)):>10}")
    typer.echo(f"{'all':<17} {'':>6} {in_words(total):>10}  {opened.location}")


def _read(store: Store, stage: str | None = None) -> Iterator[tuple[Entry, dict[str, Any]]]:
    from nightisp.errors import StoreError

    for entry in store.entries(stage):
        try:
            yield entry, entry.attributes
        except StoreError as error:
            yield entry, {"damaged": str(error)}


def _place(stage: str, names: tuple[str, ...]) -> int:
    return names.index(stage) if stage in names else len(names)


def _referenced() -> set[str]:
    from nightisp.errors import ProjectError
    from nightisp.manifest import FOLDER, read
    from nightisp.project import outermost, root

    project = root()
    if project is None:
        raise ProjectError("--unreferenced: no project here (dvc.yaml and params.yaml); run it in the project's folder")
    files = (outermost(project) / FOLDER).glob("*.jsonl")
    return {line.key for file in files for line in read(file, file.stem) if line.key}
