"""What many workers would do: groups of frames through their steps, a queue before everything that may be too slow.

A discrete-event simulation. A resource is a number of servers with one queue, first come first served.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """Waits for a server of `take` and keeps it; lasts `seconds` on average; then lets go of those of `give`."""

    seconds: float = 0.0
    take: str | None = None
    give: tuple[str, ...] = ()


def at(resource: str, seconds: float) -> Step:
    """Return a stay at a resource."""
    return Step(seconds, resource, (resource,))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How long it took, and which share of the time the servers of each resource were taken."""

    seconds: float
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """The resource that was taken the longest."""
        return max(self.busy, key=self.busy.__getitem__)


@dataclass
class _Resource:
    servers: int
    free: int
    waiting: deque[tuple[Iterator[Step], Step]] = field(default_factory=deque)
    taken_s: float = 0.0
    since: float = 0.0

    def note(self, now: float) -> None:
        self.taken_s += (self.servers - self.free) * (now - self.since)
        self.since = now


def simulate(
    steps: Sequence[Step],
    groups: int,
    servers: Mapping[str, int],
    at_once: int,
    *,
    spread: float = 0.0,
    seed: int = 0,
    serial: float = 0.0,
) -> Outcome:
    """Take `groups` through `steps`, `at_once` of them under way.

    Parameters
    ----------
    steps
        What each group does, in order; a resource that is taken must be given.
    servers
        How many of each resource there are.
    spread
        Steps last between 1 - spread and 1 + spread times their average, evenly.
    serial
        Seconds before the first group begins.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    resources = {name: _Resource(count, count, since=serial) for name, count in servers.items()}
    events: list[tuple[float, int, Iterator[Step], Step]] = []
    now, number, begun = serial, 0, 0

    def start(group: Iterator[Step], step: Step) -> None:
        nonlocal number
        number += 1
        length = step.seconds * (1 + spread * draw.uniform(-1, 1)) if spread else step.seconds
        heapq.heappush(events, (now + length, number, group, step))

    def advance(group: Iterator[Step]) -> bool:
        step = next(group, None)
        if step is None:
            return False
        if step.take is None:
            start(group, step)
            return True
        resource = resources[step.take]
        if resource.free:
            resource.note(now)
            resource.free -= 1
            start(group, step)
        else:
            resource.waiting.append((group, step))
        return True

    while begun < min(at_once, groups):
        begun += 1
        advance(iter(steps))
    while events:
        now, _, group, step = heapq.heappop(events)
        for name in step.give:
            resource = resources[name]
            if resource.waiting:
                start(*resource.waiting.popleft())
            else:
                resource.note(now)
                resource.free += 1
        if not advance(group) and begun < groups:
            begun += 1
            advance(iter(steps))
    for resource in resources.values():
        resource.note(now)
    lasted = max(now - serial, 1e-9)
    return Outcome(now, {name: r.taken_s / r.servers / lasted for name, r in resources.items()})
