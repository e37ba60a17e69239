"""Which artifacts led to a finished picture: followed back from its export, key by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nightisp.errors import ArtifactNotFoundError, StoreError
from nightisp.pipeline import NAMES, PIPELINE, nearest
from nightisp.stage import Stage
from nightisp.store import Entry, Store

_Dated = tuple[tuple[bool, str, float], Entry]
_SHORTEST = 6
"""Letters of a key, at least: fewer may be a name."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where the way back begins: an artifact of a frame's last stage; and others of that stage, the newest first."""

    frame: str
    stage: Stage
    key: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The frames of a store that have a finished picture, the newest first, and the exports that cannot be read."""

    starts: tuple[Start, ...]
    damaged: tuple[str, ...]


def finished(store: Store) -> Found:
    """Find the newest export of every frame; a draft only of those that have nothing else."""
    found, damaged = _by_frame(store, PIPELINE[-1])
    ordered = sorted(found.items(), key=lambda item: item[1][0][0], reverse=True)
    return Found(tuple(_start(frame, PIPELINE[-1], dated) for frame, dated in ordered), tuple(damaged))


def starts_of(store: Store, frames: Iterable[str]) -> list[Start]:
    """Find where to begin with frames that were asked for: at their export, or at the last stage they came to.

    What is no name of a frame may be the first letters of a key, six or more: then at that artifact.

    Raises
    ------
    ArtifactNotFoundError
        If the store holds nothing of one of these names; with the nearest that it has.
    """
    wanted, found, known = list(dict.fromkeys(frames)), dict[str, Start](), set[str]()
    for stage in reversed(PIPELINE):
        if len(found) == len(wanted):
            break
        frames_here, _ = _by_frame(store, stage)
        known |= frames_here.keys()
        for name in wanted:
            if name in frames_here and name not in found:
                found[name] = _start(name, stage, frames_here[name])
        for frame, dated in frames_here.items():
            for name in wanted:
                if name not in found and len(name) >= _SHORTEST:
                    at_key = [item for item in dated if item[1].key.startswith(name)]
                    if at_key:
                        found[name] = _start(frame, stage, [*at_key, *(item for item in dated if item not in at_key)])
    for frame in wanted:
        if frame not in found:
            raise ArtifactNotFoundError(
                f"{frame}: no frame or key of that name in {store.location}; `nightisp cache list` shows what there is"
                f"{nearest(frame, sorted(known))}"
            )
    return [found[frame] for frame in wanted]


def before(stage: Stage) -> Stage | None:
    """Return the stage whose artifact a stage takes; None for the first."""
    place = NAMES.index(stage.name)
    return PIPELINE[place - 1] if place else None


def upstream(entry: Entry) -> str | None:
    """Return the key of the artifact that this one was made from; None if it cannot be told."""
    try:
        (key,) = entry.attributes["upstream"]
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    return key if isinstance(key, str) else None


def _start(frame: str, stage: Stage, dated: Sequence[_Dated]) -> Start:
    """Begin at the first."""
    return Start(frame, stage, dated[0][1].key, tuple(entry.key for _, entry in dated[1:]))


def _by_frame(store: Store, stage: Stage) -> tuple[dict[str, list[_Dated]], list[str]]:
    """Return the artifacts of each frame, the newest first, drafts last; and what is wrong with the unreadable."""
    found: dict[str, list[_Dated]] = {}
    damaged = []
    for entry in store.entries(stage.name):
        try:
            attributes = entry.attributes
            # `created` counts whole seconds; the folder's time parts those of one second.
            whole = not attributes.get("draft", False)
            at = whole, str(attributes.get("created", "")), entry.modified()
        except (StoreError, OSError) as error:
            damaged.append(str(error))
            continue
        if isinstance(frame := attributes.get("frame"), str):
            found.setdefault(frame, []).append((at, entry))
    for dated in found.values():
        dated.sort(key=lambda item: item[0], reverse=True)
    return found, damaged
