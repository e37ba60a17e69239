"""One host at a time computes an artifact: a lease per key, an object beside the artifacts that one host can create.

Whoever holds a lease rewrites it again and again. Who waits for it watches whether it changes, by a clock of its own:
one that stays the same for `LASTS_S` belongs to a host that vanished, and the next one is created, `<key>.1` after
`<key>.0`, which again one host can do. No clocks are compared, nothing is listed, and there is no server of locks.

A host that slept for longer than a lease lasts may compute what another one computes too; both write the same bits.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nightisp.errors import StoreError
from nightisp.remote import Remote
from nightisp.usage import owned_name

FOLDER = ".leases"
LASTS_S = 60.0
_BEATS = 4
"""How often a lease is renewed in the time that it lasts."""
_LOOK_S = (0.1, 2.0)
"""How long to wait before looking again, at first and at most."""


@dataclass
class Lease:
    """The right to compute an artifact, until `release`; it may be released by another thread."""

    leases: Leases
    key: str
    generation: int
    content: bytes
    renewed: float
    beats: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: bool = False

    @property
    def name(self) -> str:
        """Return the name of its object."""
        return _name(self.key, self.generation)

    def release(self) -> None:
        """Let others compute it; a second call does nothing."""
        self.leases.end(self)


class Leases:
    """The leases that this process holds or waits for.

    Parameters
    ----------
    lasts
        Seconds after which a lease that does not change counts as given up.
    """

    def __init__(
        self,
        remote: Remote,
        lasts: float = LASTS_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._remote, self._lasts, self._clock, self._sleep = remote, lasts, clock, sleep
        self._mine: dict[int, Lease] = {}
        self._guard = threading.Lock()
        self._beating = False

    def claim(self, key: str) -> Lease:
        """Wait until no other host computes the artifact of this key, and claim it.

        Raises
        ------
        StoreError
            If the objects cannot be reached.
        """
        generation, seen, since, wait = 0, b"", 0.0, _LOOK_S[0]
        content = f"{owned_name()} {secrets.token_hex(8)}".encode()
        while True:
            if self._remote.create(_name(key, generation), content):
                return self._begin(Lease(self, key, generation, content, self._clock()))
            try:
                now = self._remote.get(_name(key, generation))
            except FileNotFoundError:  # released
                generation, seen = 0, b""
                continue
            if now != seen:
                seen, since = now, self._clock()
            elif self._clock() - since > self._lasts:
                generation, seen = generation + 1, b""
                continue
            self._sleep(wait)
            wait = min(2 * wait, _LOOK_S[1])

    def end(self, lease: Lease) -> None:
        """Give a lease up. One that others had to take for given up is left to them."""
        with self._guard:
            self._mine.pop(id(lease), None)
        with lease.lock:
            if lease.released:
                return
            lease.released = True
            if self._clock() - lease.renewed <= self._lasts:
                names = [_name(lease.key, generation) for generation in range(lease.generation, -1, -1)]
                try:
                    for name in names:  # in this order, so that none stays that those before it do not lead to
                        self._remote.remove([name])
                except StoreError:
                    return  # who waits for it waits until it has lasted

    def renew(self) -> None:
        """Show that all leases of this process are still held."""
        with self._guard:
            mine = list(self._mine.values())
        for lease in mine:
            with lease.lock:
                if lease.released:
                    continue
                begun = self._clock()
                try:
                    self._remote.put(lease.name, lease.content + b" %d" % (lease.beats + 1))
                except StoreError:
                    continue  # once more at the next beat
                lease.beats, lease.renewed = lease.beats + 1, begun

    def _begin(self, lease: Lease) -> Lease:
        with self._guard:
            self._mine[id(lease)] = lease
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, name="leases", daemon=True).start()
        return lease

    def _beat(self) -> None:
        while True:
            time.sleep(self._lasts / _BEATS)
            with self._guard:
                if not self._mine:
                    self._beating = False
                    return
            self.renew()


def _name(key: str, generation: int) -> str:
    return f"{FOLDER}/{key}.{generation}"
