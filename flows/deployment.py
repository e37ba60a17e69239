"""Register the flow `develop` on a standing server, for a worker or for this process, and run what is asked of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect import serve as serve_here
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.workers.process import ProcessWorker

from flows.develop import develop
from nightisp import __version__
from nightisp.errors import ServerError

POOL_TYPE = "process"
_FOLDER = "folder: "
"""What the tag begins with that says where a deployment belongs."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as the server knows it."""

    name: str
    id: str
    api: str
    pool: str | None

    @property
    def page(self) -> str:
        """Where runs are started from a form."""
        return f"{self.api.removesuffix('/').removesuffix('/api')}/deployments/deployment/{self.id}"


def deploy(values: Mapping[str, Any], name: str, pool: str, *, replace: bool) -> Deployed:
    """Register the flow for the workers of a work pool of type process, which is made if there is none.

    Parameters
    ----------
    values
        What the form is filled in with: parameters of `flows.develop.develop`.
    replace
        Whether to take the place of another folder's deployment of that name, or one that is served.

    Raises
    ------
    ServerError
        If the server cannot be reached or refuses, or the name or the pool is taken by something else.
    """
    with _reaching() as api:
        _check_name(name, pool, replace=replace)
        _open_pool(pool)
        folder = {"working_dir": str(Path.cwd())}
        named = {key: os.environ[key] for key in ("NIGHTISP_STORE", "NIGHTISP_WEIGHTS") if os.environ.get(key)}
        if told := [part for part in os.environ.get(_TUNABLES, "").split(":") if part.startswith(_COUNT)]:
            named[_TUNABLES] = told[-1]  # of all that this machine's malloc may be told
        variables = {**folder, **({"env": named} if named else {})}
        made = _deployment(values, name, work_pool_name=pool, job_variables=variables)
        return Deployed(made.full_name, str(made.apply()), api, pool)


_TUNABLES, _COUNT = "GLIBC_TUNABLES", "glibc.malloc.tcache_count="  # see nightisp/__main__.py


def register(values: Mapping[str, Any], name: str, *, replace: bool) -> tuple[RunnerDeployment, Deployed]:
    """Register the flow for this process, which has to `serve` it; raises as `deploy` does."""
    with _reaching() as api:
        _check_name(name, None, replace=replace)
        made = _deployment(values, name)
        made.work_pool_name = None  # said, so that a pool that it had before is taken from it
        made.work_queue_name = None
        return made, Deployed(made.full_name, str(made.apply()), api, None)


def serve(made: RunnerDeployment, limit: int) -> None:
    """Run what is asked of a deployment, `limit` runs at once, until interrupted."""
    serve_here(made, limit=limit, print_starting_message=False)


def _deployment(values: Mapping[str, Any], name: str, **where: Any) -> RunnerDeployment:
    made: RunnerDeployment = develop.to_deployment(
        name=name,
        parameters=dict(values),
        tags=["nightisp", f"{_FOLDER}{Path.cwd()}"],
        version=__version__,
        entrypoint_type=EntrypointType.MODULE_PATH,
        **where,
    )
    return made


def _check_name(name: str, pool: str | None, *, replace: bool) -> None:
    full = f"{develop.name}/{name}"
    with get_client(sync_client=True) as client:
        try:
            there = client.read_deployment_by_name(full)
        except ObjectNotFound:
            return
    folder = next((tag.removeprefix(_FOLDER) for tag in there.tags if tag.startswith(_FOLDER)), "a folder unknown")
    if replace or (folder == str(Path.cwd()) and there.work_pool_name == pool):
        return
    how = f"for the work pool {there.work_pool_name}" if there.work_pool_name else "served by `nightisp flow serve`"
    raise ServerError(
        f"{full}: there is such a deployment already, of {folder}, {how}; "
        "choose another name with --deployment, or take its place with --replace"
    )


def _open_pool(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE, base_job_template=template))
            return
    if found.type != POOL_TYPE:
        raise ServerError(
            f"work pool {name}: is of type {found.type}; expected {POOL_TYPE}, whose workers run here. "
            "Choose another with --pool: it is made if there is none"
        )


@contextmanager
def _reaching() -> Iterator[str]:
    """Give the address of the server's API; tell in words if it is not named, not there, or refuses."""
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        raise ServerError(
            "PREFECT_API_URL is not set, and a deployment needs a server that stays: start one with `nightisp ui`, and "
            "set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    try:
        yield api
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ServerError(
            f"Prefect's API at {api} cannot be reached ({error or type(error).__name__}); start that server "
            "(`nightisp ui`), or set PREFECT_API_URL to the one that runs"
        ) from error
    except PrefectHTTPStatusError as error:
        said = " ".join(error.response.text.split())[:300]
        raise ServerError(f"Prefect's API at {api} refuses ({error.response.status_code}): {said}") from error
