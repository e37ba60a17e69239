"""Why a stage would run: what differs from the artifacts that the store holds of the same raw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nightisp import code, lineage
from nightisp import params as parameters
from nightisp.engine import Engine, Plan
from nightisp.pipeline import PIPELINE, index


def explain(engine: Engine, plan: Plan, until: str) -> Iterator[tuple[str, str, str]]:
    """Yield (stage, "compute" | "cached" | "skipped", reason) for each stage up to `until`."""
    before = ""
    for name, todo in engine.status(plan, until).items():
        if todo == "cached":
            yield name, todo, f"the store holds {plan.keys[name][:12]}"
        elif todo == "skipped":
            yield name, todo, "not in the store, and nothing needs it"
        else:
            yield name, todo, _reason(engine, plan, name, before)
            before = before or name


def _reason(engine: Engine, plan: Plan, name: str, before: str) -> str:
    stage = PIPELINE[index(name)]
    found = lineage.artifacts(engine.store, name)
    earlier = [a for a in found if a.attributes.get("source", {}).get("sha256") == plan.source.digest]
    if not earlier:
        return "new" if not before else f"new, like {before}"
    draft = parameters.is_draft(plan.params)
    last = max(earlier, key=lambda a: (a.attributes.get("draft", False) == draft, lineage.age(a))).attributes
    now = parameters.canonical(plan.params[name])
    reasons = [
        f"{name}.{parameter}: {_short(last['params'].get(parameter))} -> {_short(value)}"
        for parameter, value in now.items()
        if last["params"].get(parameter) != value
    ]
    if last["code"] != code.digest(stage.module):
        reasons.append("the code behind it changed")
    weights = {w: engine.library.digest(w) for w in stage.weights(plan.params[name])}
    if last["weights"] != weights and last["weights"].keys() == weights.keys():
        reasons.append("its weights changed")
    place = index(name)
    if place and last["upstream"] != [plan.keys[PIPELINE[place - 1].name]]:
        reasons.append(f"its input changed{f' (from {before} on)' if before else ''}")
    return "; ".join(reasons) or "its artifact is missing or damaged"


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
