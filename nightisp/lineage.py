"""Which artifacts led to a picture: from the name of a frame, or a key, back to the raw."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nightisp.errors import ArtifactNotFoundError, StoreError
from nightisp.params import canonical
from nightisp.pipeline import NAMES, PIPELINE, index
from nightisp.store import Entry, Store

_KEY = re.compile(r"[0-9a-f]{6,64}")
_BEFORE = re.compile(r"(?P<frame>.+)~(?P<back>\d+)")


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact and what its attributes say."""

    entry: Entry
    attributes: dict[str, Any]

    @property
    def stage(self) -> str:
        """Name of the stage that gave it."""
        return self.entry.stage

    @property
    def unusual(self) -> dict[str, Any]:
        """Parameters that are not the defaults."""
        return unusual(self.stage, self.attributes.get("params", {}))

    def read(self, store: Store) -> Any:
        """Return the picture; raise `StoreError` if it is damaged or gone."""
        return store.read(self.stage, self.entry.key, PIPELINE[index(self.stage)].gives)


def lineage(store: Store, name: str) -> tuple[Artifact, ...]:
    """Find the artifacts that led to a picture, in the order of the pipeline, those that were pruned left out.

    Parameters
    ----------
    name
        The first letters of a key, six at least; or a frame: its artifact of the last stage that it reached, the one
        written last if there are several, a draft only if there is nothing else. `FRAME~1` is the one written
        before that, as Git counts.

    Raises
    ------
    ArtifactNotFoundError
        If nothing is called so, or there are not so many.
    """
    last = _find(store, name)
    found, upstream = [last], _upstream(last)
    for stage in reversed(NAMES[: index(last.stage)]):
        entry = store.entry(stage, upstream)
        try:
            artifact = Artifact(entry, entry.attributes)
        except StoreError:  # pruned or damaged: its own input is not known, nor anything before
            break
        found.append(artifact)
        upstream = _upstream(artifact)
    return tuple(reversed(found))


def artifacts(store: Store, stage: str | None = None) -> Iterator[Artifact]:
    """Yield the artifacts of stages that there are whose attributes can be read."""
    for name in (stage,) if stage else NAMES:
        for entry in store.entries(name):
            try:
                yield Artifact(entry, entry.attributes)
            except StoreError:
                continue


def unusual(stage: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return those of a stage's parameters that are not the defaults."""
    default = canonical(PIPELINE[index(stage)].params()) if stage in NAMES else given
    return {name: value for name, value in given.items() if default.get(name) != value}


def differences(one: tuple[Artifact, ...], other: tuple[Artifact, ...]) -> dict[str, tuple[Any, Any]]:
    """Return what made two pictures different: `stage.parameter`, weights, code and raw, with both values.

    A value is None where an artifact was pruned, or has no such parameter.
    """
    ours, theirs = _facts(one), _facts(other)
    names = [*ours, *(name for name in theirs if name not in ours)]
    return {
        name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name, None) != theirs.get(name, None)
    }


def _facts(chain: tuple[Artifact, ...]) -> dict[str, Any]:
    facts: dict[str, Any] = {"raw": chain[-1].attributes.get("source", {}).get("sha256", "")[:12]}
    for artifact in chain:
        at = artifact.attributes
        facts |= {f"{artifact.stage}.{name}": value for name, value in at.get("params", {}).items()}
        facts |= {f"{artifact.stage} weights {name}": digest[:12] for name, digest in at.get("weights", {}).items()}
        facts[f"{artifact.stage} code"] = at.get("code", "")[:12]
    return facts


def _find(store: Store, name: str) -> Artifact:
    back, frame = 0, name
    all_of_them = list(artifacts(store))
    found = _of_frame(all_of_them, frame)
    if not found and (counted := _BEFORE.fullmatch(name)):
        frame, back = counted["frame"], int(counted["back"])
        found = _of_frame(all_of_them, frame)
    if not found and _KEY.fullmatch(name):
        found = [a for a in all_of_them if a.entry.key.startswith(name)]
        if len(found) > 1:
            some = ", ".join(f"{artifact.stage} {artifact.entry.key[:12]}" for artifact in found[:4])
            raise ArtifactNotFoundError(f"{name}: {len(found)} keys begin so ({some}); give more letters")
    if not found:
        raise ArtifactNotFoundError(f"{name}: no frame or key of that name; `nightisp cache list` shows all")
    if back >= len(found):
        raise ArtifactNotFoundError(
            f"{name}: {frame} has {len(found)} of stage {found[0].stage}; `nightisp cache list` shows them"
        )
    return found[back]


def _of_frame(all_of_them: list[Artifact], frame: str) -> list[Artifact]:
    """Return a frame's artifacts of the last stage that it reached, the newest first, drafts after all others."""
    its = [artifact for artifact in all_of_them if artifact.attributes.get("frame") == frame]
    furthest = max((index(artifact.stage) for artifact in its), default=0)
    its = [artifact for artifact in its if index(artifact.stage) == furthest]
    return sorted(its, key=lambda a: (not a.attributes.get("draft", False), age(a)), reverse=True)


def age(artifact: Artifact) -> tuple[str, float]:
    """Return what puts artifacts in the order in which they were written."""
    try:
        # `created` counts whole seconds; the folder's time parts those of one second.
        return str(artifact.attributes.get("created", "")), artifact.entry.modified()
    except OSError:  # removed meanwhile
        return "", 0


def _upstream(artifact: Artifact) -> str:
    return str(artifact.attributes["upstream"][0])
