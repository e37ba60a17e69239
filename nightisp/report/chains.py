"""Which artifacts led to a finished picture: followed back from its export, key by key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nightisp.errors import ArtifactNotFoundError, StoreError
from nightisp.pipeline import NAMES, PIPELINE, nearest
from nightisp.stage import Stage
from nightisp.store import Entry, Store


@dataclass(frozen=True, slots=True)
class Start:
    """Where the way back begins: the newest artifact of a frame's last stage that the store holds."""

    frame: str
    stage: Stage
    key: str


@dataclass(frozen=True, slots=True)
class Found:
    """The frames of a store that have a finished picture, the newest first, and the exports that cannot be read."""

    starts: tuple[Start, ...]
    damaged: tuple[str, ...]


def finished(store: Store) -> Found:
    """Find the newest export of every frame."""
    newest, damaged = _newest(store, PIPELINE[-1])
    ordered = sorted(newest.items(), key=lambda item: item[1][0], reverse=True)
    return Found(tuple(Start(frame, PIPELINE[-1], entry.key) for frame, (_, entry) in ordered), tuple(damaged))


def starts_of(store: Store, frames: Iterable[str]) -> list[Start]:
    """Find where to begin with frames that were asked for: at their export, or at the last stage they came to.

    Raises
    ------
    ArtifactNotFoundError
        If the store holds nothing of one of these names; with the nearest that it has.
    """
    wanted, found, known = list(dict.fromkeys(frames)), dict[str, Start](), set[str]()
    for stage in reversed(PIPELINE):
        if len(found) == len(wanted):
            break
        newest, _ = _newest(store, stage)
        known |= newest.keys()
        for frame in wanted:
            if frame in newest and frame not in found:
                found[frame] = Start(frame, stage, newest[frame][1].key)
    for frame in wanted:
        if frame not in found:
            raise ArtifactNotFoundError(
                f"{frame}: no frame of that name in {store.folder}; `nightisp cache list` shows what there is"
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


def _newest(store: Store, stage: Stage) -> tuple[dict[str, tuple[tuple[str, int], Entry]], list[str]]:
    """Return the newest artifact of each frame with its time, and what is wrong with those that cannot be read."""
    newest: dict[str, tuple[tuple[str, int], Entry]] = {}
    damaged = []
    for entry in store.entries(stage.name):
        try:
            attributes = entry.attributes
            # `created` counts whole seconds; the folder's time parts those of one second.
            at = str(attributes.get("created", "")), entry.path.stat().st_mtime_ns
        except (StoreError, OSError) as error:
            damaged.append(str(error))
            continue
        frame = attributes.get("frame")
        if isinstance(frame, str) and (frame not in newest or newest[frame][0] < at):
            newest[frame] = at, entry
    return newest, damaged
