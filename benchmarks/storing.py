"""What it costs to keep every stage: the same picture in one process, kept and not, in turn."""

from __future__ import annotations

import resource
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any

import runs
from runs import ROOT, Figures, synthetic

from nightisp import looks
from nightisp.batch import Stop, perform, prepare, render_frame
from nightisp.engine import Engine, Plan, _Fresh
from nightisp.models.weights import Compute, Library
from nightisp.pipeline import NAMES
from nightisp.stage import Stage
from nightisp.store import Store

ROUNDS = 7
VARIES = "super_resolution"


class Forgetful(Engine):
    """Keeps the finished picture alone: of other stages neither preview nor artifact is made."""

    def _keep(self, plan: Plan, stage: Stage, image: Any, stored: Any, record: dict[str, Any], claimed: Any) -> None:
        if stage.name == NAMES[-1]:
            super()._keep(plan, stage, image, stored, record, claimed)
            return
        self.settle(plan)
        claimed.release()
        written: Future[None] = Future()
        written.set_result(None)
        self._fresh[plan.keys[stage.name]] = _Fresh(image, written)


def storing(work: Path, megapixels: float, _ceilings: Figures) -> Figures:
    """Render one raw with and without a store for what lies between, in turn, all of it computed, networks loaded.

    What HAT takes is in what a picture costs, but not in the difference: next to nothing is written beside it, and
    from run to run it varies by more than all writing takes.
    """
    raw, library = synthetic(work / "raw.dng", megapixels), Library([ROOT / "weights"])
    networks = Compute(library, runs.device)
    tree = looks.read_params(None, None)
    kinds = {"forgotten": Forgetful, "kept": Engine}

    def one(kind: type[Engine]) -> Figures:
        shutil.rmtree(work / "store", ignore_errors=True)
        engine = kind(Store(work / "store"), library, networks)
        begun, processor = time.perf_counter(), _processor_seconds()
        (plan,) = prepare(engine, tree, [raw]).plans
        result = render_frame(
            engine, plan, NAMES[-1], lambda p, s: perform(engine, p, s, work, wait=False), Stop(), lambda *_: None
        )
        whole, processor = time.perf_counter() - begun, _processor_seconds() - processor
        assert result.outcome == "rendered", result.error
        found = sum(1 for _ in engine.store.entries())
        assert found == (len(NAMES) if kind is Engine else 1), f"{found} artifacts are in the store"
        return {"seconds": whole, "without_hat": whole - result.seconds[VARIES], "processor_seconds": processor}

    one(Engine)
    rows: dict[str, list[Figures]] = {name: [] for name in kinds}
    for number in range(ROUNDS):
        for name in sorted(kinds, reverse=bool(number % 2)):
            rows[name].append(one(kinds[name]))
            print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {s:.2f}" for key, s in rows[name][-1].items()))
    found: Figures = {name: {key: median(row[key] for row in of) for key in of[0]} for name, of in rows.items()}
    found["cost"] = (found["kept"]["without_hat"] - found["forgotten"]["without_hat"]) / found["forgotten"]["seconds"]
    print(f"| kept against forgotten | {found['cost']:+.1%} |")
    return found


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
