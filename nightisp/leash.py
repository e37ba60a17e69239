"""Prefect's embedded server ends when the run that started it is gone, killed or not.

Prefect stops that server when Python exits, which a process that is killed does not. A Prefect server imports this
module by its entry point (`prefect.collections`, pyproject.toml); in any other than one embedded in a run of ours it
does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time

OWNER = "NIGHTISP_EMBEDS"
"""Environment variable: the process whose child the server is."""

_EPHEMERAL = "PREFECT__SERVER_EPHEMERAL"  # Prefect sets it for a server that it embeds
_LOOK_S = 1.0
_GRACE_S = 5.0


def hold() -> None:
    """Tell the server that this process will start whose it is."""
    os.environ[OWNER] = str(os.getpid())


def _follow(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if os.name == "posix" and os.environ.get(_EPHEMERAL) and os.environ.get(OWNER, "").isdecimal():
    threading.Thread(target=_follow, args=(int(os.environ[OWNER]),), name="leash", daemon=True).start()
