"""The table: every stage from raw file to picture, in order. All else is derived from it."""

from __future__ import annotations

import difflib
from itertools import pairwise

from nightisp.errors import ParamsError
from nightisp.export import EXPORT
from nightisp.raw import INGEST
from nightisp.stage import Stage
from nightisp.stages import STAGES

PIPELINE: tuple[Stage, ...] = (INGEST, *STAGES, EXPORT)


def check_table(table: tuple[Stage, ...]) -> None:
    """Raise `TypeError` unless names are unique and each stage takes what the one before it gives."""
    names = [stage.name for stage in table]
    if len(set(names)) != len(names):
        raise TypeError(f"stage names are not unique: {names}")
    for before, after in pairwise(table):
        if before.gives is not after.takes:
            raise TypeError(f"{after.name} takes {after.takes.__name__}; {before.name} gives {before.gives.__name__}")


check_table(PIPELINE)
NAMES: tuple[str, ...] = tuple(stage.name for stage in PIPELINE)


def index(name: str) -> int:
    """Return the place of a stage in the pipeline, or raise `ParamsError` with the nearest name."""
    if name not in NAMES:
        raise ParamsError(f"{name}: no such stage; the stages are {', '.join(NAMES)}{nearest(name, NAMES)}")
    return NAMES.index(name)


def nearest(name: str, names: tuple[str, ...] | list[str]) -> str:
    """Return ". Did you mean X?" if some name is near, else nothing."""
    found = difflib.get_close_matches(name, names, 1)
    return f". Did you mean {found[0]}?" if found else ""
