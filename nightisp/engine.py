"""One picture through the pipeline: its keys, what they lack, and how a stage is run and kept.

Every scheduler (Prefect, DVC, the plain local one) calls the same `Engine.ensure`, which does nothing when the store
already holds the key. Nothing here knows which scheduler it works for.
"""

from __future__ import annotations

import contextvars
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

from nightisp import code, journal
from nightisp import params as parameters
from nightisp.claims import Held
from nightisp.errors import ArtifactDamagedError, ArtifactNotFoundError, RawFileError, StoreError
from nightisp.models.heap import PROGRAM, release_freed_memory
from nightisp.pipeline import NAMES, PIPELINE, index
from nightisp.publish import claim, publish
from nightisp.raw import RawFile
from nightisp.retry import retried
from nightisp.sources import Source, here
from nightisp.sources import digest as digest_source
from nightisp.stage import Params, Stage
from nightisp.store import Store

Did = Literal["computed", "cached", "skipped"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one frame needs: parameters and keys of the stages planned. Knows no pixel.

    `own` is what its sidecar sets of the parameters: stage -> parameter -> value. `origins` says in their place which
    look, sidecar or `--set` they come from.
    """

    source: Source
    params: Mapping[str, Params]
    keys: Mapping[str, str]
    own: parameters.Tree = field(default_factory=dict)
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one stage of one frame."""

    stage: str
    key: str
    did: Did
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A picture that is on its way into the store, for the next stage to take at once."""

    image: Any
    written: Future[None]


@dataclass
class Engine:
    """Runs stages into a store.

    Parameters
    ----------
    store
        Where artifacts are kept.
    library, networks
        Where weights are found, and what loads them onto the device: `nightisp.models.weights`.
    """

    store: Store
    library: Any
    networks: Any
    _locks: WeakValueDictionary[str, threading.Lock] = field(default_factory=WeakValueDictionary)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _device: threading.Lock = field(default_factory=threading.Lock)
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "store"))
    _fresh: dict[str, _Fresh] = field(default_factory=dict)

    def plan(self, source: Source, tree: parameters.Tree, until: str = NAMES[-1]) -> Plan:
        """Work out the parameters of a frame, and its keys up to a stage: what comes after it need not be there.

        Raises
        ------
        ParamsError
            If the frame's sidecar names what there is not.
        WeightsNotFoundError
            If a chosen network has no weights.
        """
        chosen = parameters.for_frame(tree, source.overrides, str(source.tells), until)
        keys: dict[str, str] = {}
        upstream = source.digest
        for stage in PIPELINE[: index(until) + 1]:
            upstream = keys[stage.name] = stage_key(stage, chosen[stage.name], self.library, upstream)
        origins = parameters.origins(tree, source.overrides, source.sidecar, until)
        return Plan(source, chosen, keys, parameters.own(tree, source.overrides, until), origins)

    def status(self, plan: Plan, until: str = NAMES[-1]) -> dict[str, Literal["compute", "cached", "skipped"]]:
        """Tell for each stage up to `until` what is to be done.

        Looking back from `until`, stages are computed until one is found that the store holds; what comes before is
        cached where it is held, and skipped, since nothing needs it, where it is not.
        """
        status: dict[str, Literal["compute", "cached", "skipped"]] = {}
        needed = True
        for stage in reversed(PIPELINE[: index(until) + 1]):
            held = self._holds(stage.name, plan.keys[stage.name])
            status[stage.name] = "cached" if held else "compute" if needed else "skipped"
            needed = needed and not held
        return dict(reversed(status.items()))

    def fetch(self, plan: Plan, todo: Mapping[str, str]) -> None:
        """Begin to load the networks and modules of the stages that are to be computed, by `status`."""
        stages = [stage for stage in PIPELINE if todo.get(stage.name) == "compute"]
        self.networks.fetch(
            [name for stage in stages for name in stage.weights(plan.params[stage.name])],
            [name for stage in stages for name in stage.imports],
        )

    def ensure(self, plan: Plan, name: str, *, wait: bool = True) -> tuple[Outcome, ...]:
        """See to it that the store holds the artifact of a stage; compute it, and what it lacks, if it does not.

        Parameters
        ----------
        wait
            Whether to come back when it is written; if not, the next stage of the plan may begin before, and whoever
            asks for the last must `settle` the plan.

        Returns
        -------
        tuple of Outcome
            Of this stage, last; before it those of ancestors that had to be computed.
        """
        stage, key = PIPELINE[index(name)], plan.keys[name]
        with self._alone(key):
            if self._holds(name, key):
                if wait and (fresh := self._fresh.get(key)):  # of another frame with the same content
                    fresh.written.result()
                return self._hit(plan, name)
            claimed = self.store.claim(key)  # waits while another process computes it
            try:
                if self.store.holds(name, key):
                    claimed.release()
                    return self._hit(plan, name)
                image, before = self._input(plan, stage)
                seconds = self._compute(plan, stage, image, claimed)
            except BaseException:
                claimed.release()
                raise
        if wait:
            self.settle(plan)
        return (*before, Outcome(name, key, "computed", seconds))

    def _hit(self, plan: Plan, name: str) -> tuple[Outcome, ...]:
        key = plan.keys[name]
        self.store.note(key, hit=True)
        journal.cached(plan.source.frame, name, key, lambda: self.store.entry(name, key).size())
        return (Outcome(name, key, "cached"),)

    def settle(self, plan: Plan) -> None:
        """Come back when all that was computed for a plan is in the store.

        Raises
        ------
        StoreError
            If something could not be written.
        """
        wrong: Exception | None = None
        for key in plan.keys.values():
            if not (fresh := self._fresh.get(key)):
                continue
            try:
                fresh.written.result()
            except Exception as error:
                wrong = wrong or error
            with self._guard:
                if self._fresh.get(key) is fresh:
                    del self._fresh[key]
        if wrong:
            raise wrong

    def flush(self, seconds: float) -> None:
        """Wait so long, at most, for what is being written: before leaving at once."""
        futures.wait([fresh.written for fresh in list(self._fresh.values())], seconds)

    def publish(self, plan: Plan, output: Path) -> tuple[Path, tuple[Outcome, ...]]:
        """Put the finished picture into `output`, unless the file there is that picture already.

        Returns
        -------
        path, outcomes
            The file, and what had to be computed because the artifact turned out to be damaged.
        """
        self.settle(plan)
        last = PIPELINE[-1]
        entry = self.store.entry(last.name, plan.keys[last.name])
        done: tuple[Outcome, ...] = ()
        for attempt in (1, 2):
            try:
                state = entry.attributes["state"]
                source = plan.source

                def is_ours(path: Path, state: Mapping[str, Any] = state) -> bool:
                    return _is_intact(path, state)

                name = source.picture or source.frame
                with self._guard:
                    path = claim(
                        output, name, state["suffix"], source.path, source.digest, is_ours, yields=source.yields
                    )
                if not _is_intact(path, state):
                    publish(self.store.read(last.name, entry.key, last.gives).content, path)
            except (ArtifactDamagedError, ArtifactNotFoundError) as error:
                if attempt == 2:
                    raise
                journal.damaged(plan.source.frame, last.name, error)
                self.store.remove(entry)
                done = self.ensure(plan, last.name)
            else:
                return path, done
        raise AssertionError("unreachable")

    def load(self, plan: Plan, name: str) -> Any:
        """Return the picture as a stage left it, computing what the store lacks."""
        return self._load(plan, PIPELINE[index(name)])[0]

    def _input(self, plan: Plan, stage: Stage) -> tuple[Any, tuple[Outcome, ...]]:
        place = index(stage.name)
        return self._load(plan, PIPELINE[place - 1]) if place else (RawFile(here(plan.source)), ())

    def _load(self, plan: Plan, stage: Stage) -> tuple[Any, tuple[Outcome, ...]]:
        key = plan.keys[stage.name]
        done: tuple[Outcome, ...] = ()
        if fresh := self._fresh.get(key):
            return fresh.image, done
        for attempt in (1, 2):
            try:
                return self.store.read(stage.name, key, stage.gives), done
            except (ArtifactNotFoundError, ArtifactDamagedError) as error:
                if attempt == 2:
                    raise
                if isinstance(error, ArtifactDamagedError):
                    journal.damaged(plan.source.frame, stage.name, error)
                self.store.remove(self.store.entry(stage.name, key))
                done = tuple(o for o in self.ensure(plan, stage.name) if o.did == "computed")
        raise AssertionError("unreachable")

    def _compute(self, plan: Plan, stage: Stage, image: Any, claimed: Held) -> float:
        chosen = plan.params[stage.name]
        begun = time.perf_counter()
        with self._one_at_a_time(stage, chosen):
            result = stage(image, chosen, self.networks)
            stored = result.stored()
            result = result.settled(stored, image)  # as the store would give it back
            self._release_memory()
        seconds = time.perf_counter() - begun
        if stage is PIPELINE[0] and digest_source(here(plan.source)) != plan.source.digest:
            raise RawFileError(f"{plan.source.path}: was changed while it was read; run again")
        self._keep(plan, stage, result, stored, self._record(plan, stage, seconds), claimed)
        return seconds

    def _release_memory(self) -> None:
        release_freed_memory(above=PROGRAM + 5 * self.networks.memory // 2)

    def _keep(self, plan: Plan, stage: Stage, image: Any, stored: Any, record: dict[str, Any], claimed: Held) -> None:
        """Have a picture written, and its claim released.

        What the stage before left must be written by then, so that no two are in memory.
        """
        from nightisp.preview import preview

        key = plan.keys[stage.name]

        def write() -> None:
            try:
                retried(lambda: self.store.write(stage.name, key, image, preview(image), record, stored), _sleep)
            except StoreError as error:
                error.transient = False  # whoever waits for this need not compute the picture again
                raise
            else:
                where: dict[str, str] = {name: record[name] for name in ("device", "precision") if name in record}
                size = self.store.entry(stage.name, key).size
                journal.computed(plan.source.frame, stage.name, key, record["seconds"], size, where)
            finally:
                claimed.release()
                self._release_memory()

        self.settle(plan)
        self.store.note(key, hit=False)
        context = contextvars.copy_context()  # whose flow run it is that logs
        self._fresh[key] = _Fresh(image, self._writer.submit(context.run, write))

    def _holds(self, name: str, key: str) -> bool:
        return key in self._fresh or self.store.holds(name, key)

    def _record(self, plan: Plan, stage: Stage, seconds: float) -> dict[str, Any]:
        place, chosen = index(stage.name), plan.params[stage.name]
        return {
            "frame": plan.source.frame,
            "source": {"name": plan.source.path.name, "sha256": plan.source.digest},
            "params": parameters.canonical(chosen),
            **({"sidecar": {"name": plan.source.sidecar, "params": own}} if (own := plan.own.get(stage.name)) else {}),
            **({"draft": True} if place >= index("denoise") and parameters.is_draft(plan.params) else {}),
            **({"origins": dict(origins)} if (origins := plan.origins.get(stage.name)) else {}),
            "code": code.digest(stage.module),
            "weights": {name: self.library.digest(name) for name in stage.weights(chosen)},
            "upstream": [plan.keys[PIPELINE[place - 1].name] if place else plan.source.digest],
            **self._where(stage, chosen),
            "seconds": round(seconds, 4),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }

    def _where(self, stage: Stage, chosen: Params) -> dict[str, str]:
        if not stage.weights(chosen):
            return {"device": "cpu"}
        device = self.networks.device
        precision: Any = getattr(chosen, "precision", "float32")
        if precision == "auto":
            from nightisp.models.evaluation import resolved

            precision = resolved(precision, device)
        return {"device": str(device), "precision": precision}

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Let one thread at a time work on a key: two frames of one content are computed once."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())  # is gone when nobody holds or awaits it
        with lock:
            yield

    @contextmanager
    def _one_at_a_time(self, stage: Stage, chosen: Params) -> Iterator[None]:
        """Let one network at a time use the device; it fills it by itself."""
        if not stage.weights(chosen):
            yield
            return
        with self._device:
            yield


def stage_key(stage: Stage, chosen: Params, library: Any, upstream: str) -> str:
    """Return the key of a stage's result, SHA-256 in hexadecimal.

    It stands for everything that decides the samples, and for nothing else: the stage, its code, its parameters, its
    weights and its input. Paths, names, times, device and threads do not enter.
    """
    content = {
        "stage": stage.name,
        "code": code.digest(stage.module),
        "params": parameters.canonical(chosen),
        "weights": [library.digest(name) for name in stage.weights(chosen)],
        "upstream": upstream,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions of what takes part in computing: provenance, never part of a key."""
    from importlib.metadata import PackageNotFoundError, version
    from platform import python_version

    import nightisp

    found = {"nightisp": nightisp.__version__, "python": python_version()}
    for package in ("numpy", "opencv-python-headless", "rawpy", "torch", "zarr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _is_intact(path: Path, state: Mapping[str, Any]) -> bool:
    try:
        if path.stat().st_size != state["size"]:
            return False
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == state["sha256"])
    except OSError:
        return False
