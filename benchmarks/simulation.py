"""What many workers would do: groups of frames through legs, queues in front of everything that can be too slow.

A discrete-event simulation. Each resource is a number of servers with one queue, first come first served; a group takes
the steps of its legs one after the other. What is random in the world, the length of a step, may be drawn here, too.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """A stay at a resource, seconds on average; `on` None: nobody has to be waited for."""

    on: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How long it took, and which share of the time each resource was busy."""

    seconds: float
    groups: int
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """The resource that was busy the longest."""
        return max(self.busy, key=self.busy.__getitem__)


@dataclass
class _Queue:
    free: int
    servers: int
    waiting: deque[Iterator[Step]] = field(default_factory=deque)
    worked: float = 0.0


def simulate(
    steps: Sequence[Step],
    groups: int,
    servers: dict[str, int],
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
        What each group needs, in order.
    servers
        How many of each resource there are; each serves one group at a time.
    spread
        Steps last between 1 - spread and 1 + spread times their average, evenly.
    serial
        Seconds before the first group begins.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    queues = {name: _Queue(count, count) for name, count in servers.items()}
    events: list[tuple[float, int, Iterator[Step], str | None]] = []
    number = 0
    begun = 0
    now = last = serial

    def go_on(group: Iterator[Step], step: Step) -> None:
        nonlocal number
        length = step.seconds * (1 + spread * draw.uniform(-1, 1))
        if step.on is not None:
            queues[step.on].worked += length
        number += 1
        heapq.heappush(events, (now + length, number, group, step.on))

    def advance(group: Iterator[Step]) -> bool:
        """Begin the next step of a group, or let it wait; tell whether there was one."""
        nonlocal begun
        step = next(group, None)
        if step is None:
            return False
        if step.on is None or queues[step.on].free:
            if step.on is not None:
                queues[step.on].free -= 1
            go_on(group, step)
        else:
            queues[step.on].waiting.append(group)
            pending[id(group)] = step
        return True

    pending: dict[int, Step] = {}
    for _ in range(min(at_once, groups)):
        begun += 1
        advance(iter(steps))
    while events:
        now, _, group, freed = heapq.heappop(events)
        last = now
        if freed is not None:
            queue = queues[freed]
            if queue.waiting:
                heir = queue.waiting.popleft()
                go_on(heir, pending.pop(id(heir)))
            else:
                queue.free += 1
        if not advance(group) and begun < groups:
            begun += 1
            advance(iter(steps))
    busy = {name: queue.worked / queue.servers / max(last - serial, 1e-9) for name, queue in queues.items()}
    return Outcome(last, groups, busy)
