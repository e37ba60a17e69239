"""`nightisp flow deploy` and `flow serve`: runs that are started from a form in Prefect's UI, or through its API."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightisp.cli.common import (
    AddressOption,
    BatchOption,
    DeviceOption,
    LookOption,
    NameOption,
    ParamsOption,
    RunnerName,
    RunnerOption,
    SetOption,
    StoreOption,
)

if TYPE_CHECKING:
    from flows.deployment import Deployed

InputsOption = Annotated[
    list[str] | None,
    typer.Option("--input", help="Raw files, folders of them, and URLs of either; repeatable. [default: data/]"),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Folder of the finished pictures. [default: output/]")
]
DraftOption = Annotated[bool, typer.Option("--draft", help="Make drafts unless the form says otherwise.")]
RecursiveOption = Annotated[bool, typer.Option("--recursive", help="Look into sub-folders.")]
DeploymentOption = Annotated[str, typer.Option("--deployment", metavar="NAME", help="What to call the deployment.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Take the place of another deployment of that name.")]
_POLL_S = "3"


def deploy(
    inputs: InputsOption = None,
    output: OutputOption = None,
    name: NameOption = "{frame}",
    store: StoreOption = None,
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    draft: DraftOption = False,
    recursive: RecursiveOption = False,
    runner: RunnerOption = RunnerName.threads,
    address: AddressOption = None,
    batch: BatchOption = 1,
    deployment: DeploymentOption = "nights",
    pool: Annotated[str, typer.Option("--pool", help="Work pool of type process; made if there is none.")] = "nightisp",
    replace: ReplaceOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")] = False,
) -> None:
    """Register the flow on the server of PREFECT_API_URL, for a worker to run; options fill in its form.

    The worker runs in this folder, so that it finds params.yaml, looks and weights as you do.
    """
    values = _values(inputs, output, name, store, params, look, settings, device, draft, recursive)
    values |= _where(runner, address, batch)
    from flows.deployment import deploy as run

    made = run(values, deployment, pool, replace=replace)
    if as_json:
        typer.echo(json.dumps({"deployment": made.name, "id": made.id, "page": made.page, "pool": pool}))
        return
    _say(made)
    typer.echo(f"start a worker: PREFECT_API_URL={made.api} prefect worker start --type process --pool '{pool}'")


def serve(
    inputs: InputsOption = None,
    output: OutputOption = None,
    name: NameOption = "{frame}",
    store: StoreOption = None,
    params: ParamsOption = None,
    look: LookOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    draft: DraftOption = False,
    recursive: RecursiveOption = False,
    runner: RunnerOption = RunnerName.threads,
    address: AddressOption = None,
    batch: BatchOption = 1,
    deployment: DeploymentOption = "nights",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Runs at once; each uses all cores.")] = 1,
    replace: ReplaceOption = False,
) -> None:
    """Register the flow on the server of PREFECT_API_URL and run what is asked of it here, until Ctrl-C.

    The same form as with `flow deploy`, without work pool and worker.
    """
    values = _values(inputs, output, name, store, params, look, settings, device, draft, recursive)
    values |= _where(runner, address, batch)
    os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", _POLL_S)  # Prefect's own are 10 s
    from flows.deployment import register
    from flows.deployment import serve as run

    prepared, made = register(values, deployment, replace=replace)
    _say(made)
    typer.echo("serving; Ctrl-C ends it", err=True)
    run(prepared, limit)


def _values(
    inputs: list[str] | None,
    output: Path | None,
    name: str,
    store: str | None,
    params: Path | None,
    look: str | None,
    settings: list[str] | None,
    device: str,
    draft: bool,
    recursive: bool,
) -> dict[str, Any]:
    """Return what the form is filled in with, paths in full, after all of it was checked as for a run."""
    from nightisp.project import params_file, store_location
    from nightisp.remote import as_path, is_url
    from nightisp.run import Options, check_settings

    options = Options(store=store, params=params, look=look, name=name, settings=tuple(settings or ()), device=device)
    check_settings(options)
    used = params_file(params)
    return {
        "inputs": [given if is_url(given) else str(as_path(given).absolute()) for given in inputs or ["data"]],
        "output": str((output or Path("output")).absolute()),
        "look": look or "(none)",
        "draft": draft,
        "settings": list(settings or ()),
        "name": name,
        "recursive": recursive,
        "store": store_location(store),
        "params": str(used.absolute()) if used else "",
        "device": device,
    }


def _where(runner: RunnerName, address: str | None, batch: int) -> dict[str, Any]:
    return {"runner": runner.value, "address": address or "", "batch": batch}


def _say(made: Deployed) -> None:
    typer.echo(f"deployed {made.name}{f' to the work pool {made.pool}' if made.pool else ''}")
    typer.echo(f"runs are started at {made.page}")
    typer.echo(f"or so: PREFECT_API_URL={made.api} prefect deployment run '{made.name}' --param look=street")
