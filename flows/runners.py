"""Where the legs of a run go: to this process, to workers of Dask, or to those of Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from nightisp.batch import FrameResult, Stop
from nightisp.errors import RunnerError
from nightisp.groups import Done, Send, Work
from nightisp.run import Options
from tasks.channel import RESULT, sent, stop_name
from tasks.leg import Sealed, leg_task
from tasks.telling import leave_others

_LOCAL = ("127.0.0.1", "localhost", "::1")
_LOOK_S = 1.0
_PATIENCE_S = 60.0
"""How long a cluster may take to offer what a leg needs."""


@dataclass(frozen=True, slots=True)
class Runner:
    """How work is sent, whether workers may differ in what they have, and how many groups are to be under way."""

    send: Send
    apart: bool
    at_once: int | None


@contextmanager
def opened(options: Options) -> Iterator[Runner]:
    """Open what `options.runner` names for as long as a run takes.

    Raises
    ------
    RunnerError
        If it is not installed, or nobody answers at `options.address`.
    """
    kinds: dict[str, Callable[[Options], AbstractContextManager[Runner]]] = {
        "threads": _threads,
        "dask": _dask,
        "ray": _ray,
    }
    with kinds[options.runner](options) as runner:
        yield runner


@contextmanager
def _threads(_: Options) -> Iterator[Runner]:
    def send(work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
        with sent(work, stop, done) as given:
            results: tuple[FrameResult, ...] = leg_task(work.leg)(given.title, Sealed(given))
            return results

    yield Runner(send, apart=False, at_once=None)


@contextmanager
def _dask(options: Options) -> Iterator[Runner]:
    try:
        import dask
        from distributed import Event
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise RunnerError(f"--runner dask: {error}; pip install 'nightisp[dask]'") from error
    if options.address:
        _check_reach(options.address)
        runner = DaskTaskRunner(address=options.address, client_kwargs={"timeout": "10s"})
    else:
        count = _count(options)
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}  # Dask's own setting is 1
        own = {"n_workers": count, "threads_per_worker": 2, "resources": {"GPU": 1}, "env": threads}
        # Without an address Dask's page would take port 8787, and warn if another cluster has it.
        runner = DaskTaskRunner(cluster_kwargs={**own, "dashboard_address": "127.0.0.1:0"})
    with _told_to_server(), runner:
        try:
            client = runner.client
        except (OSError, TimeoutError) as error:
            raise RunnerError(
                f"--address {options.address}: no Dask scheduler answers ({error}); start one (`dask scheduler`)"
            ) from error
        # Whoever has no such function, or dies, tells what is wrong when a leg comes to it.
        client.run(leave_others, PREFECT_API_URL.value(), on_error="ignore")
        offers = _Offers(lambda: {name for worker in _workers(client) for name in worker["resources"]})

        def send(work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
            told: SimpleQueue[FrameResult | None] = SimpleQueue()
            wanted = offers.wanted(work.leg.resource)
            with sent(work, stop, done) as given:
                client.subscribe_topic(given.id, lambda event: told.put(RESULT.validate_python(event[1])))
                try:
                    with dask.annotate(resources=wanted):
                        future = runner.submit(leg_task(given.leg), {"title": given.title, "sealed": Sealed(given)})
                    future.wrapped_future.add_done_callback(lambda _: told.put(None))
                    _listen(told, done, stop, lambda: Event(stop_name(given.id), client=client).set())
                    results: tuple[FrameResult, ...] = future.result()
                    return results
                finally:
                    client.unsubscribe_topic(given.id)

        yield Runner(send, apart=True, at_once=2 * max(2, sum(worker["nthreads"] for worker in _workers(client))))


def _listen(told: SimpleQueue[FrameResult | None], done: Done, stop: Stop, ask_to_stop: Callable[[], object]) -> None:
    """Pass on each frame that ends until None comes."""
    asked = False
    while True:
        if stop and not asked:
            asked = True
            ask_to_stop()
        try:
            result = told.get(timeout=_LOOK_S)
        except Empty:
            continue
        if result is None:
            return
        done(result)


def _workers(client: Any) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


@contextmanager
def _ray(options: Options) -> Iterator[Runner]:
    try:
        import ray
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options
    except ImportError as error:
        raise RunnerError(f"--runner ray: {error}; pip install 'nightisp[ray]'") from error
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if options.address:
        _check_reach(options.address)
        runner = RayTaskRunner(address=options.address, init_kwargs=quiet)
    else:
        count = _count(options)
        runner = RayTaskRunner(init_kwargs={**quiet, "num_cpus": 2 * count, "num_gpus": count})
    with _told_to_server(), ExitStack() as stack:
        try:
            stack.enter_context(runner)
        except ConnectionError as error:
            raise RunnerError(
                f"--address {options.address}: no Ray answers ({error}); start it (`ray start`)"
            ) from error
        offers = _Offers(lambda: set(ray.cluster_resources()))

        def send(work: Work, stop: Stop, done: Done) -> tuple[FrameResult, ...]:
            wanted = offers.wanted(work.leg.resource)
            with sent(work, stop, done) as given:
                with remote_options(num_cpus=wanted.get("CPU", 0), num_gpus=wanted.get("GPU", 0), max_retries=3):
                    future = runner.submit(leg_task(given.leg), {"title": given.title, "sealed": Sealed(given)})
                results: tuple[FrameResult, ...] = future.result()
                return results

        yield Runner(send, apart=True, at_once=2 * max(2, int(ray.cluster_resources().get("CPU", 0))))


@dataclass
class _Offers:
    """What some worker offers: the resource that a leg asks for must be there, or the leg would wait for ever."""

    look: Callable[[], set[str]]
    _missing: set[str] = field(default_factory=set)

    def wanted(self, resource: str) -> dict[str, int]:
        """Return what to ask for; who has no GPU is kept for decoding and export only where workers say CPU."""
        if resource == "CPU":
            return {"CPU": 1} if "CPU" in self.look() else {}
        until = time.monotonic() + (0 if resource in self._missing else _PATIENCE_S)
        while resource not in self.look():
            if time.monotonic() > until:
                self._missing.add(resource)
                raise RunnerError(
                    f"no worker offers {resource}; start one with it (dask worker --resources {resource}=1)"
                )
            time.sleep(_LOOK_S)
        return {resource: 1}


@contextmanager
def _told_to_server() -> Iterator[None]:
    """Have workers tell the server of this run, the embedded one too; each would start one of its own."""
    with get_client(sync_client=True) as client:
        url = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: url}):
        yield


def _count(options: Options) -> int:
    return options.workers or max(1, (os.cpu_count() or 1) // 2)


def _check_reach(address: str) -> None:
    """Workers of other hosts tell Prefect's server of their task runs: it must be one that they reach."""
    host = urlsplit(address).hostname
    if host is None:
        raise RunnerError(f"--address {address}: expected for example tcp://scheduler:8786")
    if host not in _LOCAL and not os.environ.get("PREFECT_API_URL"):
        raise RunnerError(
            f"--address {address}: workers of other hosts cannot reach the embedded Prefect server; start one "
            "(`prefect server start --host 0.0.0.0`) and set PREFECT_API_URL to it"
        )
