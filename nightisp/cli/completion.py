"""What the shell offers when Tab is pressed: looks, stages, parameters, frames. Quick, for somebody waits at each key.

Nothing here raises: what cannot be read is not offered.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

Offers = list[tuple[str, str]]
"""Words, and what each means where the shell shows that."""

TRAINED = ("denoise", "white_balance", "refine", "super_resolution")
"""Stages with a network."""


def looks(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Offer the names of looks, as `nightisp.looks` finds them, whose import takes a third of a second."""
    from nightisp.project import looks_folders

    folders = (*looks_folders(_given(ctx, "params")), Path(__file__).parents[1] / "looks")
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    yield from sorted(name for name in names if name.startswith(incomplete))


def stages(incomplete: str) -> Offers:
    """Offer the stages, in their order."""
    from nightisp.pipeline import PIPELINE

    return [(stage.name, stage.summary) for stage in PIPELINE if stage.name.startswith(incomplete)]


def trained(incomplete: str) -> list[str]:
    """Offer the stages that have a network."""
    return [name for name in TRAINED if name.startswith(incomplete)]


def trainings(incomplete: str) -> list[str]:
    """Offer what `nightisp train` trains."""
    return [name for name in (*TRAINED, "draft") if name.startswith(incomplete)]


def settings(incomplete: str) -> Offers:
    """Offer `STAGE.NAME=`, and after that the values of a parameter that has few."""
    from nightisp.pipeline import PIPELINE

    offers: Offers = []
    for stage in PIPELINE:
        for name, field in stage.params.model_fields.items():
            setting = f"{stage.name}.{name}="
            if incomplete.startswith(setting):
                offers += [(f"{setting}{value}", "") for value in _choices(field.annotation)]
            else:
                offers.append((setting, field.description or ""))
    return [(word, meaning) for word, meaning in offers if word.startswith(incomplete)]


def _choices(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def raws(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Offer the names of the raws in --input."""
    from nightisp.sources import RAW_SUFFIXES

    given: Any = ctx.params.get("inputs") or [Path("data")]
    with contextlib.suppress(OSError):
        found = [path for folder in map(Path, given) for path in (folder.iterdir() if folder.is_dir() else [folder])]
        names = {path.stem for path in found if path.suffix.lower() in RAW_SUFFIXES | {".png"}}
        yield from sorted(name for name in names if name.startswith(incomplete))


def frames(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Offer the frames of which the store has an artifact of the first stage, or of the last."""
    from nightisp.project import store_location
    from nightisp.remote import is_url

    place = store_location(ctx.params.get("store"))
    if is_url(place):
        return  # too slow at each key
    names = set()
    for stage in ("ingest", "export"):
        for path in (Path(place) / stage).glob("*.zarr/zarr.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                names.add(str(json.loads(path.read_bytes())["attributes"]["frame"]))
    yield from sorted(name for name in names if name.startswith(incomplete))


def devices(incomplete: str) -> list[str]:
    """Offer where networks run."""
    return [name for name in ("auto", "cpu", "cuda") if name.startswith(incomplete)]


def _given(ctx: typer.Context, name: str) -> Path | None:
    value = ctx.params.get(name)
    return Path(value) if value else None
