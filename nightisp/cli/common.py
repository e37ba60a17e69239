"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightisp.cli import completion

if TYPE_CHECKING:
    from nightisp.batch import Stop
    from nightisp.models.weights import Library
    from nightisp.params import Tree
    from nightisp.run import Observer, Options, Report
    from nightisp.store import Store

    Render = Callable[[Options, Observer, Stop], Report]


class EngineName(StrEnum):
    """Who schedules the stages."""

    prefect = "prefect"
    local = "local"


class RunnerName(StrEnum):
    """Where Prefect has the stages run."""

    threads = "threads"
    dask = "dask"
    ray = "ray"


@contextmanager
def scheduler(engine: EngineName) -> Iterator[Render]:
    """Give what runs the pictures: the flow, or the same without Prefect.

    Prefect's server, if one is to be started, comes up meanwhile: options are checked beside it.
    """
    if engine is EngineName.local:
        from nightisp.run import execute

        yield execute
        return
    from flows import embedded

    with embedded.beside() as server:

        def execute_in_flow(options: Options, observer: Observer, stop: Stop) -> Report:
            from flows.render import run

            return run(options, observer, stop, server)

        yield execute_in_flow


RunnerOption = Annotated[
    RunnerName, typer.Option("--runner", help="Where stages run: in threads here, or on workers of Dask or Ray.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="URL", help="Scheduler of the workers: tcp://host:8786. [default: workers started here]"
    ),
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, metavar="N", help="Pictures a task run; for thousands of them try 50.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PLACE",
        help="Artifact store: a folder, or a URL as s3://bucket/prefix. "
        "[default: NIGHTISP_STORE, or artifacts/ of the project]",
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Folder of weights, looked into before the others.")
]
ParamsOption = Annotated[
    Path | None, typer.Option("--params", help="Parameters. [default: params.yaml of the project, or the defaults]")
]
LookOption = Annotated[
    str | None,
    typer.Option(
        "--look",
        metavar="NAME",
        help="Parameters under a name: `nightisp params looks`.",
        autocompletion=completion.looks,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.NAME=VALUE",
        help="Override one parameter; repeatable.",
        autocompletion=completion.settings,
    ),
]
NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        help="Name of each picture, of {frame}, {look}, {camera}, {lens}, {date}, {time}, {iso}.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N: where networks run.", autocompletion=completion.devices),
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Pictures at once. [default: cores]")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Budget for pictures and networks' tiles, as 6GB. [default: 60 % of what is free]",
    ),
]


def open_store(store: str | None) -> Store:
    """Open the artifact store."""
    from nightisp.objects import open_store
    from nightisp.project import store_location

    return open_store(store_location(store))


def open_library(weights: Path | None) -> Library:
    """Open the weights."""
    from nightisp.models.weights import Library
    from nightisp.project import weights_folders

    return Library(weights_folders(weights))


def read_params(params: Path | None, settings: Sequence[str] | None, look: str | None = None) -> Tree:
    """Read and check the parameters."""
    from nightisp import looks

    return looks.read_params(params, look, settings or ())


def memory_budget(given: str | None) -> int:
    """Return a budget in bytes: `6GB`, `500 MB`, `4GiB`; 60 % of what is available if none is given."""
    from nightisp.errors import ParamsError

    if given is None:
        from nightisp.run import memory_budget

        return memory_budget()
    if not (size := parse_size(given)):
        raise ParamsError(f"--memory {given}: leaves no room for any picture; expected for example 6GB or 500MB")
    return size


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_size(text: str) -> int:
    """Return bytes for `6GB`, `500 MB`, `4GiB`."""
    import re

    from nightisp.errors import ParamsError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].upper() not in _UNITS:
        raise ParamsError(f"{text}: is no size; expected for example 6GB or 500MB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def parse_age(text: str) -> float:
    """Return seconds for `30d`, `12h`, `15m`."""
    import re

    from nightisp.errors import ParamsError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if not found:
        raise ParamsError(f"{text}: is no age; expected for example 30d, 12h or 15m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]


def age(created: str) -> str:
    """Return how long ago an ISO 8601 time was: `3 h`."""
    import time
    from datetime import datetime

    seconds = time.time() - datetime.fromisoformat(created).timestamp()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def in_words(size: float) -> str:
    """Return bytes for people: `1.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
