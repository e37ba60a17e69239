"""`nightisp cache`: look into the artifact store, and keep it in bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightisp.cli.common import (
    StoreOption,
    in_words,
    open_store,
    parse_age,
    parse_size,
)

if TYPE_CHECKING:
    from nightisp.store import Entry, Store

app = typer.Typer(help="Look into the artifact store, and keep it in bounds.", no_args_is_help=True)

Frame = Annotated[str, typer.Argument(help="Name of a frame, or the first letters of a key.")]


@app.command("list")
def list_(
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage.")] = None,
    frame: Annotated[str | None, typer.Option("--frame", help="Only this frame.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    store: StoreOption = None,
) -> None:
    """List artifacts by frame and stage: key, size, age, seconds it took, parameters that are not the defaults."""
    from nightisp.pipeline import NAMES, index

    opened = open_store(store)
    if stage and not (opened.folder / stage).is_dir():
        index(stage)  # raises if there is no such stage
    found = [(e, a) for e, a in _read(opened, stage) if frame is None or a.get("frame") == frame]
    found.sort(key=lambda pair: (pair[1].get("frame", ""), _place(pair[0].stage, NAMES), pair[1].get("created", "")))
    for entry, attributes in found:
        if as_json:
            kept = {
                k: attributes.get(k) for k in ("frame", "params", "upstream", "source", "seconds", "created", "damaged")
            }
            typer.echo(json.dumps({"stage": entry.stage, "key": entry.key, "bytes": entry.size(), **kept}))
        elif "damaged" in attributes:
            typer.echo(f"{'?':<20} {entry.stage:<17} {entry.key[:12]}  damaged")
        else:
            what = f"{attributes['frame'][:20]:<20} {entry.stage:<17} {entry.key[:12]}"
            took = f"{attributes['seconds']:>7.2f} s"
            typer.echo(
                f"{what} {in_words(entry.size()):>9} {_age(attributes):>5} {took}  {_unusual(entry.stage, attributes)}"
            )


@app.command()
def show(name: Frame, store: StoreOption = None) -> None:
    """Show all that is known of the artifacts of a frame, or of one key."""
    for entry, attributes in _matching(open_store(store), name):
        typer.echo(f"{entry.path}")
        typer.echo(json.dumps(attributes, indent=2, ensure_ascii=False))


@app.command()
def export(
    name: Frame,
    to: Annotated[Path, typer.Argument(help="A file: .npy for the samples, .png for the small preview.")],
    stage: Annotated[str | None, typer.Option("--stage", help="Which stage, if the name is a frame's.")] = None,
    store: StoreOption = None,
) -> None:
    """Write an artifact's samples (.npy, float32) or its preview (.png); the newest, if there are several."""
    import numpy as np

    from nightisp.errors import ParamsError
    from nightisp.pipeline import NAMES, PIPELINE

    opened = open_store(store)
    found = [(e, a) for e, a in _matching(opened, name) if e.stage in NAMES and stage in (None, e.stage)]
    found.sort(key=lambda pair: (_place(pair[0].stage, NAMES), pair[1].get("created", "")))
    if not found:
        raise ParamsError(f"{name}: has no artifact of stage {stage}; `nightisp cache list` shows what there is")
    entry, _ = found[-1]
    if to.suffix == ".png":
        import cv2

        done, png = cv2.imencode(".png", opened.read_array(entry, "preview")[..., ::-1])
        assert done
        content = png.tobytes()
    elif to.suffix == ".npy":
        import io

        picture = opened.read(entry.stage, entry.key, PIPELINE[NAMES.index(entry.stage)].gives)
        buffer = io.BytesIO()
        np.save(buffer, picture.samples if hasattr(picture, "samples") else picture.stored())
        content = buffer.getvalue()
    else:
        raise ParamsError(f"{to}: cannot write {to.suffix or 'a file without suffix'}; expected .npy or .png")
    from nightisp.publish import publish

    publish(content, to)
    typer.echo(f"wrote {entry.stage} of {name} to {to}")


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
    """Remove artifacts by age, size or use; a dry run unless `--yes` is given."""
    from nightisp.errors import ParamsError

    if older_than is None and keep is None and not unreferenced:
        raise ParamsError("cache prune: say what to remove: --older-than AGE, --keep SIZE or --unreferenced")
    opened = open_store(store)
    entries = sorted(((e.path.stat().st_mtime, e.size(), e) for e in opened.entries()), key=lambda t: t[0])
    doomed = []
    used = _referenced() if unreferenced else set()
    total = sum(size for _, size, _ in entries)
    limit = parse_size(keep) if keep else None
    for modified, size, entry in entries:
        too_old = older_than is not None and time.time() - modified > parse_age(older_than)
        too_much = limit is not None and total > limit
        if too_old or too_much or (unreferenced and entry.key not in used):
            doomed.append((size, entry))
            total -= size
    for size, entry in doomed:
        typer.echo(f"{'removed' if yes else 'would remove'} {entry.stage}/{entry.key[:12]} {in_words(size)}")
        if yes:
            opened.remove(entry)
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
    typer.echo(f"{'all':<17} {'':>6} {in_words(total):>10}  {opened.folder}")


def _read(store: Store, stage: str | None = None) -> Iterator[tuple[Entry, dict[str, Any]]]:
    from nightisp.errors import StoreError

    for entry in store.entries(stage):
        try:
            yield entry, entry.attributes
        except StoreError as error:
            yield entry, {"damaged": str(error)}


def _matching(store: Store, name: str) -> list[tuple[Entry, dict[str, Any]]]:
    from nightisp.errors import ArtifactNotFoundError

    by_key = len(name) >= 6
    found = [(e, a) for e, a in _read(store) if a.get("frame") == name or (by_key and e.key.startswith(name))]
    if not found:
        raise ArtifactNotFoundError(f"{name}: no frame or key of that name; `nightisp cache list` shows all")
    return found


def _place(stage: str, names: tuple[str, ...]) -> int:
    return names.index(stage) if stage in names else len(names)


def _age(attributes: dict[str, Any]) -> str:
    seconds = time.time() - datetime.fromisoformat(attributes["created"]).timestamp()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _unusual(stage: str, attributes: dict[str, Any]) -> str:
    from nightisp.params import canonical
    from nightisp.pipeline import NAMES, PIPELINE

    if stage not in NAMES:
        return ""
    default = canonical(PIPELINE[NAMES.index(stage)].params())
    given = attributes.get("params", {})
    return " ".join(f"{k}={v}" for k, v in given.items() if default.get(k) != v)


def _referenced() -> set[str]:
    from nightisp.errors import ProjectError
    from nightisp.manifest import FOLDER, read
    from nightisp.project import outermost, root

    project = root()
    if project is None:
        raise ProjectError("--unreferenced: no project here (dvc.yaml and params.yaml); run it in the project's folder")
    files = (outermost(project) / FOLDER).glob("*.jsonl")
    return {line.key for file in files for line in read(file, file.stem) if line.key}
